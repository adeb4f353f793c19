"""Limits on a process's memory: the soft limit, the hard limit, and the cgroup's."""
import os
import signal

import pytest

from support import child
from support.preload import PRELUDE, interpret

TOOLS = 'from memory import *\n'

# Drops most things, and reads the resident MiB at once.
DROP = '''
things, full = holes()
print(json.dumps([full, status('VmRSS'), sum(each is not None for each in things)]))
'''

# Takes memory of each kind until MemoryError, and continues.
EXHAUST = '''
def fill(kind):
    if kind == 'strings':
        kept = []
        while True:
            kept.append('%d' % len(kept))
    if kind == 'buffers':
        kept = []
        while True:
            kept.append(b'x' * 300000)
    if kind == 'list':
        kept = []
        while True:
            kept.extend([None] * 50000)
    kept = bytearray()
    while True:
        kept += b'x' * 50000
refused = []
for kind in sys.argv[1:]:
    try:
        fill(kind)
    except MemoryError:
        refused.append(kind)
    gc.collect()
assert len(['%d' % n for n in range(100000)]) == 100000
print(json.dumps([refused, status('VmHWM')]))
'''

KINDS = ['strings', 'buffers', 'list', 'bytearray']


class Group:
    """A cgroup with a memory limit, of either version."""

    def __init__(self, limit):
        self.path = None
        lines = open('/proc/self/cgroup').read().splitlines()
        own = dict((part[1], part[2]) for part in (line.split(':', 2) for line in lines))
        v1 = [name for name in own if 'memory' in name.split(',')]
        if v1:
            parent, name = '/sys/fs/cgroup/memory' + own[v1[0]], 'memory.limit_in_bytes'
        else:
            parent, name = '/sys/fs/cgroup' + own.get('', '/'), 'memory.max'
        try:
            path = os.path.join(parent, 'obmalloc-test-%d-%d' % (os.getpid(), id(self)))
            os.mkdir(path)
            self.path = path
            with open(os.path.join(path, name), 'w') as file:
                file.write(str(limit))
        except OSError as error:
            self.close()
            pytest.skip(f'no cgroup can be made: {error}')

    def close(self):
        if self.path:
            os.rmdir(self.path)


def ask(python, code, *arguments, **settings):
    env = child.preloaded(**settings)
    return interpret(python, TOOLS + code, *arguments, env=env, timeout=120).said


def test_near_the_soft_limit_pages_go_back_at_once(python):
    full, without, kept = ask(python, DROP, OBMALLOC_DECAY_MS='-1')
    limit = '%dM' % (full * 1.05)
    _, within, same = ask(python, DROP, OBMALLOC_DECAY_MS='-1', OBMALLOC_SOFT_LIMIT=limit)
    assert kept == same
    assert without > 0.8 * full
    assert within < without - 0.3 * full, 'MiB, of %d; limit %s' % (full, limit)


def test_a_far_limit_changes_nothing(python):
    full, left, _ = ask(python, DROP, OBMALLOC_DECAY_MS='-1', OBMALLOC_SOFT_LIMIT='4G')
    assert left > 0.8 * full


# In 2.7 lists and buffers come from malloc itself.
@pytest.mark.since(3)
@pytest.mark.one_python
def test_beyond_the_hard_limit_there_is_memory_error(python):
    refused, peak = ask(python, EXHAUST, *KINDS, OBMALLOC_HARD_LIMIT='90M')
    assert refused == KINDS
    assert peak < 94


def in_a_group(python, status, **settings):
    """EXHAUST in a cgroup of 80 MiB, with this exit status."""
    group = Group(80 << 20)
    try:
        join = ("with open(%r, 'w') as file:\n    file.write(str(os.getpid()))\n"
                % os.path.join(group.path, 'cgroup.procs'))
        # The library reads its settings at start: a new program, in the group.
        again = ('os.execve(sys.executable, [sys.executable, "-B", "-c", %r] + sys.argv[1:],'
                 ' os.environ)' % (PRELUDE + TOOLS + EXHAUST))
        return interpret(python, TOOLS + join + again, *KINDS, status=status, timeout=120,
                         env=child.preloaded(**settings))
    finally:
        group.close()


@pytest.mark.since(3)
@pytest.mark.one_python
def test_limit_of_the_cgroup(python):
    """MemoryError where the kernel would kill the process."""
    in_a_group(python, -signal.SIGKILL)
    refused, _ = in_a_group(python, 0, OBMALLOC_SOFT_LIMIT='auto', OBMALLOC_HARD_LIMIT='auto').said
    assert refused == KINDS


@pytest.mark.parametrize('value', ['0', 'much', '-5', '12Q'])
def test_invalid_limit_is_ignored(python, value):
    done = interpret(python, 'print(7)', env=child.preloaded(
        OBMALLOC_SOFT_LIMIT=value, OBMALLOC_HARD_LIMIT=value, OBMALLOC_VERBOSE='1'))
    assert done.out.strip() == '7'
    assert done.err.count('not understood, ignored') == 2
