"""The first thing to see after building: a Python program without and with obmalloc.

Takes the python3 on PATH when the library serves it, else the newest interpreter found
here that it does serve; runs bench/programs/read_stdlib.py in turns, stock and
preloaded, and shows that the result is the same and what each needed. Then some of the
statistics that the library writes at exit (OBMALLOC_STATS). Takes some ten seconds.
"""

import json
import os
import sys
import tempfile

import hosts
import interpreters
import pairs

ROWS = (("wall seconds", "wall", "%.3f", 1), ("CPU seconds", "cpu", "%.3f", 1),
        ("peak RSS, MiB", "rss", "%.1f", 1024), ("page faults", "faults", "%d", 1))


def find(path):
    """(Host, the library's status line): of a path, of python3 on PATH, or any other."""
    wanted = hosts.ask(path or "python3")
    if wanted and wanted.cpython:
        line = hosts.active(wanted)
        if line:
            return wanted, line
    if path:
        hosts.stop("the library is not active in that interpreter; OBMALLOC_VERBOSE=1 says why")
    print("the python3 on PATH is none that the library serves; looking for another")
    found, _ = interpreters.find("all", [], hosts.clean_environment())
    for one in reversed([one for one in found if one.order[0] == 3]):
        host = hosts.ask(one.path)
        line = host and hosts.active(host)
        if line:
            return host, line
    hosts.stop("no interpreter found in which the library is active (CPython 3.6 to 3.13)")


def statistics_of(host, command):
    """What the library writes at the exit of a run of its own, as read from its JSON."""
    with tempfile.TemporaryDirectory(prefix="obmalloc-first-run-") as folder:
        path = os.path.join(folder, "stats-%p.json")
        _, preloaded = hosts.sides(host, command, OBMALLOC_STATS=path)
        try:
            pairs.alternate([preloaded], 1)
        except pairs.Failed as problem:
            hosts.stop(str(problem))
        written = os.listdir(folder)
        if len(written) != 1:
            hosts.stop("no statistics were written")
        with open(os.path.join(folder, written[0]), encoding="utf-8") as stream:
            return json.load(stream)


def show_statistics(told):
    arenas, pools, amount = told["arenas"], told["pools"], told["bytes"]
    mib = 1024.0 * 1024
    print("at its exit, from OBMALLOC_STATS:")
    print("  arenas        %d of %.0f MiB in use, %d at most, %d given back to the OS"
          % (arenas["in_use"], arenas["size"] / mib, arenas["highwater"],
             arenas["unmapped_total"]))
    print("  pools         %d of %d KiB used, %d free"
          % (pools["used"], pools["size"] / 1024, pools["free"]))
    print("  bytes         %.1f MiB of address space from the OS, %.1f MiB in live blocks"
          % (amount["from_os"] / mib, amount["live"] / mib))
    largest = sorted(told["classes"], key=lambda one: -one["blocks_live"] * one["size"])[:4]
    print("  live blocks   %s" % ", ".join("%d of %d bytes" % (one["blocks_live"], one["size"])
                                           for one in largest))
    print("  larger        %d requests went to the C library below"
          % told["large"]["served_below_total"])


def main():
    parser = hosts.parser(__doc__)
    parser.add_argument("--python", metavar="PATH", help="this interpreter and no other")
    parser.add_argument("--count", type=int, default=3, help="pairs of runs (%(default)s)")
    options = parser.parse_args()
    pairs.reproduce()
    hosts.library(options.library)
    host, line = find(options.python)
    print("%s (libpython %s)" % (line, "shared" if host.shared else "inside the executable"))
    command = [hosts.program("read_stdlib")]
    told = statistics_of(host, command)
    runs = hosts.compare(host, command, options.count)
    results = sorted({run.out.strip() for pair in runs for run in pair})
    if len(results) != 1:
        hosts.stop("the results differ: %s" % " | ".join(results))
    print("the program reads the standard library's source; its result, the same both ways:")
    print("  " + results[0])
    rows = []
    for name, key, form, unit in ROWS:
        rows.append([name, form % (pairs.median(runs, key, 0) / unit),
                     form % (pairs.median(runs, key, 1) / unit)]
                    + list(pairs.spread(pairs.ratios(runs, key), "%.2f")))
    pairs.table(["medians of %d pairs" % options.count, "stock", "obmalloc", "ratio",
                 "least..greatest"], rows)
    show_statistics(told)
    return hosts.finish([], "the same result with the library and without")


if __name__ == "__main__":
    sys.exit(main())
