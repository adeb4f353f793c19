"""A server that loads two million objects, drops some of them, and forks.

The child allocates 23 MiB of objects. Each one that is placed between the parent's objects
makes a shared page private to the child, so the figure is the growth of the child's private
memory (Private_Dirty). The collector is off and frozen before the fork, as in servers that
are tuned for it.
"""

import gc
import os
import random
import sys

import pattern

COUNT, OWN = 2000000, 23 << 20
SIZE = 96       # bytes of each of the child's objects, in pools


def private():
    """KiB of written pages that this process shares with no other."""
    return pattern.field("/proc/self/smaps_rollup", "Private_Dirty")


def child(count):
    """The child's work; returns the growth of its private memory in KiB."""
    private()       # once, so that the memory for reading is not in the difference
    own = [None] * count
    before = private()
    for number in range(count):
        own[number] = b"%0*d" % (SIZE - 33, number)
    grown = private() - before
    if any(int(one) != number for number, one in enumerate(own)):
        sys.exit("the child's objects are not what they should be")
    return grown


def main():
    settings = pattern.Settings(drop=0.1)
    figures = pattern.begin()
    count, own = settings.scaled(COUNT), settings.scaled(OWN // SIZE)
    things = [pattern.mixed(number) for number in range(count)]
    for number in range(count):
        if random.random() < settings.drop:
            things[number] = None
    gc.disable()
    gc.freeze()
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.write(writing, b"%d" % child(own))
        os._exit(0)
    os.close(writing)
    answer = os.read(reading, 100)
    _, status = os.waitpid(pid, 0)
    figures["grown"], figures["own"] = int(answer or 0), own * SIZE // 1024
    pattern.idle(figures, settings)
    right = all(thing is None or thing == pattern.mixed(number)
                for number, thing in enumerate(things))
    pattern.report(figures, right and status == 0)


main()
