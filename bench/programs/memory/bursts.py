"""Three million objects in bursts of 2000, of which 20 consecutive ones are kept.

This is a server that keeps a little of each request. The kept objects are close together, so
most pages become free.
"""

import pattern

BURST, KEPT = 2000, 20


def make(number):
    kind = number % 3
    if kind == 0:
        return (1, 2, 3, number % 200)
    return "%063d" % number if kind == 1 else b"%095d" % number


def main():
    settings = pattern.Settings()
    figures = pattern.begin()
    count = settings.scaled(1500) * BURST
    things = pattern.built(count, make, figures)
    for number in range(count):
        if number % BURST >= KEPT:
            things[number] = None
    kept = [thing for thing in things if thing is not None]
    del things
    pattern.idle(figures, settings)
    figures["touched"] = pattern.touched(kept)
    numbers = (number for number in range(count) if number % BURST < KEPT)
    right = kept == [make(number) for number in numbers]
    pattern.report(figures, right)


main()
