"""OBMALLOC_GUARD: mistakes of an extension module are found where they happen, and
the report says what, where, and by whom."""
import functools
import os
import re
import shutil
import signal
import sys
import unittest

import support

HEAD = re.compile(r'^obmalloc: ([a-z ]+): (.*) \(pid (\d+)\)$', re.M)

# Calls one function of the extension, over and over: a block that is not guarded is
# not harmed by it. In functions whose names and lines are to be seen.
REPEAT = '''
import os, sys
sys.path.insert(0, %r)
import mistakes
def again(name, *numbers):
    for _ in range(%d):
        getattr(mistakes, name)(*numbers)
'''
# Where the call is, counted from the program's first line: interpret() adds one.
LINE = 8



@functools.lru_cache(maxsize=None)
def extension(python):
    """The folder of mistakes.so for this interpreter."""
    ask = ('try:\n    import sysconfig; print(sysconfig.get_paths()["include"])\n'
           'except Exception:\n    from distutils import sysconfig; print(sysconfig.get_python_inc())')
    include = support.run([python.path, '-c', ask]).out.strip()
    if not os.path.exists(os.path.join(include, 'Python.h')):
        raise unittest.SkipTest('no Python.h for ' + python.path)
    if not shutil.which('gcc'):
        raise unittest.SkipTest('no gcc here')
    folder = support.scratch('mistakes-' + re.sub(r'\W', '-', python.label))
    os.makedirs(folder, exist_ok=True)
    done = support.run(['gcc', '-O1', '-g', '-shared', '-fPIC', '-isystem', include,
                        os.path.join(support.PROGRAMS, 'mistakes.c'),
                        '-o', os.path.join(folder, 'mistakes.so')])
    if done.status != 0:
        raise AssertionError(done.report)
    return folder


class Report:
    """One report, in its parts: each is a word, a thread, its frames and its lines."""

    def __init__(self, done):
        self.done = done
        self.heads = HEAD.findall(done.err)
        if len(self.heads) != 1:
            raise AssertionError('%d reports\n%s' % (len(self.heads), done.report))
        self.what, self.where, self.pid = self.heads[0]
        self.parts = {}
        for line in done.err.splitlines():
            found = re.match(r'obmalloc:   (\w+) by thread (\d+):$', line)
            if found:
                part = self.parts[found.group(1)] = (int(found.group(2)), [], [])
            frame = re.match(r'obmalloc:     #\d+ (.+)$', line)
            if frame:
                part[1].append(frame.group(1))
            python = re.match(r'obmalloc:     (File .+)$', line)
            if python:
                part[2].append(python.group(1))


