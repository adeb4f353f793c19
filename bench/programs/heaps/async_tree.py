"""Trees of tasks: each gathers six of the next level, and none waits for I/O.

`wide` runs small trees again and again (three levels, 259 tasks), `deep` a few large ones (five
levels, 9331 tasks), all of whose tasks are alive when the first leaf runs.
"""

import asyncio

from phases import phase, report, scaled

CHILDREN = 6


async def leaf():
    return 1


async def node(levels):
    if levels == 0:
        return await leaf()
    return 1 + sum(await asyncio.gather(*(node(levels - 1) for _ in range(CHILDREN))))


async def trees(levels, count):
    return [await node(levels) for _ in range(count)]


def size(levels):
    return sum(CHILDREN ** level for level in range(levels + 1))


loop = asyncio.new_event_loop()
right = True
for name, levels, count in (("wide", 3, scaled(250)), ("deep", 5, scaled(6))):
    with phase(name):
        sizes = loop.run_until_complete(trees(levels, count))
    right = right and sizes == [size(levels)] * count
loop.close()

report(sizes[0], right)
