"""What Python programs feel: heaps that stay, churn, bursts, threads, tasks, and a mixture.

Each program of bench/heaps/ times its own phases from inside and checks its own answer.
It runs on all sides in turn (bench/rounds.py): stock, obmalloc, and those asked for.

    bench/heaps.py                          about three minutes for each interpreter
    bench/heaps.py --quick                  everything tiny, once: a test of the answers
    bench/heaps.py --malloc --mimalloc      without us, PYTHONMALLOC=malloc and =mimalloc
    bench/heaps.py --side packed:OBMALLOC_ALIGN=8 --side huge:OBMALLOC_THP=always
    bench/heaps.py --only dicts,bursts --record

Times are milliseconds of processor time of the whole process, so what the library's
helper thread needs is in them (--wall: by the clock).
"""

import json
import os
import sys

import hosts
import rounds

FOLDER = os.path.join(hosts.HERE, "heaps")
PROGRAMS = ("dicts", "churn", "bursts", "handover", "async_tree", "mixed")
QUICK = 0.02    # of the work


def rows_of(name, clock, runs, told):
    """A row for each phase of a program, and one for its peak."""
    result = []
    for phase in told[0][0]["phases"]:
        by_side = list(zip(*([one["phases"][phase] for one in together] for together in told)))
        result.append(rounds.Row("%s, %s" % (name, phase), clock + " ms",
                                 [[one[clock] * 1e3 for one in side] for side in by_side],
                                 [[one["faults"] for one in side] for side in by_side]))
    return result + [rounds.peak(name, runs)]


def measure(host, name, sides, options):
    """(rows, complaints) of a program."""
    argv = [host.path, os.path.join(FOLDER, name + ".py")] + ([str(QUICK)] if options.quick else [])
    runs, bad = rounds.run(host, name, argv, sides, options), []
    told = [[json.loads(run.out) for run in together] for together in runs]
    if any(one["answer"] != told[0][0]["answer"] for together in told for one in together):
        bad.append("%s, %s: the answers differ" % (host.name, name))
    return rows_of(name, "wall" if options.wall else "cpu", runs, told), bad


def main():
    parser = hosts.parser(__doc__, "3.11,3.13,distribution")
    rounds.add_options(parser, PROGRAMS)
    parser.add_argument("--wall", action="store_true", help="time by the clock")
    return rounds.measure_all("heaps", PROGRAMS, measure, parser.parse_args())


if __name__ == "__main__":
    sys.exit(main())
