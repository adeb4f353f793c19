"""Limits to a process's memory: the soft one, the hard one, and the cgroup's."""
import os
import signal

import support

TOOLS = '''
import gc, json, os, random, sys, time
def status(name):
    """MiB, by the kernel's word for it."""
    fd = os.open('/proc/self/status', os.O_RDONLY)
    text = os.read(fd, 8192).decode()
    os.close(fd)
    return int(text.split(name + ':')[1].split()[0]) / 1024.0
def holes(count=900000, share=0.002):
    """Objects, of which a random share is kept, MiB that they all had."""
    things = [(n,) for n in range(count)]
    full = status('VmRSS')
    random.seed(5)
    for n in range(count):
        if random.random() > share:
            things[n] = None
    return things, full
'''

# Drops most of it, and looks at once.
DROP = '''
things, full = holes()
print(json.dumps([full, status('VmRSS'), sum(each is not None for each in things)]))
'''

# Takes memory until there is no more, of four kinds, and goes on.
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
            raise support.unittest.SkipTest('no cgroup can be made here: %s' % error)

    def close(self):
        if self.path:
            os.rmdir(self.path)


class Limits(support.PythonCase):

    def ask(self, code, *arguments, **settings):
        env = support.preloaded(**settings)
        return support.said(self.interpret(TOOLS + code, *arguments, env=env, timeout=120))

    def test_near_the_soft_limit_pages_go_back_at_once(self):
        full, without, kept = self.ask(DROP, OBMALLOC_DECAY_MS='-1')
        limit = '%dM' % (full * 1.05)
        _, within, same = self.ask(DROP, OBMALLOC_DECAY_MS='-1', OBMALLOC_LIMIT=limit)
        self.assertEqual(kept, same)
        self.assertGreater(without, 0.8 * full)
        self.assertLess(within, without - 0.3 * full, 'MiB, of %d; limit %s' % (full, limit))

    def test_a_far_limit_changes_nothing(self):
        full, left, _ = self.ask(DROP, OBMALLOC_DECAY_MS='-1', OBMALLOC_LIMIT='4G')
        self.assertGreater(left, 0.8 * full)

    # In 2.7 lists and buffers come from malloc itself.
    @support.since(3)
    @support.takes_long
    def test_beyond_the_hard_limit_there_is_memory_error(self):
        refused, peak = self.ask(EXHAUST, *KINDS, OBMALLOC_LIMIT_HARD='90M')
        self.assertEqual(refused, KINDS)
        self.assertLess(peak, 94)

    def in_a_group(self, status, **settings):
        """EXHAUST in a cgroup of 80 MiB, to this end."""
        group = Group(80 << 20)
        try:
            join = ("with open(%r, 'w') as file:\n    file.write(str(os.getpid()))\n"
                    % os.path.join(group.path, 'cgroup.procs'))
            # The environment is read at start: a new program, in the group.
            again = ('os.execve(sys.executable, [sys.executable, "-c", %r] + sys.argv[1:],'
                     ' os.environ)' % (TOOLS + EXHAUST))
            return self.interpret(TOOLS + join + again, *KINDS, status=status, timeout=120,
                                  env=support.preloaded(**settings))
        finally:
            group.close()

    @support.since(3)
    @support.takes_long
    def test_the_cgroup_says(self):
        """Where the kernel would kill, there is MemoryError."""
        self.in_a_group(-signal.SIGKILL)
        done = self.in_a_group(0, OBMALLOC_LIMIT='auto', OBMALLOC_LIMIT_HARD='auto')
        refused, _ = support.said(done)
        self.assertEqual(refused, KINDS)

    def test_what_is_no_limit_is_ignored(self):
        for value in ('0', 'much', '-5', '12Q'):
            done = self.interpret('print(7)', env=support.preloaded(
                OBMALLOC_LIMIT=value, OBMALLOC_LIMIT_HARD=value, OBMALLOC_VERBOSE='1'))
            self.assertEqual(done.out.strip(), '7')
            self.assertEqual(done.err.count('not understood, ignored'), 2, done.report)
