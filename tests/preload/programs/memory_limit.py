"""memory_limit.py AS|DATA KIND: allocates until MemoryError, drops, and repeats, under a limit a
little above the process's size. Prints [[things that each round held], whether one large block
fits after all of them are freed].

Every request that fails must raise MemoryError, and the memory of a round must serve the next.
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
    """KiB that the kernel counts against the limit."""
    field = {'AS': 'VmSize', 'DATA': 'VmData'}[LIMIT]
    with open('/proc/self/status') as status:
        return [int(line.split()[1]) for line in status if line.startswith(field)][0]


def fill(make, kept):
    """The number of things that fit. The list has its size beforehand, so that the things fail
    and not the list; the reserve lets the handler allocate, whose counting would fail."""
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
