"""OBMALLOC_STATS_PAGE=1: other processes can read the heap's statistics. Without it there is no
page."""
import glob
import json
import os
import signal
import subprocess
import sys

import pytest

from preload import kernel_rss
from support import build, child, live_page
from support.preload import PRELUDE

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

# Forks while the answering thread waits, has just started, or is woken.
FORKS = '''
from memory import *
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


# The first free descriptor, and the number of those that the program can still open.
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

# Executes argv[3:] with few descriptors left.
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

# A daemon: closes its files below argv[1], and sleeps.
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
    """A program that runs during the check."""

    def __init__(self, python, code, *arguments, **settings):
        self.process = subprocess.Popen(
            [python.path, '-B', '-W', 'always', '-c', PRELUDE + code, *arguments],
            env=child.preloaded(**settings), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
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
        """Its status and its output on stderr."""
        _, said = self.process.communicate(timeout=100)
        return self.process.returncode, said

    def threads(self):
        names = []
        for each in os.listdir('/proc/%d/task' % self.pid):
            with open('/proc/%d/task/%s/comm' % (self.pid, each)) as file:
                names.append(file.read().strip())
        return names


@pytest.mark.parametrize('settings', [{}, {'OBMALLOC_STATS_PAGE': '0'}], ids=['', '0'])
def test_nothing_unless_asked(python, settings):
    with Started(python, QUIET, **settings) as program:
        program.line()
        assert live_page.find(program.pid) == []
        assert 'obmalloc-live' not in program.threads()


def test_page_and_json_agree(python):
    with Started(python, QUIET, OBMALLOC_STATS_PAGE='1') as program:
        json_says = json.loads(program.line())
        page = live_page.of(program.pid)
        assert page.ask()
        says = page.statistics()
        assert says['host'] == python.version
        for key in 'version', 'pid', 'host', 'arenas':
            assert says[key] == json_says[key], key
        # The program allocates a little between the two.
        for section in 'bytes', 'resident':
            for key, number in json_says[section].items():
                assert abs(says[section][key] - number) < 200 << 10, key
        parts = sum(says['resident'][part] for part in live_page.PARTS)
        assert parts == says['resident']['total']
        snapshot = page.snapshot()
        taken = sum(each['size'] * (each['blocks_live'] + each['blocks_in_magazines'])
                    for each in snapshot.statistics['classes'])
        assert abs(sum(each['taken_bytes'] for each in snapshot.pages) - taken) < 65536
        assert len(snapshot.pools) == sum(each['pools'] for each in snapshot.arenas)


def test_breakdown_is_what_the_kernel_counts(python):
    found = kernel_rss.compare(python, samples=15)
    assert len(found) >= 3
    assert min(counted for _, counted in found) > 100 << 20
    assert max(abs(ours / counted - 1) for ours, counted in found) < 0.02


def test_forks_and_no_warning(python):
    with Started(python, FORKS, '12', OBMALLOC_STATS_PAGE='1') as program:
        assert program.line() == 'ready\n'
        page = live_page.of(program.pid)
        while program.process.poll() is None:
            page.ask(seconds=0.2)
        status, said = program.ends()
        assert (status, said) == (0, '')


def test_a_killed_program_leaves_nothing(python):
    with Started(python, QUIET, OBMALLOC_STATS_PAGE='1') as program:
        program.line()
        page = live_page.of(program.pid)
        os.kill(program.pid, signal.SIGKILL)
        program.process.wait()
        assert not page.ask(seconds=0.2)
        assert not os.path.exists('/proc/%d/fd' % program.pid)
        page.statistics()       # the last ones can still be read
    assert not glob.glob('/dev/shm/*obmalloc*')


def test_the_file_is_as_long_as_its_contents(python):
    """A tool that reads every open file of a process is soon done."""
    with Started(python, QUIET, OBMALLOC_STATS_PAGE='1') as program:
        program.line()
        (path,) = live_page.find(program.pid)
        page = live_page.of(program.pid)
        with open(path, 'rb') as file:
            assert len(file.read()) == live_page.PAGE_BYTES
        snapshot = page.snapshot()
        with open(path, 'rb') as file:
            length = len(file.read())
        assert length < 1 << 20
        assert length > 168 * len(snapshot.pools)
        assert page.ask()
        with open(path, 'r+b') as file:     # others have the pages mapped
            with pytest.raises(OSError):
                file.truncate(4096)


@pytest.mark.parametrize('limit, left', [(4, 1), (8, 4), (16, 4), (64, 40), (256, 4), (1024, 4),
                                         (1024, 12)])
def test_few_descriptors(python, limit, left):
    """The program can have as many as without the library."""
    def count(env):
        done = child.run([sys.executable, '-S', '-c', FEW, limit, left,
                          python.path, '-S', '-c', COUNT], env)
        return done.status, done.out, done.err
    stock = count(child.clean_environment())
    assert stock == count(child.clean_environment(TEST_PRELOAD=build.LIBRARY,
                                                  OBMALLOC_STATS_PAGE='1'))
    if limit > 4 and python.numbers >= (3,):    # 2.7 itself takes more
        assert stock[:2] == (0, f'0 {left}\n')


def test_a_daemon_that_sleeps(python):
    """Its page cannot be opened any more, but its mapping can be seen."""
    for end, pages in (2, 1), (4096, 0):
        with Started(python, DAEMON, str(end), OBMALLOC_STATS_PAGE='1') as program:
            assert program.process.stderr.readline() == 'ready\n'
            assert len(live_page.find(program.pid)) == pages
            with open('/proc/%d/maps' % program.pid) as file:
                assert '/memfd:obmalloc-live (deleted)\n' in file.read()


@pytest.mark.since(3)
def test_ticks_answer_without_a_thread(python):
    code = QUIET.replace('sys.stdin.readline()', '''
end = __import__("time").time() + 60
while end > __import__("time").time():
    things = [[n] for n in range(5000)]; del things
''')
    with Started(python, code, OBMALLOC_STATS_PAGE='1', OBMALLOC_BACKGROUND_THREAD='0') as program:
        program.line()
        page = live_page.of(program.pid)
        assert page.ask(seconds=20)
        assert page.control()['thread'] == 0
        assert 'obmalloc-live' not in program.threads()


@pytest.mark.parametrize('which, limit', [('FSIZE', 0), ('FSIZE', 100000), ('NOFILE', 64)])
def test_a_small_limit_to_files_and_descriptors(python, which, limit):
    """No signal, no line: at worst no page."""
    code = (f'import resource; resource.setrlimit(resource.RLIMIT_{which}, ({limit}, {limit}))\n'
            'import os; os.execv(sys.executable, [sys.executable, "-c", "print(6 * 7)"])')
    with Started(python, code, OBMALLOC_STATS_PAGE='1') as program:
        assert program.line() == '42\n'
        assert program.ends()[0] == 0
