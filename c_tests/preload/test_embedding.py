"""Programs that embed Python: that open libpython after they have started, in
the global and in a local scope, and that initialise it again and again.

When the library's constructor runs there is no Python in such a process.  But
libpython, opened later, binds its calls of PyObject_Malloc to our names, since
ours come first in the global scope; we must hand them to the host's own table,
which in a local scope is not to be found by name.
"""
import json
import os
import unittest

import support

# No module that is not inside libpython: in a local scope none can be loaded.
BUILD = '''
import gc, sys
class Node(object):
    def __init__(self, child): self.child, self.me = child, self
def build():
    rows = [{n: str(n) * (n % 50), str(n): [n] * (n % 90)} for n in range(8000)]
    chain = None
    for n in range(3000): chain = Node(chain)
    return rows, chain
def check(rows):
    for n, row in enumerate(rows):
        assert row == {n: str(n) * (n % 50), str(n): [n] * (n % 90)}, n
old, chain = build()
'''
MORE = '''
check(old)
for row in old: row.update((key, None) for key in range(-30, 0))
new, chain = build()
check(new)
gc.collect()
'''
LESS = 'del old, chain; gc.collect(); check(new); del new; gc.collect()'
TRACE = '''
import _tracemalloc as tracemalloc
tracemalloc.start(1)
before = tracemalloc.get_traced_memory()[0]
'''
GRABBED = '''
grown = tracemalloc.get_traced_memory()[0] - before
assert 500000 <= grown < 600000, ("blocks of PyObject_Malloc that tracemalloc saw", grown)
'''
DROPPED = '''
left = tracemalloc.get_traced_memory()[0] - before
assert left < 50000, ("blocks that tracemalloc did not see go", left)
kept = [object() for _ in range(5000)] + [bytearray(100) for _ in range(1000)]
made = tracemalloc.get_traced_memory()[0] - before - left
assert made > 5000 * 24 + 1000 * 100, ("objects that tracemalloc saw", made)
assert tracemalloc._get_object_traceback(kept[0]) is not None
tracemalloc.stop(); del kept
'''
TRACED = ['run', TRACE, 'grab', '1000', '500', 'run', GRABBED, 'drop', 'run', DROPPED]


def plan(*, install, traced):
    steps = ['init', 'run', BUILD, *(TRACED if traced else ['grab', '100', '100', 'drop'])]
    if install:
        steps += ['stats', 'install', 'stats']
    steps += ['run', MORE, *(['stats', 'install'] if install else [])]
    steps += [*(TRACED if traced else []), 'run', LESS]
    return steps + (['stats'] if install else []) + ['finalize']


def live_in(done):
    """Our live blocks at each step 'stats'."""
    texts = [line.split('=', 1)[1] for line in done.out.splitlines() if line.startswith('stats=')]
    return [sum(each['blocks_live'] for each in json.loads(text)['classes']) for text in texts]


class OpenedLate(support.PythonCase):

    def embed(self, scope, steps, linked=False, **env):
        if not self.python.library:
            self.skipTest('no libpython to open')
        env['PYTHONHOME'] = self.python.prefix
        if linked:
            program = link_with_us()
            env = support.clean_environment(OBMALLOC_VERBOSE='1', **env)
        else:
            program = support.build('embed', 'embed.c', '-rdynamic', '-ldl')
            env = support.preloaded(OBMALLOC_VERBOSE='1', **env)
        done = support.run([program, self.python.library, scope] + steps, env)
        self.assertRan(done)
        return done

    def assertInstalled(self, done):
        """Both calls returned 0, the last line says so, and the numbers followed."""
        words = [line.split('=', 1) for line in done.out.splitlines()]
        self.assertEqual([value for name, value in words if name == 'install'], ['0', '0'],
                         done.report)
        self.assertActiveAtLast(done, self.python.version)
        early, installed, grown, shrunk = live_in(done)
        self.assertLess(installed - early, 1000, 'before anything was made')
        self.assertGreater(grown - installed, 25000, 'after two times 8000 rows')
        self.assertLess(shrunk, grown - 20000, 'after they were dropped')

    def test_not_installed(self):
        """Ours are the names, the host's is the memory. 2.7 too."""
        steps = plan(install=False, traced=self.python.numbers >= (3, 6))
        for scope in 'global', 'local':
            with self.subTest(scope=scope):
                self.embed(scope, steps)

    @support.since(3, 6)
    def test_preloaded_and_installed(self):
        for scope in 'global', 'local':
            with self.subTest(scope=scope):
                self.assertInstalled(self.embed(scope, plan(install=True, traced=True)))

    @support.since(3, 6)
    def test_linked_and_installed(self):
        for scope in 'global', 'local':
            with self.subTest(scope=scope):
                self.assertInstalled(self.embed(scope, plan(install=True, traced=True), linked=True))


