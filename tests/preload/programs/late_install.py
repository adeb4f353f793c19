"""late_install.py LIBRARY MODE: obmalloc_install() in an interpreter with many live objects and
threads that allocate.

MODE  plain      installs, uses old and new objects, installs again
      loaded     loads the library and does not install it
      refused    the installation must be refused; the program continues
      tracing    tracemalloc traces when the library is loaded: refused, and installed after
                 tracemalloc has stopped
      no-gil     calls it with the GIL released, the commonest mistake
Prints [live blocks before, with n new objects, without them] as JSON.
"""
from __future__ import print_function

import ctypes
import gc
import json
import sys
import threading

import inside

PATH, MODE = sys.argv[1:]
COUNT = 10000


class Churn(object):
    """Threads that build and drop objects during the `with` block."""

    def __init__(self, count):
        self.stop, self.rounds, self.failed = False, 0, []
        self.threads = [threading.Thread(target=self.run) for _ in range(count)]

    def run(self):
        try:
            while not self.stop:
                rows = [{n: ('%d' % n) * (n % 70)} for n in range(200)]
                assert sum(len(row) for row in rows) == 200
                self.rounds += 1
        except BaseException as error:
            self.failed.append(error)

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *error):
        self.stop = True
        for thread in self.threads:
            thread.join()
        assert not self.failed and self.rounds > 0, self.failed


def old_objects():
    """Blocks of the present allocator: of all sizes, with vectors that can grow."""
    return {
        'lists': [[n] * (n % 120) for n in range(COUNT)],
        'dicts': [{str(n): n, n: None} for n in range(COUNT // 3)],
        'bytes': [bytearray([n % 256]) * (n % 3000) for n in range(COUNT // 10)],
        'nodes': [inside.tree(3) for _ in range(100)],
    }


def check_and_change(old):
    """Contents are unchanged; then every vector grows or shrinks (realloc of a block of another
    allocator), and half of the objects are dropped."""
    for n, each in enumerate(old['lists']):
        assert each == [n] * (n % 120), n
        each.extend(range(50))
        assert len(each) == n % 120 + 50 and each[-1] == 49
        del each[5:]
    for n, each in enumerate(old['dicts']):
        assert each == {str(n): n, n: None}, n
        each.update((key, key) for key in range(-20, 0))
        each.pop(n)
        assert len(each) == 21, n
    for n, each in enumerate(old['bytes']):
        assert each == bytearray([n % 256]) * (n % 3000), n
        each += b'tail' * 300
        assert each.endswith(b'tail')
        del each[len(each) // 3:]
    for each in old.values():
        del each[::2]
    gc.collect()


def stress(old):
    """Frees the other old objects in other threads, among new ones."""
    remains = [each for kind in old.values() for each in kind]
    old.clear()

    def body():
        kept = []
        while remains:
            try:
                kept.append([remains.pop(), {len(kept): None}])
            except IndexError:
                break
            if len(kept) % 1000 == 0:
                del kept[::2]
        inside.workload(1)
    inside.in_threads(4, body)
    assert not remains
    gc.collect()


def blocks(lib):
    return inside.live(inside.stats(lib))


def new_objects_are_ours(lib):
    """The threads of Churn hold about 2000 blocks, a varying number."""
    gc.disable()
    before = blocks(lib)
    kept = [[object()] for _ in range(COUNT)]
    during = blocks(lib)
    del kept
    after = blocks(lib)
    gc.enable()
    return before, during, after


def main():
    with Churn(3):
        old = old_objects()
        if MODE == 'tracing':
            import tracemalloc
            tracemalloc.start(3)
        lib = inside.library(PATH)
        install = lib.obmalloc_install
        if MODE == 'no-gil':
            install = ctypes.CDLL(PATH).obmalloc_install

        if MODE == 'tracing':
            assert install() != 0, 'installed under a tracing tracemalloc'
            traced = [object() for _ in range(1000)]
            assert tracemalloc.get_object_traceback(traced[0]) is not None
            tracemalloc.stop()
            del traced
        code = install() if MODE != 'loaded' else None
        if MODE in ('plain', 'tracing'):
            assert (code, install()) == (0, 0), 'the first and the second call'
        elif MODE == 'refused':
            assert code != 0
        check_and_change(old)
        numbers = new_objects_are_ours(lib)
        if MODE in ('plain', 'tracing'):
            assert install() == 0, 'the third call'
        stress(old)
    assert inside.workload(2) > 0
    print(json.dumps(numbers))


main()
