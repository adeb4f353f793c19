"""Lists, buffers, strings and dicts that grow in small steps: stock against obmalloc.

Every case runs in processes of its own, stock and with the library in turn, and takes
its own processor time from inside (bench/programs/growing.py); it also compares what
has grown with the same thing made in one step. Wrong once is a failure. The ratios
are shown with their least and greatest, and beside them the ratio of the best run of
each side, which a busy machine disturbs least. They fail nothing without --limit.

    bench/growth.py             everything, about two minutes
    bench/growth.py --quick     a few steps of each, once: a test of the answers
"""

import json
import subprocess
import sys

import hosts
import pairs

QUICK = 0.02    # of the repeats


def cases(host):
    command = [host.path, hosts.program("growing")]
    result = subprocess.run(command, env=hosts.clean_environment(), check=True,
                            stdout=subprocess.PIPE)
    return json.loads(result.stdout.decode())


def measure(host, case, count, share):
    """(seconds stock, seconds obmalloc) of the pairs, and whether every answer is right."""
    runs = hosts.compare(host, [hosts.program("growing"), case, str(share)], count)
    answers = [[json.loads(run.out) for run in pair] for pair in runs]
    right = all(answer["right"] for pair in answers for answer in pair)
    return [tuple(answer["seconds"] for answer in pair) for pair in answers], right


def row(case, seconds):
    stock, ours = (sorted(side)[len(side) // 2] for side in zip(*seconds))
    ratios = [b / a for a, b in seconds]
    best = min(ours for _, ours in seconds) / min(stock for stock, _ in seconds)
    return ([case, "%.1f" % (stock * 1e3), "%.1f" % (ours * 1e3)] + list(pairs.spread(ratios))
            + ["%.3f" % best])


def main():
    parser = hosts.parser(__doc__, "3.11,3.13,distribution")
    parser.add_argument("--count", type=int, default=7, help="pairs (%(default)s)")
    parser.add_argument("--only", metavar="TEXT", default="", help="cases with this in the name")
    parser.add_argument("--quick", action="store_true", help="check the answers, few steps")
    parser.add_argument("--limit", type=float, help="fail if a median ratio is above this")
    options = parser.parse_args()
    pairs.reproduce()
    hosts.library(options.library)
    count, share = (1, QUICK) if options.quick else (options.count, 1)
    bad = []
    for host in hosts.choose(options.interpreters):
        rows = []
        for case in cases(host):
            if options.only not in case:
                continue
            seconds, right = measure(host, case, count, share)
            rows.append(row(case, seconds))
            if not right:
                bad.append("%s, %s: not what it should have grown to" % (host.name, case))
            if options.limit and float(rows[-1][3]) > options.limit:
                bad.append("%s, %s: ratio %s" % (host.name, case, rows[-1][3]))
        if options.quick:
            print("%s: %d cases" % (host.name, len(rows)), flush=True)
        else:
            pairs.table(["%s, CPU ms of %d pairs" % (host.name, count), "stock", "obmalloc",
                         "ratio", "least..greatest", "of the best"], rows)
    return hosts.finish(bad, "everything has grown to what it should be")


if __name__ == "__main__":
    sys.exit(main())
