"""Starts the measured commands, from a process small enough not to be in the way.

Not for use by hand: pairs.py runs it with `python3 -I -S` and talks to it on its
standard streams.

Why it exists: Linux hands the peak memory of the process that forks on to the
child, and execve keeps the larger of the two. Measured from a script that has
imported argparse, json and the rest, every short Python program would seem to have
that script's size, with and without any library. So this file imports nothing but
modules built into the interpreter, and reports what `true` seems to need when
started from here: the floor, below which nothing can be told.
"""

import marshal
import posix
import sys
import time


def run(argv, environment, out, err):
    """(wait status, wall, CPU seconds, peak RSS in KiB, page faults)."""
    flags = posix.O_WRONLY | posix.O_CREAT | posix.O_TRUNC
    began = time.perf_counter()
    child = posix.fork()
    if child == 0:
        try:
            posix.dup2(posix.open("/dev/null", posix.O_RDONLY), 0)
            posix.dup2(posix.open(out, flags, 0o600), 1)
            posix.dup2(posix.open(err, flags, 0o600), 2)
            posix.execve(argv[0], argv, environment)
        finally:
            posix._exit(127)
    _, status, usage = posix.wait4(child, 0)
    wall = time.perf_counter() - began
    # In `usage`: user and system seconds, peak RSS, and behind four fields that
    # Linux leaves 0 the page faults without and with input.
    return (status, wall, usage[0] + usage[1], usage[2], usage[6] + usage[7])


def main():
    count, directory, true, sides = marshal.load(sys.stdin.buffer)
    floor = max(run([true], {}, "/dev/null", "/dev/null")[3] for _ in range(3))
    answers = []
    for number in range(count):
        for side, (argv, environment) in enumerate(sides):
            name = "%s/%d-%d" % (directory, number, side)
            answers.append(run(argv, environment, name + ".out", name + ".err"))
    marshal.dump((floor, answers), sys.stdout.buffer)
    sys.stdout.buffer.flush()


main()
