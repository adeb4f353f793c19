"""What is demanded of memory and latency, and whether the runs of memory.py meet it.

A line says what, the limit, and for us and for us without the helper thread the median
of what the rounds have given. The verdict is about us; without the thread nothing can be
done while the program does nothing, so only peak memory and the time of the tuples are
judged there, too. A value that is a ratio is one of two runs of the same round; that of
a percentile is one of the medians of all rounds, as the longest of one run is of no round.

What forty threads need more than one is judged as it is, and shown once more less what
they need more in stock: their stacks, and what the C library keeps for each.
"""

import statistics
from dataclasses import dataclass, replace

MIB = 1024      # KiB
NOISE = 1.05    # a ratio of latencies up to this is taken for equal


@dataclass
class Line:
    """One demand, with a function from (run of stock, our run) to a number."""
    pattern: str
    what: str
    form: str
    value: object
    limit: object = None        # None: there is none, the number is of interest
    off_too: bool = False       # judged without the thread as well
    against: str = ""           # another pattern whose runs take the place of stock's
    figure: str = ""            # the name of what is divided by stock's, median by median
    less_stock: bool = False    # the value less the same of stock


def ratio(name):
    return lambda stock, ours: getattr(ours, name) / max(getattr(stock, name), 1e-9)


def peak_lines(patterns):
    return [Line(name, "peak RSS, MiB more than stock", "%+.2f",
                 lambda stock, ours: (ours.peak - stock.peak) / MIB, 1.0, True)
            for name in patterns]


def over_base(stock, ours):
    return (ours.idle - ours.base) / MIB


def more(alone, ours):
    return (ours.idle - alone.idle) / MIB


def idle(stock, ours):
    return ours.idle / MIB


def lines(patterns):
    """All demands on these patterns, in the order of the table."""
    special = [
        Line("survivors 0.1 %", "idle RSS, MiB", "%.1f", idle, 60),
        Line("survivors 1 %", "idle RSS, MiB", "%.1f", idle, 205),
        Line("survivors 10 %", "idle RSS, MiB", "%.1f", idle),
        Line("bursts", "idle RSS, MiB", "%.1f", idle, 55),
        Line("drop everything", "idle RSS, MiB above the start", "%.1f", over_base, 6),
        Line("tuples", "page faults to stock's", "%.3f", ratio("rounds_faults"), 0.05, True),
        Line("tuples", "wall time to stock's", "%.2f", ratio("rounds_wall"), 0.70, True),
        Line("tuples", "CPU time to stock's", "%.2f", ratio("rounds_cpu"), 0.70, True),
        Line("threads", "idle RSS, MiB more than in one thread", "%.1f", more, 10,
             against="one thread"),
        Line("threads", "the same, less what it is in stock", "%.1f", more, None,
             against="one thread", less_stock=True),
    ]
    special += [Line(name, "child's private memory to its objects'", "%.2f",
                     lambda stock, ours: ours.grown / ours.own, 1.3, True)
                for name in patterns if name.startswith("prefork")]
    special += [Line("latency", "%s to stock's" % name, "%.2f", None,
                     None if name.endswith("p50") else NOISE, True, figure=name)
                for name in ("p50", "p99", "p99.9", "max",
                             "CPU p50", "CPU p99", "CPU p99.9", "CPU max")]
    return peak_lines(patterns) + [line for line in special if line.pattern in patterns]


def measured(line, runs, side):
    """The median over the rounds."""
    ours = runs[line.pattern][side]
    if line.figure:
        middle = [statistics.median(getattr(run, line.figure) for run in some)
                  for some in (runs[line.pattern]["stock"], ours)]
        return middle[1] / max(middle[0], 1e-9)
    base = runs[line.against][side] if line.against else runs[line.pattern]["stock"]
    value = statistics.median(line.value(a, b) for a, b in zip(base, ours))
    return value - measured(replace(line, less_stock=False), runs, "stock") \
        if line.less_stock else value


def judge(patterns, runs):
    """([row of the table], how many are missed); runs is {pattern: {side: [Run]}}."""
    rows, missed = [], 0
    for line in lines(patterns):
        if line.against and line.against not in runs:
            continue
        values = [measured(line, runs, side) for side in ("us", "thread off")]
        judged = values if line.off_too else values[:1]
        words = ["-" if line.limit is None else "ok" if value <= line.limit else "MISSED"
                 for value in judged]
        missed += words.count("MISSED")
        verdict = words[0] if len(set(words)) == 1 else "%s, off: %s" % tuple(words)
        rows.append([line.pattern, line.what, "-" if line.limit is None else "%g" % line.limit]
                    + [line.form % value for value in values] + [verdict])
    return rows, missed
