"""The benchmark `stats_page_cost`: what `obmalloc top` costs the program that it watches.

A program with a heap of about 100 MiB builds and drops objects and measures its own processor
time (`work`). It runs with OBMALLOC_STATS_PAGE=1, in turn unwatched and with `obmalloc top
--interval 0.05`, which reads the page twenty times as often as by default. And exactly: the
processor time that the kernel counts for the thread that answers, by the number of its answers.
"""

import os
import subprocess

import hosts
import measure
import places
from results import Row

INTERVAL = "0.05"
PROGRAM = """
import sys, time
kept = [{n: [n] * 3} for n in range(400000)]
print("ready", flush=True)
sys.stdin.readline()
begin = time.thread_time()
for turn in range(%d):
    some = [{n: str(n)} for n in range(20000)]
    del some[::2]
print(time.thread_time() - begin, flush=True)
sys.stdin.readline()
"""


def answering(pid):
    """Nanoseconds of processor time of the thread that answers."""
    for task in os.listdir("/proc/%d/task" % pid):
        folder = "/proc/%d/task/%s/" % (pid, task)
        with open(folder + "comm") as comm, open(folder + "schedstat") as schedstat:
            if comm.read() == "obmalloc-live\n":
                return int(schedstat.read().split()[0])
    raise measure.Failed("no thread answers")


def run(python, turns, watched):
    """(seconds of the work, nanoseconds of the answers, number of answers)."""
    environment = dict(hosts.clean_environment(), LD_PRELOAD=hosts.LIBRARY, OBMALLOC_STATS_PAGE="1")
    with subprocess.Popen([python, "-c", PROGRAM % turns], env=environment, text=True,
                          stdin=subprocess.PIPE, stdout=subprocess.PIPE) as program:
        assert program.stdout.readline() == "ready\n"
        before = answering(program.pid)
        top = watched and subprocess.Popen(
            [os.path.join(hosts.RELEASE, "obmalloc"), "top", "--plain",
             "--interval", INTERVAL, str(program.pid)], text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
        if top:     # its second line is the first answer
            top.stdout.readline(), top.stdout.readline()
        print(file=program.stdin, flush=True)
        seconds = float(program.stdout.readline())
        answers = 0
        if top:
            top.terminate()
            answers = len(top.communicate()[0].splitlines())
        after = answering(program.pid)
        print(file=program.stdin, flush=True)
    return seconds, after - before, answers


def measured(benchmark, options):
    rounds, turns = (1, 30) if options.quick else (options.rounds or benchmark.rounds, 600)
    for place in places.places(benchmark, options):
        sides = {"unwatched": {"work": Row("second")},
                 "watched": {"work": Row("second"), "each answer": Row("second"),
                             "answers": Row("integer")}}
        complaints = []
        for _ in range(rounds):
            seconds, nanoseconds, _ = run(place.python.path, turns, watched=False)
            sides["unwatched"]["work"].values.append(seconds)
            if nanoseconds:
                complaints.append("%s: %d ns without a reader" % (place.name, nanoseconds))
            seconds, nanoseconds, answers = run(place.python.path, turns, watched=True)
            sides["watched"]["work"].values.append(seconds)
            if answers:
                sides["watched"]["each answer"].values.append(nanoseconds * 1e-9 / answers)
                sides["watched"]["answers"].values.append(answers)
            elif not options.quick:
                complaints.append("%s: no answer" % place.name)
        yield place.name, sides, complaints
