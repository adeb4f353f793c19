"""OBMALLOC_LIVE=1: other processes see what the heap holds. Not asked: nothing at all."""
import json
import os
import re
import signal
import subprocess
import sys
import time

import support

sys.path.insert(0, os.path.dirname(support.HERE))
import ledger
import live_page

QUIET = '''
import ctypes, gc, os
kept = [[n] for n in range(100000)]
del kept[::2]
gc.collect()
buffer = ctypes.create_string_buffer(1 << 17)
ask = ctypes.CDLL(os.environ["LD_PRELOAD"]).obmalloc_stats_json
ask(buffer, 1 << 17)
text = buffer.value.decode() + "\\n"
ask(buffer, 1 << 17)
sys.stdout.write(text)
sys.stdout.flush()
sys.stdin.readline()
'''

# Forks with the answering thread there, or just back, or being woken.
FORKS = '''
import os, threading, time
def names():
    found = []
    for each in os.listdir("/proc/self/task"):
        try:
            with open("/proc/self/task/%s/comm" % each) as file:
                found.append(file.read().strip())
        except (IOError, OSError):
            pass
    return found
def back():
    end = time.time() + 20
    while "obmalloc-live" not in names() and time.time() < end:
        things = [[n] for n in range(20000)]
        del things
        time.sleep(0.02)
    assert "obmalloc-live" in names(), names()
sys.stdout.write("ready\\n")
sys.stdout.flush()
for n in range(int(sys.argv[1])):
    back()
    time.sleep(0.01 * (n % 3))
    pid = os.fork()
    if pid == 0:
        assert names().count("obmalloc-live") == 0
        things = [[n] for n in range(1000)]
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
'''


# How many descriptors the program can still have, and whether 0 is the first free one.
COUNT = '''
import os
kept = [[n] for n in range(20000)]; del kept
os.close(0)
first = os.open("/dev/null", os.O_RDONLY)
count = 0
try:
    while True:
        os.dup(first); count += 1
except OSError:
    pass
print("%d %d" % (first, count))
'''

# Becomes a program that has few descriptors left.
FEW = '''
import os, resource, sys
limit, left = int(sys.argv[1]), int(sys.argv[2])
os.closerange(3, 4096)
resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
for fd in range(3, limit - left):
    os.dup2(0, fd)
preload = os.environ.pop("TEST_PRELOAD", None)
if preload:
    os.environ["LD_PRELOAD"] = preload
os.execv(sys.argv[3], sys.argv[3:])
'''

# A daemon: closes all, opens its own standard files, and sleeps.
DAEMON = '''
import os, time
kept = [[n] for n in range(100000)]
end = int(sys.argv[1])
if end > 2:
    os.close(0); os.close(1)
    os.closerange(3, end)
os.write(2, b"ready\\n")
os.close(2)
time.sleep(60)
'''


class Started:
    """A program that runs while it is looked at."""

    def __init__(self, case, code, *arguments, **settings):
        prelude = 'import sys; sys.path.insert(0, %r)\n' % support.PROGRAMS
        self.process = subprocess.Popen(
            [case.python.path, '-B', '-W', 'always', '-c', prelude + code, *arguments],
            env=support.preloaded(**settings), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, universal_newlines=True)
        self.pid = self.process.pid

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()

    def line(self):
        return self.process.stdout.readline()

    def ends(self):
        """Its status and what it said on stderr."""
        _, said = self.process.communicate(timeout=100)
        return self.process.returncode, said

    def threads(self):
        names = []
        for each in os.listdir('/proc/%d/task' % self.pid):
            with open('/proc/%d/task/%s/comm' % (self.pid, each)) as file:
                names.append(file.read().strip())
        return names


