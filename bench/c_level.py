"""Allocation as C programs do it: obmalloc against mimalloc, jemalloc, tcmalloc and glibc.

One C program (bench/c_level/) is built twice. As it is, it calls malloc, and the peers,
the distribution's packages, are preloaded; built with Python's names and linked against
libobmalloc.so, it calls PyObject_*. Either way it calls through the linker's stubs, says
which file its allocator comes from, writes to every block, finds again what it wrote, and
has to give the same answer with every allocator. Built a third time ("stock") it calls
CPython's own PyObject_*, in a shared libpython in which no interpreter is started; they
take no lock, so they have no rows of several threads.

Each row runs on all sides in turn, ours first, round after round. A ratio is our time by
the peer's, round by round: below 1, ours is faster. The best peer is the one with the
least median in that row.

    bench/c_level.py                    about two and a half minutes
    bench/c_level.py --quick            everything tiny, once: a test of the answers
    bench/c_level.py --only realloc --count 15
    bench/c_level.py --instructions     callgrind's count of a malloc and its free

Times are by the clock, measured inside, without the start of the process. The program
and its blocks have the machine's caches for themselves: what allocation costs between
other work is what bench/heaps.py shows.
"""

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import hit_path
import hosts
import instructions
import pairs
import record

SOURCES = os.path.join(hosts.HERE, "c_level")
# -fno-builtin: the compiler must not know that a malloc and its free can go.
FLAGS = ["-std=gnu11", "-O2", "-fno-builtin", "-Wall", "-Wextra", "-Werror"]
# Name, the library that serves it, Debian's package.
PEERS = (("mimalloc", "libmimalloc.so.2", "libmimalloc2.0"),
         ("jemalloc", "libjemalloc.so.2", "libjemalloc2"),
         ("tcmalloc", "libtcmalloc_minimal.so.4", "libtcmalloc-minimal4"),
         ("glibc", "libc.so.6", "libc6"))
SONAME = "libobmalloc.so.0"
LIBPYTHON = """
with open("/proc/self/maps") as maps:
    print([line.split()[-1] for line in maps if "/libpython3." in line][0])
"""
QUICK = 100             # a part of the rounds is this
FEW, MANY = 200, 40     # under callgrind, such a part, and another one
COUNTED = ("48 bytes, freed at once", "48 bytes, 1000 first in first out",
           "48 bytes, 1000 last in first out", "48 bytes, 1000 in random order",
           "Python's mixture, 2000 live")
ALONE, BOTH = "1 thread", "2 threads apart"
LARGE = 16 << 10        # KiB: the peaks of a row that reaches this are shown


@dataclass
class Side:
    """An allocator, and the program that calls it."""
    name: str
    program: str
    file: str               # the last part of the path that the allocator must come from
    package: str = ""
    peer: bool = False

    @property
    def preload(self):
        return {"LD_PRELOAD": self.file} if self.peer else {}

    def ask(self, *arguments):
        """The program's JSON."""
        # Nobody's settings, of whichever allocator.
        environment = dict({"PATH": os.defpath, "LC_ALL": "C.UTF-8"}, **self.preload)
        result = subprocess.run([self.program] + list(arguments), env=environment,
                                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                stderr=subprocess.PIPE, universal_newlines=True)
        if result.returncode != 0:
            said = result.stderr.strip().splitlines()[-1:] or ["exit status %d" % result.returncode]
            hosts.stop("%s: %s: %s" % (self.name, " ".join(arguments), said[0]))
        return json.loads(result.stdout)

    def serves(self, answer):
        """Whether this allocator was the one that gave the answer."""
        return os.path.basename(answer["allocator"]) == self.file

    def run(self, row, rounds):
        return self.proved(self.ask(row, str(rounds)))

    def proved(self, answer):
        if not self.serves(answer):
            hosts.stop("%s was to serve, but %s did" % (self.name, answer["allocator"]))
        return answer


@dataclass
class Row:
    """What the sides that have it did in a row, round by round."""
    name: str
    answers: dict           # {name of a side: its answers}

    def values(self, side, key="ns"):
        return [answer[key] for answer in self.answers[side]]

    def median(self, side, key="ns"):
        return statistics.median(self.values(side, key)) if side in self.answers else None

    def ratios(self, side):
        return [ours / other for ours, other in zip(self.values("obmalloc"), self.values(side))]

    def checks(self):
        return {value for side in self.answers for value in self.values(side, "check")}


# ---- the sides ----

def build(program, *more):
    """The program at this path, linked with what is said."""
    sources = sorted(os.path.join(SOURCES, file) for file in os.listdir(SOURCES)
                     if file.endswith(".c"))
    hosts.compile_c("bench/c_level", FLAGS + sources + ["-o", program] + list(more)
                    + ["-lpthread", "-ldl"])
    return program


