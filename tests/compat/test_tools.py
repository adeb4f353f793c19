"""Tools that look into a process, or stand between it and the allocator."""
import functools
import json
import re
import signal
import subprocess

import pytest
from compat.environment import (PROGRAMS, assert_active, kinds_of_lines, last_line, need,
                                run_both, sides, virtual)

from support import child, interpreters, status
from support.running import Running, eventually

LOAD, PEAK = PROGRAMS / 'load.py', PROGRAMS / 'peak.py'


@pytest.fixture
def both(tmp_path):
    """Runs load.py on both sides and look(pid) meanwhile: the two results of `look`. The
    programs must end as if no tool had been there."""
    def both(path, look, seconds=6):
        found, texts = [], []
        for env in sides(OBMALLOC_VERBOSE='1'):
            with Running([path, LOAD, seconds], env, tmp_path) as program:
                program.wait_until(lambda: 'ready' in program.output()[0])
                found.append(look(program.pid))
                texts.append(program.end())
        ours, stock = texts
        assert len(re.findall('^obmalloc: active', ours[1], re.M)) == 1, ours[1]
        assert ours[0] == stock[0]
        assert kinds_of_lines(ours[1]) == kinds_of_lines(stock[1])
        return found
    return both


# ---- gdb ----

GDB = ['gdb', '-batch', '-nx']


def call_into(pid):
    """Whether gdb can call a function in the process, and the last line of its errors."""
    done = child.run([*GDB, '-p', pid, '-ex', 'call (int)getppid()'], timeout=100)
    return bool(re.search(r'^\$1 = \d+', done.out, re.M)), last_line(done.err)


@functools.lru_cache(maxsize=None)
def cannot_call():
    """Why gdb can call a function in no process here, '' if it can. (An older gdb cannot restore
    the registers of a newer processor, and leaves the process with wrong ones.)"""
    with subprocess.Popen(['sleep', '100'], stderr=subprocess.DEVNULL) as sleeper:
        can, error = call_into(sleeper.pid)
        sleeper.kill()
    return '' if can else error


@pytest.mark.since(3, 6)
def test_gdb(python, both, found):
    """Attaches, shows all threads, calls a function in the process, and detaches."""
    need('gdb')
    cannot = cannot_call()

    def look(pid):
        done = child.run([*GDB, '-p', pid, '-ex', 'thread apply all bt 30', '-ex',
                          'info sharedlibrary'], timeout=100)
        if 'ptrace' in done.err and 'not permitted' in done.err:
            pytest.skip('gdb may not attach here')
        assert done.status == 0, done.report
        assert len(re.findall(r'^Thread \d+', done.out, re.M)) >= 3, done.report
        frames = set(re.findall(r'\b(_?PyEval_EvalFrame\w*|Py_RunMain)\b', done.out))
        return frames, 'libobmalloc' in done.out, not cannot and call_into(pid)[0]
    ours, stock = both(python.path, look)
    assert (ours[1], stock[1]) == (True, False), 'whether gdb shows the library'
    assert cannot or ours[2] and stock[2], 'a call into the process'
    assert '_PyEval_EvalFrameDefault' in ours[0] & stock[0]
    crashes = []
    for env in sides():
        preload = env.pop('LD_PRELOAD', '')
        done = child.run([*GDB, '-ex', 'set startup-with-shell off', '-ex',
                          f'set environment LD_PRELOAD {preload}', '-ex', 'run', '-ex', 'bt',
                          '--args', python.path, LOAD, 0, 'crash'], env, timeout=100, status=0)
        assert 'SIGSEGV' in done.out, done.report
        crashes.append(bool(re.search(r'^#\d+ .*(PyEval|PyObject|_Py)', done.out, re.M)))
    assert crashes == [True, True], 'Python in the backtrace of a crash'
    call = f'no call (impossible for any process here: {cannot})' if cannot else 'a call'
    found(f'attach, backtrace of all threads, {call}, detach; run until SIGSEGV, backtrace')


