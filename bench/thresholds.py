"""Thresholds of memory and latency, and whether a result stays within them.

A threshold is about the median over the rounds; a value that compares two sides, or two
programs, does so round by round. The sides without the helper thread cannot return memory
while the program idles, so only the lines marked `both` hold for them as well.
"""

import statistics
from dataclasses import dataclass

import definitions
import hosts

KIB, MIB = 1024, 1 << 20
NOISE = 1.05    # a ratio of latencies up to this counts as equal


@dataclass
class Line:
    """One threshold: `value` is a function from rows(side, name) and the side to numbers."""
    benchmark: str
    program: str
    what: str
    form: str
    value: object
    limit: object = None    # None: the number is only shown
    both: bool = False      # holds for the side without the helper thread as well


def difference(name, unit, other="stock"):
    """A row's difference from another side, in KiB or MiB."""
    def value(rows, side):
        return [(a - b) / unit for a, b in zip(rows(side, name), rows(other, name))]
    return value


def amount(name, unit):
    return lambda rows, side: [a / unit for a in rows(side, name)]


def above(name, base, unit):
    """A row's difference from another row of the same side."""
    return lambda rows, side: [(a - b) / unit for a, b in zip(rows(side, name), rows(side, base))]


def ratio(name, base=None):
    """A row by stock's, or by another row of the same side."""
    def value(rows, side):
        other = rows(side, base) if base else rows("stock", name)
        return [a / b for a, b in zip(rows(side, name), other)]
    return value


def of_medians(name):
    """The longest task of one run is of no round, so medians are compared."""
    return lambda rows, side: [statistics.median(rows(side, name))
                               / statistics.median(rows("stock", name))]


def excess(name, base, unit):
    """What a program needs more than another one, less what stock needs more."""
    def value(rows, side):
        own, stock = (statistics.median(above(name, base, unit)(rows, each))
                      for each in (side, "stock"))
        return [own - stock]
    return value


def sum_by_stock(names):
    return lambda rows, side: [sum(rows(side, name)[0] for name in names)
                               / sum(rows("stock", name)[0] for name in names)]


def lines():
    """All thresholds, in the order of the table."""
    yield Line("instructions", "all programs", "instructions to stock's", "%.4f",
               sum_by_stock(definitions.SMALL), 1.0)
    yield Line("footprint", "pass", "peak, KiB more than stock", "%+.0f",
               difference("pass, peak", KIB), 300)
    yield Line("footprint", "pass", "wall time, ms more than stock", "%+.2f",
               lambda rows, side: [1000 * (a - b) for a, b in
                                   zip(rows(side, "pass, wall"), rows("stock", "pass, wall"))],
               1.0)
    yield Line("footprint", "kept", "peak, KiB more than stock", "%+.0f",
               difference("kept, peak", KIB), 1024)
    for name in definitions.PATTERNS:
        yield Line("memory", name, "peak, MiB more than stock", "%+.2f",
                   difference(name + ", peak", MIB), 1.0, True)
    for name, limit in (("survivors 0.1 %", 60), ("survivors 1 %", 205), ("survivors 10 %", None),
                        ("bursts", 55)):
        yield Line("memory", name, "idle, MiB", "%.1f", amount(name + ", idle", MIB), limit)
    yield Line("memory", "drop everything", "idle, MiB above the start", "%.1f",
               above("drop everything, idle", "drop everything, base", MIB), 6)
    for row, what, limit in (("rounds_faults", "page faults", 0.05),
                             ("rounds_wall", "wall time", 0.70), ("rounds_cpu", "CPU time", 0.70)):
        yield Line("memory", "tuples", "%s to stock's" % what, "%.3f", ratio("tuples, " + row),
                   limit, True)
    yield Line("memory", "threads", "idle, MiB more than in one thread", "%.1f",
               above("threads, idle", "one thread, idle", MIB), 10)
    yield Line("memory", "threads", "the same, less the difference in stock", "%.1f",
               excess("threads, idle", "one thread, idle", MIB))
    for name in definitions.PATTERNS:
        if name.startswith("prefork"):
            yield Line("memory", name, "child's private memory to its objects'", "%.2f",
                       ratio(name + ", grown", name + ", own"), 1.3, True)
    for clock in ("", "CPU "):
        for share in ("p50", "p99", "p99.9", "max"):
            yield Line("memory", "latency", "%s%s to stock's" % (clock, share), "%.2f",
                       of_medians("latency, %s%s" % (clock, share)),
                       None if share == "p50" else NOISE, True)


def judge(benchmark, sides, show=True):
    """Prints the thresholds of a benchmark; returns those that are exceeded, as text."""
    def rows(side, name):
        return sides[side][name].values

    table, missed = [], []
    judged = [name for name in ("obmalloc", "no thread") if name in sides]
    for line in lines():
        if line.benchmark != benchmark or "stock" not in sides:
            continue
        try:
            values = [statistics.median(line.value(rows, side)) for side in judged]
        except (KeyError, statistics.StatisticsError):
            continue    # --only left the program out
        words = ["-" if line.limit is None or side != "obmalloc" and not line.both
                 else "ok" if value <= line.limit else "EXCEEDED"
                 for side, value in zip(judged, values)]
        missed += ["%s: %s: %s, at most %g" % (line.program, line.what, line.form % value,
                                               line.limit)
                   for word, value in zip(words, values) if word == "EXCEEDED"]
        table.append([line.what, line.program, "-" if line.limit is None else "%g" % line.limit]
                     + [line.form % value for value in values] + [", ".join(words)])
    if table and show:
        hosts.table(["threshold", "of", "at most"] + judged + [""], table)
    return missed
