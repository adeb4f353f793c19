"""The README's tables of figures, made from the newest record of each topic.

A table stands in README.md between two comments,

    <!-- figures: TOPIC -->
    <!-- end of figures -->

and this program writes what is between them, from bench/records/DATE-TOPIC.json.

    bench/figures.py            writes the tables
    bench/figures.py --check    fails if one is not what its record says

Which command made a record, on which machine and of which commit, stands in the record;
the line above each table names them.
"""

import argparse
import math
import os
import re
import statistics
import sys

import pairs
import record
from suite import SUMS
from suite_benchmarks import ALLOCATION, ASYNC_TREE, PARTS

README = os.path.join(pairs.ROOT, "README.md")
MARKED = re.compile(r"(<!-- figures: (\w+) -->\n)(.*?)(<!-- end of figures -->)", re.S)
PEERS = ("mimalloc", "jemalloc", "tcmalloc", "glibc")


def table(heading, rows):
    """A table; the first column is text, the others are numbers."""
    rule = ["---"] + ["---:"] * (len(heading) - 1)
    return ["| %s |" % " | ".join(str(cell) for cell in line) for line in [heading, rule] + rows]


def order(rows, key):
    """The values of a key, in the order in which they come."""
    return list(dict.fromkeys(row[key] for row in rows))


def only(rows, **values):
    return [row for row in rows if all(row[key] == value for key, value in values.items())]


def one(rows, **values):
    """The row with these values, None if there is none."""
    return next(iter(only(rows, **values)), None)


def shown(row, key, form):
    return form % row[key] if row else ""


# ---- a function for each topic: (rows of a record) -> lines ----

def instructions(rows):
    hosts = order(rows, "interpreter")
    lines = []
    for program in order(rows, "program"):
        found = [one(rows, interpreter=host, program=program) for host in hosts]
        name = program if program == "sum" else "`%s.py`" % program
        lines.append([name] + ["%.4f" % (row["ours"] / row["stock"]) for row in found])
    return table(["program in `bench/programs/`"] + hosts, lines)


def footprint(rows):
    hosts = order(rows, "interpreter")
    titles = {"pass": "`python -c pass`", "kept": "300 000 objects, all kept"}
    return table(["peak RSS, KiB more than stock"] + hosts, [
        [titles[what]] + ["%d" % one(rows, interpreter=host, what=what)["more_kib"]
                          for host in hosts] for what in order(rows, "what")])


def c_level_instructions(rows):
    sides = order(rows, "side")
    return table(["a malloc and its free"] + sides, [
        [name] + [shown(one(rows, row=name, side=side), "value", "%.1f") for side in sides]
        for name in order(rows, "row")])


def c_level(rows):
    lines = []
    for name in order(rows, "row"):
        best = one(rows, row=name, best_peer=True)
        lines.append([name] + [shown(one(rows, row=name, side=side), "median", "%.1f")
                               for side in ("obmalloc",) + PEERS]
                     + ["%.2f" % statistics.median(best["ratios"]), best["side"]])
    return table(["ns for each", "obmalloc"] + list(PEERS) + ["ratio", "to the best"], lines)


def by_side(rows, sides, key, form):
    """"a (b)": a number of the first side, and that of the second, if it is there."""
    first, second = (shown(one(rows, side=side), key, form) for side in sides)
    return first + (" (%s)" % second if second else "")


def heaps(rows):
    hosts = order(rows, "interpreter")
    for row in rows:
        row["ratio"] = statistics.median(row["ratios"])
    return table(["packed in brackets"] + hosts, [
        [name] + [by_side(only(rows, interpreter=host, name=name), ("obmalloc", "packed"),
                          "ratio", "%.2f") for host in hosts] for name in order(rows, "name")])


def mean(values):
    """The geometric mean."""
    return math.exp(statistics.fmean(map(math.log, values)))


def suite(rows):
    hosts = order(rows, "interpreter")

    def cell(host, parts, side, key):
        values = [row[key] for row in only(rows, interpreter=host, side=side)
                  if row["part"] in parts]
        return "%.3f" % mean(values) if values else ""

    def both(host, parts, key):
        return "%s (%s)" % (cell(host, parts, "obmalloc", key), cell(host, parts, "packed", key))

    lines = [["%s, of %d" % (title, len({row["benchmark"] for row in rows
                                         if row["part"] in parts}))]
             + [both(host, parts, "ratio") for host in hosts] for title, parts in SUMS]
    lines.append(["peak RSS, of all"] + [both(host, PARTS, "rss_ratio") for host in hosts])
    if any(row["side"] == "mimalloc" for row in rows):
        lines.append(["`PYTHONMALLOC=mimalloc`, all that allocate"]
                     + [cell(host, (ASYNC_TREE, ALLOCATION), "mimalloc", "ratio")
                        for host in hosts])
    return table(["packed in brackets"] + hosts, lines)


TOPICS = {function.__name__: function for function in (
    instructions, footprint, c_level_instructions, c_level, heaps, suite)}


def made(topic):
    """What stands between the comments of a topic."""
    if topic not in TOPICS:
        sys.exit("README.md: no figures are called %s" % topic)
    found = record.newest(topic)
    if found is None:
        sys.exit("README.md: no record of %s in bench/records" % topic)
    head = "`%s`, %s, commit %s:" % (found["command"].replace("python3 ", ""), found["date"],
                                     found["commit"])
    return "\n".join([head, ""] + TOPICS[topic](found["rows"])) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing")
    options = parser.parse_args()
    with open(README, encoding="utf-8") as stream:
        before = stream.read()
    stale = []

    def replace(match):
        first, topic, text, last = match.groups()
        if made(topic) != text:
            stale.append(topic)
        return first + made(topic) + last

    after = MARKED.sub(replace, before)
    topics = MARKED.findall(before)
    if not topics:
        sys.exit("README.md has no tables of figures")
    if options.check and stale:
        sys.exit("README.md: stale figures: %s (make figures)" % ", ".join(stale))
    if not options.check:
        with open(README, "w", encoding="utf-8") as stream:
            stream.write(after)
    print("ok: %d tables, as their records say" % len(topics))
    return 0


if __name__ == "__main__":
    sys.exit(main())
