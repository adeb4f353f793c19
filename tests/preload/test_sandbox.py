"""Sandboxes: filters that end a process at a system call, installed by the program or before it;
and docs/syscalls.md against strace."""
import json
import re
import shutil
from pathlib import Path

import pytest

from preload.programs import filters
from support import build, child
from support.preload import PRELUDE, interpret

filtered = pytest.mark.skipif(not filters.KNOWN, reason='the calls\' numbers are those of x86-64')
traced = pytest.mark.skipif(not shutil.which('strace'), reason='no strace')

# Allocates, drops and allocates again: more than the helper threshold, requests above 512 bytes,
# and mappings of the C library at addresses of former arenas.
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

# Calls of the library that the host's allocator does not make; a program can do without each.
OURS = ['madvise', 'mincore', 'mprotect', 'clone', 'clone3', 'getppid', 'tgkill', 'sched_yield',
        'open', 'openat', 'memfd_create', 'fcntl', 'ftruncate', 'getrusage', 'rt_sigprocmask',
        'gettid', 'getpid', 'set_robust_list', 'mlockall']


def page():
    return (build.ROOT / 'docs' / 'syscalls.md').read_text(encoding='utf-8')


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


def ends_well(python, code, settings=OFTEN):
    """Runs code, if it succeeds without the library under the same filter."""
    plain = child.run([python.path, '-B', '-c', PRELUDE + WORK + code])
    if plain.status != 0:
        pytest.skip(f'this python needs one of the calls: {plain.err[-200:]}')
    done = interpret(python, WORK + code, env=child.preloaded(OBMALLOC_VERBOSE='1', **settings))
    if 'no filter here' in done.err:
        pytest.skip('no filter can be installed')
    assert 'active in pid' in done.err
    assert done.out.strip().splitlines()[-1] == 'ok'
    return done


def denied(python, *names, then='pass', settings=OFTEN):
    ends_well(python, f'filters.deny(*{names!r}); work(); {then}; print("ok")', settings)


@filtered
def test_no_advice(python):
    denied(python, 'madvise', then='fork(work)')


@filtered
def test_no_thread(python):
    denied(python, 'clone', 'clone3')


@filtered
def test_nothing_that_only_the_library_calls(python):
    denied(python, *OURS)


@filtered
def test_the_same_by_setting(python):
    denied(python, 'prctl', *OURS, settings=STOCK)


@filtered
def test_guarded_blocks_end_at_the_filter(python):
    """Existing guards stay closed or open; the next one is chosen without a call."""
    denied(python, *OURS, settings={'OBMALLOC_GUARD_SAMPLE_RATE': '50', **OFTEN})


@filtered
@pytest.mark.one_python
@pytest.mark.parametrize('names', ['mincore memfd_create fcntl ftruncate', 'mprotect mlockall',
                                   'getppid getrusage', 'tgkill sched_yield getpid'])
def test_some_calls_alone(python, names):
    denied(python, *names.split(), then='fork(work)')


@filtered
def test_with_the_helper_thread_there_already(python):
    """It started before, and so is under no filter; a fork ends it."""
    ends_well(python, '''
work(); work()
filters.deny("madvise", "tgkill", "sched_yield", "getppid")
work(); fork(work); work(); print("ok")
''')


@filtered
def test_filter_of_all_threads(python):
    """Also of the helper thread, which exists and does nothing any more."""
    ends_well(python, '''
work(); kept = [[i] for i in range(300000)]; del kept
filters.deny("madvise", "tgkill", "sched_yield", "getppid", of_all=True)
time.sleep(0.1); work(); fork(work); work(); print("ok")
''')


@filtered
def test_filter_of_one_thread(python):
    """The main thread has no filter, and continues."""
    ends_well(python, '''
import threading
def sandboxed(): filters.deny("mincore", "clone3", "getppid"); work()
work()
thread = threading.Thread(target=sandboxed)
thread.start(); work(); thread.join()
work(); fork(work); print("ok")
''')


