"""Where the kernel refuses: system calls under a seccomp filter, as sandboxes have it;
no threads; no /proc and no /sys; little address space. The program runs as ever, and at
the worst keeps what it would have given back."""
import json
import os
import shutil

import support
import test_memory

# Builds, drops, waits, asks; looks at what is claimed to be zero after pages went; and
# has children. Without /proc nobody says how much is in memory.
PROGRAM = test_memory.TOOLS + '''
import inside, json, subprocess
if not os.path.exists('/proc/self'):
    names, rss = (lambda: []), (lambda: -1)
checksum, helper = inside.workload(2), False
peak, kept = build_and_drop()
for each in range(50):
    work = [Thing(n) for n in range(3000)]; del work
    helper = helper or "obmalloc" in names()
    time.sleep(0.01)
trim = ctypes.CDLL(None).obmalloc_trim
trim.restype, trim.argtypes = ctypes.c_size_t, [ctypes.c_size_t]
trim(0)
after = rss()
zero = [bytearray(n % 500) for n in range(100000)] + [bytes(300) for n in range(1000)]
if sys.version_info[0] > 2:
    assert not any(map(any, zero[:2000])) and not any(any(each) for each in zero[2000::50])
assert whole(kept)
for each in range(3):
    pid = os.fork()
    if pid == 0:
        mine = build_and_drop(20000)[1]
        os._exit(0 if whole(kept) and whole(mine) else 3)
    assert os.waitpid(pid, 0)[1] == 0
child = "import sys; sys.path.insert(0, %r); import inside; print(inside.workload(1))" % sys.path[0]
assert int(subprocess.check_output([sys.executable, "-B", "-c", child])) == inside.workload(1)
assert whole(kept)
live = inside.live(inside.stats(inside.library()))
print(json.dumps([checksum, peak, after, helper, live]))
'''

# A child that was made without fork handlers, while the helper thread sleeps, must not
# wait for it: it forks, and ends.
COPY = test_memory.TOOLS + '''
import json
libc = ctypes.PyDLL(None)
peak, kept = build_and_drop()
until = time.time() + 20            # it is started by what the program does
while "obmalloc" not in names() and time.time() < until:
    more = build_and_drop(100000)
assert "obmalloc" in names()
time.sleep(0.5)                     # and it sleeps: who works may hold a lock
pid = libc._Fork()
if pid == 0:
    mine = build_and_drop(20000)[1]
    inner = libc.fork()
    if inner == 0:
        os._exit(0)
    good = os.waitpid(inner, 0)[1] == 0 and len(names()) == 1
    os._exit(0 if good and whole(mine) and whole(kept) else 3)
until = time.time() + 20
while os.waitpid(pid, os.WNOHANG)[0] == 0:
    if time.time() > until:
        os.kill(pid, 9)
        raise SystemExit('the child hangs')
    time.sleep(0.01)
pid = os.fork()                     # here the helper is its own still, and ends
if pid == 0:
    os._exit(len(names()) - 1)
assert os.waitpid(pid, 0)[1] == 0
print(json.dumps(whole(kept)))
'''


