"""200 000 tuples built and dropped, fifty times.

An allocator that gives the memory back at once has to ask for it fifty times: a page
fault for each page. The time is that of the fifty rounds alone. `large=1` makes
them 50 MiB in each round; `collector=0` leaves out what the garbage collector
needs, which is the same with any allocator.
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
    # Nothing may be left of a round: an int in each arena would keep them all.
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
