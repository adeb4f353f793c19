"""How much memory and start-up time the library costs: stock against obmalloc.

(a) `python -c pass`: the peak of the resident memory and the wall time of a process
    that hardly allocates, which is what the library costs everybody.
(b) 300 000 small objects of mixed sizes, none of them ever freed: nothing can be
    reused, so a difference here is the overhead of the layout.

Medians of the differences of pairs of runs. Memory fails above its limits; the wall
time of (a) is noisy on a busy machine, and fails only with --strict. With --isolated
(a) runs `python -I -S -c pass`, without what the site-packages of an interpreter do at
its start; --record writes bench/records/DATE-footprint.json.
"""

import statistics
import sys

import hosts
import pairs
import record

PASS_KIB = 300
PASS_MS = 1.0
KEEP_KIB = 1024
KEEP_COUNT = 300000


def row(name, runs, limit):
    """A line of the table for resident memory in KiB, and the median difference."""
    differences = pairs.differences(runs, "rss")
    middle, span = pairs.spread(differences, "%+d")
    return [name, "%d" % pairs.median(runs, "rss", 0), "%d" % pairs.median(runs, "rss", 1),
            middle, span, "%d" % limit], statistics.median(differences)


def measure(host, options):
    """Prints the table of an interpreter; returns (rows of the record, complaints)."""
    alone = ["-I", "-S"] if options.isolated else []
    starts = hosts.compare(host, alone + ["-c", "pass"], options.runs)
    keeps = hosts.compare(host, [hosts.program("keep_all"), str(KEEP_COUNT)], options.kept_runs)
    first, start_kib = row("python %s" % " ".join(alone + ["-c", "pass"]), starts, PASS_KIB)
    second, keep_kib = row("%d objects kept" % KEEP_COUNT, keeps, KEEP_KIB)
    pairs.table([host.name + ", peak RSS in KiB", "stock", "obmalloc", "more", "least..greatest",
                 "limit"], [first, second])
    milliseconds = [1000 * difference for difference in pairs.differences(starts, "wall")]
    middle, span = pairs.spread(milliseconds, "%+.2f")
    print("  start and end of the process: stock %.2f ms, %s ms more (%s), limit %.1f ms"
          % (1000 * pairs.median(starts, "wall", 0), middle, span, PASS_MS), flush=True)
    complaints = []
    if start_kib > PASS_KIB:
        complaints.append("pass needs %d KiB more" % start_kib)
    if keep_kib > KEEP_KIB:
        complaints.append("the objects kept need %d KiB more" % keep_kib)
    if options.strict and statistics.median(milliseconds) > PASS_MS:
        complaints.append("pass takes %s ms more" % middle)
    if any(a.out != b.out for a, b in keeps):
        complaints.append("the objects kept are not the same")
    rows = [{"interpreter": host.name, "what": what, "more_kib": more,
             "stock_kib": pairs.median(runs, "rss", 0),
             "differences": pairs.differences(runs, "rss")}
            for what, more, runs in (("pass", start_kib, starts), ("kept", keep_kib, keeps))]
    return rows, ["%s: %s" % (host.name, complaint) for complaint in complaints]


def main():
    parser = hosts.parser(__doc__, "3.11,newest,distribution")
    parser.add_argument("--runs", type=int, default=21, help="pairs of (a) (%(default)s)")
    parser.add_argument("--kept-runs", type=int, default=5, help="pairs of (b) (%(default)s)")
    parser.add_argument("--strict", action="store_true", help="fail on wall time as well")
    parser.add_argument("--isolated", action="store_true", help="(a) with -I -S")
    parser.add_argument("--record", action="store_true", help="write a record of the results")
    options = parser.parse_args()
    pairs.reproduce()
    hosts.library(options.library)
    recorded, complaints = [], []
    for host in hosts.choose(options.interpreters):
        rows, found = measure(host, options)
        recorded += rows
        complaints += found
    if options.record:    # beyond a limit, too: the table is of what was measured
        print("recorded in %s" % record.write("footprint", recorded))
    return hosts.finish(complaints, "within the limits")


if __name__ == "__main__":
    sys.exit(main())
