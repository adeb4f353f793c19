"""Pairs of pyperf's worker processes, for bench/suite.py: the sides, the runs, the proof.

A worker is started directly, without pyperf's own process that would start it, so what
wait4 says of it is its own; its result comes as JSON on stdout. In every run, timed or
not, the library has to say in its one line on stderr that it is active in that process,
and on the sides without it nothing may say so.

Not for use by hand.
"""

import json
import re
import statistics
from dataclasses import dataclass

import hosts
import pairs
from suite_benchmarks import Benchmark

# Seconds: what a value takes at least; beyond which there are fewer; and no warm-up.
SHORT, LONG, VERY_LONG = 0.1, 0.3, 1


def by_clock(statements, *words):
    """What stands before a script so that these statements change its clock first; they
    find the words behind sys.argv[0], and take them away."""
    return ["-c", "import os, runpy, sys, time; " + statements + "; del sys.argv[0]; "
            "sys.path[0] = os.path.dirname(sys.argv[0]); "
            "runpy.run_path(sys.argv[0], run_name='__main__')"] + list(words)


def clock_of(options):
    """By --cpu what pyperf's clock shows is the CPU time of the process."""
    return by_clock("time.perf_counter = time.process_time") if options.cpu else []


SAID = re.compile(r"^obmalloc: .*$", re.M)


@dataclass
class Side:
    """One of what is compared; the first one is what the others are compared with."""
    name: str
    python: str
    settings: dict
    library: bool           # whether it is to be active


@dataclass
class Place:
    """An interpreter, or two that were relinked from one."""
    name: str
    version: str
    original: str           # installs the packages
    sides: list


@dataclass
class Result:
    """All rounds of a benchmark."""
    benchmark: Benchmark
    loops: int
    values: int
    seconds: list           # a list for each round: the least value of each side
    rss: list               # a list for each round: the peak of each side, KiB

    def ratios(self, side):
        """Of the rounds' seconds."""
        return [one[side] / one[0] for one in self.seconds]

    def of_the_best(self, side):
        """The best round of a side, against stock's best."""
        return min(one[side] for one in self.seconds) / min(one[0] for one in self.seconds)

    def growth(self, side):
        """The median ratio of peaks."""
        return statistics.median(one[side] / one[0] for one in self.rss)


def command(one, side, packages, seed, arguments, clock):
    """What pairs.alternate takes for a worker; its result comes on stdout. Its clock is
    that of `by_clock`, or as it is if that is empty."""
    environment = dict(hosts.clean_environment(), PYTHONPATH=packages, PYTHONHASHSEED=str(seed),
                       OBMALLOC_VERBOSE="1", **side.settings)
    return ([side.python] + clock
            + [one.path(packages), "--worker", "--worker-task=%d" % one.task, "--pipe=1"]
            + arguments + list(one.arguments), environment)


def prove(side, run):
    """Raises pairs.Failed unless the library was active in a run, or absent, as it should.

    A setting that it does not understand is no less a failure: that side would be the
    library as it is, under another name.
    """
    said = SAID.findall(run.err)
    active = [line for line in said if re.match(hosts.interpreters.ACTIVE + r" \d", line)]
    if len(active) != side.library or said != active:
        others = [line for line in said if line not in active] or said
        raise pairs.Failed("%s: the library is to be %s; %s"
                           % (side.name, "active" if side.library else "absent",
                              "; ".join(others) or "it said nothing"))


def check(place):
    """Raises pairs.Failed unless the interpreter runs on all sides as each one should."""
    for side in place.sides:
        environment = dict(hosts.clean_environment(), OBMALLOC_VERBOSE="1", **side.settings)
        (run,), = pairs.alternate([([side.python, "-c", "pass"], environment)], 1)
        prove(side, run)


def told(one, side, run):
    """pyperf's (metadata, run) of a worker; raises pairs.Failed if it proves nothing."""
    prove(side, run)
    results = [text for text in run.out.splitlines() if text.startswith('{"benchmarks":')]
    suite = json.loads(results[-1]) if results else {"metadata": {"name": "none"}}
    if suite["metadata"]["name"] != one.name:
        raise pairs.Failed("%s: no such result; there is %s"
                           % (side.name, suite["metadata"]["name"]))
    return suite["metadata"], suite["benchmarks"][0]["runs"][0]


def calibrate(one, stock, packages, options):
    """(loops, seconds that they take) on the stock side."""
    arguments = ["--calibrate-loops", "--min-time=1e-9", "-w0", "-n1"] if options.quick else [
        "--calibrate-loops", "--min-time=%s" % SHORT, "-w1", "-n1"]
    worker = command(one, stock, packages, 0, arguments, clock_of(options))
    (run,), = pairs.alternate([worker], 1)
    metadata, inner = told(one, stock, run)
    loops, value = inner["warmups"][-1]
    return loops, loops * value * metadata.get("inner_loops", 1)


def measure(one, place, packages, loops, seconds, options):
    """The Result of all rounds."""
    values = options.values
    if seconds > LONG:
        values = max(1, round(values * LONG / seconds))
    warm = not options.quick and seconds <= VERY_LONG
    arguments = ["-l%d" % loops, "-w%d" % warm, "-n%d" % values]
    result = Result(one, loops, values, [], [])
    for number in range(options.rounds):
        order = list(enumerate(place.sides))[::-1 if number % 2 else 1]
        workers = [command(one, side, packages, number, arguments, clock_of(options))
                   for _, side in order]
        runs, = pairs.alternate(workers, 1)
        seen = {}
        for (index, side), run in zip(order, runs):
            _, inner = told(one, side, run)
            seen[index] = min(inner["values"]), run.rss
        result.seconds.append([seen[index][0] for index in sorted(seen)])
        result.rss.append([seen[index][1] for index in sorted(seen)])
    return result
