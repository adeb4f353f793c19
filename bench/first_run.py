"""`make run`: a Python program without and with obmalloc.

Takes the python3 on PATH if the library serves it, else the newest interpreter that it serves;
runs bench/programs/read_stdlib.py in turns, stock and preloaded, and prints the result, which
is the same, with time and memory. Then some of the statistics that the library writes at exit
(OBMALLOC_STATS). Takes about ten seconds.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile

import hosts
import measure

ROWS = (("wall seconds", "wall", "%.3f", 1), ("CPU seconds", "cpu", "%.3f", 1),
        ("peak RSS, MiB", "peak", "%.1f", 1 << 20), ("page faults", "faults", "%d", 1))


def real_python3():
    """The interpreter behind the python3 on PATH, which may be a shim."""
    done = subprocess.run(["python3", "-c", "import sys; print(sys.executable)"], text=True,
                          stdout=subprocess.PIPE, check=True)
    return done.stdout.strip()


def find(path):
    """(interpreter, the library's status line): of a path, of python3 on PATH, or any other."""
    wanted = hosts.interpreters.probe(path or real_python3())
    line = wanted and hosts.active(wanted)
    if line:
        return wanted, line
    if path:
        hosts.stop("the library is not active in it; OBMALLOC_VERBOSE=1 prints the reason")
    print("the library does not serve the python3 on PATH; looking for another one")
    for python in reversed(hosts.interpreters.find()):
        line = python.numbers[0] == 3 and hosts.active(python)
        if line:
            return python, line
    hosts.stop("no interpreter found in which the library is active")


def statistics_of(command, environment):
    """The JSON that the library writes at the exit of a run of its own."""
    with tempfile.TemporaryDirectory(prefix="obmalloc-first-run-") as folder:
        path = os.path.join(folder, "stats-%p.json")
        measure.run(command, dict(environment, OBMALLOC_STATS=path))
        written = os.listdir(folder)
        if len(written) != 1:
            hosts.stop("no statistics were written")
        with open(os.path.join(folder, written[0]), encoding="utf-8") as stream:
            return json.load(stream)


def show_statistics(stats):
    arenas, pools, amount = stats["arenas"], stats["pools"], stats["bytes"]
    mib = 1024.0 * 1024
    print("at exit, from OBMALLOC_STATS:")
    print("  arenas        %d of %.0f MiB in use, %d at most, %d returned to the OS"
          % (arenas["in_use"], arenas["size"] / mib, arenas["highwater"],
             arenas["unmapped_total"]))
    print("  pools         %d of %d KiB used, %d free"
          % (pools["used"], pools["size"] / 1024, pools["free"]))
    print("  bytes         %.1f MiB of address space from the OS, %.1f MiB in live blocks"
          % (amount["from_os"] / mib, amount["live"] / mib))
    largest = sorted(stats["classes"], key=lambda one: -one["blocks_live"] * one["size"])[:4]
    print("  live blocks   %s" % ", ".join("%d of %d bytes" % (one["blocks_live"], one["size"])
                                           for one in largest))
    print("  larger        %d requests went to the C library"
          % stats["large"]["served_below_total"])


def main():
    parser = hosts.parser(__doc__)
    parser.add_argument("--python", metavar="PATH", help="this interpreter and no other")
    parser.add_argument("--count", type=int, default=3, help="runs of each (%(default)s)")
    options = parser.parse_args()
    library = hosts.library(options.library)
    python, line = find(options.python)
    print("%s (libpython %s)" % (line, "shared" if python.shared else "inside the executable"))
    command, stock = [python.path, hosts.program("read_stdlib")], hosts.clean_environment()
    preloaded = dict(stock, LD_PRELOAD=library)
    try:
        printed = statistics_of(command, preloaded)
        runs = [[measure.run(command, environment) for environment in (stock, preloaded)]
                for _ in range(options.count)]
    except measure.Failed as problem:
        hosts.stop(str(problem))
    results = sorted({run.out.strip() for pair in runs for run in pair})
    if len(results) != 1:
        hosts.stop("the results differ: %s" % " | ".join(results))
    print("the program reads the standard library's source; its result on both sides:")
    print("  " + results[0])
    rows = []
    for name, key, form, unit in ROWS:
        sides = [[getattr(run, key) / unit for run in side] for side in zip(*runs)]
        ratios = [ours / stock for stock, ours in zip(*sides)]
        rows.append([name] + [form % statistics.median(side) for side in sides]
                    + ["%.2f" % statistics.median(ratios), "%.2f..%.2f" % (min(ratios),
                                                                           max(ratios))])
    hosts.table(["medians of %d pairs" % options.count, "stock", "obmalloc", "ratio",
                 "least..greatest"], rows)
    show_statistics(printed)
    return hosts.finish([], "the same result with the library and without")


if __name__ == "__main__":
    sys.exit(main())