class Live(support.PythonCase):

    def test_nothing_unless_asked(self):
        for settings in {}, {'OBMALLOC_LIVE': '0'}:
            with Started(self, QUIET, **settings) as program:
                program.line()
                self.assertEqual(live_page.find(program.pid), [])
                self.assertNotIn('obmalloc-live', program.threads())

    def test_the_page_says_what_the_json_says(self):
        with Started(self, QUIET, OBMALLOC_LIVE='1') as program:
            json_says = json.loads(program.line())
            page = live_page.of(program.pid)
            self.assertTrue(page.ask())
            says = page.statistics()
            self.assertEqual(says['host'], self.python.version)
            for key in 'version', 'pid', 'host', 'arenas':
                self.assertEqual(says[key], json_says[key], key)
            # The program itself goes on a little, from the one to the other.
            for section in 'bytes', 'resident':
                for key, number in json_says[section].items():
                    self.assertLess(abs(says[section][key] - number), 200 << 10, key)
            parts = sum(says['resident'][part] for part in live_page.PARTS)
            self.assertEqual(parts, says['resident']['total'])
            snapshot = page.snapshot()
            taken = sum(each['size'] * (each['blocks_live'] + each['blocks_in_magazines'])
                        for each in snapshot.statistics['classes'])
            self.assertLess(abs(sum(each['taken_bytes'] for each in snapshot.pages) - taken), 65536)
            self.assertEqual(len(snapshot.pools), sum(each['pools'] for each in snapshot.arenas))

    def test_the_ledger_is_what_the_kernel_counts(self):
        found, how, _ = ledger.compare(self.python.path, support.LIBRARY, 30)
        off = [said / counted - 1 for said, counted in found]
        sys.stdout.write('      %-14s live: %d samples of %.0f MiB and more, %s: %+.2f to %+.2f %%\n'
                         % (self.python.label, len(found), min(each[1] for each in found) / 2**20,
                            how, 100 * min(off), 100 * max(off)))
        self.assertGreaterEqual(len(found), 3)
        self.assertGreater(min(counted for _, counted in found), 100 << 20)
        self.assertLess(max(map(abs, off)), 0.02)

    def test_forks_and_no_warning(self):
        with Started(self, FORKS, '12', OBMALLOC_LIVE='1') as program:
            self.assertEqual(program.line(), 'ready\n')
            page = live_page.of(program.pid)
            while program.process.poll() is None:
                page.ask(seconds=0.2)
            status, said = program.ends()
            self.assertEqual((status, said), (0, ''))

    def test_a_killed_program_leaves_nothing(self):
        before = set(os.listdir('/dev/shm')) if os.path.isdir('/dev/shm') else set()
        with Started(self, QUIET, OBMALLOC_LIVE='1') as program:
            program.line()
            page = live_page.of(program.pid)
            os.kill(program.pid, signal.SIGKILL)
            program.process.wait()
            self.assertFalse(page.ask(seconds=0.2))
            self.assertFalse(os.path.exists('/proc/%d/fd' % program.pid))
            page.statistics()       # what it said last can still be read
        after = set(os.listdir('/dev/shm')) if os.path.isdir('/dev/shm') else set()
        self.assertEqual([name for name in after - before if 'obmalloc' in name], [])

    def test_the_file_is_as_long_as_what_it_holds(self):
        """A tool that reads all that a process has open is soon done."""
        with Started(self, QUIET, OBMALLOC_LIVE='1') as program:
            program.line()
            (path,) = live_page.find(program.pid)
            page = live_page.of(program.pid)
            with open(path, 'rb') as file:
                self.assertEqual(len(file.read()), live_page.PAGE_BYTES)
            snapshot = page.snapshot()
            with open(path, 'rb') as file:
                length = len(file.read())
            self.assertLess(length, 1 << 20)
            self.assertGreater(length, 168 * len(snapshot.pools))
            self.assertTrue(page.ask())
            with open(path, 'r+b') as file:     # what others have mapped stays there
                with self.assertRaises(OSError):
                    file.truncate(4096)

    def test_few_descriptors(self):
        """The program can have as many as without the library."""
        def count(limit, left, env):
            done = support.run([sys.executable, '-S', '-c', FEW, str(limit), str(left),
                                self.python.path, '-S', '-c', COUNT], env)
            return done.status, done.out, done.err
        for limit, left in (4, 1), (8, 4), (16, 4), (64, 40), (256, 4), (1024, 4), (1024, 12):
            with self.subTest(limit=limit, left=left):
                stock = count(limit, left, support.clean_environment())
                env = support.clean_environment(TEST_PRELOAD=support.LIBRARY, OBMALLOC_LIVE='1')
                self.assertEqual(count(limit, left, env), stock)
                if limit > 4 and self.python.numbers >= (3,):    # 2.7 itself takes more
                    self.assertEqual(stock[:2], (0, '0 %d\n' % left))

    def test_a_daemon_that_sleeps(self):
        """Its page cannot be opened any more; but that it has one can be seen."""
        for end, pages in (2, 1), (4096, 0):
            with Started(self, DAEMON, str(end), OBMALLOC_LIVE='1') as program:
                self.assertEqual(program.process.stderr.readline(), 'ready\n')
                self.assertEqual(len(live_page.find(program.pid)), pages)
                with open('/proc/%d/maps' % program.pid) as file:
                    self.assertIn('/memfd:obmalloc-live (deleted)\n', file.read())

    @support.since(3)
    def test_where_there_may_be_no_thread_ticks_answer(self):
        code = QUIET.replace('sys.stdin.readline()',
                             'end = __import__("time").time() + 60\n'
                             'while end > __import__("time").time():\n'
                             '    things = [[n] for n in range(5000)]; del things')
        with Started(self, code, OBMALLOC_LIVE='1', OBMALLOC_THREAD='0') as program:
            program.line()
            page = live_page.of(program.pid)
            self.assertTrue(page.ask(seconds=20))
            self.assertEqual(page.control()['thread'], 0)
            self.assertNotIn('obmalloc-live', program.threads())

    def test_a_small_limit_to_files_and_descriptors(self):
        """No signal, no line: at worst no page."""
        for which, limit in ('RLIMIT_FSIZE', 0), ('RLIMIT_FSIZE', 100000), ('RLIMIT_NOFILE', 64):
            code = ('import resource; resource.setrlimit(resource.%s, (%d, %d)); import os\n'
                    'os.execv(sys.executable, [sys.executable, "-c", "print(6 * 7)"])'
                    % (which, limit, limit))
            with Started(self, code, OBMALLOC_LIVE='1') as program:
                self.assertEqual(program.line(), '42\n')
                self.assertEqual(program.ends()[0], 0)
