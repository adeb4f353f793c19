"""The benchmark `simulated`: pyperformance's benchmarks on a simulated processor.

callgrind counts what `suite` measures in seconds, and a count does not depend on other work on
the machine. Of each process only the region is counted that the benchmark itself would time:
programs/simulated.c is a clock that starts and stops the counting.

The processor has the caches of a server's core: 32 KiB for instructions, 48 KiB for data, 2 MiB
behind them. Cycles are KCachegrind's estimate: one for an instruction, 10 for a miss of a first
cache, 100 for one that misses the second cache as well. A real processor prefetches and runs
several instructions at once; callgrind models neither page faults nor address translation. So
the estimate shows what changes and in which direction, within a few per cent, not the time.

Hash seed and loops are equal on all sides. Counts of stock repeat to the instruction, those of
obmalloc to about 0.01 %, because its helper thread runs by time.
"""

import json
import os
import re
import subprocess
from concurrent.futures import ThreadPoolExecutor

import hosts
import measure
import places
from results import Row
from suite import VERSION

CALLGRIND = ["--instr-atstart=no", "--collect-atstart=no", "--cache-sim=yes",
             "--I1=32768,8,64", "--D1=49152,12,64", "--LL=2097152,16,64"]
EVENTS = re.compile(r"^==\d+== Events\s*: (.*)$", re.M)
COLLECTED = re.compile(r"^==\d+== Collected\s*: (.*)$", re.M)
# Runs a script whose clock is the library that the first argument names.
WITH_CLOCK = ("import ctypes, os, runpy, sys, time; "
              "time.perf_counter = ctypes.PyDLL(sys.argv.pop(1)).read_clock; "
              "time.perf_counter.restype = ctypes.c_double; time.perf_counter.argtypes = (); "
              "del sys.argv[0]; sys.path[0] = os.path.dirname(sys.argv[0]); "
              "runpy.run_path(sys.argv[0], run_name='__main__')")
# Scripts of pyperformance with their arguments; a script with several results numbers them.
TREES = ["async_tree " + words for kind in ("none", "io", "memoization", "cpu_io_mixed")
         for words in (kind, kind + " --task-groups")]
EAGER = ["async_tree " + words for kind in ("eager", "eager_io", "eager_memoization",
                                            "eager_cpu_io_mixed")
         for words in (kind, kind + " --task-groups")]       # from 3.12 on
OTHERS = ["deepcopy", "deepcopy --worker-task=1", "deepcopy --worker-task=2", "xml_etree parse",
          "xml_etree iterparse", "xml_etree generate", "xml_etree process", "gc_collect",
          "gc_traversal", "json_loads", "json_dumps", "pickle unpickle", "pickle unpickle_list",
          "pickle --pure-python unpickle", "pickle pickle", "pickle --pure-python pickle", "pprint",
          "pprint --worker-task=1", "comprehensions", "generators", "coroutines", "regex_compile",
          "sqlglot_v2 parse", "sqlglot_v2 transpile", "sqlglot_v2 optimize",
          "sqlglot_v2 normalize", "html5lib", "django_template", "nbody", "richards", "float",
          "raytrace", "deltablue"]
# Instead of a benchmark's requirements.txt: its Django needs distutils, gone with 3.12.
INSTEAD = {"django_template": ["django==4.2.16"]}


