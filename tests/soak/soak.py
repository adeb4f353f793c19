"""soak.py SEED CYCLES SECONDS: a Python program that does everything at once, in cycles.
soak.py interpreters N: bytes that one sub-interpreter does not free.

Threads build trees with checksums, dicts, lists and strings, and verify them before they
drop them; others fork children that verify inherited trees, start processes by
multiprocessing, run sub-interpreters (from 3.12 on with a GIL of their own, several at a
time), collect and trim. At the end of a cycle all of it has ended, the trees that outlived
the cycle are unchanged, no thread and no child is left; a line of JSON has the memory
figures. Runs in every Python that the library serves.
"""
from __future__ import print_function

import ctypes
import gc
import json
import multiprocessing
import os
import random
import resource
import sys
import threading
import time
import traceback
import zlib

counts = {'threads': 0, 'forks': 0, 'interpreters': 0, 'trees': 0, 'processes': 0, 'trims': 0,
          'memory_errors': 0}
counts_lock = threading.Lock()
failures = []
stop = []
kept = {}               # number: Tree; children look at it


def now():
    """A clock that cannot be set, in every version (a test of psutil sets the wall clock)."""
    return os.times()[4]


def count(what, n=1):
    with counts_lock:
        counts[what] += n


def failed():
    failures.append(traceback.format_exc())
    stop.append(True)


# ---- trees with checksums ----

class Node(object):
    __slots__ = ('name', 'values', 'parts', 'sum')

    def __init__(self, rng, depth):
        self.name = '%08x' % rng.getrandbits(32) * rng.choice((1, 2, 5, 40))
        self.values = [rng.getrandbits(rng.choice((8, 60, 300))) for _ in range(rng.randrange(40))]
        self.parts = {}
        for n in range(rng.randrange(1, 5) if depth else 0):
            self.parts[n if n % 2 else 'part %d' % n] = Node(rng, depth - 1)
        self.sum = self.made()

    def made(self):
        text = '%s %r %r' % (self.name, self.values,
                             sorted(part.sum for part in self.parts.values()))
        return zlib.crc32(text.encode('ascii')) & 0xffffffff

    def is_whole(self):
        return self.sum == self.made() and all(part.is_whole() for part in self.parts.values())


class Ring(object):
    """A cycle: only the collector frees it."""
    def __init__(self, node):
        self.node, self.me = node, self


def look(tree):
    count('trees')
    if not tree.is_whole():
        raise AssertionError('a tree was changed: %r' % tree.name)


def churn_containers(rng):
    """Dicts and lists that grow and shrink, strings that are joined and cut."""
    size = rng.choice((10, 300, 5000))
    table = {}
    for n in range(size):
        table[n] = table[str(n)] = [n] * (n % 9)
    for n in range(0, size, 2):
        del table[n]
    rows = []
    for n in range(size):
        rows.append((n, str(n), bytearray(n % 700)))
        if n % 3 == 0:
            rows.pop(rng.randrange(len(rows)))
    text = ''.join('%d,' % n for n in range(size))
    assert len(table) == size + size // 2 and table['7'] == [7] * 7
    assert [int(word) for word in text.split(',')[:-1]] == list(range(size))
    assert all(row[1] == str(row[0]) and len(row[2]) == row[0] % 700 for row in rows)
    total = sum(range(size)) ** 9
    assert int(str(total)) == total
    text = b'x' * rng.randrange(70000)
    assert zlib.decompress(zlib.compress(text)) == text


# ---- the roles ----

def churner(rng):
    trees = []
    while not stop:
        churn_containers(rng)
        trees.append(Ring(Node(rng, rng.randrange(5))) if rng.randrange(2)
                     else Node(rng, rng.randrange(5)))
        if len(trees) > 40:         # from a peak to nothing
            rng.shuffle(trees)
            for tree in trees:
                look(getattr(tree, 'node', tree))
            del trees[rng.randrange(5):]
    for tree in trees:
        look(getattr(tree, 'node', tree))


