"""Several ways to run Python, round after round: A B C A B C ...; for heaps.py and whole.py.

A busy moment of the machine so meets all sides alike. The first side is stock, and every
other is compared with it round by round: the median of the ratios with the least and the
greatest, and beside them the ratio of the best run of each side, which a busy machine
disturbs least. A setting that the library does not understand is a failure: that side
would be the library as it is, under another name.
"""

import statistics
import subprocess
from dataclasses import dataclass, field

import hosts
import pairs
import record


@dataclass
class Side:
    """A way to run Python."""
    name: str
    preloaded: bool
    settings: dict = field(default_factory=dict)

    def environment(self, **more):
        result = dict(hosts.clean_environment(), **more)
        if self.preloaded:
            result["LD_PRELOAD"] = hosts.LIBRARY
        result.update(self.settings)
        return result

    def trouble(self, host):
        """Why this side cannot be measured in an interpreter; empty if it can."""
        result = subprocess.run([host.path, "-c", "pass"], env=self.environment(),
                                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                stderr=subprocess.PIPE, universal_newlines=True)
        said = result.stderr.strip().splitlines()
        return (said or ["it does not start"])[0] if result.returncode or said else ""


@dataclass
class Row:
    """One thing that was measured: its values, and page faults, by side and round."""
    name: str
    unit: str
    values: list
    faults: list

    def ratios(self, side):
        return [value / max(stock, 1e-9)
                for stock, value in zip(self.values[0], self.values[side])]

    def of_the_best(self, side):
        return min(self.values[side]) / max(min(self.values[0]), 1e-9)

    def cells(self):
        line = [self.name]
        for side, (values, faults) in enumerate(zip(self.values, self.faults)):
            line.append("%.1f" % statistics.median(values))
            if side:
                line += list(pairs.spread(self.ratios(side))) + ["%.3f" % self.of_the_best(side)]
            line.append("%d" % statistics.median(faults))
        return line

    def recorded(self, host, sides):
        """Dicts for a record, one for each side."""
        for number, side in enumerate(sides):
            yield {"interpreter": host.name, "name": self.name, "side": side.name,
                   "unit": self.unit, "median": round(statistics.median(self.values[number]), 3),
                   "faults": statistics.median(self.faults[number]),
                   "of_the_best": round(self.of_the_best(number), 4),
                   "ratios": [round(ratio, 4) for ratio in self.ratios(number)]}


def show(host, sides, rows):
    heading = [host.name, sides[0].name, "faults"]
    for side in sides[1:]:
        heading += [side.name, "ratio", "least..greatest", "of the best", "faults"]
    pairs.table(heading, [row.cells() for row in rows])


def add_options(parser, programs):
    parser.add_argument("--rounds", type=int, default=7, help="of all sides (%(default)s)")
    parser.add_argument("--only", metavar="LIST", default=",".join(programs),
                        help="of these programs: %(default)s")
    parser.add_argument("--malloc", action="store_true", help="a side with PYTHONMALLOC=malloc")
    parser.add_argument("--mimalloc", action="store_true",
                        help="a side with PYTHONMALLOC=mimalloc, where Python has it")
    parser.add_argument("--side", action="append", default=[], metavar="NAME:VAR=VALUE,...",
                        help="a side with obmalloc and these settings")
    parser.add_argument("--quick", action="store_true", help="check the answers, tiny and once")
    parser.add_argument("--record", action="store_true", help="write a record of the results")


def chosen(options, programs):
    names = [name for name in options.only.split(",") if name]
    for name in names:
        if name not in programs:
            hosts.stop("%s: no such program; there are %s" % (name, ", ".join(programs)))
    return names


def sides(options):
    result = [Side("stock", False), Side("obmalloc", True)]
    result += [Side(name, False, {"PYTHONMALLOC": name})
               for name in ("malloc", "mimalloc") if getattr(options, name)]
    for text in options.side:
        name, settings = hosts.setting(text)
        result.append(Side(name, True, settings))
    return result


def sides_in(host, options):
    """The sides that can be measured in this interpreter; says which cannot, and why."""
    able = []
    for side in sides(options):
        trouble = side.trouble(host)
        if trouble and side.preloaded:
            hosts.stop("%s, side %s: %s" % (host.name, side.name, trouble))
        elif trouble:
            print("skip: %s, side %s: %s" % (host.name, side.name, trouble))
        else:
            able.append(side)
    return able


def run(host, name, argv, sides, options, **settings):
    """[runs of a round, one of each side]"""
    try:
        return pairs.alternate([(argv, side.environment(**settings)) for side in sides],
                               1 if options.quick else options.rounds)
    except pairs.Failed as problem:
        hosts.stop("%s, %s: %s" % (host.name, name, problem))


def peak(name, runs):
    """The row of peak RSS, with the faults of the whole process."""
    by_side = list(zip(*runs))
    return Row("%s, peak MiB" % name, "MiB",
               [[one.rss / 1024 for one in side] for side in by_side],
               [[one.faults for one in side] for side in by_side])


def measure_all(topic, programs, measure, options):
    """The body of a measurement: every program in every interpreter. Returns the exit status.

    `measure(host, name, sides, options)` gives the rows of a program, and complaints.
    """
    pairs.reproduce()
    hosts.library(options.library)
    names, bad, recorded = chosen(options, programs), [], []
    for host in hosts.choose(options.interpreters):
        able, rows = sides_in(host, options), []
        for name in names:
            found, complaints = measure(host, name, able, options)
            rows += found
            bad += complaints
        if options.quick:
            print("%s: %d rows, %d sides" % (host.name, len(rows), len(able)), flush=True)
        else:
            show(host, able, rows)
        recorded += [one for row in rows for one in row.recorded(host, able)]
    if options.record and not options.quick and not bad:
        print("recorded in %s" % record.write(topic, recorded))
    return hosts.finish(bad, "the same answers on all sides")
