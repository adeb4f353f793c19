"""The system around the process: strict accounting of memory, an empty root, and CPython's
own tests beside another malloc."""
import contextlib
import os
import re
import shutil
from pathlib import Path

import pytest
from compat.environment import INSIDE, assert_active, last_line, need, run_both, sides

from support import child, mallocs

OVERCOMMIT = Path('/proc/sys/vm/overcommit_memory')
RATIO = Path('/proc/sys/vm/overcommit_ratio')

FILL = '''
import inside, json, resource, sys
rows, sizes = [None] * 1000000, []
resource.setrlimit(resource.RLIMIT_AS, (1 << 29, 1 << 29))
for turn in range(3):
    count, reserve = 0, [[n] for n in range(100000, 101000)]
    try:
        while True:
            rows[count] = [bytearray(3000), {count: str(count)}, [count] * 20]
            count += 1
    except MemoryError:
        reserve = None
    held = count
    while count:
        count -= 1
        rows[count] = None
    sizes.append(held)
    assert inside.workload(1) > 0
print(json.dumps(sizes))
'''


@contextlib.contextmanager
def strict():
    """The kernel commits no more memory than it has; restores the settings afterwards."""
    before = {file: file.read_text() for file in (RATIO, OVERCOMMIT)}
    try:
        RATIO.write_text('95')
        OVERCOMMIT.write_text('2')
    except OSError as error:
        pytest.skip(f'{OVERCOMMIT} cannot be set: {error}')
    try:
        yield
    finally:
        for file, text in before.items():
            file.write_text(text)


def committed():
    """(KiB that all processes have committed, KiB that they may commit)."""
    text = Path('/proc/meminfo').read_text()
    return [int(re.search(f'^{name}: +(\\d+)', text, re.M)[1])
            for name in ('Committed_AS', 'CommitLimit')]


@pytest.mark.root
@pytest.mark.skipif(not os.environ.get('OVERCOMMIT_OFF'), reason='changes a setting of the whole '
                    'machine for half a minute: OVERCOMMIT_OFF=1 runs it')
@pytest.mark.since(3, 6)
def test_overcommit_off(python, found):
    with strict():
        now, most = committed()
        if now > 0.7 * most:
            pytest.skip(f'other processes have committed {now >> 10} of {most >> 10} MiB')
        fill, stock_fill = run_both([python.path, '-c', FILL], 200, OBMALLOC_VERBOSE='1')
        short, stock_short = run_both(
            [python.path, '-c', 'import inside; print(inside.workload(3))'], OBMALLOC_VERBOSE='1')
    assert_active(fill, python)
    assert_active(short, python)
    assert short.out == stock_short.out
    assert min(fill.said) > 0.9 * max(fill.said), 'less room after a MemoryError'
    assert fill.said[0] > 0.85 * stock_fill.said[0]
    found('objects until MemoryError, three times: '
          f'{fill.said[0]}, stock {stock_fill.said[0]}')


IN_A_BARE_ROOT = '''
import sys; sys.path.insert(0, "/"); import os, inside, time
assert not os.path.exists("/proc") and not os.path.exists("/dev/null")
kept = [[n] for n in range(300000)]; del kept
for n in range(100): work = [[n] for n in range(3000)]; time.sleep(0.003)
pid = os.fork()
if pid == 0: inside.workload(1); os._exit(0)
assert os.waitpid(pid, 0)[1] == 0
print(inside.workload(2))
'''


@pytest.mark.root
def test_bare_root(python, library, tmp_path, found):
    """chroot into a folder that has an interpreter, its modules and libraries, and no /proc,
    /sys, /dev, /etc, /tmp."""
    need('ldd')
    if python.shared:
        pytest.skip('for a static build')
    if os.geteuid() != 0:
        pytest.skip('only root may')
    modules = Path(last_line(child.run([python.path, '-c', 'import json; print(json.__path__[0])'],
                                       status=0).out)).parent
    dynamic = [file for file in (modules / 'lib-dynload').iterdir() if re.match(
        '_(json|ctypes|random|bisect|struct|heapq|math|posixsubprocess)|math', file.name)]
    libraries = {path for file in [python.path, library, *dynamic] for path in
                 re.findall(r'(/\S+) \(0x', child.run(['ldd', file]).out)}
    for path in sorted(libraries) + [python.path, str(library)]:
        target = Path(f'{tmp_path}{os.path.abspath(path)}')
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    shutil.copytree(modules, f'{tmp_path}{modules}', ignore=shutil.ignore_patterns(
        '__pycache__', 'test', 'dist-packages', 'config-*', 'idlelib'),
        ignore_dangling_symlinks=True)
    shutil.copy(INSIDE / 'inside.py', tmp_path)
    runs = []
    for env in sides(OBMALLOC_VERBOSE='1', OBMALLOC_DECAY_MS='50', OBMALLOC_SOFT_LIMIT='auto',
                     OBMALLOC_HARD_LIMIT='auto'):
        del env['PYTHONPATH']
        if 'LD_PRELOAD' in env:     # chroot itself must find it by the same path
            env['LD_PRELOAD'] = os.path.abspath(env['LD_PRELOAD'])
        runs.append(child.run(['chroot', tmp_path, python.path, '-B', '-c', IN_A_BARE_ROOT], env,
                              status=0))
    assert_active(runs[0], python)
    assert runs[0].out == runs[1].out
    assert (runs[0].err.count('\n'), runs[1].err) == (1, ''), runs[0].report
    found('a root without proc, sys, dev and etc')


MODULES = ['test.test_' + name for name in ('gc', 'json', 'list', 'thread', 'queue')]


def outcomes(python, env):
    """{test: outcome} of CPython's modules."""
    done = child.run([python.path, '-m', 'unittest', '-v', *MODULES], env, timeout=400)
    if 'No module named' in done.err:
        pytest.skip("CPython's tests are not installed: " + last_line(done.err))
    found = dict(re.findall(r'^(test\w+ \(\S+\))[^\n]*?(?:\n[^\n]*?)? \.\.\. (\w+)',
                            done.err, re.M))
    assert len(found) > 200, done.report
    return found


@pytest.mark.since(3, 8)
@pytest.mark.parametrize('name', mallocs.NAMES)
def test_other_mallocs(python, name, library, found):
    """The other malloc preloaded before the library, and after it."""
    other = mallocs.find(name)
    if not python.shared:
        pytest.skip('for a shared build')
    _, plain = sides()
    stock = outcomes(python, plain | {'LD_PRELOAD': other})
    for order in f'{other}:{library}', f'{library}:{other}':
        assert outcomes(python, plain | {'LD_PRELOAD': order}) == stock, order
    found(f'equal outcomes in both orders: {name} {len(stock)}')
