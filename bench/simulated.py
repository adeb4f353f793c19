"""pyperformance's benchmarks on a simulated processor: instructions and cache misses.

What bench/suite.py measures in seconds callgrind counts here, and a count does not care
what else the machine does. The benchmarks, the sides and the proof of activity are the
suite's; of a process only that is counted which the benchmark itself would time.

The processor has the caches of a server's core: 32 KiB for instructions, 48 KiB for data,
2 MiB behind them. Cycles are KCachegrind's estimate from that: one for an instruction, 10
for a miss of a first cache, 100 for one that the second cache misses, too. A real
processor looks ahead, fetches what comes next and does several things at once; callgrind
knows no page faults and no address translation either. So the estimate shows what moves
and which way, within a few per cent, and not what a clock would say.

Hash seed and loops are the same on all sides; counts of stock repeat to the instruction,
ours to some 0.01 % (the helper thread looks around by time).

    bench/simulated.py                                  half an hour for an interpreter
    bench/simulated.py --interpreters 3.13 --only json_loads,controls --packed --mimalloc
"""

import os
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import hosts
import pairs
import record
import suite
import suite_benchmarks
import suite_runs

CACHES = ["--I1=32768,8,64", "--D1=49152,12,64", "--LL=2097152,16,64"]
CALLGRIND = ["--tool=callgrind", "--callgrind-out-file=" + os.devnull, "--instr-atstart=no",
             "--collect-atstart=no", "--cache-sim=yes"] + CACHES
EVENTS = re.compile(r"^==\d+== Events\s*: (.*)$", re.M)
COLLECTED = re.compile(r"^==\d+== Collected\s*: (.*)$", re.M)
BY_COUNT = ("import ctypes; time.perf_counter = ctypes.PyDLL(sys.argv.pop(1)).read_clock; "
            "time.perf_counter.restype = ctypes.c_double; time.perf_counter.argtypes = ()")


@dataclass
class Counts:
    """What callgrind has seen of one side."""
    instructions: int
    first: int          # misses of the first caches
    second: int         # and of the second one

    @property
    def cycles(self):
        return self.instructions + 10 * self.first + 100 * self.second


@dataclass
class Simulated:
    """A benchmark's Counts, side by side, the first one stock's."""
    benchmark: suite_benchmarks.Benchmark
    loops: int
    sides: list

    def ratio(self, side, key):
        return getattr(self.sides[side], key) / getattr(self.sides[0], key)


def build_clock():
    """The path of the shared library with the clock."""
    os.makedirs(hosts.BUILD, exist_ok=True)
    path = os.path.join(hosts.BUILD, "simulated.so")
    hosts.compile_c("simulated.c, which needs valgrind's headers,",
                    ["-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC",
                     os.path.join(hosts.HERE, "simulated.c"), "-o", path])
    return path


def read_counts(text):
    """The Counts that callgrind prints at its end; raises pairs.Failed without them."""
    events, collected = EVENTS.search(text), COLLECTED.search(text)
    if not events or not collected:
        raise pairs.Failed("callgrind has counted nothing")
    numbers = dict(zip(events.group(1).split(), map(int, collected.group(1).split())))
    if not numbers.get("Ir") or "DLmw" not in numbers:
        raise pairs.Failed("nothing was timed, so nothing was counted")
    return Counts(numbers["Ir"], sum(numbers[name] for name in ("I1mr", "D1mr", "D1mw")),
                  sum(numbers[name] for name in ("ILmr", "DLmr", "DLmw")))


def count(one, side, packages, loops, clock):
    """The Counts of one side's worker."""
    arguments, environment = suite_runs.command(
        one, side, packages, 0, ["-l%d" % loops, "-w0", "-n1"], clock)
    result = subprocess.run(
        [shutil.which("valgrind")] + CALLGRIND + arguments, env=environment,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        universal_newlines=True)
    if result.returncode != 0:
        raise pairs.Failed("%s under callgrind: %s" % (
            side.name, (result.stderr.strip().splitlines() or ["it ended"])[-1]))
    suite_runs.told(one, side, pairs.Run(0, 0, 0, 0, 0, result.stdout, result.stderr))
    return read_counts(result.stderr)


def simulate(one, place, packages, loops, clock):
    """The Simulated of a benchmark."""
    return Simulated(one, loops, [count(one, side, packages, loops, clock)
                                  for side in place.sides])


def cells(result, place):
    return ["%.1f" % (result.sides[0].instructions / 1e6)] + [
        "%.4f" % result.ratio(side, key) for side in range(1, len(place.sides))
        for key in ("instructions", "cycles")]


def run_all(place, environment, chosen, options, clock):
    """(results, complaints) of an interpreter; each benchmark has its line when it is done."""
    results, complaints = [], []
    with ThreadPoolExecutor(options.jobs) as pool:
        jobs = [(one, pool.submit(simulate, one, place, environment.packages, loops, clock))
                for one, loops, _ in suite.calibrated(place, environment, chosen, options)]
        for one, job in jobs:
            title = "%s, %s" % (place.name, one.name)
            try:
                results.append(job.result())
            except pairs.Failed as problem:
                complaints.append("%s: %s" % (title, problem))
                print(complaints[-1], flush=True)
                continue
            print("%s: %s" % (title, "  ".join(cells(results[-1], place))), flush=True)
    return results, complaints


def report(results, place):
    """Prints the table of an interpreter, and the geometric means."""
    columns = ["million instructions"] + ["%s, %s" % (side.name, what) for side in place.sides[1:]
                                          for what in ("instructions", "cycles")]
    pairs.table([place.name] + columns,
                [[one.benchmark.name] + cells(one, place) for one in results])
    lines = []
    for title, parts in suite.SUMS:
        own = [one for one in results if one.benchmark.part in parts]
        if own:
            lines.append([title, ""] + [
                "%.4f" % suite.mean(one.ratio(side, key) for one in own)
                for side in range(1, len(place.sides)) for key in ("instructions", "cycles")])
    pairs.table([place.name + ", geometric means"] + columns, lines)


def rows(results, place):
    """The lines of the record."""
    for one in results:
        for side in range(1, len(place.sides)):
            yield {"interpreter": place.name, "benchmark": one.benchmark.name,
                   "part": one.benchmark.part, "side": place.sides[side].name,
                   "loops": one.loops, "stock": vars(one.sides[0]),
                   "counts": vars(one.sides[side]),
                   "instructions": round(one.ratio(side, "instructions"), 5),
                   "cycles": round(one.ratio(side, "cycles"), 5)}


def arguments():
    parser = suite.parser(__doc__)
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time (%(default)s)")
    parser.add_argument("--record", action="store_true",
                        help="write bench/records/DATE-simulated.json")
    parser.set_defaults(cpu=False, quick=False)
    return parser.parse_args()


def main():
    options = arguments()
    pairs.reproduce()
    if shutil.which("valgrind") is None:
        print("skip: no valgrind on PATH")
        return 0
    hosts.library(options.library)
    clock = suite_runs.by_clock(BY_COUNT, build_clock())
    chosen = suite_benchmarks.chosen(options.only)
    recorded, complaints = [], []
    for place, environment in suite.prepared(options):
        results, found = run_all(place, environment, chosen, options, clock)
        complaints += found
        if results:
            report(results, place)
            recorded += rows(results, place)
    if not recorded:
        complaints.append("nothing was counted")
    elif options.record:
        print("written: " + record.write("simulated", recorded, caches=CACHES))
    return hosts.finish(complaints, "%d ratios, and in every run the proof of which side it was"
                        % len(recorded))


if __name__ == "__main__":
    sys.exit(main())
