"""Objects allocated by one thread and freed by another.

Two producers build parcels of mixed objects, two consumers open and drop them. Every block is
freed by a thread that did not allocate it, so the cache of one thread runs empty while that of
another overflows. Tickets limit the parcels under way to 32.
"""

import queue
import threading

from phases import phase, report, scaled

PAIRS, UNDER_WAY = 2, 32
PARCELS, PIECES = scaled(6000), 200


def parcel(number):
    made = []
    for piece in range(number, number + PIECES, 4):
        made += ((piece, piece + 1), [piece], {"piece": piece}, "piece %d" % piece)
    return made


def produce(parcels, tickets):
    for number in range(PARCELS):
        tickets.get()
        parcels.put(parcel(number))
    parcels.put(None)


def consume(parcels, tickets, counts):
    count = 0
    for opened in iter(parcels.get, None):
        count += len(opened)
        del opened
        tickets.put(None)
    counts.put(count)


parcels, tickets, counts = queue.SimpleQueue(), queue.SimpleQueue(), queue.SimpleQueue()
for _ in range(UNDER_WAY):
    tickets.put(None)
threads = [threading.Thread(target=produce, args=(parcels, tickets)) for _ in range(PAIRS)]
threads += [threading.Thread(target=consume, args=(parcels, tickets, counts))
            for _ in range(PAIRS)]
with phase("handover"):
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

total = sum(counts.get() for _ in range(PAIRS))
report(total, total == PAIRS * PARCELS * PIECES)
