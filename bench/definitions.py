"""The benchmarks: what each one answers, the programs that it runs, on which sides, how often.

bench/run.py measures them, bench/README.md lists them. To add one, add a `Benchmark` here, and
a program to bench/programs if it needs one.
"""

import json
import os
import subprocess
import sys
from dataclasses import dataclass, field

import hosts
import measure
from results import Row

USUAL = "3.11,3.13,distribution"


@dataclass(frozen=True)
class Side:
    """One of the things that are compared: the environment that a program gets."""
    name: str
    preloaded: bool = True
    settings: dict = field(default_factory=dict, hash=False)
    since: tuple = (3, 6)       # the oldest interpreter that has it
    words: tuple = ()           # before the program
    packages: str = ""          # what pip installs for these words
    library: str = ""           # another allocator's, which is preloaded in place of obmalloc
    symbol: str = ""            # a function that it must have
    where: str = ""             # a source of the library


STOCK = Side("stock", preloaded=False)
OBMALLOC = Side("obmalloc")
PACKED = Side("packed", settings={"OBMALLOC_ALIGN": "8"})
NO_THREAD = Side("no thread", settings={"OBMALLOC_BACKGROUND_THREAD": "0"})
MALLOC = Side("malloc", preloaded=False, settings={"PYTHONMALLOC": "malloc"})
MIMALLOC = Side("mimalloc", preloaded=False, settings={"PYTHONMALLOC": "mimalloc"},
                since=(3, 13))

# Profilers of memory. memray traces the C library's calls, by default only those of pymalloc for
# arenas; jemalloc and mimalloc have no block of pymalloc either.
PROFILE = Side("profile", settings={"OBMALLOC_PROFILE": "512K"})
MEMRAY, MEMRAY_OBJECTS = (
    Side(name, preloaded=False, packages="memray==1.20.0",
         words=("-m", "memray", "run", "-q", "-f", "-o", os.path.join(hosts.BUILD, "memray.bin"))
         + more)
    for name, more in (("memray", ()), ("memray objects", ("--trace-python-allocators",))))
TRACEMALLOC = tuple(Side(name, preloaded=False, settings={"PYTHONTRACEMALLOC": frames})
                    for name, frames in (("tracemalloc", "1"), ("tracemalloc 10", "10")))
JEMALLOC_PROFILE = Side(
    "jemalloc prof", preloaded=False, library="libjemalloc.so.2", where="libjemalloc2 of Debian",
    symbol="mallctl", settings={"PYTHONMALLOC": "malloc", "MALLOC_CONF": "prof:true"})
MIMALLOC_PROFILE = Side(
    "mimalloc profile", preloaded=False, library="libmimalloc.so.3", where="mimalloc 3.6",
    symbol="mi_pprof_profiler_new", settings={
        "PYTHONMALLOC": "malloc", "MIMALLOC_PROFILE": os.path.join(hosts.BUILD, "mimalloc"),
        "MIMALLOC_PROFILE_ALLOC_INTERVAL": "0"})

EXTRA = {side.name: side for side in (PACKED, NO_THREAD, MALLOC, MIMALLOC)}


@dataclass(frozen=True)
class Benchmark:
    name: str
    answers: str                # the question, for the README
    takes: str                  # how long, for the README
    programs: object = None     # {label: words after the interpreter}, or a function to that
    read: object = None         # (label, Run) -> ({row: Row}, answer)
    quick: tuple = ()           # words that make a program tiny
    interpreters: str = USUAL
    sides: tuple = (STOCK, OBMALLOC)
    rounds: int = 5
    environment: dict = field(default_factory=dict, hash=False)
    packages: dict = field(default_factory=dict, hash=False)    # {label: what pip installs}
    repeats: dict = field(default_factory=dict, hash=False)     # {label: runs in a round}
    sample: bool = False        # memory over time
    check: object = None        # {side: {name: Row}} -> complaints
    module: str = ""            # its own `measure(benchmark, options)`, for those without programs
    by_default: bool = True     # part of `make bench`
    needs: str = ""


# ---- what programs print ----

def phases(label, run):
    """bench/programs/heaps: processor time of each phase, the peak, the answer."""
    printed = json.loads(run.out)
    rows = {"%s, %s" % (label, phase): Row("second", [figures["cpu"]])
            for phase, figures in printed["phases"].items()}
    rows[label + ", peak"] = Row("byte", [printed["peak"] * 1024])
    return rows, printed["answer"]


