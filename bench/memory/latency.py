"""How long small tasks take, each of them, while much memory goes back to the kernel.

Tasks of some 100 microseconds, one after the other for `seconds`. Between two of them,
every second, 300 000 objects are dropped, all but 1 %: that itself is not in any task's
time, but the return of the memory falls into the tasks that follow. The collector is
off, whose pauses would be all that one sees.
"""

import gc
import random

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


def main():
    settings = pattern.Settings(seconds=5.0)
    figures = pattern.begin()
    gc.disable()
    seconds = settings.seconds * min(1, settings.scale * 5)
    parts = [part(settings) for _ in range(int(settings.seconds / STEP))]
    times, right, number = [], True, 0
    clock = pattern.clock
    began = due = clock()
    waiting = list(parts)
    while clock() < began + seconds:
        if waiting and clock() >= due:
            thin_out(waiting.pop())
            due += STEP
        start = clock()
        right = task(number) == 400 and right
        times.append(clock() - start)
        number += 1
    times.sort()
    for name, share in (("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999), ("max", 1)):
        figures[name] = 1e6 * times[min(len(times) - 1, int(len(times) * share))]
    figures["tasks"] = number
    pattern.idle(figures, settings)
    pattern.report(figures, right and len(parts) > 0)


main()