def with_python_names(program, library):
    return build(program, "-DPYTHON_NAMES", library, "-Wl,-rpath," + os.path.dirname(library))


def ours(folder):
    link = os.path.join(folder, SONAME)
    os.symlink(hosts.LIBRARY, link)
    return Side("obmalloc", with_python_names(os.path.join(folder, "obmalloc"), link), SONAME)


def peers(folder):
    """Those that are here; says which are missing."""
    program = build(os.path.join(folder, "plain"))
    for name, file, package in PEERS:
        side = Side(name, program, file, package, peer=True)
        if side.serves(side.ask()):
            yield side
        else:
            print("skip: %s: no %s here; Debian has it in %s" % (name, file, package))


def stock(folder, version):
    """CPython's own functions; from 3.12 on they need an interpreter."""
    found, _ = hosts.interpreters.find(version, [], hosts.clean_environment())
    host = hosts.pick(version, found)
    if host is None or not host.shared:
        print("skip: stock: no shared CPython %s here" % version)
        return []
    result = subprocess.run([host.path, "-c", LIBPYTHON], env=hosts.clean_environment(),
                            stdout=subprocess.PIPE, universal_newlines=True, check=True)
    library = result.stdout.strip()
    return [Side("stock", with_python_names(os.path.join(folder, "stock"), library),
                 os.path.basename(library))]


# ---- times ----

def measure(name, threads, sides, rounds, count):
    able = [side for side in sides if side.peer or side.name == "obmalloc" or threads == 1]
    answers = {side.name: [] for side in able}
    for _ in range(count):
        for side in able:
            answers[side.name].append(side.run(name, rounds))
    return Row(name, answers)


def best(row, sides):
    """The peer with the least median."""
    return min((side.name for side in sides if side.peer), key=row.median)


def cell(row, side):
    return "%s  %s" % pairs.spread(row.ratios(side), "%.2f") if side in row.answers else ""


def shown(number, form):
    return "" if number is None else form % number


def report(rows, sides, count):
    names = [side.name for side in sides]
    pairs.table(["ns per operation, medians of %d" % count] + names,
                [[row.name] + [shown(row.median(name), "%.1f") for name in names]
                 for row in rows])
    print()
    lines = []
    for row in rows:
        winner = best(row, sides)
        lines.append([row.name] + [cell(row, name) for name in names[1:]]
                     + [winner, "%.2f" % statistics.median(row.ratios(winner))])
    pairs.table(["ours by each one's, least..greatest"] + names[1:] + ["best peer", "ratio"],
                lines)
    large = [row for row in rows if any(row.median(name, "rss") >= LARGE for name in row.answers)]
    if large:
        print()
        pairs.table(["peak RSS, MiB"] + names,
                    [[row.name] + [shown(row.median(name, "rss") / 1024
                                         if name in row.answers else None, "%.1f")
                                   for name in names] for row in large])


def by(some, others):
    """(median, "least..greatest") of ratios round by round."""
    return pairs.spread([one / other for one, other in zip(some, others)], "%.2f")


def report_scaling(rows):
    """How many times as much two threads get done as one, and what it costs them.

    2.00 takes two processors that nobody else uses. The processors' time for an
    operation, 1.00 at the best, says whether the threads are in each other's way.
    """
    found = {row.name: row for row in rows}
    if ALONE not in found or BOTH not in found:
        return
    lines = []
    for side in found[BOTH].answers:
        one, two = (found[name].values(side) for name in (ALONE, BOTH))
        one_cpu, two_cpu = (found[name].values(side, "cpu_ns") for name in (ALONE, BOTH))
        lines.append([side] + list(by(one, two) + by(two_cpu, one_cpu)))
    print()
    pairs.table(["2 threads apart by 1", "throughput", "least..greatest", "CPU per operation",
                 "least..greatest"], lines)


def recorded(rows, sides):
    for row in rows:
        for name in row.answers:
            yield {"row": row.name, "side": name, "unit": "ns per operation",
                   "median": round(row.median(name), 3),
                   "values": [round(value, 2) for value in row.values(name)],
                   "cpu_ns": round(row.median(name, "cpu_ns"), 3),
                   "ratios": [round(ratio, 4) for ratio in row.ratios(name)],
                   "rss_kib": row.median(name, "rss"), "best_peer": best(row, sides) == name}