def process(label, run):
    """A whole process; its output is the answer."""
    rows = {label + ", wall": Row("second", [run.wall]), label + ", CPU": Row("second", [run.cpu])}
    if run.peak > measure.own_peak():
        rows[label + ", peak"] = Row("byte", [run.peak])
    return rows, run.out


def repeated(label, run):
    """bench/programs/repeated.py: a whole process, which read its peak itself."""
    *answer, kib = run.out.split()
    return {label + ", CPU": Row("second", [run.cpu]), label + ", wall": Row("second", [run.wall]),
            label + ", peak": Row("byte", [int(kib) * 1024])}, answer


def estimated(label, run):
    """bench/programs/profile_total.py: bytes of live blocks, counted and estimated."""
    printed = json.loads(run.out)
    rows = {"%s, %s" % (label, name): Row("byte", [printed[name]])
            for name in ("counted", "estimated", "tables") if name in printed}
    if "samples" in printed:
        rows[label + ", samples"] = Row("integer", [printed["samples"]])
    return rows, None


def seconds(label, run):
    """{"seconds": ..., "right": true}"""
    printed = json.loads(run.out)
    return {label: Row("second", [printed["seconds"]])}, printed["right"]


def own_peak(label, run):
    """KiB of VmHWM as the last word; the words before are the answer."""
    *answer, kib = run.out.split()
    return {label + ", peak": Row("byte", [int(kib) * 1024]),
            label + ", wall": Row("second", [run.wall])}, answer


def pattern(label, run):
    """bench/programs/memory: figures in KiB and seconds, latencies in microseconds."""
    printed = json.loads(run.out)
    samples = [sample for sample in run.samples if sample[0] <= printed["ended"]]
    printed["area"] = sum((late - early) * (a + b) / 2 / 2**20 for (early, a), (late, b)
                          in zip(samples, samples[1:]))     # MiB x s
    rows = {}
    for name, value in printed.items():
        if name in ("began", "worked", "ended"):
            continue
        unit, factor = (("second", 1) if name in ("cpu", "rounds_wall", "rounds_cpu") else
                        ("second", 1e-6) if name.split()[-1] in ("p50", "p99", "p99.9", "max") else
                        ("integer", 1) if name in ("faults", "rounds_faults", "tasks", "area")
                        else ("byte", 1024))
        rows["%s, %s" % (label, name)] = Row(unit, [value * factor])
    return rows, None       # the programs check their results themselves


def large_heap(label, run):
    printed = json.loads(run.out)
    return {"%s, %s" % (label, name): Row("byte", [value * 2**20]) if name in ("huge", "idle")
            else Row("second", [value]) for name, value in printed.items()}, None


def huge_pages_came_and_went(sides):
    """The setting decides about huge pages, and they are returned like other memory."""
    with open("/sys/kernel/mm/transparent_hugepage/enabled") as setting:
        if "[never]" in setting.read():
            print("skip: this system has no huge pages for programs")
            return []
    huge, idle = ([[value / 2**20 for value in sides[side]["large heap, " + name].values]
                   for side in ("never", "always")] for name in ("huge", "idle"))
    complaints = []
    if not all(with_them > 100 > without for without, with_them in zip(*huge)):
        complaints.append("OBMALLOC_THP did not decide about huge pages: MiB %s" % huge)
    if not all(with_them < without + 10 for without, with_them in zip(*idle)):
        complaints.append("huge pages are not returned: idle MiB %s" % idle)
    return complaints


def growing():
    """The cases of bench/programs/growing.py."""
    names = subprocess.run([sys.executable, hosts.program("growing")], check=True,
                           stdout=subprocess.PIPE).stdout
    return {name: [hosts.program("growing"), name, "1"] for name in json.loads(names)}


# ---- the table ----

HEAPS = ("dicts", "churn", "bursts", "handover", "async_tree", "mixed")
SMALL = ("nothing", "parse_source", "json_there_and_back", "deep_copies", "small_objects",
         "trees_and_dicts")
