"""Memory over time: the programs of bench/memory/ with stock, with us, and without our thread.

Each program builds and drops objects in a way of its own, then idles for two seconds; its
resident memory is sampled every 20 ms. For each there is a table of medians: the peak,
what is left at the end of the idle time, MiB x s from start to there, page faults and CPU
time; then what is demanded, and whether it is so. The three sides run in turn, round after
round. `--record` writes bench/records/DATE-memory.json. `--quick` runs small ones: a test
that all works.

    bench/memory.py                                   everything, about half an hour
    bench/memory.py --patterns survivors,latency      these programs
"""

import os
import statistics
import sys
from dataclasses import dataclass

import demands
import hosts
import pairs
import record
import sampled

SIDES = ("stock", "us", "thread off")
COLUMNS = (("peak MiB", "peak", "%.1f", 1024), ("idle MiB", "idle", "%.1f", 1024),
           ("MiB x s", "area", "%.0f", 1), ("faults", "faults", "%d", 1),
           ("CPU s", "cpu", "%.2f", 1))
EXTRA = {"full": ("built MiB", "%.1f", 1024), "touched": ("touched MiB", "%.1f", 1024),
         "rounds_wall": ("rounds s", "%.2f", 1), "rounds_faults": ("rounds' faults", "%d", 1),
         "grown": ("child's MiB", "%.1f", 1024)}
EXTRA.update((clock + name, (clock + name + " us", "%.0f", 1))
             for clock in ("", "CPU ") for name in ("p50", "p99", "p99.9", "max"))


@dataclass
class Pattern:
    """A program and the settings it runs with."""
    name: str
    program: str
    settings: tuple = ()
    times: int = 1      # runs in each round


PATTERNS = [
    Pattern("survivors 0.1 %", "survivors", ("keep=0.001",)),
    Pattern("survivors 1 %", "survivors", ("keep=0.01",)),
    Pattern("survivors 10 %", "survivors", ("keep=0.1",)),
    Pattern("survivors in rows", "survivors", ("keep=0.01", "row=20")),
    Pattern("bursts", "bursts"),
    Pattern("drop everything", "drop_everything"),
    Pattern("tuples", "tuples"),
    Pattern("tuples, collector off", "tuples", ("collector=0",)),
    Pattern("large tuples", "tuples", ("large=1",)),
    Pattern("one thread", "threads", ("threads=1",)),
    Pattern("threads", "threads"),
    Pattern("requests", "requests"),
    Pattern("cache", "cache"),
    Pattern("orm", "orm"),
    Pattern("alternating", "alternating"),
    Pattern("prefork 0 %", "prefork", ("drop=0.0",)),
    Pattern("prefork 10 %", "prefork", ("drop=0.1",)),
    Pattern("prefork 30 %", "prefork", ("drop=0.3",)),
    Pattern("prefork 50 %", "prefork", ("drop=0.5",)),
    Pattern("latency", "latency", (), 3),
]


def chosen(wishes):
    """The patterns wished for, by their names or their programs'; all without a wish."""
    names = [name.strip() for name in wishes.split(";" if ";" in wishes else ",") if name.strip()]
    known = {word for one in PATTERNS for word in (one.name, one.program)}
    for name in names:
        if name not in known:
            hosts.stop("%s: no such pattern; there are %s"
                       % (name, ", ".join(sorted({one.program for one in PATTERNS}))))
    return [one for one in PATTERNS if not names or one.name in names or one.program in names]


def measure(host, pattern, rounds, more=()):
    """{side: [Run]}, the sides in turn."""
    path = os.path.join(hosts.HERE, "memory", pattern.program + ".py")
    sides = sampled.sides(host, [path] + list(pattern.settings) + list(more))
    runs = {side: [] for side in SIDES}
    for _ in range(rounds):
        for side in SIDES:
            try:
                runs[side].append(sampled.run(*sides[side]))
            except pairs.Failed as problem:
                hosts.stop("%s, %s: %s" % (pattern.name, side, problem))
    return runs


def table(pattern, runs):
    """(heading, rows) of one pattern."""
    extra = [(title, key, form, unit) for key, (title, form, unit) in EXTRA.items()
             if key in runs["stock"][0].figures]
    columns = list(COLUMNS) + extra
    rows = []
    for side in SIDES:
        middle = [statistics.median(getattr(run, key) for run in runs[side])
                  for _, key, _, _ in columns]
        rows.append([side] + [form % (value / unit)
                              for value, (_, _, form, unit) in zip(middle, columns)])
    title = "%s, %d runs" % (pattern.name, len(runs["stock"]))
    return [title] + [one[0] for one in columns], rows


def recorded(host, runs):
    """Rows of the record: the medians of each side of each pattern, in KiB and seconds."""
    for name, sides in runs.items():
        for side, found in sides.items():
            keys = ["area"] + [key for key in found[0].figures
                               if key not in ("began", "worked", "ended")]
            middle = {key: round(statistics.median(getattr(run, key) for run in found), 3)
                      for key in keys}
            yield {"interpreter": host.name, "pattern": name, "side": side, "runs": len(found),
                   **middle}


def quick(host, patterns):
    runs = {pattern.name: measure(host, pattern, 1, ("scale=0.01", "idle=0.0"))
            for pattern in patterns}
    demands.judge([pattern.name for pattern in patterns], runs)     # that it can be done
    return hosts.finish([], "%d patterns, right on all sides" % len(patterns))


def main():
    parser = hosts.parser(__doc__)
    parser.add_argument("--python", default="3.11", metavar="WHICH",
                        help="a version, newest, distribution, or a path (%(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="(%(default)s)")
    parser.add_argument("--patterns", default="", metavar="LIST",
                        help="some of the programs; names with a comma go between semicolons")
    parser.add_argument("--quick", action="store_true", help="small, once: check the results")
    parser.add_argument("--record", action="store_true", help="write a record of the results")
    parser.add_argument("--strict", action="store_true", help="fail if a demand is missed")
    options = parser.parse_args()
    pairs.reproduce()
    hosts.library(options.library)
    host = hosts.choose(options.python)[0]
    patterns = chosen(options.patterns)
    if options.quick:
        return quick(host, patterns)
    runs = {}
    for pattern in patterns:
        runs[pattern.name] = measure(host, pattern, options.rounds * pattern.times)
        pairs.table(*table(pattern, runs[pattern.name]))
    rows, missed = demands.judge([one.name for one in patterns], runs)
    demanded = (["demanded, %s" % host.name, "of", "at most", "us", "thread off", ""],
                [[row[1], row[0]] + row[2:] for row in rows])
    pairs.table(*demanded)
    if options.record:
        print("recorded in %s" % record.write("memory", list(recorded(host, runs))))
    complaints = ["%d demands are missed" % missed] if missed and options.strict else []
    return hosts.finish(complaints, "every program had the right result on all sides")


if __name__ == "__main__":
    sys.exit(main())