def times(todo, sides, options):
    """Measures, prints; returns the complaints."""
    count = 1 if options.quick else options.count
    rows = [measure(name, threads, sides, rounds // QUICK if options.quick else rounds, count)
            for name, rounds, threads in todo]
    if options.quick:
        print("%d rows, each by %s" % (len(rows), ", ".join(side.name for side in sides)))
    else:
        report(rows, sides, count)
        report_scaling(rows)
        if options.record:
            print("written: " + record.write("c_level", list(recorded(rows, sides)),
                                             rounds=count, sides=about(sides)))
    return differing({row.name: row.checks() for row in rows})


def differing(checks):
    """Complaints about rows, {name: check values}, that have not one value everywhere."""
    return ["%s: the allocators give different answers" % name
            for name, values in checks.items() if len(values) != 1]


def about(sides):
    return {side.name: {"file": side.file, "package": side.package,
                        "version": side.package and record.said(
                            "dpkg-query", "--showformat=${Version}", "--show", side.package)}
            for side in sides}


# ---- instructions ----

def counted(side, name, rounds):
    """(cost by function, the program's answer) of a run under callgrind."""
    out = "%s.%d.%s" % (side.program, rounds, "".join(filter(str.isalnum, side.name + name)))
    _, said = instructions.run_valgrind([side.program, name, str(rounds)], out, **side.preload)
    return hit_path.self_costs(out), side.proved(json.loads(said))


def each(side, name, rounds):
    """({function: instructions of one operation}, check values)."""
    own = functions_of(side.program)
    (few, first), (many, last) = (counted(side, name, rounds // part) for part in (FEW, MANY))
    between = last["operations"] - first["operations"]
    costs = {function: (cost - few.get(function, 0)) / between
             for function, cost in many.items() if function not in own}
    return costs, (first["check"], last["check"])


def functions_of(program):
    """Names of the functions in the program itself, without the linker's stubs."""
    result = subprocess.run(["nm", "--defined-only", program], stdout=subprocess.PIPE,
                            universal_newlines=True, check=True)
    return {line.split()[2] for line in result.stdout.splitlines() if " t " in line.lower()}


def counts(todo, sides, options):
    """Counts, prints; returns the complaints."""
    with ThreadPoolExecutor(options.jobs) as pool:
        jobs = {(name, side.name): pool.submit(each, side, name, rounds)
                for name, rounds, _ in todo for side in sides}
        found = {key: job.result() for key, job in jobs.items()}
    sums = {key: sum(costs.values()) for key, (costs, _) in found.items()}
    names = [side.name for side in sides]
    print("With the linker's stubs; what the loop does itself, the call instructions among it, "
          "is left out.")
    pairs.table(["instructions per operation"] + names,
                [[name] + ["%.1f" % sums[name, side] for side in names] for name, _, _ in todo])
    if options.functions:
        for name, _, _ in todo:
            report_functions(name, options.functions, found[name, options.functions][0])
    if options.record:
        rows = [{"row": name, "side": side, "unit": "instructions per operation",
                 "value": round(value, 2)} for (name, side), value in sums.items()]
        print("written: " + record.write("c_level_instructions", rows, sides=about(sides)))
    return differing({name: {found[name, side][1] for side in names} for name, _, _ in todo})


def report_functions(name, side, costs):
    print("\n%s, by %s:" % (name, side))
    for function, cost in sorted(costs.items(), key=lambda item: -item[1]):
        if cost >= 0.05:
            print("  %7.2f  %s" % (cost, hit_path.short(function)))


# ---- the command line ----

def main():
    parser = hosts.parser(__doc__)
    parser.add_argument("--count", type=int, default=7, help="rounds (%(default)s)")
    parser.add_argument("--only", metavar="TEXT", default="", help="rows with this in the name")
    parser.add_argument("--quick", action="store_true", help="check the answers, few operations")
    parser.add_argument("--stock", metavar="VERSION", default="3.11",
                        help="the shared CPython that is compared as well, none of "
                        "3.12 or later; empty: none (%(default)s)")
    parser.add_argument("--instructions", action="store_true", help="count them, in a few rows, "
                        "or in those of --only that have one thread")
    parser.add_argument("--functions", metavar="SIDE", nargs="?", const="obmalloc",
                        choices=["obmalloc", "stock"] + [name for name, _, _ in PEERS],
                        help="with --instructions: whose functions to show (obmalloc's)")
    parser.add_argument("--jobs", type=int, default=2, help="counts at a time (%(default)s)")
    parser.add_argument("--record", action="store_true", help="write it to bench/records")
    options = parser.parse_args()
    pairs.reproduce()
    hosts.library(options.library)
    if options.instructions and shutil.which("valgrind") is None:
        print("skip: no valgrind on PATH")
        return 0
    # A folder for each run: two at a time must not build the same file.
    with tempfile.TemporaryDirectory(prefix="obmalloc-bench-") as folder:
        sides = [ours(folder)] + list(peers(folder))
        sides += stock(folder, options.stock) if options.stock else []
        todo = [row for row in sides[0].ask()["rows"] if options.only in row[0]]
        if options.instructions:
            todo = [row for row in todo if row[2] == 1 and (options.only or row[0] in COUNTED)]
        if not todo:
            hosts.stop("no such row has %s in its name" % options.only)
        work = counts if options.instructions else times
        return hosts.finish(work(todo, sides, options), "the same answers from all allocators")


if __name__ == "__main__":
    sys.exit(main())
