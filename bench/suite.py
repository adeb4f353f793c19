"""pyperformance's benchmarks, stock against obmalloc, in pairs.

Each benchmark (bench/suite_benchmarks.py) is one of pyperf's worker processes
(bench/suite_runs.py). How many loops make a value of 0.1 s or more is found once, with
stock; where one loop takes more than 0.3 s there are fewer values, from 1 s on no warm-up.
Then come rounds, in each of which every side runs once, with the same hash seed, forwards
and backwards by turns. A side's value in a round is its least, since a busy machine only
ever adds. Quoted is the median of the rounds' ratios with the least and the greatest,
beside it the ratio of the best round of each side; RSS is the ratio of the workers' peaks.
That the library is active is proved in every run.

    bench/suite.py                                      ten minutes for an interpreter
    bench/suite.py --quick                              a test of the machinery
    bench/suite.py --cpu                                CPU time: for a machine that is busy
    bench/suite.py --interpreters 3.13 --only async_tree,json_loads,controls
    bench/suite.py --interpreters "" --relinked 3.11    CPython's obmalloc.o, and ours linked in
    bench/suite.py --side packed:OBMALLOC_ALIGN=8 --malloc --mimalloc    more sides

The packages are installed from PyPI, into target/bench/suite.
"""

import math
import os
import statistics
import sys

import hosts
import pairs
import record
import suite_benchmarks
from suite_benchmarks import ALLOCATION, ASYNC_TREE, CONTROLS
from suite_runs import Place, Side, calibrate, check, measure


import pair  # noqa: E402

SUMS = (("async_tree", (ASYNC_TREE,)), ("others that allocate", (ALLOCATION,)),
        ("all that allocate", (ASYNC_TREE, ALLOCATION)), ("controls", (CONTROLS,)))


def minor(version):
    return tuple(int(part) for part in version.split(".")[:2])


def sides(stock, ours, version, preload, options):
    """Stock, obmalloc, and those that the options add."""
    result = [Side("stock", stock, {}, False), Side("obmalloc", ours, preload, True)]
    for wish in options.side + (["packed:OBMALLOC_ALIGN=8"] if options.packed else []):
        name, settings = hosts.setting(wish)
        result.append(Side(name, ours, dict(preload, **settings), True))
    if options.malloc:
        result.append(Side("malloc", stock, {"PYTHONMALLOC": "malloc"}, False))
    if options.mimalloc and minor(version) >= (3, 13):
        result.append(Side("mimalloc", stock, {"PYTHONMALLOC": "mimalloc"}, False))
    elif options.mimalloc:
        print("skip: %s: mimalloc came with 3.13" % version)
    return result


def places(options):
    """The Places to measure; says which cannot be had."""
    if options.interpreters:
        for host in hosts.choose(options.interpreters):
            preload = {"LD_PRELOAD": hosts.LIBRARY}
            yield Place(host.name, host.version, host.path,
                        sides(host.path, host.path, host.version, preload, options))
    for wish in filter(None, options.relinked.split(",")):
        try:
            two = pair.make(wish, options.archive, options.out)
        except pair.Missing as missing:
            print("skip: %s: %s" % (wish, missing))
            continue
        yield Place(two.version + " relinked", two.version, two.original,
                    sides(two.stock, two.ours, two.version, {}, options))


def amount(seconds):
    """Seconds as text, of a size that can be read."""
    for unit, factor in (("s", 1), ("ms", 1e3), ("us", 1e6)):
        if seconds * factor >= 1:
            break
    return "%.3g %s" % (seconds * factor, unit)


def line(result, place):
    """A benchmark's line of the tables."""
    cells = [amount(statistics.median(one[0] for one in result.seconds))]
    for side in range(1, len(place.sides)):
        cells += list(pairs.spread(result.ratios(side)))
        cells += ["%.3f" % result.of_the_best(side), "%.3f" % result.growth(side)]
    return cells


def mean(numbers):
    """The geometric one."""
    numbers = list(numbers)
    return math.exp(sum(map(math.log, numbers)) / len(numbers))


def sums(results, place):
    """Lines of geometric means: of the medians, between the rounds' least and greatest."""
    for title, parts in SUMS:
        own = [one for one in results if one.benchmark.part in parts]
        if not own:
            continue
        cells = [title, "%d" % len(own)]
        for side in range(1, len(place.sides)):
            rounds = [mean(ratios) for ratios in zip(*(one.ratios(side) for one in own))]
            cells += ["%.3f" % mean(statistics.median(one.ratios(side)) for one in own),
                      "%.3f..%.3f" % (min(rounds), max(rounds)),
                      "%.3f" % mean(one.of_the_best(side) for one in own),
                      "%.3f" % mean(one.growth(side) for one in own)]
        yield cells


def report(results, place):
    """Prints the tables of an interpreter."""
    columns = []
    for side in place.sides[1:]:
        columns += [side.name, "least..greatest", "of the best", "RSS"]
    for part in suite_benchmarks.PARTS:
        lines = [[one.benchmark.name] + line(one, place) for one in results
                 if one.benchmark.part == part]
        if lines:
            pairs.table(["%s, %s" % (place.name, part), "stock"] + columns, lines)
    pairs.table([place.name + ", geometric means", "of"] + columns, list(sums(results, place)))


