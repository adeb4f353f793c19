"""The system around the process: strict accounting of memory, a root without anything in
it, and CPython's own tests beside another malloc."""
import contextlib
import os
import re
import shutil

from base import (Skip, active, demand, environment, last_line, need, ran, same, sides, since,
                  support)

OVERCOMMIT = '/proc/sys/vm/overcommit_memory'
RATIO = '/proc/sys/vm/overcommit_ratio'

FILL = '''
import inside, json, resource, sys
rows, sizes = [None] * 1000000, []
resource.setrlimit(resource.RLIMIT_AS, (1 << 29, 1 << 29))      # what there is ends here
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
    """The kernel promises no more memory than it has; as it was before, afterwards."""
    with open(OVERCOMMIT) as file, open(RATIO) as other:
        before, ratio = file.read(), other.read()
    try:
        with open(RATIO, 'w') as other:
            other.write('95')
        with open(OVERCOMMIT, 'w') as file:
            file.write('2')
    except OSError as error:
        raise Skip('%s cannot be set: %s' % (OVERCOMMIT, error))
    try:
        yield
    finally:
        with open(OVERCOMMIT, 'w') as file:
            file.write(before)
        with open(RATIO, 'w') as other:
            other.write(ratio)


def promised():
    """(KiB that all processes were promised, KiB that may be)."""
    with open('/proc/meminfo') as file:
        text = file.read()
    return [int(re.search('^%s: +(\\d+)' % name, text, re.M).group(1))
            for name in ('Committed_AS', 'CommitLimit')]


@environment('overcommit-off', since(3, 6), only_asked=True)
def overcommit(python):
    """For half a minute no process of the machine gets more than there is."""
    ours, stock = [], []
    try:
        with strict():
            now, most = promised()
            if now > 0.7 * most:
                raise Skip('others here were promised too much already: %d of %d MiB'
                           % (now >> 10, most >> 10))
            short = 'import inside; print(inside.workload(3))'
            for env, into in zip(sides(OBMALLOC_VERBOSE='1'), (ours, stock)):
                into.append(support.run([python.path, '-c', FILL], env, timeout=200))
                into.append(support.run([python.path, '-c', short], env))
    except OSError as error:
        raise Skip(str(error))
    for done in ours + stock:
        ran(done)
    for done in ours:
        active(done, python)
    same(ours[1].out, stock[1].out, 'output')
    first, second = support.said(ours[0]), support.said(stock[0])
    demand(min(first) > 0.9 * max(first), 'the room got less', first)
    demand(first[0] > 0.85 * second[0], 'room', first, second)
    return '%s things until MemoryError, three times; stock %s' % (first[0], second[0])


@environment('bare-root', lambda python: not python.shared)
def bare_root(python):
    """chroot into a folder that has an interpreter, its modules and libraries, and no
    /proc, /sys, /dev, /etc, /tmp."""
    need('ldd')
    if os.geteuid() != 0:
        raise Skip('only root may')
    root = support.scratch('bare')
    shutil.rmtree(root, ignore_errors=True)
    asked = support.run([python.path, '-c', 'import json; print(json.__path__[0])'])
    modules = os.path.dirname(last_line(asked.out))
    dynamic = os.path.join(modules, 'lib-dynload')
    wanted = [python.path, support.LIBRARY] + [
        os.path.join(dynamic, name) for name in os.listdir(dynamic)
        if re.match('_(json|ctypes|random|bisect|struct|heapq|math|posixsubprocess)|math', name)]
    needed = set()
    for each in wanted:
        needed |= set(re.findall(r'(/\S+) \(0x', support.run(['ldd', each]).out))
    for path in sorted(needed) + [python.path, support.LIBRARY]:
        target = root + os.path.abspath(path)
        os.makedirs(os.path.dirname(target), exist_ok=True)
        shutil.copy(path, target)
    shutil.copytree(modules, root + modules, ignore=shutil.ignore_patterns(
        '__pycache__', 'test', 'dist-packages', 'config-*', 'idlelib'), symlinks=False,
        ignore_dangling_symlinks=True)
    for name in 'inside.py',:
        shutil.copy(os.path.join(support.PROGRAMS, name), root)
    code = ('import sys; sys.path.insert(0, "/"); import os, inside\n'
            'assert not os.path.exists("/proc") and not os.path.exists("/dev/null")\n'
            'import time\n'
            'kept = [[n] for n in range(300000)]; del kept\n'
            'for n in range(100): work = [[n] for n in range(3000)]; time.sleep(0.003)\n'
            'pid = os.fork()\n'
            'if pid == 0: inside.workload(1); os._exit(0)\n'
            'assert os.waitpid(pid, 0)[1] == 0\n'
            'print(inside.workload(2))')
    runs = []
    for env in sides(OBMALLOC_VERBOSE='1', OBMALLOC_DECAY_MS='50', OBMALLOC_LIMIT='auto',
                     OBMALLOC_LIMIT_HARD='auto'):
        preload = env.pop('LD_PRELOAD', None)
        words = ['chroot', root, python.path, '-B', '-c', code]
        if preload:     # chroot itself is to find it, too: by the same path
            env['LD_PRELOAD'] = os.path.abspath(preload)
        env.pop('PYTHONPATH')
        runs.append(ran(support.run(words, env)))
    active(runs[0], python)
    same(runs[0].out, runs[1].out, 'output')
    same(runs[1].err, '', 'stock stderr')
    demand(runs[0].err.count('\n') == 1, runs[0].report)
    return 'a root without proc, sys, dev and etc: the same output'


MODULES = ['test.test_' + name for name in ('gc', 'json', 'list', 'thread', 'queue')]
LIBRARIES = {'jemalloc': 'libjemalloc.so.2', 'mimalloc': 'libmimalloc.so.2',
             'tcmalloc': 'libtcmalloc_minimal.so.4'}


def outcomes(python, env):
    """{test: how it went} of CPython's modules."""
    done = support.run([python.path, '-m', 'unittest', '-v'] + MODULES, env, timeout=400)
    if 'No module named' in done.err:
        raise Skip('CPython\'s tests are not installed: ' + last_line(done.err))
    found = dict(re.findall(r'^(test\w+ \(\S+\))[^\n]*?(?:\n[^\n]*?)? \.\.\. (\w+)',
                            done.err, re.M))
    demand(len(found) > 200, 'tests', len(found), done.report)
    return found


@environment('other-mallocs', lambda python: python.shared and python.numbers >= (3, 8))
def other_mallocs(python):
    import test_other_allocators
    words = []
    for kind, name in LIBRARIES.items():
        other = test_other_allocators.find(name)
        if not other:
            raise Skip('no %s here' % name)
        _, plain = sides()
        stock = outcomes(python, dict(plain, LD_PRELOAD=other))
        for first in True, False:
            order = [other, support.LIBRARY] if first else [support.LIBRARY, other]
            env = dict(plain, LD_PRELOAD=':'.join(order))
            ours = outcomes(python, env)
            different = {test: (ours.get(test), stock.get(test)) for test in set(ours) | set(stock)
                         if ours.get(test) != stock.get(test)}
            demand(not different, kind, different)
        words.append('%s %d' % (kind, len(stock)))
    return 'equal outcomes in both orders: ' + ', '.join(words)