class Workers:
    """pyperformance's scripts and their requirements, installed for an interpreter."""

    def __init__(self, python):
        self.python = python
        self.folder = os.path.join(hosts.BUILD, "simulated", python.version)
        self.pip([VERSION])

    def pip(self, wishes):
        mark = os.path.join(self.folder, re.sub(r"\W+", "-", " ".join(wishes)) + ".installed")
        if os.path.exists(mark):
            return
        result = subprocess.run(
            [self.python.path, "-m", "pip", "install", "--quiet", "--disable-pip-version-check",
             "--only-binary", ":all:", "--target", self.folder] + wishes,
            env=hosts.clean_environment(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True)
        if result.returncode != 0:
            raise measure.Failed((result.stdout.strip().splitlines() or ["pip"])[-1])
        with open(mark, "w", encoding="utf-8"):
            pass

    def script(self, name):
        """The path of a benchmark, whose requirements are installed."""
        folder = os.path.join(self.folder, "pyperformance", "data-files", "benchmarks",
                              "bm_" + name)
        requirements = os.path.join(folder, "requirements.txt")
        wishes = INSTEAD.get(name, [])
        if not wishes and os.path.exists(requirements):
            with open(requirements, encoding="utf-8") as stream:
                wishes = [line.strip() for line in stream if line.strip() and line[0] != "#"]
        if wishes:
            self.pip(wishes)
        return os.path.join(folder, "run_benchmark.py")

    def command(self, label, options, clock=None):
        """The words after the interpreter for one of pyperf's worker processes."""
        name, *arguments = label.split()
        return (["-c", WITH_CLOCK, clock] if clock else []) + [
            self.script(name), "--worker", "--pipe=1"] + options + arguments


def build_clock():
    os.makedirs(hosts.BUILD, exist_ok=True)
    path = os.path.join(hosts.BUILD, "simulated.so")
    hosts.compile_c("simulated.c, which needs valgrind's headers,",
                    ["-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC",
                     os.path.join(hosts.PROGRAMS, "simulated.c"), "-o", path])
    return path


def loops_of(workers, label, path, environment):
    """How many loops take 0.1 s or more."""
    run = measure.run([path] + workers.command(label, ["--calibrate-loops", "--min-time=0.1",
                                                       "-w0", "-n1"]), environment)
    last = [line for line in run.out.splitlines() if line.startswith('{"benchmarks":')][-1]
    return json.loads(last)["benchmarks"][0]["runs"][0]["warmups"][-1][0]


def count(workers, label, path, environment, loops, clock):
    """{suffix: Row} of one side."""
    _, _, err = measure.callgrind(
        [path] + workers.command(label, ["-l%d" % loops, "-w0", "-n1"], clock),
        options=CALLGRIND, **{name: value for name, value in environment.items()
                              if name.startswith(("OBMALLOC_", "LD_", "PYTHON"))})
    events, collected = EVENTS.search(err), COLLECTED.search(err)
    numbers = dict(zip(events.group(1).split(), map(int, collected.group(1).split())))
    if not numbers.get("Ir") or "DLmw" not in numbers:
        raise measure.Failed("%s: nothing was timed, so nothing was counted" % label)
    first = sum(numbers[name] for name in ("I1mr", "D1mr", "D1mw"))
    second = sum(numbers[name] for name in ("ILmr", "DLmr", "DLmw"))
    return {"instructions": Row("integer", [numbers["Ir"]]),
            "misses of the first caches": Row("integer", [first]),
            "misses of the second cache": Row("integer", [second]),
            "cycles": Row("integer", [numbers["Ir"] + 10 * first + 100 * second])}


def measured(benchmark, options):
    if not measure.has_valgrind():
        return
    clock = build_clock()
    for place in places.places(benchmark, options):
        workers = Workers(place.python)
        for side, (_, environment) in place.sides.items():
            environment.update(PYTHONPATH=workers.folder, PYTHONHASHSEED="0")
        labels = TREES + (EAGER if place.python.numbers >= (3, 12) else []) + OTHERS
        labels = [label for label in labels
                  if any(word in label for word in options.only.split(","))]
        labels = ["json_loads"] if options.quick else labels
        path, environment = next(iter(place.sides.values()))
        loops = {label: 1 if options.quick else loops_of(workers, label, path, environment)
                 for label in labels}
        sides = {side.name: {} for side in place.sides}
        with ThreadPoolExecutor(options.jobs) as pool:
            jobs = {(side, label): pool.submit(count, workers, label, path, environment,
                                               loops[label], clock)
                    for label in labels for side, (path, environment) in place.sides.items()}
            for (side, label), job in jobs.items():
                for what, row in job.result().items():
                    sides[side.name]["%s, %s" % (label, what)] = row
        yield place.name, sides, []
