"""Runs code in several sub-interpreters, each in its own thread, several times; from 3.12 on each
with its own GIL, so that they allocate in parallel."""
from __future__ import print_function

import sys
import threading

import inside

CODE = r'''
def work():
    total = 0
    for turn in range(30):
        rows = [{n: str(n), str(n): [n] * (n % 70)} for n in range(400)]
        cycle = [rows]; cycle.append(cycle)
        text = ''.join(row[n] * (n % 20) for n, row in enumerate(rows))
        total += len(text) + sum(len(row[str(n)]) for n, row in enumerate(rows))
    return total
assert work() == 711150, work()
import gc; gc.collect()
'''


def by_module(module):
    """create, run, destroy; with a GIL of its own where that exists."""
    if sys.version_info >= (3, 13):
        name = module.create('isolated')
    elif sys.version_info >= (3, 12):
        name = module.create(isolated=True)
    else:
        name = module.create()
    try:
        failed = module.run_string(name, CODE)
        assert not failed, failed
    finally:
        module.destroy(name)


def main():
    try:
        import _interpreters as module
    except ImportError:
        try:
            import _xxsubinterpreters as module
        except ImportError:
            module = None
    if module is not None and sys.version_info >= (3, 12):
        for _ in range(3):
            inside.in_threads(4, lambda: by_module(module))
        print('own GIL')
    elif module is not None:
        for _ in range(6):
            by_module(module)
        print('shared GIL')
    else:
        try:
            from _testcapi import run_in_subinterp
        except ImportError:
            print('none')
            return
        for _ in range(6):
            assert run_in_subinterp(CODE) == 0
        print('shared GIL')
    assert inside.workload(2) > 0
    assert threading.active_count() == 1


main()
