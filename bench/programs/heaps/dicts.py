"""600 000 dicts with a list and a tuple each: a large heap that is kept.

They are built, visited by the collector (three times, the median counts), read in the order in
which they were built, and dropped. Building allocates at every step; the collector and the
reader do not allocate, so they show the effect of the blocks' places only.
"""

import gc

from phases import phase, report, scaled

COUNT = scaled(600000)

with phase("build"):
    things = [{"a": number, "b": [number], "c": (number,)} for number in range(COUNT)]
for _ in range(3):
    with phase("collect"):
        gc.collect()
with phase("walk"):
    total = sum(each["b"][0] + each["c"][0] for each in things)
with phase("free"):
    things.clear()

report(total, total == (COUNT - 1) * COUNT)