PATTERNS = {
    "survivors 0.1 %": ("survivors", "keep=0.001"),
    "survivors 1 %": ("survivors", "keep=0.01"),
    "survivors 10 %": ("survivors", "keep=0.1"),
    "survivors in rows": ("survivors", "keep=0.01", "row=20"),
    "bursts": ("bursts",),
    "drop everything": ("drop_everything",),
    "tuples": ("tuples",),
    "tuples, collector off": ("tuples", "collector=0"),
    "large tuples": ("tuples", "large=1"),
    "one thread": ("threads", "threads=1"),
    "threads": ("threads",),
    "requests": ("requests",),
    "cache": ("cache",),
    "orm": ("orm",),
    "alternating": ("alternating",),
    "prefork 0 %": ("prefork", "drop=0.0"),
    "prefork 10 %": ("prefork", "drop=0.1"),
    "prefork 30 %": ("prefork", "drop=0.3"),
    "prefork 50 %": ("prefork", "drop=0.5"),
    "latency": ("latency",),
}
# Benchmarks of pyperformance that allocate: (loops, name, arguments); each runs about a second.
PROFILED = {
    "json_dumps": ("70", "json_dumps"),
    "json_loads": ("2000", "json_loads"),
    "unpickle_pure_python": ("200", "pickle", "--pure-python", "unpickle"),
    "pickle_pure_python": ("200", "pickle", "--pure-python", "pickle"),
    "unpickle": ("5000", "pickle", "unpickle"),
    "deepcopy": ("2500", "deepcopy", "--worker-task", "0"),
    "async_tree_none": ("2", "async_tree", "none"),
    "xml_etree_iterparse": ("10", "xml_etree", "iterparse"),
    "generators": ("20", "generators"),
    "regex_compile": ("6", "regex_compile"),
}
# Reads its own peak by two system calls and allocates next to nothing.
PASS = ('import posix; print([line.split()[1] for line in posix.read(posix.open('
        '"/proc/self/status", 0), 4096).decode().split("\\n") if line[:6] == "VmHWM:"][0])')


def own(name):
    return os.path.join(hosts.PROGRAMS, name + ".py")