class Refusals(support.PythonCase):

    def refused(self, error, calls, code=PROGRAM, interval='100'):
        """What the program printed under a filter of these calls."""
        program = support.build('refuse', 'refuse.c')
        prelude = 'import sys; sys.path.insert(0, %r)\n' % support.PROGRAMS
        done = support.run([program, error, *calls, '--', self.python.path, '-B', '-c',
                            prelude + code],
                           support.preloaded(OBMALLOC_VERBOSE='1', OBMALLOC_DECAY_MS=interval))
        if done.status == 77:
            self.skipTest(done.err.strip())
        self.assertRan(done)
        return done, support.said(done)

    def program_runs(self, error, *calls):
        """The helper and the MiB that fell, of a program that did all its work."""
        done, (checksum, peak, after, helper, live) = self.refused(error, calls)
        stock = self.interpret('import inside; print(inside.workload(2))',
                               env=support.clean_environment())
        self.assertEqual(checksum, int(stock.out), done.report)
        self.assertGreater(live, 5000, done.report)
        lines = done.lines(support.ACTIVE)
        self.assertIn(done.pid, [int(line.group(1)) for line in lines], done.report)
        self.assertEqual(len(done.err.splitlines()), 2, done.report)    # it and its child
        return helper, peak - after

    @support.takes_long
    def test_madvise(self):
        """Nothing goes back page by page, and nothing else changes. 2.7's buffers are
        the C library's, which trims without asking anybody."""
        for error in 'EPERM', 'ENOSYS':
            with self.subTest(error=error):
                _, fell = self.program_runs(error, 'madvise')
                if self.python.numbers > (3,):
                    self.assertLess(fell, 10, 'the filter is not in force')

    @support.takes_long
    def test_prctl(self):
        """Mappings and the thread have no names then; their pages go."""
        for error in 'EPERM', 'ENOSYS':
            with self.subTest(error=error):
                _, fell = self.program_runs(error, 'prctl')
                self.assertGreater(fell, 20)

    def test_what_others_use(self):
        """Calls that allocators are known to make. Whoever makes one can go without."""
        helper, fell = self.program_runs('ENOSYS', 'membarrier', 'getcpu', 'memfd_create',
                                         'mremap')
        self.assertTrue(helper)
        self.assertGreater(fell, 20)

    def test_tgkill_and_sched_yield(self):
        """Asked whether the helper is gone, and while waiting for it."""
        helper, fell = self.program_runs('EPERM', 'tgkill', 'sched_yield')
        self.assertTrue(helper)
        self.assertGreater(fell, 20)

    @support.takes_long
    def test_no_threads(self):
        """No helper can start; the program's own calls give back."""
        helper, fell = self.program_runs('EAGAIN', 'threads')
        self.assertFalse(helper)
        self.assertGreater(fell, 20)

    def test_everything_at_once(self):
        helper, _ = self.program_runs('EPERM', 'madvise', 'prctl', 'membarrier', 'getcpu',
                                      'memfd_create', 'mremap', 'tgkill', 'sched_yield',
                                      'threads')
        self.assertFalse(helper)

    @support.since(3)
    def test_a_copy_is_told_without_madvise(self):
        """A page that is wiped in children says that the thread is not here; where
        there is none, nobody may wait for a thread of the parent's."""
        for calls in (['getcpu'], ['madvise']):
            with self.subTest(refused=calls):
                _, whole = self.refused('EPERM', calls, COPY, interval='100000')
                self.assertTrue(whole)


class WithoutProc(support.PythonCase):
    """/proc and /sys are empty, as in a plain chroot or some jails."""

    def in_a_jail(self, code, **settings):
        if not shutil.which('unshare'):
            self.skipTest('no unshare here')
        words = ['unshare', '-m'] if os.geteuid() == 0 else ['unshare', '-rm']
        if support.run(words + ['true']).status != 0:
            self.skipTest('no mount namespace can be made here')
        prelude = 'import sys; sys.path.insert(0, %r)\n' % support.PROGRAMS
        hide = 'mount -t tmpfs none /proc && mount -t tmpfs none /sys || exit 77; exec "$@"'
        done = support.run(words + ['sh', '-c', hide, 'sh', 'env', 'LD_PRELOAD=' + support.LIBRARY,
                                    self.python.path, '-B', '-c', prelude + code],
                           support.clean_environment(OBMALLOC_VERBOSE='1', **settings))
        if done.status == 77:
            self.skipTest('nothing can be mounted here')
        self.assertRan(done)
        self.assertEqual(int(done.lines(support.ACTIVE)[0].group(1)), done.pid, done.report)
        return done

    def test_the_program_runs(self):
        done = self.in_a_jail('import os; assert not os.listdir("/proc")\n' + PROGRAM,
                              OBMALLOC_DECAY_MS='100')
        checksum, peak, after, _, live = support.said(done)
        stock = self.interpret('import inside; print(inside.workload(2))',
                               env=support.clean_environment())
        self.assertEqual((checksum, peak, after), (int(stock.out), -1, -1), done.report)
        self.assertGreater(live, 5000, done.report)

    def test_pages_go_back(self):
        """By the count of the library itself, as nobody else counts."""
        done = self.in_a_jail(test_memory.TOOLS + '''
import inside, json
def held(): return inside.stats(inside.library())["resident"]["total"] / 1048576.0
things = [Thing(n) for n in range(300000)]
peak = held()
del things
comes(lambda: held() < peak / 3)
print(json.dumps([peak, held()]))
''', OBMALLOC_DECAY_MS='100')
        peak, least = support.said(done)
        self.assertGreater(peak, 20, done.report)
        self.assertLess(least, peak / 3, done.report)

    def test_limits_that_cannot_be_known(self):
        """Whatever is set, nobody is refused, and the numbers are still numbers."""
        path = support.scratch('jail-%s-%%p.json' % self.python.label.replace(' ', '-'))
        done = self.in_a_jail('import inside; print(inside.workload(2))', OBMALLOC_LIMIT='auto',
                              OBMALLOC_LIMIT_HARD='auto', OBMALLOC_STATS=path)
        stock = self.interpret('import inside; print(inside.workload(2))',
                               env=support.clean_environment())
        self.assertEqual(done.out, stock.out, done.report)
        with open(path.replace('%p', str(done.pid))) as file:
            self.assertEqual(json.load(file)['pid'], done.pid)
