"""Threads under one GIL share their pools. Interpreters with a GIL each allocate in parallel, find
each other's locks held, and get pools of their own."""
from __future__ import print_function

import sys
import threading
import time

import inside

CODE = """
for _ in range(50):
    kept = [(n, [n], {n: str(n)}) for n in range(2000)]
    del kept
"""
SECONDS = 60


def lanes():
    return inside.stats(inside.library())['pools']['lanes']


def work(module, name, until):
    while time.time() < until and lanes() == 1:
        failed = module.run_string(name, CODE)
        assert not failed, failed


def main():
    inside.in_threads(4, lambda: exec(CODE, {}))
    assert lanes() == 1, lanes()
    import _interpreters as module
    names = [module.create('isolated') for _ in range(2)]
    until = time.time() + SECONDS
    threads = [threading.Thread(target=work, args=(module, name, until)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print('lanes: %d' % lanes())
    for name in names:
        module.run_string(name, CODE)
        module.destroy(name)


main()