BENCHMARKS = [
    Benchmark(
        "instructions", "How many instructions do small programs execute, by callgrind? "
        "Repeatable to 0.05 %, on a busy machine too.", "4 min", module="instructions",
        programs={name: ["-S", own(name)] for name in SMALL}, sides=(STOCK, OBMALLOC, PROFILE),
        rounds=1),
    Benchmark(
        "footprint", "How much memory and start-up time does the library cost a program that "
        "hardly allocates, and one that keeps all its objects?", "1 min",
        programs={"pass": ["-I", "-S", "-c", PASS], "kept": [own("keep_all"), "300000"]},
        read=own_peak, rounds=21),
    Benchmark(
        "scaling", "How long do lists, buffers, strings and dicts take that grow in small "
        "steps, by realloc after realloc?", "2 min", programs=growing, read=seconds,
        quick=("0.02",), rounds=7),
    Benchmark(
        "heaps", "How long do Python programs take that have a large heap, churn, bursts, "
        "threads, tasks, or a mixture?", "5 min", read=phases, quick=("0.02",),
        programs={name: [own("heaps/" + name)] for name in HEAPS},
        sides=(STOCK, OBMALLOC, PACKED)),
    Benchmark(
        "c_level", "How long does a malloc and its free take in a C program, beside mimalloc, "
        "jemalloc, tcmalloc and glibc?", "3 min", module="c_level", rounds=7,
        needs="the peers' libraries, where they are to be compared"),
    Benchmark(
        "c_level_instructions", "How many instructions does a malloc and its free take in the "
        "same C program?", "2 min", module="c_level", rounds=1),
    Benchmark(
        "memory", "How much memory do programs with typical patterns hold over time, and do "
        "they stay within the thresholds (bench/thresholds.py)? How long do single tasks take "
        "while memory is returned?", "30 min", read=pattern, quick=("scale=0.01", "idle=0.0"),
        programs={label: [own("memory/" + words[0])] + list(words[1:])
                  for label, words in PATTERNS.items()},
        sides=(STOCK, OBMALLOC, NO_THREAD), interpreters="3.11", rounds=3, sample=True,
        repeats={"latency": 3},
        environment={"PYTHONHASHSEED": "0"}),
    Benchmark(
        "lock_time", "How long is a lock held while free pages are returned to the kernel?",
        "10 s", module="lock_time", rounds=1),
    Benchmark(
        "huge_pages", "What does OBMALLOC_THP=always gain and cost against never?", "2 min",
        programs={"large heap": [own("large_heap")]}, read=large_heap, interpreters="3.11",
        check=huge_pages_came_and_went,
        sides=(Side("never", settings={"OBMALLOC_THP": "never"}),
               Side("always", settings={"OBMALLOC_THP": "always"}))),
    Benchmark(
        "suite", "How long do pyperformance's benchmarks take?", "2 h for each interpreter",
        module="suite", sides=(STOCK, OBMALLOC, PACKED, MIMALLOC), by_default=False,
        needs="pyperformance from PyPI"),
    Benchmark(
        "simulated", "How many instructions, cache misses and estimated cycles do they take on a "
        "simulated processor? Repeatable, on a busy machine too.", "30 min for each interpreter",
        module="simulated", sides=(STOCK, OBMALLOC, PACKED), rounds=1, by_default=False,
        needs="pyperformance from PyPI, valgrind with its headers"),
    Benchmark(
        "whole", "How long do whole programs take from start to end, and what is their peak: "
        "compileall, an index of the standard library, docutils, mypy?",
        "5 min for each interpreter", read=process, quick=("0.1",),
        programs=dict({name: [own("whole/" + name)] for name in
                       ("compile_stdlib", "build_manual", "check_types")},
                      read_stdlib=[own("read_stdlib"), "1000"]),
        packages={"build_manual": "docutils==0.20.1", "check_types": "mypy==1.14.1"},
        environment={"PYTHONHASHSEED": "0"}, rounds=7, by_default=False,
        needs="docutils and mypy from PyPI"),
    Benchmark(
        "profile", "What do heap profilers cost a program: the heap profile, memray, tracemalloc, "
        "those of jemalloc and mimalloc?", "10 min", read=repeated, interpreters="3.13",
        programs={name: [own("repeated"), times, name] for name, times in
                  (("trees_and_dicts", "40"), ("json_there_and_back", "40"),
                   ("deep_copies", "60"), ("small_objects", "30"), ("parse_source", "30"))},
        sides=(STOCK, OBMALLOC, PROFILE, MEMRAY, MEMRAY_OBJECTS) + TRACEMALLOC
        + (JEMALLOC_PROFILE, MIMALLOC_PROFILE), rounds=5, by_default=False,
        environment={"PYTHONHASHSEED": "0"}, needs="memray from PyPI"),
    Benchmark(
        "profile_suite", "How long do pyperformance's benchmarks that allocate take with the "
        "heap profile?", "10 min", read=repeated, interpreters="3.13",
        programs={label: [own("repeated"), times, "pyperformance/" + words[0]] + list(words[1:])
                  for label, (times, *words) in PROFILED.items()},
        packages=dict.fromkeys(PROFILED, "pyperformance==1.14.0"), sides=(OBMALLOC, PROFILE),
        environment={"PYTHONHASHSEED": "0"}, rounds=15, by_default=False,
        needs="pyperformance from PyPI"),
    Benchmark(
        "profile_total", "How far is the sum of a heap profile from the bytes that the allocator "
        "counts, at 1 GiB? How much memory do the profiler's tables take?", "10 min",
        read=estimated, interpreters="3.11",
        programs={"1 GiB": [own("profile_total"), "1024"]}, quick=("64",),
        sides=tuple(Side(name, settings=settings) for name, settings in (
            ("512K", {"OBMALLOC_PROFILE": "512K"}), ("64K", {"OBMALLOC_PROFILE": "64K"}),
            ("64K in 8M", {"OBMALLOC_PROFILE": "64K", "OBMALLOC_PROFILE_MEMORY": "8M"}),
            ("started 512K", {"PROFILE_START": "524288"}),
            ("started 64K", {"PROFILE_START": "65536"}))),
        rounds=10, by_default=False),
    Benchmark(
        "stats_page_cost", "What does `obmalloc top` cost the program that it watches?", "5 min",
        module="stats_page_cost", rounds=9, by_default=False, needs="make command"),
    Benchmark(
        "install_time", "How long does a user take from a built tree to an active library, step "
        "by step?", "2 min", module="install_time", interpreters="distribution", rounds=1,
        by_default=False, needs="make command"),
]
BY_NAME = {benchmark.name: benchmark for benchmark in BENCHMARKS}
