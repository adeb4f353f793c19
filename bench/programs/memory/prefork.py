"""A server that loads two million objects, drops some of them, and forks.

The child makes 23 MiB of objects of its own. Each that is put between its parent's
objects makes a page its own that was shared: what counts is how much private memory the
child has got from that (Private_Dirty). The collector is switched off and frozen before
the fork, as servers do that care.
"""

import gc
import os
import random
import sys

import pattern

COUNT, OWN = 2000000, 23 << 20
SIZE = 96       # bytes of each of the child's objects, in pools


def private():
    """KiB that this process shares with no other and has written."""
    return pattern.field("/proc/self/smaps_rollup", "Private_Dirty")


def child(count):
    """What the child does, and by how many KiB its private memory grows from that."""
    private()       # once for nothing: so that reading is not in the difference
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
