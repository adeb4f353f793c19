"""Interpreters with a GIL each. gils.py SECONDS COUNT

First two interpreters run for SECONDS at the same time, each with two threads that allocate
and free; then COUNT are created and destroyed, two at once, each with threads. Prints
[[rounds of each], [[interpreters so far, live blocks, MiB] ...], processors used by the first
two, shards]."""
import json
import sys
import threading
import time

import inside
import ledger

try:
    import _interpreters as module
    def create():
        return module.create('isolated')
except ImportError:
    import _xxsubinterpreters as module
    def create():
        return module.create(isolated=True)

SECONDS, COUNT = float(sys.argv[1]), int(sys.argv[2])

LONG = '''
import threading, time, json, gc
until, rounds, failed = %r, [0, 0], []
class Thing:
    def __init__(self, n): self.n, self.me, self.text = n, self, str(n)
def body(which):
    try:
        held = []
        while time.time() < until:
            things = [Thing(n) for n in range(500)]
            rows = [{str(n): [n] * (n %% 70), n: bytes(n %% 900)} for n in range(500)]
            held.append(rows[::9]); held[:-20] = []
            assert all(each.me is each and each.text == str(each.n) for each in things)
            for old in held:
                assert all(len(row[str(n * 9)]) == n * 9 %% 70 for n, row in enumerate(old))
            rounds[which] += 1
    except BaseException as error:
        failed.append(repr(error))
threads = [threading.Thread(target=body, args=(n,)) for n in range(2)]
for each in threads: each.start()
for each in threads: each.join()
gc.collect()
assert not failed, failed
import os
os.write(%d, json.dumps(rounds).encode() + b'\\n')
'''

SHORT = '''
import threading, json, re, collections, gc
def body():
    rows = [{str(n): [n] * (n % 70)} for n in range(300)]
    assert json.loads(json.dumps(rows)) == rows
    Point = collections.namedtuple('Point', 'x y')
    kept = [Point(n, rows) for n in range(500)]
    kept.append(kept)
threads = [threading.Thread(target=body) for n in range(2)]
for each in threads: each.start()
body()
for each in threads: each.join()
gc.collect()
'''


def run(name, code):
    failed = module.run_string(name, code)
    assert not failed, failed


def together(count, body):
    inside.in_threads(count, body)


def long_lives():
    import os
    read, write = os.pipe()
    code = LONG % (time.time() + SECONDS, write)

    def body():
        name = create()
        run(name, code)
        module.destroy(name)
    start, used = time.time(), time.process_time()
    together(2, body)
    at_once = (time.process_time() - used) / (time.time() - start)
    os.close(write)
    with os.fdopen(read) as said:
        return [json.loads(line) for line in said], at_once


def come_and_go():
    def body():
        name = create()
        run(name, SHORT)
        module.destroy(name)
    samples = []
    for n in range(0, COUNT, 2):
        together(2, body)
        if n % 20 == 18:
            samples.append([n + 2, ledger.live(), round(ledger.rss(), 1)])
    return samples


rounds, at_once = long_lives()
print(json.dumps([rounds, come_and_go(), at_once, ledger.lanes()]))
assert inside.workload(2) > 0
