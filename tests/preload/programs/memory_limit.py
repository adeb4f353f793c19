"""memory_limit.py AS|DATA KIND: allocate until MemoryError, drop, go on, under a
limit a little above what the process has. Prints [[how many things each round
held], whether one large block fits when all of them are gone].

A MemoryError must come as such, whatever was asked for when memory ran out, and
what the round held must be there for the next one.
"""
from __future__ import print_function

import gc
import json
import resource
import sys

import inside

LIMIT, KIND = sys.argv[1:]
ROOM = 24 << 20
MAKE = {
    'objects': lambda n: [object() for _ in range(100)],
    'dicts': lambda n: {'even': n % 2, 'value': [n % 200]},
    'bytes': lambda n: bytearray(1000),
    'vectors': lambda n: [None] * 20000,
    'mixed': lambda n: [bytearray(n % 5000), {n: None}, (n, str(n)), [n] * (n % 600)],
}


def in_use():
    """KiB that count against the limit, as the kernel counts them."""
    field = {'AS': 'VmSize', 'DATA': 'VmData'}[LIMIT]
    with open('/proc/self/status') as status:
        return [int(line.split()[1]) for line in status if line.startswith(field)][0]


def fill(make, kept):
    """How many things fit. The list has its room beforehand, so that the error is
    one of making them; the reserve lets the handler itself allocate: without it
    Python's own counting fails there."""
    count, reserve = 0, [[n] for n in range(100000, 101000)]
    try:
        while True:
            kept[count] = make(count)
            count += 1
    except MemoryError:
        reserve = None
    held = count
    while count:            # not range(), a list in 2.7
        count -= 1
        kept[count] = None
    del reserve
    return held


def main():
    inside.workload(1)
    kept = [None] * 200000
    limit = in_use() * 1024 + ROOM
    resource.setrlimit(getattr(resource, 'RLIMIT_' + LIMIT), (limit, limit))
    counts = []
    for _ in range(3):
        counts.append(fill(MAKE[KIND], kept))
        gc.collect()
        assert len(json.dumps([{str(n): [n] * n} for n in range(200)])) > 80000
    try:
        large = len(bytearray(ROOM // 2)) > 0
    except MemoryError:
        large = False
    print(json.dumps([counts, large]))


main()
