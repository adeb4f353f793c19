"""A worker process that gets huge tasks and small ones by turns, as in a task queue.

A huge task builds a million objects and drops them; then come two seconds of small
tasks, and of each of those a line of the log stays.
"""

import time

import pattern

TURNS = 3


def huge(settings):
    made = [pattern.mixed(number) for number in range(settings.scaled(1000000))]
    return len(made)


def small(number):
    words = ["word %d" % (number + one) for one in range(300)]
    lengths = {word: len(word) for word in words}
    return "task %d: %d" % (number, sum(lengths.values()))


def main():
    settings = pattern.Settings(small=400)
    figures = pattern.begin()
    log, answers = [], []
    for turn in range(TURNS):
        answers.append(huge(settings))
        for number in range(settings.scaled(settings.small)):
            log.append(small(number))
            time.sleep(0.005)
    pattern.idle(figures, settings)
    count = settings.scaled(settings.small)
    right = log == [small(number) for number in range(count)] * TURNS
    pattern.report(figures, right and answers == [settings.scaled(1000000)] * TURNS)


main()
