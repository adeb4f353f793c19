"""Lines on stderr and files of statistics: they never change how the program ends, and go
to no file that is somebody else's."""
import fcntl
import json
import os
import resource
import signal
import stat
import subprocess
import time

import support
from test_privileges import as_nobody, library_for_all, open_folder

# Not the user of test_privileges.py, who may have one process only.
OTHER = 65533

# Dies by the signals of a write, unlike a Python that was left as it starts.
PLAIN = '''
import signal, sys
signal.signal(signal.SIGPIPE, signal.SIG_DFL)
signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
kept = [[n] for n in range(20000)]
sys.exit(7)
'''

# Closes 0 to 2; its own files get these numbers.
REUSES = '''
import os, sys
for n in 0, 1, 2:
    os.close(n)
files = [os.open(sys.argv[1] + str(n), os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600) for n in range(3)]
assert files == [0, 1, 2]
for fd in files:
    os.write(fd, b'D' * 100)
kept = [[n] for n in range(20000)]
pid = os.fork()
if pid:
    os.waitpid(pid, 0)
sys.exit(7)
'''


class Reports(support.PythonCase):

    def status(self, code, *arguments, stderr=None, limit=None, closed=False, env=None):
        """How the program ends, or 'hangs'; and its seconds."""
        def prepare():
            if limit is not None:
                resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
            if closed:
                for fd in range(3):
                    os.close(fd)
        begin = time.time()
        child = subprocess.Popen([self.python.path, '-B', '-c', code, *arguments], env=env,
                                 preexec_fn=prepare, stdin=subprocess.DEVNULL,
                                 stdout=subprocess.DEVNULL, stderr=stderr)
        try:
            return child.wait(10), time.time() - begin
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
            return 'hangs', 0

    def same(self, code, *arguments, settings, **how):
        """The same end as without the library, and no later than two seconds after it."""
        stock, took = self.status(code, *arguments, env=support.clean_environment(), **how)
        for setting in settings:
            with self.subTest(**setting):
                status, ours = self.status(code, *arguments, env=support.preloaded(**setting), **how)
                self.assertEqual(status, stock)
                self.assertLess(ours, took + 2.5)

    LOUD = [dict(OBMALLOC_STATS='1'), dict(OBMALLOC_VERBOSE='1'), dict(OBMALLOC_NO_SUCH='1'),
            dict(OBMALLOC_STATS='/no/such/folder/file')]

    def test_stderr_without_a_reader(self):
        reader, writer = os.pipe()
        os.close(reader)
        self.same(PLAIN, settings=self.LOUD, stderr=writer)
        os.close(writer)

    def test_stderr_that_nobody_empties(self):
        reader, writer = os.pipe()
        fcntl.fcntl(writer, 1031, 4096)     # F_SETPIPE_SZ
        os.write(writer, b'x' * 4096)
        self.same(PLAIN, settings=self.LOUD[:1], stderr=writer)
        os.close(reader)
        os.close(writer)

    def test_a_limit_to_files(self):
        path = support.scratch('limited.json')
        for limit in 0, 512:
            self.same(PLAIN, settings=[dict(OBMALLOC_STATS=path)], limit=limit,
                      stderr=subprocess.DEVNULL)
            self.assertFalse(os.path.exists(path))
        log = support.scratch('limited.log')
        with open(log, 'w') as file:
            self.same(PLAIN, settings=self.LOUD, limit=0, stderr=file)
        self.assertEqual(os.path.getsize(log), 0)

    def test_a_fifo(self):
        path = support.scratch('fifo-' + self.python.label.replace(' ', '-'))
        os.mkfifo(path)
        self.same(PLAIN, settings=[dict(OBMALLOC_STATS=path)], stderr=subprocess.DEVNULL)
        end = os.open(path, os.O_RDWR | os.O_NONBLOCK)
        try:
            while True:
                os.write(end, b'x' * 4096)
        except BlockingIOError:
            pass
        self.same(PLAIN, settings=[dict(OBMALLOC_STATS=path)], stderr=subprocess.DEVNULL)
        os.close(end)

    def test_one_line_says_why_there_is_no_file(self):
        for path, why in [('/dev/full', 'no space'), ('/no/such/folder/file', 'no such folder'),
                          (support.scratch(), 'folder'), ('x' * 300, 'name is too long')]:
            with self.subTest(path=path):
                done = self.interpret('sys.exit(7)', status=7,
                                      env=support.preloaded(OBMALLOC_STATS=path))
                self.assertRegex(done.err, '^obmalloc: no statistics, [^\n]*%s[^\n]*\n$' % why)

    def test_files_that_got_the_numbers_of_the_standard_ones(self):
        base = support.scratch('own-%s-' % self.python.label.replace(' ', '-'))
        for closed in False, True:
            self.same(REUSES, base, closed=closed, stderr=subprocess.DEVNULL, settings=self.LOUD + [
                dict(OBMALLOC_STATS='/dev/stderr'), dict(OBMALLOC_STATS='/dev/fd/1')])
            for n in range(3):
                with open(base + str(n), 'rb') as file:
                    self.assertEqual(file.read(), b'D' * 100)

    def test_a_descriptor_that_the_setting_names(self):
        reader, writer = os.pipe()
        child = subprocess.Popen([self.python.path, '-c', 'pass'], pass_fds=[writer],
                                 env=support.preloaded(OBMALLOC_STATS='/dev/fd/%d' % writer))
        os.close(writer)
        with open(reader) as file:
            self.assertEqual(json.load(file)['pid'], child.pid)
        self.assertEqual(child.wait(), 0)