@filtered
def test_filter_of_a_thread_that_finds_no_thread(python):
    ends_well(python, '''
import threading
def sandboxed(): filters.deny("clone", "clone3", "getppid"); work()
thread = threading.Thread(target=sandboxed)
thread.start(); thread.join(); work(); print("ok")
''')


@filtered
def test_filter_in_a_child(python):
    """The parent continues without one."""
    ends_well(python, '''
work()
def child(): filters.deny("madvise", "mincore", "getppid", "clone3"); work(); fork(work)
fork(child); work(); print("ok")
''')


@filtered
def test_filter_before_exec_with_the_setting(python):
    """A filter that exists at start is not detected: OBMALLOC_SYSCALLS replaces detection."""
    inner = PRELUDE + WORK + 'work(); fork(work); print("ok")'
    ends_well(python, 'filters.deny("madvise", "mincore", "getppid", "prctl", "tgkill", "clone3")\n'
              'os.execv(sys.executable, [sys.executable, "-B", "-c", %r])\n' % inner, STOCK)


@filtered
def test_pages_that_stay_are_not_counted_as_returned(python):
    done = ends_well(python, '''
import ctypes, gc, json
filters.deny("madvise", "clone3")
kept = [[i] for i in range(150000)]
few = kept[::100]; del kept; gc.collect(); time.sleep(0.1)
kept = [[i] for i in range(1000)]; del kept
def trim():
    import inside
    lib = inside.library()
    lib.obmalloc_trim.restype = ctypes.c_size_t
    before = inside.stats(lib)["arenas"]
    went = lib.obmalloc_trim(ctypes.c_size_t(0))
    after = inside.stats(lib)
    unmapped = after["arenas"]["unmapped_total"] - before["unmapped_total"]
    print(json.dumps([went, unmapped, after["resident"]]))
if "obmalloc" in open("/proc/self/maps").read(): trim()
print("ok")
''')
    went, unmapped, resident = json.loads(done.out.splitlines()[-2])
    assert went <= unmapped * (2 << 20)
    assert resident['free_in_pools'] > 4 << 20


@filtered
@pytest.mark.since(3, 6)
@pytest.mark.parametrize('fragments, settings', [(['stock'], STOCK), (['stock', 'default'], OFTEN)],
                         ids=['stock', 'default'])
def test_list_of_the_page_after_start(python, fragments, settings):
    names = [name for each in fragments for name in fragment(each)]
    ends_well(python, f'filters.allow_only(*{names!r}); work(); print("ok")', settings)


BEGINS = '/obmalloc: the program begins'
BEGIN = f'os.access({BEGINS!r}, 0)\n'


def seen(python, folder, env, after=BEGINS):
    """The calls that strace sees; of the process with the mark `after`, those behind it."""
    folder.mkdir()
    variables = [word for name, value in env.items() for word in ('-E', f'{name}={value}')]
    done = child.run(['strace', '-ff', '-o', folder / 'of', *variables, python.path, '-B', '-c',
                      PRELUDE + WORK + BEGIN + 'work(); fork(work)'])
    if 'ptrace' in done.err:
        pytest.skip('strace may not trace')
    assert done.status == 0
    texts = [path.read_text(errors='replace').split(after)[-1] for path in folder.iterdir()]
    return {name for text in texts for name in re.findall(r'^(\w+)\(', text, re.M)} - {'exit_group'}


def with_library(python, folder, **settings):
    return seen(python, folder, dict(LD_PRELOAD=build.LIBRARY, **settings))


