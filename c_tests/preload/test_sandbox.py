"""Sandboxes: filters of system calls that end the process, installed by the program or
before it; and that docs/syscalls.md is true."""
import json
import os
import re
import shutil
import sys
import tempfile
import unittest

import support

sys.path.insert(0, support.PROGRAMS)
import filters      # noqa: E402

PAGE = os.path.join(support.HERE, '..', '..', 'docs', 'syscalls.md')

# Memory comes, goes and comes again: more than is worth the helper thread, requests above
# 512 bytes, and mappings of the C library's where arenas were.
WORK = '''
import os, sys, time
import filters
def work():
    for _ in range(2):
        kept = [(i, str(i)) for i in range(60000)]
        del kept
        kept = [b'x' * (600 + i % 100) for i in range(9000)]
        del kept
        time.sleep(0.1)
        kept = [bytearray(300000) for _ in range(20)]
        del kept
def fork(then):
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        then()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0, 'the child'
'''
OFTEN = {'OBMALLOC_DECAY_MS': '60'}
STOCK = {'OBMALLOC_SYSCALLS': 'stock', **OFTEN}

# What the library calls and its host's allocator does not; a program can do without each.
OURS = ['madvise', 'mincore', 'mprotect', 'clone', 'clone3', 'getppid', 'tgkill', 'sched_yield',
        'open', 'openat', 'memfd_create', 'fcntl', 'ftruncate', 'getrusage', 'rt_sigprocmask',
        'gettid', 'getpid', 'set_robust_list', 'mlockall']

def page():
    with open(PAGE, encoding='utf-8') as file:
        return file.read()


def table():
    """(when, calls, settings) of each row."""
    text = page().split('<!-- calls -->\n')[1].split('<!-- end of calls -->')[0]
    rows = [line.strip('| \n').split(' | ') for line in text.splitlines()[2:]]
    return [(when, re.findall(r'`(\w+)`', calls), re.findall(r'\w+', made))
            for when, calls, made, _ in rows]


def documented(settings, moments=None):
    return {call for when, calls, made in table() if set(made) & set(settings)
            and (moments is None or when in moments) for call in calls}


def fragment(name):
    """The names in the page's JSON behind this comment."""
    text = page().split('<!-- %s -->\n```json\n' % name)[1].split('```')[0]
    value = json.loads(text)
    return value['names'] if 'names' in value else value['syscalls'][0]['names']


