"""OBMALLOC_DEBUG=1: the host's own debug hooks over us, on a stock interpreter."""
import glob
import os
import re
import shutil
import unittest

import support
import test_embedding

# Each mistake on purpose, by the functions that an extension module would call.
MISTAKE = '''
import ctypes
def function(name, result, *arguments):
    found = getattr(ctypes.pythonapi, name)
    found.restype, found.argtypes = result, arguments
    return found
domain, mistake = sys.argv[1:3]
other = {"PyObject": "PyMem", "PyMem": "PyObject"}[domain]
malloc = function(domain + "_Malloc", ctypes.c_void_p, ctypes.c_size_t)
free = function(domain + "_Free", None, ctypes.c_void_p)
others_free = function(other + "_Free", None, ctypes.c_void_p)
size = int(sys.argv[3]) if len(sys.argv) > 3 else 40
block = malloc(size)
if mistake == "overflow": ctypes.memset(block + size, 1, 1)
if mistake == "underflow": ctypes.memset(block - 1, 1, 1)
(others_free if mistake == "domain" else free)(block)
print("survived")
'''


class Hooks(support.PythonCase):

    @support.since(3, 6)
    def test_status_line_says_so(self):
        done = self.interpret('pass', env=support.preloaded(OBMALLOC_VERBOSE='1', OBMALLOC_DEBUG='1'))
        self.assertUs(done)
        self.assertIn(', under the debug hooks', done.err, done.report)
        done = self.interpret('pass', env=support.preloaded(OBMALLOC_VERBOSE='1', OBMALLOC_DEBUG='0'))
        self.assertNotIn('hooks', done.err, done.report)

    @support.since(3, 6)
    def test_program_runs_as_ever_and_on_us(self):
        code = ('import inside, json; print(inside.workload(3))\n'
                'print(json.dumps(inside.live(inside.stats(inside.library()))))')
        done = self.interpret(code, env=support.preloaded(OBMALLOC_DEBUG='1'))
        stock = self.interpret('import inside; print(inside.workload(3))',
                               env=support.clean_environment())
        self.assertEqual(done.out.splitlines()[:-1], stock.out.splitlines())
        self.assertEqual(done.err, '')
        self.assertGreater(support.said(done), 10000, 'live blocks of ours')

    @support.since(3, 6)
    def test_mistakes_are_found(self):
        """In both domains, with the hooks' own words; without them nothing is said."""
        words = {'overflow': 'at tail+0: 0x01', 'underflow': 'at p-1: 0x01', 'domain': 'bad ID'}
        for domain in 'PyObject', 'PyMem':
            for mistake, word in words.items():
                with self.subTest(domain=domain, mistake=mistake):
                    done = support.run(
                        [self.python.path, '-B', '-c', 'import sys\n' + MISTAKE, domain, mistake],
                        support.preloaded(OBMALLOC_DEBUG='1'))
                    self.assertEqual(done.status, -6, done.report)
                    self.assertIn('Fatal Python error', done.err, done.report)
                    self.assertIn(word, done.err, done.report)
                    self.assertNotIn('survived', done.out, done.report)

    @support.only('2.7')
    def test_nothing_to_put_over_in_2_7(self):
        done = self.interpret('pass', env=support.preloaded(OBMALLOC_VERBOSE='1', OBMALLOC_DEBUG='1'))
        self.assertUs(done)
        self.assertNotIn('hooks', done.err, done.report)

    @support.since(3, 6)
    def test_installing_again_leaves_the_hooks(self):
        """A table of ours over the hooks would take their blocks for its own."""
        done = self.interpret(
            'import inside, ctypes\n'
            'library = ctypes.PyDLL(inside.library()._name)\n'
            'made = [bytearray(n % 300) for n in range(3000)]\n'
            'assert library.obmalloc_install() == 0\n'
            'del made\n'
            'made = [bytearray(n % 300) for n in range(3000)]\n' + MISTAKE.replace('print', '#'),
            'PyObject', 'overflow', env=support.preloaded(OBMALLOC_DEBUG='1'), status=-6)
        self.assertIn('at tail+0: 0x01', done.err, done.report)

    @support.since(3, 6)
    def test_life_after_life(self):
        """From 3.12 on a second Py_Initialize puts the host's own functions back into
        the table, without the hooks, while blocks of the first life are alive."""
        library = self.python.library
        if not library:
            self.skipTest('no libpython to link')
        program = test_embedding.linked_with(self.python)
        lives = ['init', 'run', test_embedding.ROUND, 'stats', 'finalize'] * 3
        home = dict(PYTHONHOME=self.python.prefix)
        plain = support.run([program, '-', 'global'] + lives,
                            support.clean_environment(PYTHONMALLOC='debug', **home))
        if plain.status != 0:
            raise unittest.SkipTest('cannot live twice by itself: ' + plain.report)
        done = support.run([program, '-', 'global'] + lives,
                           support.preloaded(OBMALLOC_DEBUG='1', **home))
        self.assertRan(done)
        self.assertEqual([line for line in done.out.splitlines() if not line.startswith('stats=')],
                         [line for line in plain.out.splitlines() if not line.startswith('stats=')])
        self.assertEqual(done.err, plain.err, done.report)


