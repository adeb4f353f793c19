"""Other users of the allocator's interfaces: tracemalloc, faulthandler, Python's statistics,
sub-interpreters, threads, and limits on memory."""
import os
import re

import pytest

from support import build, child, status
from support.preload import interpret, run_program

TRACE = '''
import inside, tracemalloc, ctypes, json
lib = inside.library()
keep = [{n: n} for n in range(1000)]            # from before the tracing
for turn in range(4):
    tracemalloc.start(3)
    before = tracemalloc.get_traced_memory()[0]
    made = [bytearray(1000) for _ in range(500)] + [object() for _ in range(500)]
    grown = tracemalloc.get_traced_memory()[0] - before
    assert 500 * 1000 < grown < 1000 * 1000, grown
    assert tracemalloc.get_object_traceback(made[-1])[0].lineno > 0
    assert tracemalloc.take_snapshot().statistics("lineno")
    keep[turn::7] = [[None] * n for n in range(len(keep[turn::7]))]
    tracemalloc.stop()
    del made
before = inside.live(inside.stats(lib))
made = [[object()] for _ in range(10000)]
assert inside.live(inside.stats(lib)) - before > 15000, "no longer ours after stop"
del made, keep
'''

# The four functions of a domain by name, as an extension module binds them: in
# the library itself, and wherever the global scope finds them first.
BY_NAME = '''
import ctypes, inside, tracemalloc
for library in ctypes.PyDLL(sys.argv[1]), ctypes.PyDLL(None):
    for domain in "PyObject_", "PyMem_":
        malloc, calloc, realloc, free = (
            getattr(library, domain + name) for name in ("Malloc", "Calloc", "Realloc", "Free"))
        malloc.restype = calloc.restype = realloc.restype = ctypes.c_void_p
        malloc.argtypes = [ctypes.c_size_t]
        calloc.argtypes = [ctypes.c_size_t] * 2
        realloc.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
        free.argtypes, free.restype = [ctypes.c_void_p], None
        blocks = [None] * 3000
        tracemalloc.start()
        before = tracemalloc.get_traced_memory()[0]
        def grown():
            return tracemalloc.get_traced_memory()[0] - before
        for n in range(1000):
            blocks[n] = malloc(400)
            blocks[n + 1000] = calloc(4, 100)
            blocks[n + 2000] = realloc(malloc(10), 400)
        assert all(blocks)
        assert 1200000 <= grown() < 1500000, (domain, grown())
        for block in blocks:
            free(block)
        free(None)
        assert grown() < 300000, (domain, grown())
        tracemalloc.stop()
'''


@pytest.mark.since(3)
def test_tracemalloc_started_and_stopped(python):
    interpret(python, TRACE)


@pytest.mark.since(3)
def test_tracemalloc_sees_calls_by_name(python):
    """The library's exported names go through the host's table and so through its hooks."""
    interpret(python, BY_NAME, build.LIBRARY)


@pytest.mark.since(3)
def test_PYTHONTRACEMALLOC(python):
    done = interpret(python, '''
import inside, tracemalloc
kept = [object() for _ in range(1000)]
assert len(tracemalloc.get_object_traceback(kept[5])) >= 1
assert tracemalloc.get_traceback_limit() == 5
assert tracemalloc.get_traced_memory()[0] > 300000
inside.workload(2)
assert inside.live(inside.stats(inside.library())) > 10000
''', env=child.preloaded(OBMALLOC_VERBOSE='1', PYTHONTRACEMALLOC='5'))
    status.active(done, python)


@pytest.mark.since(3)
def test_faulthandler(python):
    done = interpret(python, '''
import faulthandler, inside, time
assert faulthandler.is_enabled()
faulthandler.dump_traceback()
faulthandler.dump_traceback_later(0.05); time.sleep(0.2)
faulthandler.cancel_dump_traceback_later()
inside.workload(1)
faulthandler.disable(); faulthandler.enable()
''', options=('-X', 'faulthandler'))
    assert 'most recent call first' in done.err
    done = interpret(python, 'import faulthandler; faulthandler._sigsegv()', status=-11,
                     options=('-X', 'faulthandler'))
    assert 'Fatal Python error: Segmentation fault' in done.err


