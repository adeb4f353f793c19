"""Rows of a database as objects with a __dict__, loaded, read and dropped.

150 000 rows of text, numbers and times, three times: a report that runs now and then in a
long-lived process.
"""

import datetime
import time

import pattern

ROUNDS = 3
FIRST = datetime.datetime(2020, 1, 1)


class Row:
    def __init__(self, number):
        self.number = number + 100000
        self.name = "customer %d" % number
        self.address = "%d, a street with a name of its own, in town %d" % (number, number % 997)
        self.balance = number * 0.01
        self.created = FIRST + datetime.timedelta(seconds=number)
        self.changed = self.created + datetime.timedelta(days=1)
        self.tags = ["a", "b", str(number)]


def load(count):
    rows = [Row(number) for number in range(count)]
    names = {row.name: row for row in rows}
    return len(names), sum((row.changed - row.created).days for row in rows)


def main():
    settings = pattern.Settings(quiet=0.5)
    figures = pattern.begin()
    count = settings.scaled(150000)
    answers = []
    for _ in range(ROUNDS):
        answers.append(load(count))
        time.sleep(settings.quiet if settings.idle else 0)
    pattern.idle(figures, settings)
    pattern.report(figures, answers == [(count, count)] * ROUNDS)


main()
