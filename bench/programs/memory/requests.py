"""A server under a rising and falling load; 1 % of each request's objects is kept for a while.

The load is the number of requests under way, each with its objects alive: from 4 to 120 and
back, three times, with two idle seconds after each wave. The kept rows of a request, scattered
among the others, are dropped when another 20 requests have ended.
"""

import random
import time
from collections import deque

import pattern

WAVES, HIGH, AGE = 3, 120, 20


def request(number, settings):
    """The objects of one request: rows as tuples, fields as text, a dict by name."""
    rows = [(number, row, "field %d of %d" % (row, number))
            for row in range(settings.scaled(5000))]
    return rows, {"key %d" % row[1]: row for row in rows[::10]}


def end(under_way, sessions):
    """Ends the oldest request and keeps some of its rows."""
    rows, _ = under_way.popleft()
    sessions.append([row for row in rows if random.random() < 0.01])


def main():
    settings = pattern.Settings(quiet=2.0)
    figures = pattern.begin()
    sessions, under_way, served = deque(maxlen=AGE), deque(), 0
    loads = list(range(4, HIGH, 4)) + list(range(HIGH, 0, -2))
    for _ in range(WAVES):
        for load in loads:
            for _ in range(4):
                under_way.append(request(served, settings))
                served += 1
            while len(under_way) > load:
                end(under_way, sessions)
        while under_way:
            end(under_way, sessions)
        time.sleep(settings.quiet if settings.idle else 0)
    pattern.idle(figures, settings)
    stayed = [row for rows in sessions for row in rows]
    figures["touched"] = pattern.touched(part for row in stayed for part in (row,) + row[1:])
    right = all(text == "field %d of %d" % (row, number) for number, row, text in stayed)
    pattern.report(figures, right and served == WAVES * 4 * len(loads))


main()
