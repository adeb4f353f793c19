"""Threads trim repeatedly, without the GIL, while others fill and empty pools."""
from __future__ import print_function

import ctypes
import threading
import time

import inside

SECONDS = 1


def build_and_drop(until):
    while time.time() < until:
        rows = [(n, [n] * (n % 60), {n: str(n)}) for n in range(20000)]
        del rows[::3], rows


def trim(until):
    without_the_gil = ctypes.CDLL(None).obmalloc_trim
    without_the_gil.restype, without_the_gil.argtypes = ctypes.c_size_t, [ctypes.c_size_t]
    while time.time() < until:
        without_the_gil(0)


def main():
    until = time.time() + SECONDS
    threads = [threading.Thread(target=role, args=(until,))
               for role in (build_and_drop, build_and_drop, trim, trim)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print('lanes: %d' % inside.stats(inside.library())['pools']['lanes'])


main()
