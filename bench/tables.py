#!/usr/bin/env python3
"""Writes the tables of figures in docs/ and README.md from the results in bench/results.

A table is between two comments of a page,

    <!-- figures: NAME -->
    <!-- end of figures -->

and the line above it names the benchmark, the date and the commit of the result. The table
`headline` of README.md has some rows of several results.

    bench/tables.py             writes the tables
    bench/tables.py --check     fails if one is not what its result says
"""

import argparse
import math
import os
import re
import statistics
import sys

import hosts
import results
import suite

PAGES = ("docs/figures.md", "docs/complaints.md", "docs/command.md", "docs/metrics.md",
         "README.md")
MARKED = re.compile(r"(<!-- figures: (\w+) -->\n)(.*?)(<!-- end of figures -->)", re.S)
ALLOCATORS = ("obmalloc", "mimalloc", "jemalloc", "tcmalloc", "glibc", "stock")
MIB = 1 << 20


def table(heading, rows):
    """A table; the first column is text, the others are numbers."""
    rule = ["---"] + ["---:"] * (len(heading) - 1)
    return ["| %s |" % " | ".join(str(cell) for cell in line) for line in [heading, rule] + rows]


def median(rows, name):
    return statistics.median(rows[name].values) if name in rows else None


def pairs(sides, side, name):
    """A row by stock's: the median of the ratios of the rounds."""
    if side not in sides or name not in sides[side] or name not in sides["stock"]:
        return None
    return statistics.median(a / b for a, b in zip(sides[side][name].values,
                                                   sides["stock"][name].values))


def shown(number, form):
    return "" if number is None else form % number


def with_packed(place, name, form):
    """"a (b)": obmalloc by stock, and with OBMALLOC_ALIGN=8."""
    packed = shown(pairs(place, "packed", name), " (%s)" % form)
    return shown(pairs(place, "obmalloc", name), form) + packed


def mean(values):
    """The geometric mean."""
    values = list(values)
    return math.exp(statistics.fmean(map(math.log, values))) if values else None


# ---- a function for each table: {place: {side: {name: Row}}} -> lines ----

def instructions(places):
    names = list(next(iter(places.values()))["stock"])
    lines = [["`%s.py`" % name] + ["%.4f" % pairs(place, "obmalloc", name)
                                   for place in places.values()] for name in names]
    sums = ["%.4f" % (sum(row.values[0] for row in place["obmalloc"].values())
                      / sum(row.values[0] for row in place["stock"].values()))
            for place in places.values()]
    return table(["program in `bench/programs/`"] + list(places), lines + [["sum"] + sums])


def footprint(places):
    titles = {"pass, peak": "`python -c pass`", "kept, peak": "300 000 objects, all kept"}
    return table(["peak RSS, KiB more than stock"] + list(places), [
        [title] + ["%d" % statistics.median(
            (a - b) / 1024 for a, b in zip(place["obmalloc"][name].values,
                                           place["stock"][name].values))
                   for place in places.values()] for name, title in titles.items()])


def c_level_instructions(places):
    sides = places["C"]
    names = [name for name in ALLOCATORS if name in sides]
    return table(["a malloc and its free"] + names, [
        [row] + [shown(median(sides[side], row), "%.1f") for side in names]
        for row in sides["obmalloc"]])


def c_level(places):
    sides, lines = places["C"], []
    peers = [name for name in ALLOCATORS[1:-1] if name in sides]
    for row in sides["obmalloc"]:
        if row.endswith((", CPU", ", peak")):
            continue
        best = min(peers, key=lambda side: median(sides[side], row))
        ratio = statistics.median(a / b for a, b in zip(sides["obmalloc"][row].values,
                                                        sides[best][row].values))
        lines.append([row] + ["%.1f" % (1e9 * median(sides[side], row))
                              for side in ["obmalloc"] + peers] + ["%.2f" % ratio, best])
    return table(["ns for each", "obmalloc"] + peers + ["ratio", "to the best"], lines)


