"""What else looks at the allocator, or lives beside it: tracemalloc, faulthandler,
Python's own statistics, sub-interpreters, and a limit on memory."""
import os

import support

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


class Coexistence(support.PythonCase):

    @support.since(3)
    def test_tracemalloc_started_and_stopped(self):
        self.interpret(TRACE)

    @support.since(3)
    def test_tracemalloc_sees_calls_by_name(self):
        """Our exported names go through the host's table, past no hook."""
        self.interpret(BY_NAME, support.LIBRARY)

    @support.since(3)
    def test_PYTHONTRACEMALLOC(self):
        done = self.interpret(
            'import inside, tracemalloc\n'
            'kept = [object() for _ in range(1000)]\n'
            'assert len(tracemalloc.get_object_traceback(kept[5])) >= 1\n'
            'assert tracemalloc.get_traceback_limit() == 5\n'
            'assert tracemalloc.get_traced_memory()[0] > 300000\n'
            'inside.workload(2)\n'
            'assert inside.live(inside.stats(inside.library())) > 10000\n',
            env=support.preloaded(OBMALLOC_VERBOSE='1', PYTHONTRACEMALLOC='5'))
        self.assertUs(done)

    @support.since(3)
    def test_faulthandler(self):
        done = self.interpret('import faulthandler, inside, time\n'
                              'assert faulthandler.is_enabled()\n'
                              'faulthandler.dump_traceback()\n'
                              'faulthandler.dump_traceback_later(0.05); time.sleep(0.2)\n'
                              'faulthandler.cancel_dump_traceback_later()\n'
                              'inside.workload(1)\n'
                              'faulthandler.disable(); faulthandler.enable()\n',
                              options=('-X', 'faulthandler'))
        self.assertIn('most recent call first', done.err)
        done = self.interpret('import faulthandler; faulthandler._sigsegv()', status=-11,
                              options=('-X', 'faulthandler'))
        self.assertIn('Fatal Python error: Segmentation fault', done.err)

    @support.since(3, 7)
    def test_importtime(self):
        done = self.interpret('import json', options=('-X', 'importtime'),
                              env=support.preloaded(OBMALLOC_VERBOSE='1'))
        self.assertUs(done)
        self.assertIn('import time:', done.err)

    @support.since(3)
    def test_pythons_own_statistics(self):
        """They say little or nothing with another allocator, and do not fail."""
        done = self.interpret('import inside; inside.workload(2); sys._debugmallocstats()\n'
                              'assert sys.getallocatedblocks() >= 0',
                              env=support.preloaded(OBMALLOC_VERBOSE='1', PYTHONMALLOCSTATS='1'))
        self.assertUs(done)

    def test_options_that_change_the_start(self):
        for options in (('-S',), ('-s',), ('-O',), ('-OO',), ('-v',), ('-B', '-u')):
            with self.subTest(options=options):
                done = self.interpret('pass', options=options,
                                      env=support.preloaded(OBMALLOC_VERBOSE='1'))
                self.assertUs(done)

    @support.since(3)
    def test_sub_interpreters(self):
        """Own GILs from 3.12 on: the table's functions really run at once."""
        kind = 'own GIL' if self.python.numbers >= (3, 12) else 'shared GIL'
        done = self.program('subinterpreters.py')
        if done.out.strip() == 'none':
            self.skipTest('neither _xxsubinterpreters nor _testcapi here')
        self.assertEqual(done.out.strip(), kind, done.report)

    def test_threads(self):
        done = self.interpret('import inside\n'
                              'for _ in range(3): inside.in_threads(8, lambda: inside.workload(1))\n'
                              'print(inside.stats(inside.library())["pools"]["lanes"])\n')
        self.assertEqual(done.out.strip(), '1', 'under a GIL threads take turns')

    def test_a_thread_that_trims(self):
        """It does so without the GIL, and is no sign that the others run at once."""
        for settings in ({}, {'OBMALLOC_DECAY_MS': '-1'}):
            with self.subTest(settings=settings):
                done = self.program('trimming.py', env=support.preloaded(**settings))
                self.assertEqual(done.out.strip(), 'lanes: 1', done.report)

    @support.since(3, 13)
    def test_interpreters_with_a_gil_each_get_lanes(self):
        if len(os.sched_getaffinity(0)) < 2:
            self.skipTest('one processor: nothing runs at the same time')
        done = self.program('parting.py')
        self.assertRegex(done.out, 'lanes: [2-9]', done.report)


class MemoryLimit(support.PythonCase):
    """24 MiB more than the process has, and then none: a MemoryError each time, the
    same room each time, and about as much of it as stock finds (asked of one kind)."""

    def fill(self, limit, *kinds):
        for kind in kinds:
            if kind in ('objects', 'dicts') and self.python.minor == '2.7':
                continue    # Stock 2.7, too, may fail inside its own except clause
            with self.subTest(kind=kind):
                done = self.program('memory_limit.py', limit, kind)
                counts, _ = support.said(done)
                self.assertGreater(min(counts[1:]), 0.8 * counts[0], done.report)
                if kind == 'mixed':
                    stock, _ = support.said(self.program('memory_limit.py', limit, kind,
                                                         env=support.clean_environment()))
                    self.assertGreater(counts[0], 0.7 * stock[0], 'stock: %s' % stock)

    def test_address_space(self):
        self.fill('AS', 'objects', 'dicts', 'mixed')

    def test_data(self):
        self.fill('DATA', 'bytes', 'vectors', 'mixed')

    @support.since(3)
    def test_what_small_objects_held_serves_a_large_block(self):
        """Half of the room in one piece, which layer 0 must find, at once and not
        when a timer has run: stock unmaps its arenas as they get empty."""
        for limit in 'AS', 'DATA':
            with self.subTest(limit=limit):
                done = self.program('memory_limit.py', limit, 'dicts')
                self.assertTrue(support.said(done)[1], done.report)