@unittest.skipUnless(filters.KNOWN, 'the numbers of calls are those of x86-64')
class Sandbox(support.PythonCase):
    """Each run ends well without the library, too: or the filter is not a fair one."""

    def runs(self, code, settings=OFTEN):
        done = self.interpret(WORK + code, env=support.preloaded(OBMALLOC_VERBOSE='1', **settings))
        if 'no filter here' in done.err:
            self.skipTest('no filter can be installed here')
        self.assertIn('active in pid', done.err, done.report)
        self.assertEqual(done.out.strip().splitlines()[-1], 'ok', done.report)
        return done

    def ends_well(self, code, settings=OFTEN):
        """With the library, if it does without."""
        plain = support.run([self.python.path, '-B', '-c', 'import sys; sys.path.insert(0, %r)\n'
                             % support.PROGRAMS + WORK + code])
        if plain.status != 0:
            self.skipTest('this python needs one of the calls: %s' % plain.err[-200:])
        return self.runs(code, settings)

    def denied(self, *names, **more):
        self.ends_well('filters.deny(*%r); work(); %s; print("ok")'
                       % (names, more.get('then', 'pass')), more.get('settings', OFTEN))

    def test_no_advice(self):
        self.denied('madvise', then='fork(work)')

    def test_no_thread(self):
        self.denied('clone', 'clone3')

    def test_nothing_that_only_the_library_calls(self):
        self.denied(*OURS)

    def test_the_same_by_setting(self):
        self.denied('prctl', *OURS, settings=STOCK)

    def test_guarded_blocks_end_at_the_filter(self):
        """Those that are there stay shut or open; the next turn is drawn without a call."""
        self.denied(*OURS, settings={'OBMALLOC_GUARD': '50', **OFTEN})

    @support.takes_long
    def test_some_calls_alone(self):
        for names in (('mincore', 'memfd_create', 'fcntl', 'ftruncate'), ('mprotect', 'mlockall'),
                      ('getppid', 'getrusage'), ('tgkill', 'sched_yield', 'getpid')):
            with self.subTest(calls=names):
                self.denied(*names, then='fork(work)')

    def test_with_the_helper_thread_there_already(self):
        """It was started before, and so is under no filter; a fork ends it."""
        self.ends_well('work(); work()\n'
                       'filters.deny("madvise", "tgkill", "sched_yield", "getppid")\n'
                       'work(); fork(work); work(); print("ok")')

    def test_filter_of_all_threads(self):
        """Of the helper thread, too, which is there and does nothing any more."""
        self.ends_well('work(); kept = [[i] for i in range(300000)]; del kept\n'
                       'filters.deny("madvise", "tgkill", "sched_yield", "getppid", of_all=True)\n'
                       'time.sleep(0.1); work(); fork(work); work(); print("ok")')

    def test_filter_of_one_thread(self):
        """The main thread has none, and goes on as before or with less."""
        self.ends_well('import threading\n'
                       'def sandboxed(): filters.deny("mincore", "clone3", "getppid"); work()\n'
                       'work()\n'
                       'thread = threading.Thread(target=sandboxed)\n'
                       'thread.start(); work(); thread.join()\n'
                       'work(); fork(work); print("ok")')

    def test_filter_of_a_thread_that_finds_no_thread(self):
        self.ends_well('import threading\n'
                       'def sandboxed(): filters.deny("clone", "clone3", "getppid"); work()\n'
                       'thread = threading.Thread(target=sandboxed)\n'
                       'thread.start(); thread.join(); work(); print("ok")')

    def test_filter_in_a_child(self):
        """The parent goes on without one."""
        self.ends_well('work()\n'
                       'def child(): filters.deny("madvise", "mincore", "getppid", "clone3"); work(); fork(work)\n'
                       'fork(child); work(); print("ok")')

    def test_filter_before_exec_with_the_setting(self):
        """It is there at start, so it is not found: the setting says it."""
        inner = ('import sys; sys.path.insert(0, %r)\n' % support.PROGRAMS + WORK
                 + 'work(); fork(work); print("ok")')
        self.ends_well('filters.deny("madvise", "mincore", "getppid", "prctl", "tgkill", "clone3")\n'
                       'os.execv(sys.executable, [sys.executable, "-B", "-c", %r])\n' % inner, STOCK)

    def test_what_stays_is_not_counted_as_returned(self):
        done = self.ends_well(
            'import ctypes, gc, json\n'
            'filters.deny("madvise", "clone3")\n'
            'kept = [[i] for i in range(150000)]\n'
            'few = kept[::100]; del kept; gc.collect(); time.sleep(0.1)\n'
            'kept = [[i] for i in range(1000)]; del kept\n'
            'def trim():\n'
            '    import inside\n'
            '    lib = inside.library()\n'
            '    lib.obmalloc_trim.restype = ctypes.c_size_t\n'
            '    before = inside.stats(lib)["arenas"]\n'
            '    went = lib.obmalloc_trim(ctypes.c_size_t(0))\n'
            '    after = inside.stats(lib)\n'
            '    unmapped = after["arenas"]["unmapped_total"] - before["unmapped_total"]\n'
            '    print(json.dumps([went, unmapped, after["resident"]]))\n'
            'if "obmalloc" in open("/proc/self/maps").read(): trim()\n'
            'print("ok")')
        went, unmapped, resident = json.loads(done.out.splitlines()[-2])
        self.assertLessEqual(went, unmapped * (2 << 20), done.report)
        self.assertGreater(resident['free_in_pools'], 4 << 20, done.report)

    @support.since(3, 6)
    def test_the_pages_list_after_start(self):
        for names, settings in ((fragment('stock'), STOCK),
                                (fragment('stock') + fragment('default'), OFTEN)):
            with self.subTest(settings=settings):
                self.ends_well('filters.allow_only(*%r); work(); print("ok")' % (names,), settings)


def calls(folder, after):
    """The names of the calls in files of strace -ff, of the process that said `after` only
    those behind that."""
    names = set()
    for name in os.listdir(folder):
        with open(os.path.join(folder, name), encoding='utf-8', errors='replace') as file:
            text = file.read()
        found = re.findall(r'^(\w+)\(', text.split(after)[-1], re.M)
        names |= set(found)
    return names - {'exit_group'}


BEGINS = '/obmalloc: the program begins'
BEGIN = 'os.access(%r, 0)\n' % BEGINS