def heaps(places):
    return table(["packed in brackets"] + list(places), [
        [name] + [with_packed(place, name, "%.2f") for place in places.values()]
        for name in next(iter(places.values()))["obmalloc"]])


def survivors(places):
    titles = {"drop everything": "all dropped", "survivors 0.1 %": "a random 0.1 % kept",
              "survivors 1 %": "a random 1 % kept", "survivors 10 %": "a random 10 % kept",
              "survivors in rows": "20 consecutive objects of every 2000 kept"}
    (sides,), lines = places.values(), []
    for program, title in titles.items():
        lines.append([title] + ["%.1f" % (median(sides[side], program + ", idle") / MIB)
                                for side in ("stock", "obmalloc")]
                     + [shown(median(sides["obmalloc"], program + ", touched"), "%.0f")
                        if program + ", touched" not in sides["obmalloc"] else
                        "%.0f" % (median(sides["obmalloc"], program + ", touched") / MIB)])
    return table(["MiB resident two seconds later", "stock", "obmalloc",
                  "pages that contain survivors"], lines)


def forked(places):
    titles = {"prefork 0 %": "nothing dropped", "prefork 10 %": "a random 10 % dropped",
              "prefork 30 %": "a random 30 % dropped"}
    (sides,) = places.values()
    return table(["MiB that become private to the child", "stock", "obmalloc"], [
        [title] + ["%.1f" % (median(sides[side], program + ", grown") / MIB)
                   for side in ("stock", "obmalloc")] for program, title in titles.items()])


def install_time(places):
    (routes,), lines, sums = places.values(), [], []
    for route in ("wheel", "install"):
        lines += [[step, "%.2f" % row.values[0]] for step, row in routes[route].items()]
        sums.append(["*%s, in all*" % route,
                     "%.2f" % sum(row.values[0] for row in routes[route].values())])
    return table(["", "seconds"], lines + sums)


def stats_page_cost(places):
    lines = []
    for name, sides in places.items():
        watched = sides["watched"]
        ratios = [a / b for a, b in zip(watched["work"].values, sides["unwatched"]["work"].values)]
        each = statistics.median(watched["each answer"].values)
        lines.append([name, "%d" % sum(watched["answers"].values), "%.0f" % (each * 1e6),
                      "%.4f" % (each * 100), "%.3f (%.3f..%.3f)" % (
                          statistics.median(ratios), min(ratios), max(ratios))])
    return table(["", "answers", "µs for each", "at one a second, per cent of a processor",
                  "the program's own work, watched by unwatched"], lines)


def by_side(sides, side, base, name):
    """A row by another side's: the median of the ratios of the rounds."""
    return statistics.median(a / b for a, b in zip(sides[side][name].values,
                                                   sides[base][name].values))


def instructions_profile(places):
    places = {name: place for name, place in places.items() if "profile" in place}
    names = list(next(iter(places.values()))["profile"])
    sums = ["%.4f" % (sum(row.values[0] for row in place["profile"].values())
                      / sum(row.values[0] for row in place["obmalloc"].values()))
            for place in places.values()]
    return table(["profile on by off"] + list(places), [
        ["`%s.py`" % name] + ["%.4f" % by_side(place, "profile", "obmalloc", name)
                              for place in places.values()] for name in names]
        + [["sum"] + sums])


