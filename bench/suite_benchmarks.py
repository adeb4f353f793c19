"""The benchmarks that bench/suite.py runs, and how their packages get here.

They are pyperformance's own. Three parts: `async_tree` in all its variants, others that
allocate, and controls that hardly do and so should not care. A name is the one that
pyperf gives to the result; one script may have several, told apart by its arguments or
by the number of the task.

Not for use by hand.
"""

import os
import re
import subprocess
import sys
from dataclasses import dataclass

import hosts



def run(command, folder, timeout, **settings):
    """(exit status, all output) of a command; None for the status when time was up."""
    environment = dict(hosts.clean_environment(), PYTHONDONTWRITEBYTECODE="1", **settings)
    try:
        result = subprocess.run(command, env=environment, cwd=folder, timeout=timeout,
                                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                stderr=subprocess.STDOUT, universal_newlines=True,
                                errors="replace")
        return result.returncode, result.stdout
    except subprocess.TimeoutExpired:
        return None, ""


def last_line(text):
    return (text.strip().splitlines() or ["nothing was said"])[-1]


ASYNC_TREE, ALLOCATION, CONTROLS = PARTS = ("async_tree", "allocation", "controls")
SUITE = "pyperformance==1.14.0"         # brings pyperf; for 3.10 and later
# In place of a benchmark's requirements.txt: its Django needs distutils, gone with 3.12.
INSTEAD = {"django_template": ["django==4.2.16"]}
FOLDER = os.path.join(hosts.BUILD, "suite")


@dataclass
class Benchmark:
    """One result of one script."""
    name: str
    part: str
    script: str             # bm_SCRIPT/run_benchmark.py
    arguments: tuple = ()
    task: int = 0           # which of the results that the script has with these arguments
    since: tuple = (3, 10)

    def path(self, packages):
        return os.path.join(packages, "pyperformance", "data-files", "benchmarks",
                            "bm_" + self.script, "run_benchmark.py")

    def known_as(self, words):
        """Whether its name, its script or its part is among the words."""
        return bool({self.name, self.script, self.part} & set(words))


def trees():
    """Gathered and in task groups (3.11 on), by lazy and by eager tasks (3.12 on)."""
    for work in ("none", "io", "memoization", "cpu_io_mixed"):
        lazy = "async_tree_" + work
        eager = "eager" if work == "none" else "eager_" + work
        groups = ("--task-groups",)
        yield Benchmark(lazy, ASYNC_TREE, "async_tree", (work,))
        yield Benchmark(lazy + "_tg", ASYNC_TREE, "async_tree", (work,) + groups, since=(3, 11))
        for more, suffix in (((), ""), (groups, "_tg")):
            yield Benchmark("async_tree_" + eager + suffix, ASYNC_TREE, "async_tree",
                            (eager,) + more, since=(3, 12))


BENCHMARKS = list(trees()) + [Benchmark(name, ALLOCATION, *more) for name, *more in (
    ("deepcopy", "deepcopy"),
    ("deepcopy_reduce", "deepcopy", (), 1),
    ("deepcopy_memo", "deepcopy", (), 2),
    ("xml_etree_parse", "xml_etree", ("parse",)),
    ("xml_etree_iterparse", "xml_etree", ("iterparse",)),
    ("xml_etree_generate", "xml_etree", ("generate",)),
    ("xml_etree_process", "xml_etree", ("process",)),
    ("create_gc_cycles", "gc_collect"),
    ("gc_traversal", "gc_traversal"),
    ("json_loads", "json_loads"),
    ("json_dumps", "json_dumps"),
    ("unpickle", "pickle", ("unpickle",)),
    ("unpickle_list", "pickle", ("unpickle_list",)),
    ("unpickle_pure_python", "pickle", ("--pure-python", "unpickle")),
    ("pickle", "pickle", ("pickle",)),
    ("pickle_pure_python", "pickle", ("--pure-python", "pickle")),
    ("pprint_safe_repr", "pprint"),
    ("pprint_pformat", "pprint", (), 1),
    ("comprehensions", "comprehensions"),
    ("generators", "generators"),
    ("coroutines", "coroutines"),
    ("regex_compile", "regex_compile"),
    ("sqlglot_v2_parse", "sqlglot_v2", ("parse",)),
    ("sqlglot_v2_transpile", "sqlglot_v2", ("transpile",)),
    ("sqlglot_v2_optimize", "sqlglot_v2", ("optimize",)),
    ("sqlglot_v2_normalize", "sqlglot_v2", ("normalize",)),
    ("html5lib", "html5lib"),
    ("django_template", "django_template"),
)] + [Benchmark(name, CONTROLS, name) for name in (
    "nbody", "richards", "float", "raytrace", "deltablue")]


