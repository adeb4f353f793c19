"""Shared by the programs that run inside the interpreter under test; valid on 2.7 and 3.6 on."""
from __future__ import print_function

import ctypes
import gc
import json
import threading


def library(path=None):
    """The preloaded library, found in the global scope, or the one at `path`. PyDLL calls it with
    the GIL held."""
    lib = ctypes.PyDLL(path)
    lib.obmalloc_stats_json.restype = ctypes.c_int
    lib.obmalloc_stats_json.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
    return lib


def stats(lib):
    """obmalloc_stats_json() as a dict; the text may grow between two calls."""
    room = 1 << 15
    while True:
        buffer = ctypes.create_string_buffer(room)
        length = lib.obmalloc_stats_json(buffer, room)
        if length < room:
            assert len(buffer.value) == length, (len(buffer.value), length)
            return json.loads(buffer.value.decode('ascii'))
        room = length + 4096


def live(numbers):
    """Blocks that the program holds, over all classes."""
    return sum(each['blocks_live'] for each in numbers['classes'])


def class_for(numbers, size):
    """The smallest listed class that holds a request of size, 0 if there is none."""
    fitting = [each['size'] for each in numbers['classes'] if each['size'] >= size]
    return min(fitting) if fitting else 0


def blocks_by_size(numbers):
    return dict((each['size'], each['blocks_live']) for each in numbers['classes'])


class Node(object):
    def __init__(self, left, right):
        self.left, self.right, self.parent = left, right, None
        for child in (left, right):
            if child is not None:
                child.parent = self        # a cycle: only the collector frees it


def tree(depth):
    return Node(tree(depth - 1), tree(depth - 1)) if depth else Node(None, None)


def workload(rounds=3):
    """Builds, grows, shrinks and drops objects of many sizes, some in cycles.
    Returns a checksum that is the same in every process of the same version."""
    total = 0
    for number in range(rounds):
        trees = [tree(6) for _ in range(10)]
        table = dict((str(key), [key] * (key % 40)) for key in range(3000))
        rows = []
        for key in range(2000):
            rows.append(('%d-%d' % (number, key)) * (key % 60))
        text = ''.join(rows)
        rows[500:1500] = []
        for key in list(table)[::2]:
            table[key].extend(range(30))
            del table[key]
        total += len(text) + sum(map(len, rows)) + sum(map(len, table.values())) + len(trees)
        total += len(json.dumps(table))
        del trees, table, rows
        gc.collect()
    return total


def in_threads(count, function):
    """Run function in threads and raise in the caller what one of them raised."""
    failed = []

    def body():
        try:
            function()
        except BaseException as error:
            failed.append(error)
            raise
    threads = [threading.Thread(target=body) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed, failed