def profile(places):
    (sides,) = places.values()
    titles = {"stock": "no tool", "obmalloc": "obmalloc, profile off",
              "profile": "obmalloc, profile on", "memray": "memray",
              "memray objects": "memray `--trace-python-allocators`",
              "tracemalloc": "tracemalloc, 1 frame", "tracemalloc 10": "tracemalloc, 10 frames",
              "jemalloc prof": "jemalloc `prof:true`",
              "mimalloc profile": "mimalloc `MIMALLOC_PROFILE`"}
    names = [name[:-5] for name in sides["stock"] if name.endswith(", CPU")]
    lines = []
    for side in filter(sides.get, titles):
        ratios = {kind: [by_side(sides, side, "stock", "%s, %s" % (name, kind)) for name in names]
                  for kind in ("CPU", "wall")}
        more = [statistics.median((a - b) / MIB for a, b in zip(
            sides[side][name + ", peak"].values, sides["stock"][name + ", peak"].values))
                for name in names]
        lines.append([titles[side], "%.2f" % mean(ratios["CPU"]), "%.2f" % max(ratios["CPU"]),
                      "%.2f" % mean(ratios["wall"]), "%.1f" % max(more)])
    return table(["%d programs" % len(names), "CPU time, mean", "largest", "wall time, mean",
                  "MiB more at the peak, largest"], lines)


def error_of_mean(place, names, kind):
    """The standard error of a mean of medians of ratios."""
    errors = []
    for name in names:
        ratios = [a / b for a, b in zip(place["profile"][name + kind].values,
                                        place["obmalloc"][name + kind].values)]
        # A median's is sqrt(pi / 2) times a mean's.
        errors.append(1.2533 * statistics.stdev(ratios) / math.sqrt(len(ratios)))
    return math.hypot(*errors) / len(errors)


def profile_suite(places):
    names = [name[:-5] for name in next(iter(places.values()))["obmalloc"]
             if name.endswith(", CPU")]

    def cells(form, kind):
        return [form([by_side(place, "profile", "obmalloc", name + kind) for name in names])
                for place in places.values()]

    lines = [["`%s`" % name] + ["%.3f" % by_side(place, "profile", "obmalloc", name + ", CPU")
                                for place in places.values()] for name in names]
    for title, kind in (("CPU time, geometric mean", ", CPU"), ("wall time, geometric mean",
                        ", wall"), ("peak RSS, geometric mean", ", peak")):
        lines.append([title] + ["%.3f" % value for value in cells(mean, kind)])
        if kind == ", CPU":
            lines.append(["its standard error"] + ["%.3f" % error_of_mean(place, names, kind)
                                                   for place in places.values()])
    return table(["profile on by off"] + list(places), lines)


def profile_total(places):
    (sides,), lines = places.values(), []
    for side, title in (("512K", "512K"), ("64K", "64K"),
                        ("64K in 8M", "64K, `OBMALLOC_PROFILE_MEMORY=8M`")):
        rows = sides[side]
        errors = [100 * (a / b - 1) for a, b in zip(rows["1 GiB, estimated"].values,
                                                    rows["1 GiB, counted"].values)]
        tables = "started " + side
        lines.append([title, "%.0f" % median(rows, "1 GiB, samples"),
                      "%+.1f" % statistics.fmean(errors), "%.1f" % statistics.stdev(errors),
                      "%.1f" % max(map(abs, errors)),
                      shown(tables in sides and median(sides[tables], "1 GiB, tables") / 1024
                            or None, "%.0f")])
    return table(["mean", "samples", "error, mean, %", "standard deviation, %", "largest, %",
                  "KiB of tables"], lines)


def of_suite(place, side, groups, peak=False):
    return mean(pairs(place, side, name) for name, row in place["stock"].items()
                if name.endswith(", peak") == peak and suite.group(name.split(",")[0]) in groups
                and name in place[side])


SUITE_ROWS = (("async_tree", ("async_tree",)), ("others that allocate", ("others that allocate",)),
              ("all that allocate", ("async_tree", "others that allocate")),
              ("controls", ("controls",)))