def chosen(wishes):
    """The benchmarks wished for, by name, script or part; all without a wish."""
    words = [word for word in wishes.split(",") if word]
    for word in words:
        if not any(one.known_as([word]) for one in BENCHMARKS):
            hosts.stop("%s: no such benchmark; there are %s"
                       % (word, ", ".join(sorted({one.script for one in BENCHMARKS}))))
    return [one for one in BENCHMARKS if not words or one.known_as(words)]


def requirements(folder):
    """The lines of a benchmark's requirements.txt; none if it has no such file."""
    path = os.path.join(folder, "requirements.txt")
    if not os.path.exists(path):
        return []
    with open(path, encoding="utf-8") as stream:
        lines = [line.strip() for line in stream]
    return [line for line in lines if line and not line.startswith("#")]


class Environment:
    """The virtual environment of an interpreter, from which only the packages are used.

    The interpreter that is measured finds them by PYTHONPATH: so a relinked one can use
    what was installed by the original it was made from.
    """

    def __init__(self, python, version):
        self.python = python
        self.root = os.path.join(FOLDER, version)
        short = ".".join(version.split(".")[:2])
        self.packages = os.path.join(self.root, "lib", "python" + short, "site-packages")

    def pip(self, label, wishes):
        """Installs, once; returns why not, empty if all went well."""
        mark = os.path.join(self.root, label + ".installed")
        text = "\n".join(wishes)
        if os.path.exists(mark):
            with open(mark, encoding="utf-8") as stream:
                if stream.read() == text:
                    return ""
        print("%s: pip install %s" % (os.path.relpath(self.root, hosts.ROOT), " ".join(wishes)),
              flush=True)
        status, said = run([os.path.join(self.root, "bin", "python"), "-m", "pip", "install",
                            "--quiet", "--disable-pip-version-check", "--only-binary", ":all:"]
                           + wishes, None, 900)
        if status != 0:
            return "pip: " + last_line(said)
        with open(mark, "w", encoding="utf-8") as stream:
            stream.write(text)
        return ""

    def prepare(self):
        """Makes it, with pyperformance in it; returns why not, empty if all went well."""
        # An environment whose making broke off has no pip: the next try completes it.
        if not os.path.exists(os.path.join(self.root, "bin", "pip")):
            status, said = run([self.python, "-m", "venv", self.root], None, 300)
            if status != 0:
                more = " (Debian: apt install python3-venv)" if "python3-venv" in said else ""
                return "no virtual environment: " + last_line(said) + more
        return self.pip("pyperformance", [SUITE])

    def missing(self, one):
        """Installs what a benchmark needs; returns why it cannot run, empty if it can."""
        path = one.path(self.packages)
        if not os.path.exists(path):
            return "not in " + SUITE
        wishes = INSTEAD.get(one.script) or requirements(os.path.dirname(path))
        return self.pip(one.script, wishes) if wishes else ""

    def versions(self):
        """{package: version} of all that is installed."""
        found = (re.match(r"(.+)-([^-]+)\.dist-info$", name) for name in os.listdir(self.packages))
        return dict(sorted(match.groups() for match in found if match))