def folder_of_the_library():
    """A folder with the name that -l looks for and the one that the loader looks for,
    as an installation has them."""
    folder = support.scratch('lib')
    os.makedirs(folder, exist_ok=True)
    for name in 'libobmalloc.so', 'libobmalloc.so.0':
        if not os.path.lexists(os.path.join(folder, name)):
            try:
                os.symlink(support.LIBRARY, os.path.join(folder, name))
            except FileExistsError:
                pass
    return folder


def link_with_us():
    """The program with -lobmalloc."""
    folder = folder_of_the_library()
    return support.build('embed_linked', '-DLINKED', 'embed.c', '-rdynamic', '-L' + folder,
                         '-lobmalloc', '-Wl,-rpath,' + folder, '-ldl')


def linked_with(python):
    """The program linked against the libpython of `python`."""
    return support.build('embed_' + python.version, 'embed.c', '-rdynamic',
                         '-Wl,--no-as-needed', python.library, '-ldl',
                         '-Wl,-rpath,' + os.path.dirname(python.library))


ROUND = '''
import sys, json, re, collections, functools, itertools, random, string, textwrap
class Point(collections.namedtuple("Point", "x y")):
    pass
rows = [Point(n, str(n)) for n in range(2000)]
text = json.dumps([dict(row._asdict()) for row in rows], sort_keys=True)
assert json.loads(text)[7] == {"x": 7, "y": "7"}
words = collections.Counter(re.findall("[a-z]+", textwrap.__doc__ or "text text"))
sys.stdout.write("%d %d %s\\n" % (len(text), sum(words.values()), sys.version.split()[0]))
sys.stdout.flush()
'''


class Linked(support.PythonCase):
    """Programs that are linked against libpython, under preload."""

    def linked_program(self):
        if not self.python.library:
            self.skipTest('no libpython to link')
        return linked_with(self.python)

    def test_options_of_the_program_are_not_pythons(self):
        """-E of such a program is no reason to overlook PYTHONMALLOC, which the
        interpreter inside heeds: the line must be what happens."""
        program = self.linked_program()
        for option in [], ['-E']:
            for setting in {}, {'PYTHONMALLOC': 'malloc'}:
                with self.subTest(option=option, setting=setting):
                    done = support.run(
                        [program, *option, '-', 'global', 'init', 'run', ROUND, 'stats', 'finalize'],
                        support.preloaded(PYTHONHOME=self.python.prefix, OBMALLOC_VERBOSE='1',
                                          **setting))
                    self.assertRan(done)
                    lines = done.lines(support.ACTIVE) + done.lines(support.ASIDE)
                    self.assertEqual(len(lines), 1, done.report)
                    live = live_in(done)[0]
                    if done.lines(support.ACTIVE):
                        self.assertGreater(live, 10000, done.report)
                    else:
                        self.assertEqual(live, 0, done.report)
                    if not setting:
                        self.assertUs(done)

    def test_three_lives(self):
        """From 3.12 on a second Py_Initialize puts the host's own functions back
        into the table, while blocks of the first life are still alive."""
        program = self.linked_program()
        lives = ['init', 'run', ROUND, 'stats', 'finalize'] * 3
        home = dict(PYTHONHOME=self.python.prefix)
        plain = support.run([program, '-', 'global'] + lives, support.clean_environment(**home))
        if plain.status != 0:
            raise unittest.SkipTest('cannot live twice by itself: ' + plain.report)
        done = support.run([program, '-', 'global'] + lives, support.preloaded(**home))
        output = [line for line in done.out.splitlines() if not line.startswith('stats=')]
        self.assertRan(done)
        self.assertEqual(output, plain.out.splitlines(), done.report)
        self.assertEqual(len(output), 3, done.report)
        self.assertEqual(done.err, plain.err, done.report)
        self.assertGreater(live_in(done)[0], 10000, 'the first life was not ours')