def suite_table(places):
    def both(place, groups, peak=False):
        packed = of_suite(place, "packed", groups, peak) if "packed" in place else None
        return (shown(of_suite(place, "obmalloc", groups, peak), "%.3f")
                + shown(packed, " (%.3f)"))

    def count(groups):
        return len({name for place in places.values() for name in place["stock"]
                    if not name.endswith(", peak") and suite.group(name) in groups})

    lines = [["%s, of %d" % (title, count(groups))] + [both(place, groups)
                                                       for place in places.values()]
             for title, groups in SUITE_ROWS]
    every = ("async_tree", "others that allocate", "controls")
    lines.append(["peak RSS, of all"] + [both(place, every, True) for place in places.values()])
    if any("mimalloc" in place for place in places.values()):
        lines.append(["`PYTHONMALLOC=mimalloc`, all that allocate"] + [
            shown(of_suite(place, "mimalloc", SUITE_ROWS[2][1]), "%.3f")
            if "mimalloc" in place else "" for place in places.values()])
    return table(["packed in brackets"] + list(places), lines)


def headline():
    """Some rows of the other tables, for each interpreter that all of them have."""
    def cells(name, title):
        lines = TABLES[name][1](newest(name)[1])
        found = next(line for line in lines[2:] if line.startswith("| %s" % title))
        names, values = ([cell.strip() for cell in line.strip("| ").split(" | ")]
                         for line in (lines[0], found))
        # The number in brackets is of another setting.
        return {place: re.sub(r" \(.*\)", "", value) for place, value in zip(names[1:], values[1:])}

    rows = [("instructions of six small programs", cells("instructions", "sum")),
            ("time of pyperformance's benchmarks that allocate", cells("suite", "all that")),
            ("peak memory of all its benchmarks", cells("suite", "peak RSS")),
            ("time of peaks that come and go", cells("heaps", "bursts, rounds")),
            ("time to free a large heap", cells("heaps", "dicts, free")),
            ("time of objects that one thread allocates and another frees",
             cells("heaps", "handover, handover")),
            ("`python -c pass`: KiB more at its peak", cells("footprint", "`python -c pass`"))]
    places = [place for place in rows[0][1] if all(place in values for _, values in rows)]
    return table(["obmalloc by stock"] + places,
                 [[title] + [values[place] for place in places] for title, values in rows])


# The name in a page: (the benchmark whose result it shows, the function).
TABLES = {"instructions": ("instructions", instructions), "footprint": ("footprint", footprint),
          "c_level": ("c_level", c_level), "heaps": ("heaps", heaps),
          "c_level_instructions": ("c_level_instructions", c_level_instructions),
          "suite": ("suite", suite_table), "survivors": ("memory", survivors),
          "forked": ("memory", forked), "install_time": ("install_time", install_time),
          "stats_page_cost": ("stats_page_cost", stats_page_cost),
          "instructions_profile": ("instructions", instructions_profile),
          "profile": ("profile", profile), "profile_suite": ("profile_suite", profile_suite),
          "profile_total": ("profile_total", profile_total)}


def newest(name):
    found = results.newest(TABLES[name][0])
    if found is None:
        sys.exit("bench/results has no result of %s" % TABLES[name][0])
    about, places = found
    # Shared builds first, by version.
    return about, dict(sorted(places.items(), key=lambda item: (
        "static" in item[0], [int(part) for part in re.findall(r"\d+", item[0])])))


def made(name):
    """The lines between the comments of a table."""
    if name == "headline":
        return "\n".join(headline()) + "\n"
    if name not in TABLES:
        sys.exit("no table is called %s" % name)
    about, places = newest(name)
    head = "`make bench BENCH=%s`, %s, commit %s:" % (
        TABLES[name][0], about["date"].split()[0], about["commit"])
    return "\n".join([head, ""] + TABLES[name][1](places)) + "\n"


def brought_up(page, write):
    """Writes or checks the tables of a page; (their number, those that differed before)."""
    path = os.path.join(hosts.ROOT, page)
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
        sys.exit("stale tables: %s (run bench/tables.py)" % ", ".join(stale))
    print("ok: %d tables, as their results say" % sum(counts))
    return 0


if __name__ == "__main__":
    sys.exit(main())