def test_gdb_preloaded(found):
    """gdb is a program with an interpreter in it: preloaded itself, it works."""
    need('gdb')
    code = ('python import json; kept = [{n: str(n)} for n in range(30000)];'
            ' print(len(json.dumps(kept)))')
    ours, stock = run_both([*GDB, '-ex', code], OBMALLOC_VERBOSE='1')
    assert ours.out == stock.out
    lines = status.lines(ours)
    assert len(lines) == 1, ours.report
    found(re.sub(r' in pid \d+', '', lines[0][0].removeprefix('obmalloc: ')))


# ---- py-spy ----

@pytest.mark.network
def test_py_spy(python, both, tmp_path, found):
    if not (3, 6) <= python.numbers < (3, 14):
        pytest.skip('py-spy reads 3.6 to 3.13')
    home = next((one for one in interpreters.find() if one.minor == '3.11' and one.shared), None)
    if home is None:
        pytest.skip('no 3.11 to install py-spy in')
    spy = virtual(home, 'py-spy') / 'py-spy'

    def look(pid):
        found = []
        for more in [], ['--native']:
            done = child.run([spy, 'dump', '--pid', pid, *more])
            names = set(re.findall(r'^ +(\w+) \(', done.out, re.M))
            found.append(sorted({'inner_work', 'main'} & names) if done.status == 0
                         else last_line(done.err))
        path = tmp_path / f'spy-{pid}'
        done = child.run([spy, 'record', '--pid', pid, '-d', 2, '-r', 50, '-f', 'raw', '-o', path])
        if done.status != 0:
            return found + [last_line(done.err)]
        samples = sum(int(line.split()[-1]) for line in path.read_text().splitlines()
                      if 'inner_work' in line)
        return found + ['recorded' if samples > 20 else samples]
    ours, stock = both(python.path, look)
    assert ours == stock
    assert ours[0] == ['inner_work', 'main'] and ours[-1] == 'recorded'
    found(f'dump {ours[0]}, dump --native {ours[1]}, {ours[2]}')


# ---- memray ----

def memray_stats(memray, path):
    done = child.run([memray, 'stats', '--json', '--force', '-o', f'{path}.json', '-n', 20, path],
                     timeout=300, status=0)
    with open(f'{path}.json') as file:
        return json.load(file), done


def traced(memray, env, path, *options):
    """(peak in bytes, allocations, places of the program in the report, the run)."""
    done = child.run([memray, 'run', '--force', '-q', *options, '-o', path, PEAK], env,
                     timeout=300, status=0)
    numbers, _ = memray_stats(memray, path)
    places = [each['location'] for each in numbers['top_allocations_by_size']
              if 'peak.py' in each['location']]
    return numbers['metadata']['peak_memory'], numbers['total_num_allocations'], places, done


@pytest.mark.network
@pytest.mark.since(3, 8)
def test_memray(python, tmp_path, found):
    """Its own hooks, over malloc and mmap, and around the allocators of both sides."""
    memray = virtual(python, 'memray') / 'memray'
    words = []
    for options in ([], ['--native'], ['--trace-python-allocators'],
                    ['--trace-python-allocators', '--native', '--follow-fork']):
        name = ' '.join(options) or 'plain'
        ours, stock = (traced(memray, env, tmp_path / 'trace', *options)
                       for env in sides(OBMALLOC_VERBOSE='1'))
        assert_active(ours[3], python)
        assert ours[3].out == stock[3].out, name
        assert kinds_of_lines(ours[3].err) == kinds_of_lines(stock[3].err), name
        peak, count = ours[0] / stock[0], ours[1] / stock[1]
        if '--trace-python-allocators' in options:  # every request, so both sides must agree
            assert abs(peak - 1) < 0.01 and abs(count - 1) < 0.01, name
        else:       # requests to layer 0: malloc, and arenas by mmap
            assert 0.8 < peak < 1.25, name
        if '--native' not in options:   # with it, the places are those of C functions
            assert len(ours[2]) > 1 and len(stock[2]) > 1, name
        words.append(f'{name}: peak {ours[0] / 2**20:.1f} MiB, stock {stock[0] / 2**20:.1f}')
    found('; '.join(words))


