"""Two commands run in turn, A B A B ..., and the ratio pair by pair.

The machine is busy with other things, and busier at one moment than at the next: a
ratio of two runs side by side says more than a quotient of two averages. What is
quoted is the median of the ratios of the pairs, with the least and the greatest to
show how far to trust it.

By hand, for any two commands:

    bench/pairs.py --count 9 "python3 -c pass" "python3 -S -c pass"
"""

import argparse
import marshal
import os
import shlex
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(HERE)
MASKED = 128    # KiB: a peak this near the floor may be the floor itself


class Failed(Exception):
    """A command that was to be measured did not do its work, or cannot be measured."""


@dataclass
class Run:
    """One run of a command, as wait4 and its streams tell it."""
    status: int
    wall: float         # seconds
    cpu: float          # seconds, user and system
    rss: int            # KiB, the peak
    faults: int
    out: str
    err: str


def ending(status):
    """How a process ended, in words; None for a plain exit with 0."""
    if os.WIFSIGNALED(status):
        return "ended by %s" % signal.Signals(os.WTERMSIG(status)).name
    return "exit status %d" % os.WEXITSTATUS(status) if status else None


def read(path):
    with open(path, "rb") as stream:
        return stream.read().decode("utf-8", "replace")


def alternate(sides, count):
    """[(Run, Run)]: each side is (argv, environment), the program a path or on PATH."""
    true = shutil.which("true") or "/bin/true"
    sides = [([shutil.which(argv[0]) or argv[0]] + list(argv[1:]), dict(environment))
             for argv, environment in sides]
    with tempfile.TemporaryDirectory(prefix="obmalloc-bench-") as directory:
        forker = [sys.executable, "-I", "-S", os.path.join(HERE, "forker.py")]
        request = marshal.dumps((count, directory, true, sides))
        result = subprocess.run(forker, input=request, stdout=subprocess.PIPE)
        if result.returncode != 0:
            raise Failed("the runs could not be started")
        floor, answers = marshal.loads(result.stdout)
        runs = []
        for index, answer in enumerate(answers):
            name = os.path.join(directory, "%d-%d" % divmod(index, len(sides)))
            runs.append(Run(*answer, out=read(name + ".out"), err=read(name + ".err")))
    for run in runs:
        if run.status:
            said = run.err.strip().splitlines()[-1:] or ["and nothing on stderr"]
            raise Failed("%s: %s" % (ending(run.status), said[0]))
        if run.rss < floor + MASKED:
            raise Failed("a peak of %d KiB cannot be told from the %d KiB that any "
                         "command seems to need here" % (run.rss, floor))
    return list(zip(*(runs[side::len(sides)] for side in range(len(sides)))))


def values(runs, key, side):
    """One field of one side of all pairs."""
    return [getattr(pair[side], key) for pair in runs]


def median(runs, key, side):
    return statistics.median(values(runs, key, side))


def ratios(runs, key):
    """second / first, pair by pair."""
    return [getattr(b, key) / max(getattr(a, key), 1e-9) for a, b in runs]


def differences(runs, key):
    """second - first, pair by pair."""
    return [getattr(b, key) - getattr(a, key) for a, b in runs]


def spread(numbers, form="%.3f"):
    """(median, "least..greatest") as text."""
    return (form % statistics.median(numbers),
            "%s..%s" % (form % min(numbers), form % max(numbers)))


def table(heading, rows):
    """Columns as wide as they need, the first to the left, the others to the right."""
    lines = [[str(cell) for cell in row] for row in [heading] + rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(heading))]
    for line in lines:
        cells = [line[0].ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(line[1:], widths[1:])]
        print("  " + "  ".join(cells).rstrip())
    sys.stdout.flush()


def reproduce(arguments=None):
    """Prints the command that is running, as it is typed at the top of the tree."""
    script = os.path.relpath(os.path.realpath(sys.argv[0]), ROOT)
    arguments = sys.argv[1:] if arguments is None else arguments
    print("$ " + " ".join(["python3", script] + [shlex.quote(one) for one in arguments]),
          flush=True)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=7, help="pairs (%(default)s)")
    parser.add_argument("first", help="a command, as for a shell")
    parser.add_argument("second", help="the command it is compared with")
    options = parser.parse_args()
    reproduce()
    sides = [(shlex.split(text), os.environ) for text in (options.first, options.second)]
    try:
        runs = alternate(sides, options.count)
    except Failed as problem:
        print("failed: %s" % problem)
        return 1
    rows = []
    for name, key, form in (("wall seconds", "wall", "%.4f"), ("CPU seconds", "cpu", "%.4f"),
                            ("peak RSS, KiB", "rss", "%d"), ("page faults", "faults", "%d")):
        rows.append([name, form % median(runs, key, 0), form % median(runs, key, 1)]
                    + list(spread(ratios(runs, key))))
    table(["medians of %d pairs" % options.count, "first", "second", "ratio", "least..greatest"],
          rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
