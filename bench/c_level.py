"""The benchmarks `c_level` and `c_level_instructions`: allocation in C programs.

One C program (programs/c_level/) is built twice. As it is, it calls malloc, and the peers, the
distribution's packages, are preloaded; built with Python's names and linked with
libobmalloc.so, it calls PyObject_*. Either way it calls through the linker's stubs, prints the
file that its allocator comes from, writes to every block, checks what it wrote, and has to give
the same answer with every allocator. Built a third time ("stock") it calls CPython's own
PyObject_* in a shared libpython 3.11, in which no interpreter is started; they take no lock, so
they have no rows of several threads.

Times are by the clock, measured inside, without the start of the process. The program and its
blocks have the machine's caches to themselves; the benchmark `heaps` shows the cost of
allocation between other work.
"""

import json
import os
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import hosts
import measure
from results import Row

SOURCES = os.path.join(hosts.PROGRAMS, "c_level")
# -fno-builtin: without it the compiler may remove a malloc and its free.
FLAGS = ["-std=gnu11", "-O2", "-fno-builtin", "-Wall", "-Wextra", "-Werror"]
# Name, the library that serves it, Debian's package.
PEERS = (("mimalloc", "libmimalloc.so.2", "libmimalloc2.0"),
         ("jemalloc", "libjemalloc.so.2", "libjemalloc2"),
         ("tcmalloc", "libtcmalloc_minimal.so.4", "libtcmalloc-minimal4"),
         ("glibc", "libc.so.6", "libc6"))
SONAME = "libobmalloc.so.0"
STOCK = "3.11"          # the last version whose functions work without an interpreter
QUICK = 100             # divides the rounds
FEW, MANY = 200, 40     # divide the rounds of the two runs under callgrind
COUNTED = ("48 bytes, freed at once", "48 bytes, 1000 first in first out",
           "48 bytes, 1000 last in first out", "48 bytes, 1000 in random order",
           "Python's mixture, 2000 live")


@dataclass(frozen=True)
class Side:
    """An allocator, and the program that calls it."""
    name: str
    program: str
    file: str               # the last part of the path of the allocator
    peer: bool = False

    @property
    def preload(self):
        return {"LD_PRELOAD": self.file} if self.peer else {}

    def printed(self, *arguments):
        """The program's JSON; without arguments, its rows."""
        # No setting of any allocator.
        environment = dict({"PATH": os.defpath, "LC_ALL": "C.UTF-8"}, **self.preload)
        return json.loads(measure.run([self.program] + list(arguments), environment).out)

    def serves(self, answer):
        return os.path.basename(answer["allocator"]) == self.file

    def checked(self, answer):
        if not self.serves(answer):
            raise measure.Failed("%s was to serve, but %s did" % (self.name, answer["allocator"]))
        return answer


# ---- the sides ----

def build(program, *more):
    sources = sorted(os.path.join(SOURCES, file) for file in os.listdir(SOURCES)
                     if file.endswith(".c"))
    hosts.compile_c("programs/c_level", FLAGS + sources + ["-o", program] + list(more)
                    + ["-lpthread", "-ldl"])
    return program


def with_python_names(program, library):
    return build(program, "-DPYTHON_NAMES", library, "-Wl,-rpath," + os.path.dirname(library))


def all_sides(folder):
    """obmalloc, the peers that are installed, stock; prints which are missing."""
    link = os.path.join(folder, SONAME)
    os.symlink(hosts.LIBRARY, link)
    yield Side("obmalloc", with_python_names(os.path.join(folder, "obmalloc"), link), SONAME)
    program = build(os.path.join(folder, "plain"))
    for name, file, package in PEERS:
        side = Side(name, program, file, peer=True)
        if side.serves(side.printed()):
            yield side
        else:
            print("skip: %s: no %s here; Debian has it in %s" % (name, file, package))
    library = next((one.library for one in hosts.interpreters.select(STOCK)
                    if one.shared and one.library), None)
    if library:
        # The name that the loader's records have: without symbolic links.
        yield Side("stock", with_python_names(os.path.join(folder, "stock"), library),
                   os.path.basename(library))
    else:
        print("skip: stock: no shared CPython %s here" % STOCK)