class HooksThatWereThereBefore(support.PythonCase):
    """A program has the host's hooks put into its tables, and installs us later: they stay
    over us, and find what they found."""

    @support.since(3, 6)
    def test_mistakes_are_found(self):
        if not self.python.library:
            self.skipTest('no libpython to open')
        program = support.build('embed', 'embed.c', '-rdynamic', '-ldl')
        steps = ['hooks', 'init', 'run', test_embedding.BUILD, 'install', 'run',
                 test_embedding.MORE, 'install', 'run', test_embedding.LESS]
        for size in '40', '4000', '100000':
            for mistake, word in ('overflow', 'at tail+0: 0x01'), ('foreign', 'bad ID'):
                with self.subTest(size=size, mistake=mistake):
                    done = support.run(
                        [program, self.python.library, 'global', *steps, mistake, size],
                        support.preloaded(PYTHONHOME=self.python.prefix, OBMALLOC_VERBOSE='1'))
                    self.assertEqual(done.status, -6, done.report)
                    self.assertEqual(done.out.split(), ['install=0'] * 2, done.report)
                    self.assertIn(word, done.err, done.report)
                    self.assertActiveAtLast(done, self.python.version)
                    self.assertIn(', under the debug hooks', done.err, done.report)


def debug_builds():
    """Interpreters that are built --with-pydebug, as Debian's python3.11-dbg."""
    folders = os.environ.get('PATH', '').split(os.pathsep)
    found = {os.path.realpath(path) for folder in folders
             for path in glob.glob(os.path.join(folder, 'python3*'))
             if re.fullmatch(r'python3\.\d+(d|-dbg)', os.path.basename(path))}
    return sorted(path for path in found if shutil.which(path))


class DebugBuild(support.Case):
    """Its hooks stand in its tables from the start, and stay over us."""

    def each(self):
        found = debug_builds()
        if not found:
            self.skipTest('no debug build here: python3.11-dbg')
        return [(path, setting) for path in found for setting in ({}, {'OBMALLOC_DEBUG': '1'})]

    def test_it_finds_what_it_finds(self):
        fatal = re.compile('(Fatal Python error: .*|.*at tail.0: 0x01.*)')
        for path, setting in self.each():
            for size in '40', '4000', '100000':
                for mistake in 'overflow', 'underflow', 'domain', 'none':
                    with self.subTest(path=path, size=size, mistake=mistake, **setting):
                        argv = [path, '-B', '-c', 'import sys\n' + MISTAKE, 'PyMem', mistake, size]
                        plain = support.run(argv, support.clean_environment())
                        done = support.run(argv, support.preloaded(**setting))
                        self.assertRan(done, plain.status)
                        said = [[line.group(1) for line in each.lines(fatal)]
                                for each in (plain, done)]
                        self.assertEqual(said[0], said[1], done.report)
                        self.assertEqual(bool(said[0]), mistake != 'none', plain.report)

    def test_program_runs_as_ever_and_on_us(self):
        code = 'import sys; sys.path.insert(0, %r)\n' % support.PROGRAMS
        code += 'import inside; print(inside.workload(3))\n'
        more = 'import json; print(json.dumps(inside.live(inside.stats(inside.library()))))'
        for path, setting in self.each():
            with self.subTest(path=path, **setting):
                plain = support.run([path, '-B', '-c', code], support.clean_environment())
                done = support.run([path, '-B', '-c', code + more],
                                   support.preloaded(OBMALLOC_VERBOSE='1', **setting))
                self.assertRan(done)
                self.assertEqual(done.out.splitlines()[:-1], plain.out.splitlines())
                self.assertIn(', under the debug hooks', done.err, done.report)
                self.assertGreater(support.said(done), 10000, 'live blocks of ours')

    def test_installed_late(self):
        code = ('import sys, ctypes\n'
                'library = ctypes.PyDLL(%r)\n'
                'made = [bytearray(n %% 900) for n in range(3000)]\n'
                'assert library.obmalloc_install() == 0\n'
                'made += [bytearray(n %% 900) for n in range(3000)]\n'
                'del made[::2]\n'
                'made += [bytearray(n %% 900) for n in range(3000)]\n'
                'assert library.obmalloc_install() == 0\n' % support.LIBRARY)
        for path, setting in self.each():
            with self.subTest(path=path, **setting):
                argv = [path, '-B', '-c', code + MISTAKE, 'PyMem', 'none']
                self.assertRan(support.run(argv, support.clean_environment(**setting)))
                argv[-1] = 'overflow'
                done = support.run(argv, support.clean_environment(**setting))
                self.assertRan(done, -6)
                self.assertIn('at tail+0: 0x01', done.err, done.report)

    def test_chosen_by_the_user(self):
        """PYTHONMALLOC is the user's word there, too."""
        for path, setting in self.each():
            for value in 'debug', 'malloc', 'pymalloc':
                with self.subTest(path=path, value=value, **setting):
                    done = support.run([path, '-c', 'pass'], support.preloaded(
                        PYTHONMALLOC=value, OBMALLOC_VERBOSE='1', **setting))
                    self.assertRan(done)
                    self.assertAside(done, 'PYTHONMALLOC')
