"""Three million small objects, all but a share of them dropped: `keep`.

The survivors lie anywhere, the worst of cases for returning memory: with 10 % of them
nearly every page still has one. With `row` they were made in a row, so many at a time,
as what one request leaves.
"""

import random

import pattern


def stays(settings, number):
    """Whether an object stays. Takes from the random numbers, if there is no row."""
    if settings.row:
        return number % int(settings.row / settings.keep) < settings.row
    return random.random() < settings.keep


def main():
    settings = pattern.Settings(keep=0.01, row=0)
    figures = pattern.begin()
    count = settings.scaled(3000000)
    things = pattern.built(count, pattern.mixed, figures)
    for number in range(count):
        if not stays(settings, number):
            things[number] = None
    # The long list goes, so that it is not in the figures.
    kept = [thing for thing in things if thing is not None]
    del things
    pattern.idle(figures, settings)
    figures["touched"] = pattern.touched(kept)
    random.seed(pattern.SEED)
    numbers = [number for number in range(count) if stays(settings, number)]
    right = kept == [pattern.mixed(number) for number in numbers]
    pattern.report(figures, right)


main()
