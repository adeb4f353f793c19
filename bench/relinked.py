"""The same interpreter linked with CPython's obmalloc.o, and linked with ours.

relink/relink.py makes both of the same objects with the same command, so nothing but the
allocator differs. Pairs of runs, one after the other: the start of a process, and programs
that allocate. Times are noisy here, so the ratio of each pair is taken; the median of them
stands beside the least and the greatest. Nothing fails because of its time; it fails if
the two sides print different things.

    bench/relinked.py [VERSION ...]
    bench/relinked.py 3.11 3.13 --instructions      callgrind's count instead of times
"""

import argparse
import os
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor

import hosts
import instructions
import pairs


import pair  # noqa: E402

STARTS = [["-S", "-c", "pass"], ["-c", "pass"]]
PROGRAMS = ("json_there_and_back", "small_objects", "trees_and_dicts", "deep_copies")


def spread(runs, key):
    return pairs.spread(pairs.ratios(runs, key))


def timed(label, two, arguments, count):
    """A line of the table of times, and the complaints."""
    sides = [([python] + arguments, dict(hosts.clean_environment(), PYTHONHASHSEED="0"))
             for python in (two.stock, two.ours)]
    try:
        runs = pairs.alternate(sides, count)
    except pairs.Failed as problem:
        hosts.stop("%s, %s: %s" % (two.version, label, problem))
    line = [label] + ["%.2f" % (1000 * pairs.median(runs, "wall", side)) for side in (0, 1)]
    line += list(spread(runs, "wall")) + list(spread(runs, "cpu"))
    differ = any(stock.out != ours.out for stock, ours in runs)
    return line, ["%s, %s: another result with us" % (two.version, label)] if differ else []


def times(two, options):
    """Prints the table of times of a pair of interpreters; returns the complaints."""
    todo = [("python " + " ".join(arguments), arguments, options.starts) for arguments in STARTS]
    todo += [(name, ["-S", hosts.program(name)], options.runs) for name in options.names]
    rows, complaints = [], []
    for label, arguments, count in todo:
        line, found = timed(label, two, arguments, count)
        rows.append(line)
        complaints += found
    pairs.table(["%s relinked, ms" % two.version, "stock", "obmalloc", "ratio", "least..greatest",
                 "CPU ratio", "least..greatest"], rows)
    return complaints


def counts(two, options, pool):
    """Prints the table of instructions of a pair of interpreters; returns the complaints."""
    names = ["nothing"] + options.names
    jobs = {(name, python): pool.submit(instructions.run_valgrind,
                                        [python, "-S", hosts.program(name)])
            for name in names for python in (two.stock, two.ours)}
    rows, sums, complaints = [], [0, 0], []
    for name in names:
        (stock, said), (ours, said_too) = (jobs[name, python].result()
                                           for python in (two.stock, two.ours))
        rows.append(instructions.row(name, stock, ours))
        sums = [sums[0] + stock, sums[1] + ours]
        if said != said_too:
            complaints.append("%s, %s: another result with us" % (two.version, name))
    rows.append(instructions.row("sum", *sums))
    pairs.table(["%s relinked, million instructions" % two.version, "stock", "obmalloc", "ratio"],
                rows)
    return complaints


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    pair.add_options(parser)
    parser.add_argument("--programs", default=",".join(PROGRAMS), metavar="LIST",
                        help="of bench/programs (%(default)s)")
    parser.add_argument("--starts", type=int, default=41, help="pairs of starts (%(default)s)")
    parser.add_argument("--runs", type=int, default=9, help="pairs of a program (%(default)s)")
    parser.add_argument("--instructions", action="store_true",
                        help="count them, with a fixed hash seed and without site")
    parser.add_argument("--jobs", type=int, default=2, help="counts at a time (%(default)s)")
    options = parser.parse_args()
    options.names = [name for name in options.programs.split(",") if name]
    pairs.reproduce()
    if options.instructions and shutil.which("valgrind") is None:
        print("skip: no valgrind on PATH")
        return 0
    complaints, measured = [], 0
    with ThreadPoolExecutor(options.jobs) as pool:
        for wish in options.versions:
            try:
                two = pair.make(wish, options.archive, options.out)
            except pair.Missing as missing:
                print("skip: %s: %s" % (wish, missing))
                continue
            before = [hosts.fingerprint(python) for python in (two.stock, two.ours)]
            if options.instructions:
                complaints += counts(two, options, pool)
            else:
                complaints += times(two, options)
            if before != [hosts.fingerprint(python) for python in (two.stock, two.ours)]:
                complaints.append("%s was linked anew during the measurement" % two.version)
            measured += 1
    return hosts.finish(complaints, "%d measured, the same results" % measured)


if __name__ == "__main__":
    sys.exit(main())
