"""What huge pages gain and cost: OBMALLOC_THP=never against always, in pairs.

    bench/huge_pages.py [--count 5]

The system's own setting has to allow them (madvise or always); if it does not, this
says so, and measures nothing.
"""

import json
import statistics
import sys

import hosts
import pairs

SETTING = "/sys/kernel/mm/transparent_hugepage/enabled"


def sides(host):
    plain = dict(hosts.clean_environment(), LD_PRELOAD=hosts.LIBRARY)
    return [([host.path, hosts.program("large_heap")], dict(plain, OBMALLOC_THP=rule))
            for rule in ("never", "always")]


def main():
    parser = hosts.parser(__doc__, "3.11")
    parser.add_argument("--count", type=int, default=5, help="pairs (%(default)s)")
    options = parser.parse_args()
    pairs.reproduce()
    try:
        with open(SETTING) as setting:
            allowed = "[never]" not in setting.read()
    except OSError:
        allowed = False
    if not allowed:
        print("skip: this system has no huge pages for programs")
        return 0
    hosts.library(options.library)
    bad = []
    for host in hosts.choose(options.interpreters):
        runs = pairs.alternate(sides(host), options.count)
        answers = [[json.loads(run.out) for run in pair] for pair in runs]
        rows = []
        for key in answers[0][0]:
            never, always = ([pair[side][key] for pair in answers] for side in (0, 1))
            ratio = [b / a for a, b in zip(never, always)] if min(never) > 0 else None
            rows.append([key, "%.3f" % statistics.median(never),
                         "%.3f" % statistics.median(always),
                         *(pairs.spread(ratio) if ratio else ("", ""))])
        pairs.table([host.name, "never", "always", "ratio", "least..greatest"], rows)
        if not all(pair[1]["huge"] > 100 > pair[0]["huge"] for pair in answers):
            bad.append("%s: the setting did not decide about huge pages" % host.name)
        if not all(pair[1]["idle"] < pair[0]["idle"] + 10 for pair in answers):
            bad.append("%s: with huge pages, memory does not go back" % host.name)
    return hosts.finish(bad, "huge pages came when asked for, and went back")


if __name__ == "__main__":
    sys.exit(main())
