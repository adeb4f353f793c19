"""Three million small objects, of which a share is kept: `keep`.

The survivors are scattered at random, the worst case for returning memory: at 10 % nearly every
page has one. With `row`, `row` consecutive objects are kept at a time, as one request would
leave them.
"""

import random

import pattern


def stays(settings, number):
    """Whether an object is kept. Draws a random number unless rows are kept."""
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
    # The long list is dropped, so that it is not in the figures.
    kept = [thing for thing in things if thing is not None]
    del things
    pattern.idle(figures, settings)
    figures["touched"] = pattern.touched(kept)
    random.seed(pattern.SEED)
    numbers = [number for number in range(count) if stays(settings, number)]
    right = kept == [pattern.mixed(number) for number in numbers]
    pattern.report(figures, right)


main()