@pytest.mark.network
@pytest.mark.since(3, 8)
def test_memray_attach(python, both, tmp_path, found):
    """Attached to a running process by gdb, which calls a function in it."""
    need('gdb')
    memray = virtual(python, 'memray') / 'memray'
    if cannot_call():
        pytest.skip('gdb can call a function in no process here: ' + cannot_call())

    def look(pid):
        path = tmp_path / f'attached-{pid}'
        done = child.run([memray, 'attach', '--method', 'gdb', '--duration', 2,
                          '--trace-python-allocators', '-o', path, pid], timeout=100)
        if done.status != 0:
            return 'refused: ' + last_line(done.err)
        assert eventually(lambda: path.exists() and path.stat().st_size > 1000, 20), 'no record'
        return str(path)
    ours, stock = both(memray.parent / 'python', look, 20)     # attaching takes long
    if stock.startswith('refused'):
        assert ours == stock
        pytest.skip('without the library, too: ' + stock)
    counts = []
    for path in ours, stock:
        numbers, _ = memray_stats(memray, path)
        assert any('inner_work' in each['location'] for each in numbers['top_allocations_by_size'])
        counts.append(numbers['total_num_allocations'])
    assert min(counts) > 10000
    found('allocations in 2 s: %d, stock %d' % tuple(counts))


# ---- CPython's own ----

SNAPSHOT = '''
import tracemalloc, json, gc, sys
import inside
def small(): return [(n, str(n), [n] * (n % 30)) for n in range(20000)]
def large(): return [bytes(9000) for n in range(300)]
found = []
for frames in 1, 10, 1:
    tracemalloc.start(frames)
    gc.collect(); gc.disable()
    before = tracemalloc.take_snapshot()
    kept = [small(), large()]
    after = tracemalloc.take_snapshot()
    top = [(each.traceback[0].lineno, each.size_diff, each.count_diff)
           for each in after.compare_to(before, 'lineno')
           if each.traceback[0].filename == '<string>']
    current, peak = tracemalloc.get_traced_memory()
    found.append([sorted(each for each in top if each[2] > 200), (peak - current) < 2000000])
    gc.enable(); kept = None
    tracemalloc.stop()
    inside.workload(1)
print(json.dumps([found, inside.workload(1)]))
'''


@pytest.mark.since(3, 6)
def test_tracemalloc(python, found):
    """Snapshots while it starts and stops: to the byte what stock counts."""
    ours, stock = run_both([python.path, '-c', SNAPSHOT], OBMALLOC_VERBOSE='1')
    assert_active(ours, python)
    assert ours.out == stock.out
    lines = ours.said[0][0][0]
    assert len(lines) >= 2
    found(f'{len(lines)} lines of source, {sum(each[1] for each in lines) // 1024} KiB, '
          'equal to the byte')


CRASHES = {
    'beside a thread': 'import threading, time; go = threading.Event()\n'
                       'threading.Thread(target=go.wait, daemon=True).start()\n'
                       'inside.workload(1); faulthandler._sigsegv()',
    'after a fork': 'import os; inside.workload(1)\n'
                    'pid = os.fork()\n'
                    'if pid == 0: faulthandler._sigsegv()\n'
                    'print(os.waitpid(pid, 0)[1] & 127); faulthandler._sigabrt()',
    # The handler has a stack of its own.
    'stack overflow': 'inside.workload(1); faulthandler._stack_overflow()'}


@pytest.mark.since(3, 6)
@pytest.mark.parametrize('crash', CRASHES)
def test_faulthandler(python, crash, found):
    """The same traceback, the same signal."""
    code = 'import faulthandler, inside; faulthandler.enable()\n' + CRASHES[crash]
    ours, stock = run_both([python.path, '-c', code], status=None, OBMALLOC_VERBOSE='1')
    assert_active(ours, python)
    assert isinstance(ours.status, int) and ours.status < 0, ours.report
    assert (ours.status, ours.out) == (stock.status, stock.out)
    assert kinds_of_lines(ours.err) == kinds_of_lines(stock.err)
    assert 'most recent call first' in ours.err, ours.report
    found(f'{crash}: {signal.Signals(-ours.status).name}')
