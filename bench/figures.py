"""The tables of figures in docs/figures.md and the README, made from the newest record of
each topic.

A table stands in a page between two comments,

    <!-- figures: TOPIC -->
    <!-- end of figures -->

and this program writes what is between them, from bench/records/DATE-TOPIC.json.

    bench/figures.py            writes the tables
    bench/figures.py --check    fails if one is not what its record says

Which command made a record, on which machine and of which commit, stands in the record;
the line above each table names them. The README's table, `headline`, is of some rows of
several records.
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

PAGES = ("docs/figures.md", "docs/complaints.md", "docs/command.md",
         "docs/metrics.md", "README.md")
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


def mib(rows, pattern, key):
    """Of stock and us, what a pattern has of something, in MiB."""
    return ["%.1f" % (one(rows, pattern=pattern, side=side)[key] / 1024)
            for side in ("stock", "us")]


def survivors(rows):
    stay = {"drop everything": "all dropped", "survivors 0.1 %": "a random 0.1 % stays",
            "survivors 1 %": "a random 1 % stays", "survivors 10 %": "a random 10 % stays",
            "survivors in rows": "of each 2000 in a row 20 stay"}
    lines = []
    for pattern, title in stay.items():
        touched = one(rows, pattern=pattern, side="us").get("touched")
        lines.append([title] + mib(rows, pattern, "idle")
                     + ["%.0f" % (touched / 1024) if touched else ""])
    return table(["MiB resident two seconds later", "stock", "obmalloc",
                  "pages that the survivors lie on"], lines)


def forked(rows):
    drop = {"prefork 0 %": "nothing dropped", "prefork 10 %": "a random 10 % dropped",
            "prefork 30 %": "a random 30 % dropped"}
    return table(["MiB that become the child's own", "stock", "obmalloc"],
                 [[title] + mib(rows, pattern, "grown") for pattern, title in drop.items()])


def first_minute(rows):
    sums = [["*%s, in all*" % route, "%.2f" % sum(row["seconds"] for row in only(rows, route=route))]
            for route in order(rows, "route")]
    return table(["", "seconds"],
                 [[row["step"], "%.2f" % row["seconds"]] for row in rows] + sums)


def watched(rows):
    return table(["", "looks", "µs for each", "at one a second, per cent of a processor",
                  "the program's own work, by that of one that nobody watches"],
                 [[row["interpreter"], row["looks"], "%.0f" % row["us"], "%.4f" % (row["us"] / 1e4),
                   "%s (%s)" % pairs.spread(row["ratios"])] for row in rows])


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


def headline():
    """Some rows of the other tables, for each interpreter that all of them have."""
    def cells(topic, title):
        found = next(line for line in TOPICS[topic](newest(topic)["rows"])[2:]
                     if line.startswith("| %s" % title))
        heading = TOPICS[topic](newest(topic)["rows"])[0]
        hosts, values = ([cell.strip() for cell in line.strip("| ").split(" | ")]
                         for line in (heading, found))
        # Packed is another setting: it stands in the other table only.
        return {host: re.sub(r" \(.*\)", "", value) for host, value in zip(hosts[1:], values[1:])}

    rows = [("instructions of six small programs", cells("instructions", "sum")),
            ("time of pyperformance's benchmarks that allocate", cells("suite", "all that allocate")),
            ("peak memory of all its benchmarks", cells("suite", "peak RSS")),
            ("time of peaks that come and go", cells("heaps", "bursts, rounds")),
            ("time to free a large heap", cells("heaps", "dicts, free")),
            ("time of objects that one thread makes, another frees", cells("heaps", "handover, handover")),
            ("`python -c pass`: KiB more at its peak", cells("footprint", "`python -c pass`"))]
    hosts = [host for host in rows[0][1] if all(host in values for _, values in rows)]
    return table(["obmalloc by stock"] + hosts,
                 [[title] + [values[host] for host in hosts] for title, values in rows])


TOPICS = {function.__name__: function for function in (
    instructions, footprint, c_level_instructions, c_level, heaps, suite, survivors, forked,
    first_minute, watched)}
RECORDS = {"survivors": "memory", "forked": "memory"}   # where it is not the topic's own


def newest(topic):
    found = record.newest(RECORDS.get(topic, topic))
    if found is None:
        sys.exit("no record of %s in bench/records" % topic)
    return found


def made(topic):
    """What stands between the comments of a topic."""
    if topic == "headline":
        return "\n".join(headline()) + "\n"
    if topic not in TOPICS:
        sys.exit("no figures are called %s" % topic)
    found = newest(topic)
    head = "`%s`, %s, commit %s:" % (re.sub("^python3 ", "", found["command"]), found["date"],
                                     found["commit"])
    return "\n".join([head, ""] + TOPICS[topic](found["rows"])) + "\n"


def brought_up(page, write):
    """Writes the tables of a page, or looks at them. How many there are, and which were
    something else before."""
    path = os.path.join(pairs.ROOT, page)
    with open(path, encoding="utf-8") as stream:
        before = stream.read()
    after, count = MARKED.subn(lambda match: match[1] + made(match[2]) + match[4], before)
    if not count:
        sys.exit("%s has no tables of figures" % page)
    if write:
        with open(path, "w", encoding="utf-8") as stream:
            stream.write(after)
    return count, ["%s: %s" % (page, old[2]) for old, new in
                   zip(MARKED.finditer(before), MARKED.finditer(after)) if old[3] != new[3]]


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing")
    options = parser.parse_args()
    counts, stale = zip(*(brought_up(page, not options.check) for page in PAGES))
    stale = sum(stale, [])
    if options.check and stale:
        sys.exit("stale figures: %s (make figures)" % ", ".join(stale))
    print("ok: %d tables, as their records say" % sum(counts))
    return 0


if __name__ == "__main__":
    sys.exit(main())
