"""Find the interpreters, ask what each one has, and prove the library active in it.

Nothing is assumed about where interpreters live: pyenv is asked for its versions
when it is there, and the distribution's python3 is taken from /usr/bin when that
file is not one of pyenv's shims.
"""

import json
import os
import re
import shutil
import subprocess
from dataclasses import dataclass, field

DISTRIBUTION = "/usr/bin/python3"
ACTIVE = "obmalloc: active in pid"

# Runs in the interpreter asked; valid on 2.7 and 3.x.
PROBE = r"""
import json, os, sys
try:
    import test
    folders = list(test.__path__)
except ImportError:
    folders = []
def has(name):
    name = (name[5:] if name.startswith("test.") else name).replace(".", os.sep)
    return any(os.path.isfile(os.path.join(f, name + ".py")) or
               os.path.isfile(os.path.join(f, name, "__init__.py"))
               for f in folders)
print(json.dumps({"version": "%d.%d.%d" % sys.version_info[:3],
                  "executable": os.path.realpath(sys.executable),
                  "modules": [name for name in sys.argv[1:] if has(name)]}))
"""


@dataclass
class Interpreter:
    path: str
    label: str
    version: str
    modules: set = field(default_factory=set)
    baseline: str = ""          # the other side's interpreter, where there are two
    problem: str = ""           # why `path` could not be made, if so

    def first_of(self, alternatives):
        """The first module of "a|b" that this interpreter has, or None."""
        for name in alternatives.split("|"):
            if name in self.modules:
                return name
        return None

    @property
    def order(self):
        return tuple(int(part) for part in self.version.split("."))


def pyenv(*arguments):
    """Output lines of a pyenv command; None when there is no pyenv."""
    if shutil.which("pyenv") is None:
        return None
    environment = {name: value for name, value in os.environ.items()
                   if not name.startswith("PYENV_VERSION")}
    result = subprocess.run(["pyenv"] + list(arguments), env=environment,
                            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                            stderr=subprocess.DEVNULL, universal_newlines=True)
    return result.stdout.split("\n") if result.returncode == 0 else []


def pyenv_interpreters():
    """{version name: path} of everything pyenv lists; None without pyenv."""
    names = pyenv("versions", "--bare")
    if names is None:
        return None
    found = {}
    for name in filter(None, (line.strip() for line in names)):
        prefix = (pyenv("prefix", name) or [""])[0].strip()
        found[name] = os.path.join(prefix, "bin", "python") if prefix else ""
    return found


def distribution_interpreter():
    """The distribution's python3, or None when missing or a shim of pyenv."""
    if not os.path.exists(DISTRIBUTION):
        return None
    with open(DISTRIBUTION, "rb") as stream:
        if stream.read(2) == b"#!":
            return None
    return DISTRIBUTION


def probe(path, label, names, environment):
    """An Interpreter, or the text that says why this one cannot be used."""
    if not os.access(path, os.X_OK):
        return "no executable interpreter"
    try:
        result = subprocess.run([path, "-c", PROBE] + sorted(names),
                                env=environment, stdin=subprocess.DEVNULL,
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                universal_newlines=True, timeout=60)
        answer = json.loads(result.stdout)
    except (OSError, ValueError, subprocess.TimeoutExpired) as problem:
        return "does not answer: %s" % type(problem).__name__
    label = label or "%s (%s)" % (answer["version"], os.path.basename(path))
    return Interpreter(path, label.format(**answer), answer["version"],
                       set(answer["modules"]))


def find(selection, names, environment):
    """(interpreters, [(label, reason)]): those to use, those that cannot be used.

    `selection` is "all", or a comma list of pyenv version names (or a prefix such
    as 3.11), of "distribution", and of paths.
    """
    listed = pyenv_interpreters()
    distribution = distribution_interpreter()
    wanted, missing = [], []
    if selection == "all":
        if listed is None:
            missing.append(("pyenv", "not found"))
        wanted = [(path, name) for name, path in (listed or {}).items()]
        if distribution:
            wanted.append((distribution, "{version} (distribution)"))
        else:
            missing.append(("distribution", "no %s of its own" % DISTRIBUTION))
    else:
        for item in filter(None, selection.split(",")):
            matching = [(path, name) for name, path in (listed or {}).items()
                        if name == item or name.startswith(item + ".")]
            if "/" in item:
                wanted.append((item, None))
            elif item == "distribution" and distribution:
                wanted.append((distribution, "{version} (distribution)"))
            elif matching:
                wanted += matching
            else:
                missing.append((item, "not installed"))
    interpreters = []
    for path, label in wanted:
        answer = probe(path, label, names, environment)
        if isinstance(answer, Interpreter):
            same = sum(one.label == answer.label for one in interpreters)
            answer.label += " #%d" % (same + 1) if same else ""
            interpreters.append(answer)
        else:
            missing.append((label or os.path.basename(path), answer))
    interpreters.sort(key=lambda one: (one.order, one.label))
    return interpreters, missing


def choose_slice(interpreters):
    """2.7, the newest 3.x and the distribution's own.

    Returns (chosen, [(label, reason)]) where the second part names what the slice
    wanted and this machine does not have.
    """
    own = [one for one in interpreters if "(distribution)" in one.label]
    others = [one for one in interpreters if one not in own]
    third = [one for one in others if one.order[0] == 3]
    wishes = (
        ("2.7", [one for one in others if one.order[:2] == (2, 7)][-1:]),
        ("newest 3.x", third[-1:]),
        ("distribution", own),
    )
    chosen, missing = [], []
    for name, found in wishes:
        if not found:
            missing.append((name, "not installed"))
        chosen += [one for one in found if one not in chosen]
    return chosen, missing


def proof_of_activity(interpreter, environment, library=None):
    """The line the active library prints in this interpreter, or None.

    `library` is to be preloaded; None when it is linked into the interpreter.
    """
    environment = dict(environment, OBMALLOC_VERBOSE="1")
    if library:
        environment["LD_PRELOAD"] = library
    try:
        result = subprocess.run([interpreter.path, "-c", "pass"], env=environment,
                                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                stderr=subprocess.PIPE, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return None
    if result.returncode != 0:
        return None
    for line in result.stderr.decode("utf-8", "replace").splitlines():
        if re.match(re.escape(ACTIVE) + r" \d", line):
            return line
    return None