@unittest.skipUnless(shutil.which('strace'), 'no strace here')
class Table(support.PythonCase):
    """The page's table against what strace sees."""

    def seen(self, env, after=BEGINS):
        with tempfile.TemporaryDirectory() as folder:
            self.trace(folder, env)
            return calls(folder, after)

    def trace(self, folder, env):
        variables = [word for name, value in env.items() for word in ('-E', name + '=' + value)]
        code = 'import sys; sys.path.insert(0, %r)\n' % support.PROGRAMS + WORK
        done = support.run(['strace', '-ff', '-o', os.path.join(folder, 'of'), *variables,
                            self.python.path, '-B', '-c', code + BEGIN + 'work(); fork(work)'])
        if 'ptrace' in done.err:
            self.skipTest('strace may not trace here')
        self.assertRan(done)

    def with_us(self, **settings):
        return self.seen(dict(LD_PRELOAD=support.LIBRARY, **settings))

    @support.takes_long
    def test_each_call_is_in_it(self):
        plain = self.seen({})
        default = {'any', 'default', 'thread'}
        for settings, made in (
                ({}, default),
                ({'OBMALLOC_THREAD': '0'}, {'any', 'default'}),
                ({'OBMALLOC_SYSCALLS': 'stock'}, {'any'}),
                ({'OBMALLOC_SYSCALLS': 'stock', 'OBMALLOC_GUARD': '50', 'OBMALLOC_LIVE': '1',
                  'OBMALLOC_LIMIT_HARD': '8G', 'OBMALLOC_LIMIT': 'auto'}, {'any'}),
                ({'OBMALLOC_LIMIT_HARD': '8G'}, default | {'LIMIT_HARD'}),
                ({'OBMALLOC_LIVE': '1'}, default | {'LIVE'}),
                ({'OBMALLOC_GUARD': '500'}, default | {'GUARD'}),
                ({'OBMALLOC_STATS': support.scratch('at-exit-%p')}, default | {'STATS'})):
            with self.subTest(settings=settings):
                more = self.with_us(OBMALLOC_DECAY_MS='60', **settings) - plain
                moments = {when for when, _, _ in table()} - {'start', 'a mistake is found'}
                self.assertFalse(more - documented(made, moments), 'not in docs/syscalls.md')
                for call in ('madvise', 'prctl', 'getppid') if 'default' in made else ():
                    self.assertIn(call, more | plain)   # 3.6 calls getppid itself
                if 'thread' in made:
                    self.assertTrue(more & {'clone', 'clone3', 'rseq', 'set_robust_list'}, more)

    def test_stock_after_start(self):
        """Whichever it is: no call that the interpreter does not make without the library."""
        self.assertLessEqual(self.with_us(**STOCK) - self.seen({}), {'futex', 'clock_gettime'})

    @support.takes_long
    @unittest.skipUnless(filters.KNOWN, 'the numbers of calls are those of x86-64')
    def test_the_pages_list_from_the_start_on(self):
        """What the program needs without us, and the page's list: there at start, and so
        not found. Nothing else is called, or the program would end."""
        needed = self.seen({}, after='no such word') | {'execve', 'exit_group', 'write'}
        unknown = needed - set(filters.NUMBERS)
        if unknown:
            self.skipTest('no number is known for %s' % ', '.join(sorted(unknown)))
        inner = ('import sys; sys.path.insert(0, %r)\n' % support.PROGRAMS + WORK
                 + 'work(); fork(work); work(); print("ok")')
        at_start = documented({'any'}, {'start', 'while running'})
        for more, settings in ((fragment('at start'), OFTEN), (at_start, STOCK)):
            names = sorted(needed | set(more))
            with self.subTest(settings=settings):
                done = self.interpret(
                    'import os, filters; filters.allow_only(*%r)\n'
                    'os.execv(sys.executable, [sys.executable, "-B", "-c", %r])' % (names, inner),
                    env=support.preloaded(**settings))
                self.assertEqual(done.out, 'ok\n', done.report)

    def test_no_advice_where_nothing_would_come_of_it(self):
        with open('/sys/kernel/mm/transparent_hugepage/enabled') as file:
            if '[always]' in file.read():
                self.skipTest('huge pages are used unasked here')
        trace = support.scratch('advice-' + self.python.label.replace(' ', '-'))
        for setting, advised in (('auto', False), ('never', True)):
            done = support.run(['strace', '-f', '-e', 'madvise', '-o', trace, '-E',
                                'LD_PRELOAD=' + support.LIBRARY, '-E', 'OBMALLOC_THP=' + setting,
                                self.python.path, '-c', 'kept = [[] for i in range(100000)]'])
            if 'ptrace' in done.err:
                self.skipTest('strace may not trace here')
            self.assertRan(done)
            with open(trace) as file:
                self.assertEqual('MADV_NOHUGEPAGE' in file.read(), advised, setting)


if __name__ == '__main__':
    unittest.main()
