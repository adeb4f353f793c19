"""The kernel refuses: system calls under a seccomp filter, as in sandboxes; no threads; no /proc
and no /sys. The program runs as without the library, and at worst keeps memory that would have
been returned."""
import json
import os
import shutil

import pytest

from support import build, child, status
from support.preload import PRELUDE, build_host, interpret

# Builds, drops, waits and trims; checks that calloc's memory is zero after pages were returned;
# and forks. Without /proc resident memory is unknown.
PROGRAM = '''
import inside, subprocess
from memory import *
if not os.path.exists('/proc/self'):
    import memory
    memory.rss = rss = lambda: -1
    names = lambda: []
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

# A child made without fork handlers, while the helper thread sleeps, must not wait for that
# thread: it forks, and ends.
COPY = '''
from memory import *
libc = ctypes.PyDLL(None)
peak, kept = build_and_drop()
until = time.time() + 20            # the program's calls start it
while "obmalloc" not in names() and time.time() < until:
    more = build_and_drop(100000)
assert "obmalloc" in names()
time.sleep(0.5)                     # and it sleeps: at work it may hold a lock
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
pid = os.fork()                     # the process still has its helper, which ends
if pid == 0:
    os._exit(len(names()) - 1)
assert os.waitpid(pid, 0)[1] == 0
print(json.dumps(whole(kept)))
'''


def refused(python, error, calls, code=PROGRAM, interval='100'):
    """A program under a filter of these calls, and the JSON that it printed."""
    done = child.run([build_host('refuse', 'refuse.c'), error, *calls, '--',
                      python.path, '-B', '-c', PRELUDE + code],
                     child.preloaded(OBMALLOC_VERBOSE='1', OBMALLOC_DECAY_MS=interval))
    if done.status == 77:
        pytest.skip(done.err.strip())
    assert done.status == 0
    return done, done.said


def program_runs(python, error, *calls):
    """Whether PROGRAM had a helper, and by how many MiB its memory fell."""
    done, (checksum, peak, after, helper, live) = refused(python, error, calls)
    stock = interpret(python, 'import inside; print(inside.workload(2))',
                      env=child.clean_environment())
    assert checksum == int(stock.out)
    assert live > 5000
    assert done.pid in [int(line.group(1)) for line in done.lines(status.ACTIVE)]
    assert len(done.err.splitlines()) == 2, 'it and its child'
    return helper, peak - after


@pytest.mark.one_python
@pytest.mark.parametrize('error', ['EPERM', 'ENOSYS'])
def test_madvise(python, error):
    """No page is returned, and nothing else changes. 2.7's buffers belong to the C library, which
    trims by itself."""
    _, fell = program_runs(python, error, 'madvise')
    if python.numbers > (3,):
        assert fell < 10, 'the filter is not in force'


@pytest.mark.one_python
@pytest.mark.parametrize('error', ['EPERM', 'ENOSYS'])
def test_prctl(python, error):
    """Mappings and the thread have no names; pages are returned."""
    _, fell = program_runs(python, error, 'prctl')
    assert fell > 20


def test_calls_of_other_allocators(python):
    """Calls that allocators are known to make. The library needs none of them."""
    helper, fell = program_runs(python, 'ENOSYS', 'membarrier', 'getcpu', 'memfd_create',
                                'mremap')
    assert helper
    assert fell > 20


def test_tgkill_and_sched_yield(python):
    """The calls that detect the helper's end, and that wait for it."""
    helper, fell = program_runs(python, 'EPERM', 'tgkill', 'sched_yield')
    assert helper
    assert fell > 20


@pytest.mark.one_python
def test_no_threads(python):
    """No helper can start; the program's own calls return pages."""
    helper, fell = program_runs(python, 'EAGAIN', 'threads')
    assert not helper
    assert fell > 20


def test_everything_at_once(python):
    helper, _ = program_runs(python, 'EPERM', 'madvise', 'prctl', 'membarrier', 'getcpu',
                             'memfd_create', 'mremap', 'tgkill', 'sched_yield',
                             'threads')
    assert not helper


@pytest.mark.since(3)
@pytest.mark.parametrize('call', ['getcpu', 'madvise'])
def test_a_copy_does_not_wait_for_the_helper(python, call):
    """A page that madvise has the kernel wipe in children shows that the thread is absent;
    without the page, too, a child must not wait for a thread of its parent."""
    _, whole = refused(python, 'EPERM', [call], COPY, interval='100000')
    assert whole


def in_a_jail(python, code, **settings):
    """Runs code with empty /proc and /sys, as in a plain chroot or some jails."""
    if not shutil.which('unshare'):
        pytest.skip('no unshare')
    words = ['unshare', '-m'] if os.geteuid() == 0 else ['unshare', '-rm']
    if child.run(words + ['true']).status != 0:
        pytest.skip('no mount namespace can be made')
    hide = 'mount -t tmpfs none /proc && mount -t tmpfs none /sys || exit 77; exec "$@"'
    done = child.run(words + ['sh', '-c', hide, 'sh', 'env', f'LD_PRELOAD={build.LIBRARY}',
                              python.path, '-B', '-c', PRELUDE + code],
                     child.clean_environment(OBMALLOC_VERBOSE='1', **settings))
    if done.status == 77:
        pytest.skip('nothing can be mounted')
    assert done.status == 0
    assert int(done.lines(status.ACTIVE)[0].group(1)) == done.pid
    return done


def test_without_proc(python):
    done = in_a_jail(python, 'import os; assert not os.listdir("/proc")\n' + PROGRAM,
                     OBMALLOC_DECAY_MS='100')
    checksum, peak, after, _, live = done.said
    stock = interpret(python, 'import inside; print(inside.workload(2))',
                      env=child.clean_environment())
    assert (checksum, peak, after) == (int(stock.out), -1, -1)
    assert live > 5000


def test_without_proc_pages_are_returned(python):
    """By the library's own count, the only one."""
    done = in_a_jail(python, '''
import inside
from memory import *
def held(): return inside.stats(inside.library())["resident"]["total"] / 1048576.0
things = [Thing(n) for n in range(300000)]
peak = held()
del things
comes(lambda: held() < peak / 3)
print(json.dumps([peak, held()]))
''', OBMALLOC_DECAY_MS='100')
    peak, least = done.said
    assert peak > 20
    assert least < peak / 3


def test_without_proc_limits_are_unknown(python, tmp_path):
    """No request is refused, and the statistics are valid."""
    path = tmp_path / 'statistics.json'
    done = in_a_jail(python, 'import inside; print(inside.workload(2))', OBMALLOC_SOFT_LIMIT='auto',
                     OBMALLOC_HARD_LIMIT='auto', OBMALLOC_STATS=path)
    stock = interpret(python, 'import inside; print(inside.workload(2))',
                      env=child.clean_environment())
    assert done.out == stock.out
    assert json.loads(path.read_text())['pid'] == done.pid
