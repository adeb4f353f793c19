"""200 000 tuples built and dropped, fifty times.

An allocator that gives the memory back at once has to ask for it fifty times: a page
fault for each page. The time is that of the fifty rounds alone. `size=25` makes the
tuples large, 50 MiB in each round; `collector=0` leaves out what the garbage collector
needs, which is the same with any allocator.
"""

import gc
import resource
import time

import pattern

ROUNDS = 50


def one_round(count, start):
    made = [start + (number,) for number in range(count)]
    return len(made) + made[-1][-1]


def main():
    settings = pattern.Settings(size=3, collector=1)
    figures = pattern.begin()
    count = settings.scaled(200000)
    start = (None,) * (settings.size - 1)
    if not settings.collector:
        gc.disable()
    before = resource.getrusage(resource.RUSAGE_SELF)
    wall, cpu = pattern.clock(), time.process_time()
    answers = [one_round(count, start) for _ in range(ROUNDS)]
    figures["rounds_wall"] = pattern.clock() - wall
    figures["rounds_cpu"] = time.process_time() - cpu
    figures["rounds_faults"] = (resource.getrusage(resource.RUSAGE_SELF).ru_minflt
                                - before.ru_minflt)
    pattern.idle(figures, settings)
    pattern.report(figures, answers == [2 * count - 1] * ROUNDS)


main()
