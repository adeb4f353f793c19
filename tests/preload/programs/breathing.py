"""A program whose heap grows and shrinks all the time, above 100 MiB, for checks that read its
memory from outside. It runs until its input ends.

    breathing.py [threads]
"""
import random
import sys
import threading

END = []


def breathe(seed):
    random.seed(seed)
    kept = {}
    number = 0
    while not END:
        for _ in range(random.choice((20000, 60000))):
            number += 1
            kept[number] = random.choice((
                lambda: [number], lambda: 'text %d' % number * 3, lambda: {'n': number},
                lambda: (number, [None] * (number % 60)), lambda: float(number)))()
        while len(kept) > 1350000 // THREADS:
            # Frees a range, or every third of a range.
            first = min(kept)
            step = random.choice((1, 3))
            for each in range(first, first + 400000 // THREADS, step):
                kept.pop(each, None)
        if len(kept) > 950000 // THREADS and not READY:
            READY.append(1)
            sys.stdout.write('ready\n')
            sys.stdout.flush()


READY = []
THREADS = int(sys.argv[1]) if len(sys.argv) > 1 else 1
threads = [threading.Thread(target=breathe, args=(n,)) for n in range(THREADS)]
for each in threads:
    each.start()
sys.stdin.read()
END.append(1)
for each in threads:
    each.join()