class Files(support.Case):
    """What a privileged process does not do, and others do."""

    TAKE = ('import ctypes, os, sys\n'
            'take = ctypes.CDLL(os.environ["LD_PRELOAD"]).obmalloc_snapshot\n'
            'for path in sys.argv[1:]: print(take(path.encode()))\n')

    def setUp(self):
        if os.geteuid() != 0:
            self.skipTest('only root can play another user')
        self.folder = open_folder('files')
        os.chmod(self.folder, 0o1777)       # as /tmp
        for name in os.listdir(self.folder):
            os.unlink(os.path.join(self.folder, name))

    def path(self, name):
        return os.path.join(self.folder, name)

    def make(self, name, owner=0, mode=0o644):
        with open(self.path(name), 'w') as file:
            file.write('before')
        os.chmod(self.path(name), mode)
        os.chown(self.path(name), owner, owner)

    def take(self, *names, user=0):
        """The errno for each."""
        paths = [name if name.startswith('/') else self.path(name) for name in names]
        argv = ['/usr/bin/python3', '-c', self.TAKE, *paths]
        env = support.clean_environment(LD_PRELOAD=library_for_all())
        done = as_nobody(argv, env, user=user) if user else support.run(argv, env)
        self.assertRan(done)
        return [os.strerror(int(line)) if line != '0' else '' for line in done.out.split()]

    REFUSED = ['Operation not permitted', 'Too many levels of symbolic links']

    def test_root_and_what_others_put_in_its_way(self):
        for name in 'theirs', 'hard', 'target':
            self.make(name, OTHER if name == 'theirs' else 0)
        os.link(self.path('hard'), self.path('hard-2'))
        for link, to in ('planted', 'target'), ('nowhere', 'not-there'), ('away', '/etc/passwd'):
            os.symlink(to, self.path(link))
            os.lchown(self.path(link), OTHER, OTHER)
        os.symlink('target', self.path('own-link'))     # but others can write to the folder
        os.mkfifo(self.path('fifo'), 0o666)
        os.chown(self.path('fifo'), OTHER, OTHER)
        reader = os.open(self.path('fifo'), os.O_RDWR | os.O_NONBLOCK)
        with open('/etc/passwd', 'rb') as file:
            before = file.read()
        names = 'theirs', 'hard', 'fifo', 'planted', 'nowhere', 'away', 'own-link'
        entries = sorted(os.listdir(self.folder))
        self.assertEqual(self.take(*names), self.REFUSED[:1] * 3 + self.REFUSED[1:] * 4)
        self.assertEqual(sorted(os.listdir(self.folder)), entries)
        os.close(reader)
        with open('/etc/passwd', 'rb') as file:
            self.assertEqual(file.read(), before)
        for name in 'theirs', 'hard', 'target':
            with open(self.path(name)) as file:
                self.assertEqual(file.read(), 'before')
        # The same for statistics at exit, which say so.
        done = support.run(['/usr/bin/python3', '-c', 'pass'],
                           support.preloaded(OBMALLOC_STATS=self.path('planted')))
        self.assertRan(done)
        self.assertRegex(done.err, '^obmalloc: no statistics, a symbolic link [^\n]*\n$')

    def test_what_root_may(self):
        os.chmod(self.folder, 0o755)
        self.make('own', mode=0o640)
        os.symlink('own', self.path('link'))
        os.symlink('/dev/stdout', self.path('out'))
        self.assertEqual(self.take('own', 'link', 'new', '/dev/null'), [''] * 4)
        self.assertTrue(os.path.islink(self.path('link')))
        self.assertEqual(stat.S_IMODE(os.stat(self.path('own')).st_mode), 0o640)
        self.assertEqual(stat.S_IMODE(os.stat(self.path('new')).st_mode), 0o600)
        done = support.run(['/usr/bin/python3', '-c', 'print("mine", flush=True)'],
                           support.preloaded(OBMALLOC_STATS=self.path('out')))
        self.assertRan(done)
        self.assertRegex(done.out, r'^mine\n\{"version"')

    def test_what_other_users_may(self):
        self.make('theirs', OTHER)
        self.make('writable', 0, 0o666)
        self.make('closed', 0, 0o644)
        self.make('read-only', OTHER, 0o444)
        self.make('hard', OTHER)
        os.link(self.path('hard'), self.path('hard-2'))
        os.symlink('theirs', self.path('link'))
        os.symlink('not-there', self.path('nowhere'))
        os.lchown(self.path('link'), OTHER, OTHER)    # (in such a folder links are their owners')
        os.lchown(self.path('nowhere'), OTHER, OTHER)
        denied = 'Permission denied'
        names = 'theirs', 'closed', 'read-only', 'hard', 'link', 'nowhere'
        self.assertEqual(self.take(*names, user=OTHER), ['', denied, denied, '', '', ''])
        self.assertEqual(os.stat(self.path('hard')).st_nlink, 2)
        self.assertTrue(os.path.samefile(self.path('hard'), self.path('hard-2')))
        self.assertTrue(os.path.islink(self.path('link')))
        self.assertGreater(os.path.getsize(self.path('not-there')), 6672)
        self.assertEqual([name for name in os.listdir(self.folder) if name[0] == '.'], [])
        # A folder in which this user can make nothing: the file is written in place.
        os.chmod(self.folder, 0o755)
        self.assertEqual(self.take('writable', 'theirs', 'new', user=OTHER), ['', '', denied])
        self.assertGreater(os.path.getsize(self.path('writable')), 6672)

    def test_signals_as_they_were(self):
        """The thread's mask, and a signal that was pending before."""
        code = ('import ctypes, os, signal\n'
                'signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGPIPE])\n'
                'os.kill(os.getpid(), signal.SIGPIPE)\n'
                'ctypes.CDLL(os.environ["LD_PRELOAD"]).obmalloc_snapshot(b"/dev/full")\n'
                'assert signal.sigpending() == {signal.SIGPIPE}\n'
                'assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == {signal.SIGPIPE}\n')
        self.assertRan(support.run(['/usr/bin/python3', '-c', code], support.preloaded()))
