"""A server under a load that comes and goes; of what a request makes, 1 % stays.

The load is how many requests are under way at once, each with its objects alive: from a
few to 120 and back, three times, with a quiet second after each wave.
"""

import random
import time

import pattern

WAVES, HIGH = 3, 120


def request(number, settings):
    """The objects of one request: rows as tuples, fields as text, a dict by name."""
    rows = [(number, row, "field %d of %d" % (row, number))
            for row in range(settings.scaled(5000))]
    return rows, {"key %d" % row[1]: row for row in rows[::10]}


def main():
    settings = pattern.Settings(quiet=1.0)
    figures = pattern.begin()
    sessions, under_way, served = [], [], 0
    for wave in range(WAVES):
        loads = list(range(4, HIGH, 4)) + list(range(HIGH, 0, -2))
        for load in loads:
            under_way.append(request(served, settings))
            under_way.append(request(served + 1, settings))
            under_way.append(request(served + 2, settings))
            under_way.append(request(served + 3, settings))
            served += 4
            while len(under_way) > load:
                rows, _ = under_way.pop(0)
                sessions += [row for row in rows if random.random() < 0.01]
                del rows
        sessions += [row for rows, _ in under_way for row in rows if random.random() < 0.01]
        under_way.clear()
        time.sleep(settings.quiet if settings.idle else 0)
    pattern.idle(figures, settings)
    figures["touched"] = pattern.touched(sessions)
    right = all(text == "field %d of %d" % (row, number) for number, row, text in sessions)
    pattern.report(figures, right and served == WAVES * 4 * len(loads))


main()