def rows(results, place):
    """The lines of the record."""
    for one in results:
        for side in range(1, len(place.sides)):
            ratios = one.ratios(side)
            yield {"interpreter": place.name, "benchmark": one.benchmark.name,
                   "part": one.benchmark.part, "side": place.sides[side].name,
                   "loops": one.loops, "values": one.values,
                   "stock_seconds": statistics.median(each[0] for each in one.seconds),
                   "ratio": round(statistics.median(ratios), 4),
                   "of_the_best": round(one.of_the_best(side), 4),
                   "ratios": [round(ratio, 4) for ratio in ratios],
                   "stock_rss": statistics.median(each[0] for each in one.rss),
                   "rss_ratio": round(one.growth(side), 4)}


def calibrated(place, environment, chosen, options):
    """(benchmark, loops, seconds that they take) of those that can run; says which cannot."""
    for one in chosen:
        if minor(place.version) < one.since:
            continue        # a variant that this version does not have
        reason = environment.missing(one)
        try:
            if not reason:
                found = calibrate(one, place.sides[0], environment.packages, options)
        except pairs.Failed as problem:
            reason = str(problem)
        if reason:
            print("skip: %s, %s: %s" % (place.name, one.name, reason), flush=True)
        else:
            yield (one,) + found


def run_all(place, environment, chosen, options):
    """(results, complaints) of an interpreter; says of each benchmark how it went."""
    results, complaints = [], []
    for one, loops, seconds in calibrated(place, environment, chosen, options):
        title = "%s, %s" % (place.name, one.name)
        try:
            results.append(measure(one, place, environment.packages, loops, seconds, options))
        except pairs.Failed as problem:
            complaints.append("%s: %s" % (title, problem))
            print(complaints[-1], flush=True)
            continue
        print("%s: %s" % (title, "  ".join(line(results[-1], place))), flush=True)
    return results, complaints


def prepared(options):
    """(Place, Environment) of each place that can be measured; says which cannot. An
    interpreter that is made anew while it is measured ends the run."""
    for place in places(options):
        environment = suite_benchmarks.Environment(place.original, place.version)
        try:
            check(place)
        except pairs.Failed as problem:
            hosts.stop("%s, %s" % (place.name, problem))
        reason = environment.prepare()
        if reason:
            print("skip: %s: %s" % (place.name, reason), flush=True)
            continue
        before = [hosts.fingerprint(side.python) for side in place.sides]
        yield place, environment
        if before != [hosts.fingerprint(side.python) for side in place.sides]:
            hosts.stop("%s was made anew during the measurement" % place.name)


def parser(text):
    """What says which benchmarks of which sides."""
    result = hosts.parser(text, "3.11,3.13,distribution")
    result.add_argument("--relinked", default="", metavar="LIST",
                        help="versions of which relinked pairs are measured, too")
    result.add_argument("--archive", metavar="FILE", type=os.path.abspath, help="for these "
                        "(target/release's)",
                        default=os.path.join(hosts.RELEASE, "libobmalloc.a"))
    result.add_argument("--out", metavar="FOLDER", type=os.path.abspath, help="where "
                        "relink.py keeps the interpreters (target/relink)",
                        default=os.path.join(hosts.ROOT, "target", "relink"))
    result.add_argument("--only", default="", metavar="LIST", help="benchmarks, scripts, or "
                        "parts: " + ", ".join(suite_benchmarks.PARTS))
    result.add_argument("--side", action="append", default=[], metavar="NAME:VAR=VALUE,...",
                        help="one more side: with the library, and these variables")
    result.add_argument("--packed", action="store_true", help="--side packed:OBMALLOC_ALIGN=8")
    result.add_argument("--malloc", action="store_true",
                        help="one more: stock with PYTHONMALLOC=malloc")
    result.add_argument("--mimalloc", action="store_true",
                        help="one more, from 3.13 on: stock with PYTHONMALLOC=mimalloc")
    return result


def arguments():
    own = parser(__doc__)
    own.add_argument("--rounds", type=int, default=5, help="(%(default)s)")
    own.add_argument("--values", type=int, default=3,
                     help="of a side in a round (%(default)s)")
    own.add_argument("--cpu", action="store_true", help="CPU time of the process in place of "
                     "the time that passes: for a machine with more to do than cores")
    own.add_argument("--quick", action="store_true",
                     help="one round of one value of one loop: whether it all works")
    own.add_argument("--record", action="store_true", help="write bench/records/DATE-suite.json")
    options = own.parse_args()
    if options.quick:
        options.rounds = options.values = 1
    return options


def main():
    options = arguments()
    pairs.reproduce()
    hosts.library(options.library)
    chosen = suite_benchmarks.chosen(options.only)
    recorded, packages, complaints = [], {}, []
    for place, environment in prepared(options):
        results, found = run_all(place, environment, chosen, options)
        complaints += found
        if results:
            report(results, place)
            recorded += rows(results, place)
            packages[place.name] = environment.versions()
    if not recorded:
        complaints.append("nothing was measured")
    elif options.record:
        print("written: " + record.write(
            "suite", recorded, clock="cpu" if options.cpu else "wall", packages=packages))
    return hosts.finish(complaints, "%d ratios, and in every run the proof of which side it was"
                        % len(recorded))


if __name__ == "__main__":
    sys.exit(main())