class Guard(support.PythonCase):

    def make(self, name, *numbers, **settings):
        """The report of a program that makes this mistake until it is found."""
        before = settings.pop('before', '')
        # Without site, or the modules it imports take most of the slots for ever.
        options = ('-S',) + settings.pop('options', ())
        status = settings.pop('status', -signal.SIGSEGV)
        times = settings.pop('times', 3000)
        call = settings.pop('call', 'again(%s)\n' % ', '.join(map(repr, (name,) + numbers)))
        code = REPEAT % (extension(self.python), times) + before + '\n' + call
        env = support.preloaded(**dict({'OBMALLOC_GUARD': '1'}, **settings))
        return Report(self.interpret(code, env=env, options=options, status=status))

    def assertPart(self, report, word, function):
        """This part names the extension's function and the Python line."""
        self.assertIn(word, report.parts, report.done.report)
        thread, frames, lines = report.parts[word]
        self.assertGreater(thread, 0)
        own = [frame for frame in frames[:3] if 'mistakes.so+0x' in frame and
               '(%s+0x' % function in frame]
        self.assertTrue(own, '%s not in %s\n%s' % (function, frames, report.done.report))
        # 3.14 is not known to the library: no Python lines.
        if self.python.numbers < (3, 14):
            self.assertEqual(lines[0], 'File "<string>", line %d, in again' % LINE,
                             report.done.report)
            self.assertRegex(lines[1], r'^File "<string>", line \d+, in <module>$')

    def assertFound(self, report, what, where, **parts):
        self.assertEqual(report.what, what, report.done.report)
        self.assertRegex(report.where, where, report.done.report)
        self.assertEqual(sorted(report.parts), sorted(parts), report.done.report)
        for word, function in parts.items():
            self.assertPart(report, word, function)

    FREED = dict(allocated='mistakes_allocate', freed='mistakes_free')

    def test_read_of_a_freed_block(self):
        self.assertFound(self.make('read_freed', 40, 8), 'use after free',
                         r'^read of 0x\w+, 8 bytes into the freed block of 40 bytes at 0x\w+$',
                         read='mistakes_access', **self.FREED)

    def test_write_of_a_freed_block(self):
        self.assertFound(self.make('write_freed', 400, 399), 'use after free',
                         r'^write of 0x\w+, 399 bytes into the freed block of 400 bytes',
                         write='mistakes_write', **self.FREED)

    def test_one_in_ten(self):
        self.assertFound(self.make('read_freed', 64, 0, OBMALLOC_GUARD='10'), 'use after free',
                         r'^read of 0x\w+, 0 bytes into the freed block of 64 bytes',
                         read='mistakes_access', **self.FREED)

    def test_overflow_by_one(self):
        """Within what alignment leaves: seen when the block is freed."""
        self.assertFound(self.make('write_at', 41, 41, status=-signal.SIGABRT), 'overflow',
                         r'^written 0 bytes after the block of 41 bytes at 0x\w+, seen when',
                         free='mistakes_free', allocated='mistakes_allocate')

    def test_overflow_by_sixteen(self):
        """On the right of its slot it faults, on the left it is seen later: repeated
        reads, which only fault."""
        self.assertFound(self.make('read_at', 48, 64), 'overflow',
                         r'^read of 0x\w+, 16 bytes after the block of 48 bytes',
                         read='mistakes_access', allocated='mistakes_allocate')

    def test_overflow_of_a_large_block(self):
        self.assertFound(self.make('read_at', 20000, 20000), 'overflow',
                         r'^read of 0x\w+, 0 bytes after the block of 20000 bytes',
                         read='mistakes_access', allocated='mistakes_allocate')

    def test_underflow(self):
        self.assertFound(self.make('read_at', 100, -1), 'underflow',
                         r'^read of 0x\w+, 1 bytes before the block of 100 bytes',
                         read='mistakes_access', allocated='mistakes_allocate')

    def test_double_free(self):
        self.assertFound(self.make('free_twice', 40, times=1, status=-signal.SIGABRT),
                         'double free',
                         r'^free of 0x\w+, 0 bytes into the freed block of 40 bytes',
                         free='mistakes_free', **self.FREED)

    def test_free_of_an_inner_address(self):
        self.assertFound(self.make('free_at', 40, 8, times=1, status=-signal.SIGABRT), 'no block',
                         r'^free of 0x\w+, 8 bytes into the block of 40 bytes',
                         free='mistakes_free', allocated='mistakes_allocate')

    def test_realloc_of_a_freed_block(self):
        report = self.make('resize_freed', 40, times=1, status=-signal.SIGABRT)
        self.assertEqual(report.what, 'use after free', report.done.report)
        self.assertRegex(report.where, r'^realloc of 0x\w+, 0 bytes into the freed block of 40')
        self.assertPart(report, 'freed', 'mistakes_free')

    def test_a_reference_too_few(self):
        """The commonest mistake: the object goes while a list still has it."""
        report = self.make('', call='''
class Thing(object):
    __slots__ = ("a", "b")
held = [Thing() for _ in range(3)]
def lose():
    mistakes.drop(held[1])
lose()
print(held[1].a)
''')
        self.assertEqual(report.what, 'use after free', report.done.report)
        self.assertRegex(report.where, '^(read|write) of 0x.* into the freed block of ')
        for word, name in (('allocated', '<(listcomp|module)>'), ('freed', 'lose')):
            self.assertTrue(report.parts[word][1], report.done.report)
            if self.python.numbers >= (3, 14):
                continue    # not known to the library: no Python lines
            self.assertRegex(report.parts[word][2][0], r'^File "<string>", line \d+, in ' + name,
                             report.done.report)

    # faulthandler: 2.7 has none.

    def assertBoth(self, report):
        """Our report and faulthandler's, and the process ends by the signal."""
        self.assertEqual(report.what, 'use after free', report.done.report)
        self.assertPart(report, 'freed', 'mistakes_free')
        self.assertEqual(report.done.err.count('Fatal Python error: Segmentation fault'), 1,
                         report.done.report)
        self.assertRegex(report.done.err, r'File "<string>", line %d in again' % LINE)

    @support.since(3, 6)
    def test_faulthandler_before(self):
        report = self.make('read_freed', 40, 8, options=('-X', 'faulthandler'))
        self.assertBoth(report)
        # Before 3.8 the interpreter allocates, ready to run, before it enables it.
        if self.python.numbers >= (3, 8):
            self.assertLess(report.done.err.index('use after free'),
                            report.done.err.index('Fatal Python error'), report.done.report)

    @support.since(3, 6)
    def test_faulthandler_after(self):
        report = self.make('read_freed', 40, 8, before='import faulthandler; faulthandler.enable()')
        self.assertBoth(report)
        self.assertTrue(any('(mistakes_access+' in frame for frame in report.parts['read'][1]),
                        report.done.report)

    @support.since(3, 6)
    def test_faulthandler_enabled_and_disabled(self):
        report = self.make('read_freed', 40, 8, before='import faulthandler; '
                           'faulthandler.enable(); faulthandler.disable()')
        self.assertPart(report, 'read', 'mistakes_access')
        self.assertNotIn('Fatal Python error', report.done.err)

    def plain(self, code, status, **settings):
        """A program that makes no mistake of a guarded block: not a word of ours."""
        env = support.preloaded(**dict({'OBMALLOC_GUARD': '1'}, **settings))
        prelude = REPEAT % (extension(self.python), 200)
        done = self.interpret(prelude + code, env=env, status=status)
        self.assertSaysNothing(done)
        return done

    def test_other_faults_are_passed_on(self):
        self.plain('import ctypes; ctypes.string_at(8)', -signal.SIGSEGV)

    def test_signals_that_are_sent_are_passed_on(self):
        self.plain('import signal; os.kill(os.getpid(), signal.SIGSEGV); 1 + 1', -signal.SIGSEGV)

    def test_a_handler_of_the_program_is_called(self):
        """It takes the place of ours."""
        done = self.plain('import signal; signal.signal(signal.SIGSEGV, lambda *_: sys.exit(5))\n'
                          'os.kill(os.getpid(), signal.SIGSEGV)\nimport time; time.sleep(9)\n', 5)
        self.assertEqual(done.out, '')

    @support.since(3, 6)
    def test_faulthandler_of_another_fault(self):
        done = self.plain('import faulthandler; faulthandler.enable(); faulthandler._read_null()',
                          -signal.SIGSEGV)
        self.assertIn('Fatal Python error: Segmentation fault', done.err)

    def test_in_a_thread(self):
        report = self.make('', before='import threading', OBMALLOC_GUARD='4',
                           call='thread = threading.Thread(target=again, '
                                'args=("read_freed", 40, 8)); thread.start(); thread.join()\n')
        self.assertEqual(report.what, 'use after free')
        read, allocated = report.parts['read'][0], report.parts['allocated'][0]
        self.assertEqual(read, allocated)
        self.assertNotEqual(read, int(report.pid))

    def test_several_threads_at_once(self):
        """One reports, the others wait; the process ends."""
        report = self.make('', before='import threading', OBMALLOC_GUARD='4', call='''
threads = [threading.Thread(target=again, args=("read_freed_without_gil", 40, 8)) for _ in range(4)]
for thread in threads: thread.start()
for thread in threads: thread.join()
''')
        self.assertEqual(report.what, 'use after free')

    def test_without_the_gil(self):
        self.assertFound(self.make('read_freed_without_gil', 40, 8), 'use after free',
                         r'^read of', read='mistakes_access', **self.FREED)

    def test_in_a_forked_child(self):
        report = self.make('', status=0, call='''
pid = os.fork()
if pid == 0:
    again('read_freed', 40, 8)
    os._exit(1)
status = os.waitpid(pid, 0)[1]
assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == 11, status
kept = [[n] for n in range(100)]
''')
        self.assertEqual(report.what, 'use after free')
        self.assertNotEqual(int(report.pid), report.done.pid)

    @support.takes_long
    def test_fork_while_threads_are_guarded(self):
        self.interpret('''
import os, threading
stop = []
def work():
    while not stop:
        [[n] for n in range(100)]
threads = [threading.Thread(target=work) for _ in range(3)]
for thread in threads: thread.start()
for n in range(15):
    pid = os.fork()
    if pid == 0:
        kept = [[n] for n in range(1000)]
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
stop.append(1)
for thread in threads: thread.join()
''', env=support.preloaded(OBMALLOC_GUARD='2'), options=('-W', 'ignore'))

    @support.takes_long
    def test_ordinary_programs_run_as_ever(self):
        for rate in ('20', '1000'):
            with self.subTest(rate=rate):
                done = self.program('forks.py', 'quiet', '3',
                                    env=support.preloaded(OBMALLOC_GUARD=rate))
                self.assertEqual((done.out, done.err), ('', ''))

    def test_off_there_is_no_handler(self):
        """And on, there is none before a block is guarded."""
        code = ('text = [line for line in open("/proc/self/status") if "SigCgt" in line][0]\n'
                'print(int(text.split()[1], 16) >> 10 & 1)\n')
        for rate, expected in (('0', '0'), ('1', '1'), ('1000000000', '0')):
            done = self.interpret(code, env=support.preloaded(OBMALLOC_GUARD=rate))
            self.assertEqual(done.out.strip(), expected, rate)

    @support.takes_long
    def test_cpythons_own_tests(self):
        """What passes without passes with; where the tests are not installed, none."""
        names = ['test_json', 'test_dict', 'test_gc']
        if self.python.numbers >= (3,):
            names.append('test_faulthandler')
        folder = support.scratch('tests-' + re.sub(r'\W', '-', self.python.label))
        os.makedirs(folder, exist_ok=True)
        runner = 'test' if self.python.numbers >= (3,) else 'test.regrtest'

        def outcome(name, env):
            return support.run([self.python.path, '-B', '-m', runner, name], env, 280, cwd=folder)

        passing = [name for name in names
                   if outcome(name, support.clean_environment()).status == 0]
        if not passing:
            raise unittest.SkipTest('no tests of its own pass here')
        for name in passing:
            with self.subTest(name=name):
                self.assertRan(outcome(name, support.preloaded(OBMALLOC_GUARD='100')))
