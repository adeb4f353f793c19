"""Programs that have more rights than their user, where nothing that the user has set
counts; users who may start no thread; and limits that a shell sets."""
import json
import os
import resource
import shutil
import subprocess

import support

NOBODY = 65534
LOUD = dict(OBMALLOC_VERBOSE='1', OBMALLOC_NO_SUCH='1', OBMALLOC_SMALL_MAX='banana')


def open_folder(name):
    """A folder that another user can reach."""
    os.chmod(support.scratch(), 0o755)
    folder = support.scratch(name)
    os.makedirs(folder, exist_ok=True)
    os.chmod(folder, 0o755)
    return folder


def library_for_all():
    """The library where another user can read it, by the names of an installation."""
    folder = open_folder('for-all')
    path = os.path.join(folder, 'libobmalloc.so')
    if not os.path.exists(path):
        shutil.copyfile(support.LIBRARY, path + '.new')
        os.chmod(path + '.new', 0o755)
        os.rename(path + '.new', path)
    return path


def as_nobody(argv, env, limits=(), user=NOBODY):
    """argv as another user, in a folder that is not anybody's."""
    def become():
        for which, value in limits:
            resource.setrlimit(which, (value, value))
        os.setgroups([])
        os.setgid(user)
        os.setuid(user)
    child = subprocess.Popen(argv, env=env, cwd='/', stdin=subprocess.DEVNULL, preexec_fn=become,
                             stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    out, err = child.communicate(timeout=100)
    return support.Run(argv, child.pid, child.returncode, out.decode(), err.decode())


class Privileges(support.PythonCase):

    def setUp(self):
        if os.geteuid() != 0:
            self.skipTest('only root can give rights away')
        if not os.access(self.python.path, os.X_OK):
            self.skipTest('no such interpreter')

    def reachable(self):
        done = as_nobody(['/bin/sh', '-c', '"$1" -c pass', 'sh', self.python.path],
                         support.clean_environment())
        if done.status != 0:
            self.skipTest('another user cannot reach %s' % self.python.path)

    def test_setuid_interpreter_preloaded(self):
        """The loader ignores the preload: another user's path is not to be trusted."""
        self.reachable()
        folder = open_folder('setuid')
        program = os.path.join(folder, 'python-' + self.python.label.replace(' ', '-'))
        shutil.copyfile(self.python.path, program)
        os.chmod(program, 0o4755)
        ask = ('import os; print(os.getuid(), os.geteuid(),'
               ' "libobmalloc" in open("/proc/self/maps").read())')
        env = dict(LOUD, LD_PRELOAD=library_for_all(), PYTHONHOME=self.python.prefix)
        done = as_nobody([program, '-c', ask], support.clean_environment(**env))
        self.assertRan(done)
        if done.out.split()[:2] != [str(NOBODY), '0']:
            self.skipTest('programs here get no rights by the file: ' + done.out.strip())
        self.assertEqual(done.out.split()[2], 'False', done.report)
        self.assertSaysNothing(done)
        # The same user and the same settings without the bit: then we are there.
        os.chmod(program, 0o755)
        done = as_nobody([program, '-c', ask], support.clean_environment(**env))
        self.assertRan(done)
        self.assertEqual(done.out.split(), [str(NOBODY), str(NOBODY), 'True'], done.report)
        self.assertEqual(len(done.lines(support.ACTIVE)), 1, done.report)

    def test_a_user_who_may_start_no_thread(self):
        """RLIMIT_NPROC: the program that needs no thread does not learn that we
        wanted one, and its pages go back all the same."""
        self.reachable()
        library = library_for_all()
        code = '''
import ctypes, json, os, sys, time
def rss(): return int(open('/proc/self/statm').read().split()[1]) / 256.0
kept = [[n, str(n), {n: n}] for n in range(200000)]
peak = rss()
kept = kept[::1000]
for n in range(3000):
    work = [str(each) for each in range(2000)]; del work
    if rss() < peak - 20: break
    time.sleep(0.001)
assert all(each == [each[0], str(each[0]), {each[0]: each[0]}] for each in kept)
print(json.dumps([peak, rss(), len(os.listdir('/proc/self/task'))]))
try:
    import threading; threading.Thread(target=int).start(); print('a thread')
except RuntimeError:
    print('no thread')
'''
        done = as_nobody([self.python.path, '-B', '-c', code],
                         support.clean_environment(OBMALLOC_VERBOSE='1', OBMALLOC_DECAY_MS='50',
                                                   LD_PRELOAD=library),
                         [(resource.RLIMIT_NPROC, 1)])
        self.assertRan(done)
        numbers, thread = done.out.splitlines()
        self.assertEqual(thread, 'no thread', 'the limit is not in force\n' + done.report)
        peak, later, threads = json.loads(numbers)
        self.assertLess(later, peak - 20)
        self.assertEqual(threads, 1)
        self.assertUs(done)


class Linked(support.Case):

    def test_setuid_program_that_is_linked(self):
        """We are in it, and read nothing of what its user says."""
        if os.geteuid() != 0:
            self.skipTest('only root can give rights away')
        library = library_for_all()
        folder = os.path.dirname(library)
        link = os.path.join(folder, 'libobmalloc.so.0')
        if not os.path.lexists(link):
            os.symlink(library, link)
        program = support.build('for-all/linked', 'linked.c', '-L' + folder, '-l:libobmalloc.so',
                                '-Wl,-rpath,' + folder)
        for bit, expected in (0o4755, [str(NOBODY), '0', '1']), (0o755, [str(NOBODY)] * 2 + ['0']):
            with self.subTest(mode=oct(bit)):
                os.chmod(program, bit)
                report = os.path.join(open_folder('reports'), 'from-%o' % bit)
                os.chmod(os.path.dirname(report), 0o777)
                done = as_nobody([program],
                                 support.clean_environment(OBMALLOC_STATS=report, **LOUD))
                self.assertRan(done)
                if bit == 0o4755 and done.out.split() != expected:
                    self.skipTest('programs here get no rights by the file: ' + done.out.strip())
                self.assertEqual(done.out.split(), expected, done.report)
                if expected[2] == '1':
                    self.assertSaysNothing(done)
                    self.assertFalse(os.path.exists(report), 'a file of its user\'s choice')
                else:       # the settings do something where they count
                    self.assertIn('OBMALLOC_NO_SUCH', done.err)
                    self.assertTrue(os.path.exists(report))


class ShellLimits(support.PythonCase):
    """ulimit: what a shell sets before the program starts."""

    def limited(self, which, kib, code, env=None):
        """code under a limit that holds from the start."""
        def narrow():
            resource.setrlimit(which, (kib * 1024, kib * 1024))
        prelude = 'import sys; sys.path.insert(0, %r)\n' % support.PROGRAMS
        argv = [self.python.path, '-B', '-c', prelude + code]
        child = subprocess.Popen(argv, env=env or support.preloaded(OBMALLOC_VERBOSE='1'),
                                 preexec_fn=narrow, stdin=subprocess.DEVNULL,
                                 stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        out, err = child.communicate(timeout=100)
        return support.Run(argv, child.pid, child.returncode, out.decode(),
                           err.decode('utf-8', 'replace'))

    WORK = 'import inside; print(inside.workload(2))'

    def test_a_small_stack(self):
        """Of a thread, too, whose stack has the limit's size; and the helper's own."""
        for kib in 256, 512:
            with self.subTest(kib=kib):
                code = (self.WORK + '\nimport threading, time\n'
                        't = threading.Thread(target=lambda: inside.workload(1))\n'
                        't.start(); t.join()\n'
                        'kept = [[n] for n in range(400000)]; del kept\n'
                        'for n in range(300):\n'
                        '    work = [[n] for n in range(3000)]; del work; time.sleep(0.0005)\n')
                stock = self.limited(resource.RLIMIT_STACK, kib, code, support.clean_environment())
                done = self.limited(resource.RLIMIT_STACK, kib, code)
                self.assertEqual((done.status, done.out), (stock.status, stock.out), done.report)
                if stock.status == 0:
                    self.assertUs(done)

    def least(self, which, env):
        """KiB from which on the interpreter starts and imports json, to 256."""
        low, high = 0, 1 << 20
        while high - low > 256:
            middle = (low + high) // 2
            done = self.limited(which, middle, 'import json; print(json.dumps(1))', env)
            low, high = (low, middle) if (done.status, done.out) == (0, '1\n') else (middle, high)
        return high

    @support.only('3.11', '3.13', '3.14')
    def test_address_space_that_a_start_needs(self):
        """What we have untouched counts: 17 MiB, and two arenas. No more than that."""
        for which in resource.RLIMIT_AS, resource.RLIMIT_DATA:
            with self.subTest(limit=which):
                stock = self.least(which, support.clean_environment())
                ours = self.least(which, support.preloaded())
                self.assertLess(ours - stock, 23 << 10, 'KiB; stock %d, with us %d' % (stock, ours))
