"""Since 3.12 CPython counts the kernel's threads after a fork, and warns if there is more than
one. The helper thread runs before each of these forks, and no warning may appear. (stderr is
compared: with -W error, CPython drops this warning silently.)"""
import pytest

from support import child
from support.preload import interpret

pytestmark = pytest.mark.since(3, 12)

# Each round: the helper thread works, sleeps, leaves, or has just left.
LOOP = '''
def prepare(count, wait):
    """Drops most of `count` things, returns the others; the helper runs then."""
    time.sleep(INTERVAL * 1.2)      # after a fork it does not start at once
    end = time.time() + 30
    while True:                     # it starts at a check, several times in each interval
        kept = build_and_drop(count)[1]
        if comes(lambda: "obmalloc" in names(), 0.2) or time.time() > end:
            break
    assert "obmalloc" in names(), names()
    time.sleep(wait * INTERVAL)
    return kept
if __name__ == "__main__":
    for n, wait in enumerate(WAITS):
        kept = prepare(500000 if n == 0 else 60000, wait)
        assert n or rss.most > 100, rss.most
        forks(kept)
        assert whole(kept)
'''
PEAK = '''
import memory
from memory import *
once = rss
def rss():
    rss.most = max(rss.most, once())
    return rss.most
memory.rss = rss
rss.most = 0
'''


def rounds(python, code, interval, waits, **settings):
    body = ''.join('    %s\n' % line for line in code.splitlines())
    program = (PEAK + 'def forks(kept):\n' + body +
               'INTERVAL, WAITS = %r, %r\n' % (interval, waits) + LOOP)
    done = interpret(python, program, options=('-W', 'always'), timeout=150,
                     env=child.preloaded(**settings))
    assert (done.out, done.err) == ('', '')


def forks(python, code):
    """Runs `code` as the body of a function of `kept`, with the helper at each call."""
    rounds(python, code, 0.02, [0, 0, 0.5, 0.9, 1, 1.1, 1.9, 2, 2.1, 3, 3.1, 4],
           OBMALLOC_DECAY_MS='20')


def test_fork(python):
    forks(python, '''
pid = os.fork()
if pid == 0:
    good = threading.active_count() == len(names()) == 1 and whole(kept)
    build_and_drop(3000)
    os._exit(0 if good else 3)
assert len(names()) == 1, names()
assert os.waitpid(pid, 0)[1] == 0
''')


def test_many_forks_in_a_row(python):
    forks(python, '''
for each in range(15):
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    things = [Thing(n) for n in range(3000)]; del things
''')


def test_fork_with_the_usual_interval(python):
    rounds(python, '''
import subprocess
subprocess.run(["true"], preexec_fn=os.getpid, check=True)
pid = os.fork()
if pid == 0:
    os._exit(0)
assert os.waitpid(pid, 0)[1] == 0
''', 1.0, [0, 0.5, 1])


def test_forkpty(python):
    forks(python, '''
pid, fd = os.forkpty()
if pid == 0:
    os._exit(0)
assert os.waitpid(pid, 0)[1] == 0
os.close(fd)
''')


def test_multiprocessing_process(python):
    forks(python, '''
import multiprocessing
child = multiprocessing.get_context("fork").Process(
    target=build_and_drop, args=(3000,))
child.start()
child.join()
assert child.exitcode == 0
''')


def test_multiprocessing_pool(python):
    forks(python, '''
import multiprocessing
with multiprocessing.get_context("fork").Pool(2) as pool:
    assert pool.map(len, [kept] * 8) == [len(kept)] * 8
    pool.close()
    pool.join()
''')


def test_process_pool_executor(python):
    forks(python, '''
import concurrent.futures, multiprocessing
context = multiprocessing.get_context("fork")
with concurrent.futures.ProcessPoolExecutor(2, context) as pool:
    assert list(pool.map(len, [kept] * 8)) == [len(kept)] * 8
''')


def test_subprocess(python):
    forks(python, '''
import subprocess
subprocess.run(["true"], check=True)
subprocess.run(["true"], preexec_fn=os.getpid, check=True)
''')
