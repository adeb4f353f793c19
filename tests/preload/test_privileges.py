"""Programs with more rights than their user, in which the user's settings have no effect; users
who may start no thread; and limits that a shell sets."""
import json
import os
import resource
import shutil

import pytest

from support import child, status
from support.privileges import NOBODY, as_nobody, library_for_all, needs_root, open_folder
from support.preload import HOSTS, PRELUDE

LOUD = dict(OBMALLOC_VERBOSE='1', OBMALLOC_NO_SUCH='1', OBMALLOC_POOL_MAX='banana')


def reachable(python):
    needs_root()
    if as_nobody(['sh', '-c', '"$0" -c pass', python.path], child.clean_environment()).status != 0:
        pytest.skip('another user cannot reach ' + python.path)


def test_setuid_interpreter_preloaded(python):
    """The loader ignores the preload, a path of another user."""
    reachable(python)
    program = open_folder('setuid') / f'python-{python.name}'
    shutil.copyfile(python.path, program)
    program.chmod(0o4755)
    code = ('import os; print(os.getuid(), os.geteuid(),'
            ' "libobmalloc" in open("/proc/self/maps").read())')
    env = child.clean_environment(**LOUD, LD_PRELOAD=library_for_all(), PYTHONHOME=python.prefix)
    done = as_nobody([program, '-c', code], env, status=0)
    if done.out.split()[:2] != [str(NOBODY), '0']:
        pytest.skip('setuid has no effect: ' + done.out.strip())
    assert done.out.split()[2] == 'False'
    status.silent(done)
    # The same user and settings without the bit: the library is active.
    program.chmod(0o755)
    done = as_nobody([program, '-c', code], env, status=0)
    assert done.out.split() == [str(NOBODY), str(NOBODY), 'True']
    assert len(done.lines(status.ACTIVE)) == 1


def test_a_user_who_may_start_no_thread(python):
    """RLIMIT_NPROC: a program that needs no thread sees no error, and its pages are returned."""
    reachable(python)
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
    done = as_nobody([python.path, '-B', '-c', code], child.clean_environment(
        OBMALLOC_VERBOSE='1', OBMALLOC_DECAY_MS='50', LD_PRELOAD=library_for_all()),
        [(resource.RLIMIT_NPROC, 1)], status=0)
    numbers, thread = done.out.splitlines()
    assert thread == 'no thread', 'the limit is not in force'
    peak, later, threads = json.loads(numbers)
    assert later < peak - 20
    assert threads == 1
    status.active(done, python)


@pytest.mark.parametrize('mode', [0o4755, 0o755], ids=oct)
def test_setuid_program_that_is_linked(mode):
    """The library is in the program, and ignores its user's settings."""
    needs_root()
    folder = library_for_all().parent
    if not (folder / 'libobmalloc.so.0').exists():
        (folder / 'libobmalloc.so.0').symlink_to('libobmalloc.so')
    # Compiled where other users can reach it.
    program = folder / f'linked-{mode:o}'
    child.run([os.environ.get('CC', 'gcc'), '-O2', HOSTS / 'linked.c', '-o', program,
               f'-L{folder}', '-l:libobmalloc.so', f'-Wl,-rpath,{folder}'], status=0)
    program.chmod(mode)
    reports = open_folder('reports')
    reports.chmod(0o777)
    report = reports / f'from-{mode:o}'
    profile = reports / f'profile-from-{mode:o}'
    settings = dict(LOUD, OBMALLOC_STATS=report, OBMALLOC_PROFILE='1', OBMALLOC_PROFILE_ON='exit',
                    OBMALLOC_PROFILE_FILE=profile)
    done = as_nobody([program], child.clean_environment(**settings), status=0)
    if mode == 0o4755:
        if done.out.split() != [str(NOBODY), '0', '1']:
            pytest.skip('setuid has no effect: ' + done.out.strip())
        status.silent(done)
        assert not report.exists() and not profile.exists(), 'a file of its user\'s choice'
    else:       # the settings take effect
        assert done.out.split() == [str(NOBODY), str(NOBODY), '0']
        assert 'OBMALLOC_NO_SUCH' in done.err
        assert report.exists() and profile.exists()


def limited(python, which, kib, code, env):
    """Runs code under a limit that a shell's ulimit has set."""
    return child.run([python.path, '-B', '-c', PRELUDE + code], env, timeout=100,
                     preexec_fn=lambda: resource.setrlimit(which, (kib * 1024, kib * 1024)))


@pytest.mark.parametrize('kib', [256, 512])
def test_a_small_stack(python, kib):
    """Also of a thread, whose stack has the limit's size, and of the helper thread."""
    code = '''
import inside, threading, time
print(inside.workload(2))
t = threading.Thread(target=lambda: inside.workload(1))
t.start(); t.join()
kept = [[n] for n in range(400000)]; del kept
for n in range(300):
    work = [[n] for n in range(3000)]; del work; time.sleep(0.0005)
'''
    stock, ours = (limited(python, resource.RLIMIT_STACK, kib, code, env) for env in (
        child.clean_environment(), child.preloaded(OBMALLOC_VERBOSE='1')))
    assert (ours.status, ours.out) == (stock.status, stock.out)
    if stock.status == 0:
        status.active(ours, python)


def least(python, which, env):
    """The KiB, within 256, with which the interpreter starts and imports json."""
    low, high = 0, 1 << 20
    while high - low > 256:
        middle = (low + high) // 2
        done = limited(python, which, middle, 'import json; print(json.dumps(1))', env)
        low, high = (low, middle) if (done.status, done.out) == (0, '1\n') else (middle, high)
    return high


@pytest.mark.only('3.11', '3.13', '3.14', '3.15')
@pytest.mark.parametrize('limit', ['RLIMIT_AS', 'RLIMIT_DATA'])
def test_address_space_that_a_start_needs(python, limit):
    """Untouched mappings count: 17 MiB, and two arenas. No more than that."""
    which = getattr(resource, limit)
    stock = least(python, which, child.clean_environment())
    ours = least(python, which, child.preloaded())
    assert ours - stock < 23 << 10, f'KiB: {ours}, stock {stock}'