def versions(sides):
    """Metadata: the versions of the peers' packages, as far as Debian's tool has them."""
    packages = {name: package for name, _, package in PEERS}
    found = {}
    for side in filter(lambda side: side.peer, sides):
        done = subprocess.run(["dpkg-query", "--showformat=${Version}", "--show",
                               packages[side.name]], stdout=subprocess.PIPE,
                              stderr=subprocess.DEVNULL, text=True)
        if done.stdout:
            found["version_of_" + side.name] = done.stdout
    return found


# ---- times ----

def times(todo, sides, rounds, quick):
    """({side: {name: Row}}, complaints), the sides in turn."""
    found, checks = {side.name: {} for side in sides}, {}
    for name, count, threads in todo:
        able = [side for side in sides if side.name != "stock" or threads == 1]
        for _ in range(1 if quick else rounds):
            for side in able:
                answer = side.checked(side.printed(name, str(count // QUICK if quick else count)))
                checks.setdefault(name, set()).add(answer["check"])
                for suffix, unit, value in (("", "second", answer["ns"] * 1e-9),
                                            (", CPU", "second", answer["cpu_ns"] * 1e-9),
                                            (", peak", "byte", answer["rss"] * 1024)):
                    found[side.name].setdefault(name + suffix, Row(unit)).values.append(value)
    return found, differing(checks)


def differing(checks):
    return ["%s: the allocators give different answers" % name
            for name, values in checks.items() if len(values) != 1]


# ---- instructions ----

def counted(side, name, rounds):
    """(cost by function, the program's answer) of a run under callgrind."""
    out = "%s.%d.%s" % (side.program, rounds, "".join(filter(str.isalnum, side.name + name)))
    _, printed, _ = measure.callgrind([side.program, name, str(rounds)], out, **side.preload)
    return measure.self_costs(out), side.checked(json.loads(printed))


def each(side, name, rounds):
    """(instructions of one operation, the answers), without those of the program's own loop."""
    symbols = subprocess.run(["nm", "--defined-only", side.program], stdout=subprocess.PIPE,
                             text=True, check=True).stdout
    own = {line.split()[2] for line in symbols.splitlines() if " t " in line.lower()}
    (few, first), (many, last) = (counted(side, name, rounds // part) for part in (FEW, MANY))
    between = last["operations"] - first["operations"]
    return (sum((cost - few.get(function, 0)) / between
                for function, cost in many.items() if function not in own),
            {first["check"], last["check"]})


def counts(todo, sides, jobs):
    found, checks = {side.name: {} for side in sides}, {}
    with ThreadPoolExecutor(jobs) as pool:
        running = {(name, side): pool.submit(each, side, name, rounds)
                   for name, rounds, threads in todo for side in sides if threads == 1}
        for (name, side), job in running.items():
            instructions, answers = job.result()
            found[side.name][name] = Row("integer", [round(instructions, 2)])
            checks.setdefault((name, side.name), answers)
    # Few and many rounds differ from each other; sides must not.
    by_name = {}
    for (name, _), answers in checks.items():
        by_name.setdefault(name, set()).add(tuple(sorted(answers)))
    return found, differing(by_name)


def measured(benchmark, options):
    if benchmark.name == "c_level_instructions" and not measure.has_valgrind():
        return
    # A folder for each run: two at a time must not build the same file.
    with tempfile.TemporaryDirectory(prefix="obmalloc-bench-") as folder:
        sides = list(all_sides(folder))
        todo = [row for row in sides[0].printed()["rows"]
                if any(word in row[0] for word in options.only.split(","))]
        if benchmark.name == "c_level":
            yield ("C",) + times(todo, sides, options.rounds or benchmark.rounds, options.quick)
        else:
            todo = [row for row in todo if options.only or row[0] in COUNTED]
            yield ("C",) + counts(todo, sides, options.jobs)
