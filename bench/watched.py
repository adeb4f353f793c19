"""What `obmalloc top` costs the program that it watches.

A program with a heap of some 100 MiB builds and drops objects for a while and takes its
own processor time (`work`). It runs with OBMALLOC_LIVE=1, in turn with nobody looking and
with `obmalloc top --interval 0.05`, twenty looks for each of the default's: the ratio
of pairs. And exactly: the kernel's count of what the thread that answers has run, by the
number of its answers.

    bench/watched.py [--interpreters 3.11] [--count 9] [--interval 0.05] [--record]
"""

import os
import statistics
import subprocess
import sys

import hosts
import pairs
import record

PROGRAM = """
import sys, time
kept = [{n: [n] * 3} for n in range(400000)]
print("ready", flush=True)
sys.stdin.readline()
begin = time.thread_time()
for turn in range(600):
    some = [{n: str(n)} for n in range(20000)]
    del some[::2]
print(time.thread_time() - begin, flush=True)
sys.stdin.readline()
"""


def answering(pid):
    """Nanoseconds that the thread that answers has been on a processor."""
    for task in os.listdir("/proc/%d/task" % pid):
        folder = "/proc/%d/task/%s/" % (pid, task)
        with open(folder + "comm") as comm, open(folder + "schedstat") as schedstat:
            if comm.read() == "obmalloc-live\n":
                return int(schedstat.read().split()[0])
    hosts.stop("no thread that answers")


def run(host, interval):
    """(seconds of the work, nanoseconds of the answers, looks), watched or (None) not."""
    environment = dict(hosts.clean_environment(), LD_PRELOAD=hosts.LIBRARY, OBMALLOC_LIVE="1")
    with subprocess.Popen([host.path, "-c", PROGRAM], env=environment, text=True,
                          stdin=subprocess.PIPE, stdout=subprocess.PIPE) as program:
        assert program.stdout.readline() == "ready\n"
        before = answering(program.pid)
        top = interval and subprocess.Popen(
            [os.path.join(hosts.RELEASE, "obmalloc"), "top", "--plain",
             "--interval", str(interval), str(program.pid)], text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
        if top:     # until it has begun: its first line is of a look
            top.stdout.readline(), top.stdout.readline()
        print(file=program.stdin, flush=True)
        seconds = float(program.stdout.readline())
        if top:
            top.terminate()
            looks = len(top.communicate()[0].splitlines())
            top.wait()
        after = answering(program.pid)
        print(file=program.stdin, flush=True)
    return seconds, after - before, looks if top else 0


def main():
    parser = hosts.parser(__doc__, "3.11")
    parser.add_argument("--count", type=int, default=9, help="pairs (%(default)s)")
    parser.add_argument("--interval", type=float, default=0.05,
                        help="seconds between two looks (%(default)s)")
    parser.add_argument("--record", action="store_true", help="for docs/metrics.md")
    options = parser.parse_args()
    pairs.reproduce()
    hosts.library(options.library)
    bad, rows = [], []
    for host in hosts.choose(options.interpreters):
        found = [(run(host, None), run(host, options.interval)) for _ in range(options.count)]
        looks = sum(watched[2] for _, watched in found)
        if looks < options.count or any(alone[1] for alone, _ in found):
            bad.append("%s: %d looks, %s ns unwatched" % (host.name, looks, found[0][0][1]))
            continue
        rows.append({"interpreter": host.name, "looks": looks,
                     "work": round(statistics.median(alone[0] for alone, _ in found), 3),
                     "ratios": [round(watched[0] / alone[0], 3) for alone, watched in found],
                     "us": round(sum(watched[1] for _, watched in found) / looks / 1e3, 1)})
    pairs.table(["medians of %d pairs" % options.count, "work, s", "watched", "least..greatest",
                 "looks", "us for each", "% of a processor at one a second"],
                [[row["interpreter"], "%.3f" % row["work"], *pairs.spread(row["ratios"]),
                  row["looks"], row["us"], "%.4f" % (row["us"] / 1e4)] for row in rows])
    if options.record and not bad:
        print(record.write("watched", rows))
    return hosts.finish(bad, "looked at, and while nobody looks the thread does not run")


if __name__ == "__main__":
    sys.exit(main())
