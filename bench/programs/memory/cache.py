"""A cache of at most 60 MB with least-recently-used eviction.

The values have another size in each phase, so the blocks that one phase has freed do not fit
the next; the requested keys change all the time.
"""

import random
from collections import OrderedDict

import pattern

LIMIT = 60e6
SIZES = (80, 300, 40, 450, 120, 200)
HEAD = 100      # an entry's approximate size besides its value


def main():
    settings = pattern.Settings()
    figures = pattern.begin()
    limit, used, hits = LIMIT * settings.scale, 0, 0
    cache = OrderedDict()
    for phase, size in enumerate(SIZES):
        span = int(2 * limit / (size + HEAD))
        for _ in range(settings.scaled(400000)):
            key = (phase, random.randrange(span))
            if key in cache:
                cache.move_to_end(key)
                hits += 1
                continue
            cache[key] = value = b"%0*d" % (random.randrange(size // 2, size + size // 2), key[1])
            used += len(value) + HEAD
            while used > limit:
                used -= len(cache.popitem(last=False)[1]) + HEAD
    pattern.idle(figures, settings)
    right = all(int(value) == number for (_, number), value in cache.items())
    pattern.report(figures, right and used <= limit and hits > 0)


main()
