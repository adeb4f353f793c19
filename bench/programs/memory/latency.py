"""How long single small tasks take while much memory is returned to the kernel.

Tasks of about 100 microseconds, one after the other for `seconds`. Every second, between two
tasks, 300 000 objects are dropped, all but 1 %. The drop is in no task's time, but the return
of the memory falls into the tasks that follow. The collector is off, because its pauses would
hide everything else.

The CPU time of the same tasks is measured as well: on a busy machine the longest tasks are
those that the scheduler has interrupted, with any allocator. CPU time does not contain the wait
for a lock; wall time does.
"""

import gc
import random
import time

import pattern

STEP = 1.0      # seconds from one drop to the next
PART = 300000


def task(number):
    rows = [(number, row, str(row + number)) for row in range(200)]
    index = {text: row for row, _, text in rows}
    return len(index) + len(rows)


def part(settings):
    return [pattern.mixed(number) for number in range(settings.scaled(PART))]


def thin_out(things):
    for number in range(len(things)):
        if random.random() >= 0.01:
            things[number] = None


def percentiles(what, times):
    """{name: microseconds}"""
    times.sort()
    return {what + name: 1e6 * times[min(len(times) - 1, int(len(times) * share))]
            for name, share in (("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999), ("max", 1))}


def main():
    settings = pattern.Settings(seconds=5.0)
    figures = pattern.begin()
    gc.disable()
    seconds = settings.seconds * min(1, settings.scale * 5)
    parts = [part(settings) for _ in range(int(settings.seconds / STEP))]
    times, cpu_times, right, number = [], [], True, 0
    clock, cpu_clock = pattern.clock, time.thread_time
    began = due = clock()
    waiting = list(parts)
    while clock() < began + seconds:
        if waiting and clock() >= due:
            thin_out(waiting.pop())
            due += STEP
        start, cpu_start = clock(), cpu_clock()
        right = task(number) == 400 and right
        cpu_times.append(cpu_clock() - cpu_start)
        times.append(clock() - start)
        number += 1
    figures.update(percentiles("", times), **percentiles("CPU ", cpu_times))
    figures["tasks"] = number
    pattern.idle(figures, settings)
    pattern.report(figures, right and len(parts) > 0)


main()
