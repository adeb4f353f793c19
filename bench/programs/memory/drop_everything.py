"""Three million small objects, all of them dropped."""

import pattern


def main():
    settings = pattern.Settings()
    figures = pattern.begin()
    count = settings.scaled(3000000)
    things = pattern.built(count, pattern.mixed, figures)
    right = all(things[number] == pattern.mixed(number) for number in range(0, count, 97))
    del things
    pattern.idle(figures, settings)
    pattern.report(figures, right)


main()
