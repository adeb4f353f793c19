"""Three million small objects, all but a random share of them dropped.

The worst of cases for returning memory: the survivors lie anywhere, and with 10 % of
them nearly every page still has one.
"""

import random

import pattern


def main():
    settings = pattern.Settings(keep=0.01)
    figures = pattern.begin()
    count = settings.scaled(3000000)
    things = pattern.built(count, pattern.mixed, figures)
    for number in range(count):
        if random.random() >= settings.keep:
            things[number] = None
    # The long list goes, so that it is not in the figures.
    kept = [thing for thing in things if thing is not None]
    del things
    pattern.idle(figures, settings)
    figures["touched"] = pattern.touched(kept)
    random.seed(pattern.SEED)
    numbers = [number for number in range(count) if random.random() < settings.keep]
    right = kept == [pattern.mixed(number) for number in numbers]
    pattern.report(figures, right)


main()