def starter(rng):
    """Short-lived threads, whose trees this thread drops."""
    def shortly(rng, left):
        left.append(Node(rng, 3))
        churn_containers(rng)
    while not stop:
        left = []
        threads = [threading.Thread(target=shortly, args=(random.Random(rng.random()), left))
                   for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        count('threads', len(threads))
        for tree in left:
            look(tree)
        time.sleep(0.002)


def collector(rng):
    trim = getattr(ctypes.CDLL(None), 'obmalloc_trim', None)
    assert trim, 'the library is not there'
    trim.restype, trim.argtypes = ctypes.c_size_t, [ctypes.c_size_t]
    while not stop:
        gc.collect()
        trim(rng.choice((0, 1 << 20, 4 << 20)))
        count('trims')
        look(kept[rng.randrange(len(kept))])
        time.sleep(rng.random() / 20)


# ---- children ----

ENDS = (MemoryError, IndexError)


def limit(bytes, hard):
    """Sets RLIMIT_AS, again if it fails: 2.7 may raise an earlier MemoryError here that it
    ignored without clearing it, also without the library."""
    try:
        resource.setrlimit(resource.RLIMIT_AS, (bytes, hard))
    except MemoryError:
        resource.setrlimit(resource.RLIMIT_AS, (bytes, hard))


def memory_error():
    """Allocates until MemoryError, three times."""
    each = None
    with open('/proc/self/statm') as statm:
        mapped = int(statm.read().split()[0]) * resource.getpagesize()
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    for room in (3, 9, 6):
        made, reserve = [None] * 100000, [[n] for n in range(100000, 101000)]
        limit(mapped + (room << 20), hard)
        n = 0
        try:
            while True:             # the list may end first
                made[n] = [n, {n: None}, bytearray(n % 3000)]
                n += 1
        except ENDS:
            reserve = None          # what the handler itself needs
        while n:
            n -= 1
            each, made[n] = made[n], None
            if each[0] != n or len(each[2]) != n % 3000:
                os._exit(3)
        limit(hard, hard)
        each = made = None


def child(rng, depth):
    for number in rng.sample(sorted(kept), 4):
        assert kept[number].is_whole()
    churn_containers(rng)
    for number in rng.sample(sorted(kept), 4):
        del kept[number]
    gc.collect()
    way = rng.randrange(6)
    if way == 0:
        try:
            memory_error()
        except MemoryError:         # as in `limit`
            if sys.version_info >= (3,):
                raise
    elif way == 1 and depth < 3:
        fork_once(rng, depth + 1)
    elif way == 2:
        threads = [threading.Thread(target=churn_containers, args=(random.Random(n),))
                   for n in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    tree = Node(rng, 4)
    assert tree.is_whole() and all(each.is_whole() for each in kept.values())
    return way == 0


def fork_once(rng, depth=0):
    seed = rng.random()
    pid = os.fork()
    if pid == 0:
        # Locks of the parent's other threads may be held for ever here, so nothing is counted.
        status = 1
        try:
            status = 7 if child(random.Random(seed), depth) else 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(status)
    status = wait_for(pid)
    assert status in (0, 7 << 8), 'a child ended with %#x' % status
    return status != 0


def wait_for(pid):
    """The status of a child, which must end in time."""
    end = now() + 90
    while True:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            return status
        if now() > end:
            os.kill(pid, 9)
            os.waitpid(pid, 0)
            raise AssertionError('a child hangs')
        time.sleep(0.001)


def forker(rng):
    while not stop:
        count('memory_errors', fork_once(rng))
        count('forks')
        time.sleep(rng.random() / 50)


def process(seed, pipe):
    tree = Node(random.Random(seed), 4)
    assert tree.is_whole() and all(each.is_whole() for each in kept.values())
    pipe.send([tree.sum, 'x' * 100000])
    pipe.close()


def starter_of_processes(rng):
    context = (multiprocessing.get_context('fork') if hasattr(multiprocessing, 'get_context')
               else multiprocessing)
    while not stop:
        seed = rng.getrandbits(32)
        ours, theirs = context.Pipe()
        worker = context.Process(target=process, args=(seed, theirs))
        worker.start()
        theirs.close()
        said = ours.recv()
        worker.join(60)
        assert worker.exitcode == 0, 'a process ended with %r' % worker.exitcode
        assert said == [Node(random.Random(seed), 4).sum, 'x' * 100000]
        ours.close()
        count('processes')
        time.sleep(rng.random() / 20)


# ---- sub-interpreters with a GIL of their own ----

CODE = '''
import zlib
for turn in range(%d):
    rows = [{n: str(n), str(n): [n] * (n %% 70)} for n in range(300)]
    cycle = [rows]; cycle.append(cycle)
    text = repr(rows)
    assert zlib.crc32(text.encode()) == zlib.crc32(repr(eval(text)).encode())
    del rows[::2], cycle, text
    assert all(row[n * 2 + 1] == str(n * 2 + 1) for n, row in enumerate(rows))
'''


def own_gil():
    """create(), for interpreters with a GIL of their own, and their module."""
    if sys.version_info >= (3, 13):
        import _interpreters as module
        return module, lambda: module.create('isolated')
    if sys.version_info >= (3, 12):
        import _xxsubinterpreters as module
        return module, lambda: module.create(isolated=True)
    return None, None


def interpreter(rng):
    module, create = own_gil()
    while not stop:
        name = create()
        try:
            said = module.run_string(name, CODE % rng.randrange(1, 5))
            assert not said, said
        finally:
            module.destroy(name)
        count('interpreters')


# ---- a cycle ----

EVER = [(churner, 2), (starter, 1), (collector, 1)]
PHASES = [EVER + [(forker, 1), (starter_of_processes, 1)]]
if own_gil()[0] is not None:
    # Not beside forks: CPython's child then deletes running interpreters.
    PHASES.append(EVER + [(interpreter, 3)])


def run_roles(roles, rng, seconds):
    def body(role, rng):
        try:
            role(rng)
        except BaseException:
            failed()
    del stop[:]
    threads = [threading.Thread(target=body, args=(role, random.Random(rng.random())))
               for role, n in roles for _ in range(n)]
    for thread in threads:
        thread.start()
    end = now() + seconds
    while now() < end and not stop:
        time.sleep(0.02)
    stop.append(True)
    for thread in threads:
        thread.join()


def kernels_threads():
    return len(os.listdir('/proc/self/task'))


def children_left():
    try:
        os.waitpid(-1, os.WNOHANG)
    except OSError:
        return False
    return True


def stats(lib):
    buffer = ctypes.create_string_buffer(1 << 17)
    length = lib.obmalloc_stats_json(buffer, ctypes.c_size_t(1 << 17))
    assert 0 < length < 1 << 17
    return json.loads(buffer.value.decode('ascii'))


def figures(lib, idle):
    now = stats(lib)
    resident = now['resident']
    return {'rss_idle': idle, 'rss': now['rss'], 'ours': resident['total'],
            'metadata': resident['metadata'], 'from_os': now['bytes']['from_os'],
            'magazines': now['bytes']['in_magazines'],
            'arenas': now['arenas']['in_use'] + now['arenas']['empty'],
            'highwater': now['arenas']['highwater'],
            'live_bytes': now['bytes']['live'],
            'live': sum(each['blocks_live'] for each in now['classes'])
                    + now['large']['blocks_live']}


def in_use():
    """Bytes that the program holds, of the C library and of obmalloc if it is loaded."""
    class Mallinfo2(ctypes.Structure):
        _fields_ = [(name, ctypes.c_size_t) for name in 'arena _0 _1 hblks mapped _2 _3 used _4 _5'
                    .split()]
    lib = ctypes.CDLL(None)
    lib.mallinfo2.restype = Mallinfo2
    info = lib.mallinfo2()
    ours = stats(lib)['bytes']['live'] if hasattr(lib, 'obmalloc_stats_json') else 0
    return info.used + info.mapped + ours


def what_interpreters_leave(number):
    """CPython does not free all memory of a sub-interpreter; PYTHONMALLOC=malloc shows it
    without the library."""
    module, create = own_gil()
    def one():
        name = create()
        module.run_string(name, CODE % 1)
        module.destroy(name)
    for _ in range(4):
        one()
    gc.collect()
    before = in_use()
    for _ in range(number):
        one()
    gc.collect()
    print((in_use() - before) // number)


def main():
    if sys.argv[1] == 'interpreters':
        return what_interpreters_leave(int(sys.argv[2]))
    soak(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]))


def soak(seed, cycles, seconds):
    rng = random.Random(seed)
    lib = ctypes.CDLL(None)
    assert stats(lib)['host'], 'the library does not serve this process'
    decay = int(os.environ.get('OBMALLOC_DECAY_MS', 1000))
    patience = 20 + max(decay, 0) / 200.0
    for cycle in range(1, cycles + 1):
        for number in range(30):
            kept[number] = Node(rng, 4)
        for roles in PHASES:
            run_roles(roles, rng, seconds / len(PHASES))
        for tree in kept.values():
            assert tree.is_whole(), 'what outlived a cycle was changed'
        del tree
        kept.clear()
        for _ in range(3):
            gc.collect()
        end = now() + patience
        while kernels_threads() > 1 and now() < end:
            time.sleep(0.01)
        assert kernels_threads() == 1 and threading.active_count() == 1, 'threads are left'
        assert not children_left(), 'children are left'
        idle = stats(lib)['rss']
        ctypes.CDLL(None).malloc_trim(0)
        lib.obmalloc_trim(ctypes.c_size_t(0))
        said = figures(lib, idle)
        said.update(counts, cycle=cycle, failures=len(failures), objects=len(gc.get_objects()))
        print(json.dumps(said))
        sys.stdout.flush()
        if failures:
            sys.exit('\n'.join(failures))


main()