@traced
@pytest.mark.one_python
@pytest.mark.parametrize('settings, made', [
    ('', 'any default thread'), ('BACKGROUND_THREAD=0', 'any default'), ('SYSCALLS=stock', 'any'),
    ('SYSCALLS=stock GUARD_SAMPLE_RATE=50 STATS_PAGE=1 HARD_LIMIT=8G SOFT_LIMIT=auto PROFILE=1',
     'any'),
    ('HARD_LIMIT=8G', 'any default thread HARD_LIMIT'),
    ('STATS_PAGE=1', 'any default thread STATS_PAGE'),
    ('GUARD_SAMPLE_RATE=500', 'any default thread GUARD_SAMPLE_RATE'),
    ('PROFILE=1', 'any default thread PROFILE'),
    ('PROFILE=1 PROFILE_NATIVE=1', 'any default thread PROFILE PROFILE_NATIVE'),
    ('PROFILE=64K PROFILE_ON=exit,USR2,1s PROFILE_FILE={tmp}/%p-%n.pb.gz',
     'any default thread PROFILE PROFILE_ON'),
    ('STATS={tmp}/at-exit', 'any default thread STATS')])
def test_each_call_is_in_the_table(python, settings, made, tmp_path):
    made = made.split()
    env = dict(f'OBMALLOC_{each}'.format(tmp=tmp_path).split('=') for each in settings.split())
    plain = seen(python, tmp_path / 'stock', {})
    more = with_library(python, tmp_path / 'ours', OBMALLOC_DECAY_MS='60', **env) - plain
    moments = {when for when, _, _ in table()} - {'start', 'a mistake is found'}
    missing = more - documented(made, moments)
    assert not missing, f'not in docs/syscalls.md: {sorted(missing)}'
    if 'default' in made:
        assert {'madvise', 'prctl', 'getppid'} <= more | plain      # 3.6 calls getppid itself
    if 'PROFILE' in made:
        assert 'process_vm_readv' in more and {'gettid', 'prctl'} <= more | plain
    if 'PROFILE_ON' in made:
        assert {'renameat2', 'rt_sigprocmask'} <= more | plain
    if 'thread' in made:
        assert more & {'clone', 'clone3', 'rseq', 'set_robust_list'}


@traced
def test_stock_after_start(python, tmp_path):
    """OBMALLOC_SYSCALLS=stock: only calls that the interpreter makes without the library."""
    ours = with_library(python, tmp_path / 'ours', **STOCK)
    assert ours - seen(python, tmp_path / 'stock', {}) <= {'futex', 'clock_gettime'}


@traced
@filtered
@pytest.mark.one_python
@pytest.mark.parametrize('settings', [OFTEN, STOCK], ids=['default', 'stock'])
def test_list_of_the_page_from_the_start_on(python, settings, tmp_path):
    """The calls that the program needs without the library, and the page's list: a filter that
    exists at start, and is not detected. Any other call would end the program."""
    needed = seen(python, tmp_path / 'stock', {}, after='no such word')
    needed |= {'execve', 'exit_group', 'write'}
    unknown = needed - set(filters.NUMBERS)
    if unknown:
        pytest.skip(f'no number is known for {", ".join(sorted(unknown))}')
    inner = PRELUDE + WORK + 'work(); fork(work); work(); print("ok")'
    at_start = documented({'any'}, {'start', 'while running'})
    names = sorted(needed.union(at_start if settings is STOCK else fragment('at start')))
    done = interpret(python, f'''
import os, filters
filters.allow_only(*{names!r})
os.execv(sys.executable, [sys.executable, "-B", "-c", {inner!r}])
''', env=child.preloaded(**settings))
    assert done.out == 'ok\n'


@traced
@pytest.mark.parametrize('setting, advised', [('auto', False), ('never', True)])
def test_no_useless_advice_on_huge_pages(python, setting, advised, tmp_path):
    if '[always]' in Path('/sys/kernel/mm/transparent_hugepage/enabled').read_text():
        pytest.skip('the kernel uses huge pages without advice')
    done = child.run(['strace', '-f', '-e', 'madvise', '-o', tmp_path / 'trace',
                      '-E', f'LD_PRELOAD={build.LIBRARY}', '-E', f'OBMALLOC_THP={setting}',
                      python.path, '-c', 'kept = [[] for i in range(100000)]'])
    if 'ptrace' in done.err:
        pytest.skip('strace may not trace')
    assert done.status == 0
    assert ('MADV_NOHUGEPAGE' in (tmp_path / 'trace').read_text()) == advised