@pytest.mark.since(3, 7)
def test_importtime(python):
    done = interpret(python, 'import json', options=('-X', 'importtime'),
                     env=child.preloaded(OBMALLOC_VERBOSE='1'))
    status.active(done, python)
    assert 'import time:' in done.err


@pytest.mark.since(3)
def test_pythons_own_statistics(python):
    """They print little with another allocator, and do not fail."""
    done = interpret(python, 'import inside; inside.workload(2); sys._debugmallocstats()\n'
                     'assert sys.getallocatedblocks() >= 0',
                     env=child.preloaded(OBMALLOC_VERBOSE='1', PYTHONMALLOCSTATS='1'))
    status.active(done, python)


@pytest.mark.parametrize('options', ['-S', '-s', '-O', '-OO', '-v', '-u'])
def test_options_that_change_the_start(python, options):
    done = interpret(python, 'pass', options=[options],
                     env=child.preloaded(OBMALLOC_VERBOSE='1'))
    status.active(done, python)


@pytest.mark.since(3)
def test_sub_interpreters(python):
    """Own GILs from 3.12 on: the table's functions really run at once."""
    kind = 'own GIL' if python.numbers >= (3, 12) else 'shared GIL'
    done = run_program(python, 'subinterpreters.py')
    if done.out.strip() == 'none':
        pytest.skip('neither _xxsubinterpreters nor _testcapi here')
    assert done.out.strip() == kind


def test_threads(python):
    done = interpret(python, '''
import inside
for _ in range(3): inside.in_threads(8, lambda: inside.workload(1))
print(inside.stats(inside.library())["pools"]["lanes"])
''')
    assert done.out.strip() == '1', 'under a GIL one shard serves all threads'


@pytest.mark.parametrize('settings', [{}, {'OBMALLOC_DECAY_MS': '-1'}], ids=str)
def test_a_thread_that_trims(python, settings):
    """obmalloc_trim releases the GIL; the library does not take that for parallel threads."""
    done = run_program(python, 'trimming.py', env=child.preloaded(**settings))
    assert done.out.strip() == 'lanes: 1'


@pytest.mark.since(3, 13)
def test_interpreters_with_a_gil_each_get_lanes(python):
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip('one processor: no threads run at the same time')
    done = run_program(python, 'parting.py')
    assert re.search('lanes: [2-9]', done.out)


def fill(python, subtests, limit, *kinds):
    """Fills 24 MiB beyond the present size several times: a MemoryError each time, the same room
    each time, and, for mixed objects, about as much room as stock finds."""
    for kind in kinds:
        if kind in ('objects', 'dicts') and python.minor == '2.7':
            continue    # stock 2.7, too, may fail inside its own except clause
        with subtests.test(kind=kind):
            done = run_program(python, 'memory_limit.py', limit, kind)
            counts, _ = done.said
            assert min(counts[1:]) > 0.8 * counts[0]
            if kind == 'mixed':
                stock, _ = run_program(python, 'memory_limit.py', limit, kind,
                                       env=child.clean_environment()).said
                assert counts[0] > 0.7 * stock[0], 'stock: %s' % stock


def test_address_space(python, subtests):
    fill(python, subtests, 'AS', 'objects', 'dicts', 'mixed')


def test_data(python, subtests):
    fill(python, subtests, 'DATA', 'bytes', 'vectors', 'mixed')


@pytest.mark.since(3)
@pytest.mark.parametrize('limit', ['AS', 'DATA'])
def test_what_small_objects_held_serves_a_large_block(python, limit):
    """Half of the room in one piece, which malloc must get at once, not after a decay interval:
    stock unmaps its arenas when they become empty."""
    done = run_program(python, 'memory_limit.py', limit, 'dicts')
    assert done.said[1]
