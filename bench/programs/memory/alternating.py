"""A worker process of a task queue that gets large and small tasks in turn.

A large task builds a million objects and drops them; then come two seconds of small tasks, of
each of which a line of the log is kept.
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
