"""200 000 tuples built and dropped, fifty times.

An allocator that returns the memory at once has to map it again fifty times, with a page fault
for each page. Only the fifty rounds are timed. `large=1` makes them 50 MiB each; `collector=0`
switches the garbage collector off, whose cost is the same with any allocator.
"""

import gc
import resource
import time

import pattern

ROUNDS = 50


def one_round(count, large):
    if large:
        rest = (None,) * 24
        made = [rest + (number,) for number in range(count)]
    else:
        made = [(1, 2, number) for number in range(count)]
    return made[count // 2][-1] == count // 2


def main():
    settings = pattern.Settings(large=0, collector=1)
    figures = pattern.begin()
    count = settings.scaled(200000)
    if not settings.collector:
        gc.disable()
    before = resource.getrusage(resource.RUSAGE_SELF)
    wall, cpu = pattern.clock(), time.process_time()
    # Nothing of a round may be kept: an int in each arena would keep them all.
    right = True
    for _ in range(ROUNDS):
        right = one_round(count, settings.large) and right
    figures["rounds_wall"] = pattern.clock() - wall
    figures["rounds_cpu"] = time.process_time() - cpu
    figures["rounds_faults"] = (resource.getrusage(resource.RUSAGE_SELF).ru_minflt
                                - before.ru_minflt)
    pattern.idle(figures, settings)
    pattern.report(figures, right)


main()
