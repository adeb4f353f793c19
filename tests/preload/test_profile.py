"""OBMALLOC_PROFILE=1 in programs that are hard to profile: deep, odd and damaged stacks, threads,
forks, little memory. Each check reads the profile that the program wrote."""
import unicodedata
from collections import Counter

import pytest

from support import child, pprof
from support.preload import PRELUDE, interpret

# Every allocation, and room for all of them.
ALL = dict(OBMALLOC_PROFILE='1', OBMALLOC_PROFILE_MEMORY='64M')


class Heap:
    """The profile in a file."""

    def __init__(self, path):
        self.profile = pprof.Profile(path)
        self.at = {name: i for i, (name, _) in enumerate(self.profile.types)}
        samples = list(self.profile.samples())
        # `bytes` is a label of each live block.
        self.live = [sample for sample in samples if 'bytes' in sample.labels]
        self.allocated = [sample for sample in samples if 'bytes' not in sample.labels]
        self.comments = dict(comment.split('=', 1) for comment in self.profile.comments)

    def of(self, *functions):
        """The live blocks whose innermost functions these are."""
        return [sample for sample in self.live
                if functions == tuple(frame.function for frame in sample.stack[:len(functions)])]

    def total(self, samples, name='inuse_space'):
        return sum(sample.values[self.at[name]] for sample in samples)


def functions(sample):
    return [frame.function for frame in sample.stack]


@pytest.fixture
def profile(python, tmp_path):
    """Runs code that calls `profiling.dump()`, and reads the profile."""
    def profile(code, *arguments, options=(), **settings):
        path = tmp_path / 'heap.pb.gz'
        done = interpret(python, 'import profiling\n' + code, str(path), *arguments,
                         options=options, env=child.preloaded(**ALL | settings))
        assert done.err == ''
        return Heap(path)
    return profile


def test_a_deep_recursion(profile):
    """The 64 innermost of 10 000 frames, and a mark."""
    heap = profile('''
import threading
kept = []
def down(n):
    if n == 0:
        kept.append('x' * 5000)
        return 0
    return down(n - 1) + 1
def work():
    assert down(10000) == 10000
sys.setrecursionlimit(11000)
threading.stack_size(512 << 20)
thread = threading.Thread(target=work)
thread.start(); thread.join()
profiling.dump()
''')
    [sample] = [sample for sample in heap.of('down') if sample.labels['bytes'][0] >= 5000]
    mark = pprof.constant('TRUNCATED')
    assert functions(sample) == ['down'] * 64 + [mark]


@pytest.mark.since(3, 6)
@pytest.mark.parametrize('file, name', [
    ('sp\u00e4t.py', 'gr\u00f6\u00dfe'), ('\u0444\u0430\u0439\u043b.py', '\u540d\u524d'),
    ('\U0001f40d.py', '\U0001d4d0'), ('a\tb\nc.py', 'f'), ('x' * 300 + '\u2620.py', 'y' * 300)],
    ids=['latin', 'two-bytes', 'four-bytes', 'control', 'long'])
def test_names_that_are_not_ascii(profile, file, name):
    """The last 100 characters of a text. A control character is a question mark."""
    heap = profile('''
code = 'kept = []\\ndef %s(): kept.append("x" * 5000)\\n%s()' % (sys.argv[3], sys.argv[3])
exec(compile(code, sys.argv[2], 'exec'))
profiling.dump()
''', file, name, options=('-X', 'utf8'))
    name = unicodedata.normalize('NFKC', name)

    def shown(text):
        text = text if len(text) <= 100 else '...' + text[-100:]
        return ''.join('?' if unicodedata.category(c) == 'Cc' else c for c in text)
    [sample] = [sample for sample in heap.of(shown(name)) if sample.labels['bytes'][0] >= 5000]
    assert [(frame.file, frame.line) for frame in sample.stack[:2]] == [(shown(file), 2),
                                                                       (shown(file), 3)]


def test_code_objects_that_are_gone(profile):
    """Their texts and lines are kept, and not mistaken for those of later ones at the same addresses."""
    heap = profile('''
import gc
kept = []
for n in range(3000):
    space = {}
    code = compile('def made_%d(n): return n * 5000' % n, 'made_%d.py' % n, 'exec')
    exec(code, space)
    kept.append(space['made_%d' % n]('x'))
for n in range(1000):
    space = {}
    exec(compile('\\n' * n + 'def same(n): return n * 6000', 'same.py', 'exec'), space)
    kept.append(space['same']('x'))
del space, code
gc.collect()
profiling.dump()
''')
    made = Counter((sample.stack[0].function, sample.stack[0].file) for sample in heap.live
                   if sample.labels['bytes'][0] >= 5000 and sample.stack
                   and sample.stack[0].function.startswith('made'))
    assert made == Counter((f'made_{n}', f'made_{n}.py') for n in range(3000))
    lines = [sample.stack[0].line for sample in heap.of('same') if sample.labels['bytes'][0] >= 6000]
    assert sorted(lines) == list(range(1, 1001))


@pytest.mark.since(3, 6)
def test_generators_and_coroutines(profile):
    """The await chain of a task is in the stack, also after the task was suspended."""
    heap = profile('''
import asyncio
kept = []
def keep(size): kept.append('x' * size)
def inner():
    keep(5000)
    yield 1
    keep(6000)
def outer():
    yield from inner()
async def leaf():
    keep(7000)
    await asyncio.sleep(0)
    keep(8000)
async def middle(): await leaf()
async def top(): await middle()
async def agen():
    keep(9000)
    yield 2
async def main():
    for _ in outer(): pass
    await asyncio.gather(top(), top())
    async for _ in agen(): pass
loop = asyncio.new_event_loop()
loop.run_until_complete(main())
loop.close()
profiling.dump()
''')
    def stacks(low):
        return [functions(sample)[1:4] for sample in heap.of('keep')
                if low <= sample.labels['bytes'][0] < low + 1000]
    for low in 5000, 6000:
        assert stacks(low) == [['inner', 'outer', 'main']]
    for low in 7000, 8000:
        assert stacks(low) == [['leaf', 'middle', 'top']] * 2
    assert stacks(9000) == [['agen', 'main', '_run']] or stacks(9000)[0][:2] == ['agen', 'main']


def test_calls_of_c_in_between(profile):
    heap = profile('''
import functools, operator
kept = []
def keep(x):
    kept.append('x' * 5000)
    return x
def by_sorted(): sorted([3, 1, 2], key=keep)
def by_map(): list(map(keep, 'abc'))
def by_partial(): functools.partial(keep, 3)()
def by_reduce(): functools.reduce(lambda a, b: keep(b), [1, 2, 3])
class Thing(object):
    def __eq__(self, other): return keep(True)
    def __hash__(self): return keep(7)
def by_hash(): {Thing(): 1}[Thing()]
by_sorted(); by_map(); by_partial(); by_reduce(); by_hash()
profiling.dump()
''')
    found = Counter(tuple(functions(sample)[1:3]) for sample in heap.of('keep')
                    if sample.labels['bytes'][0] >= 5000)
    assert found == {('by_sorted', '<module>'): 3, ('by_map', '<module>'): 3,
                     ('by_partial', '<module>'): 1, ('<lambda>', 'by_reduce'): 2,
                     ('__hash__', 'by_hash'): 2, ('__eq__', 'by_hash'): 1}


def test_threads_with_names(profile):
    """The kernel's name and number of the thread. Bytes that are not ASCII are question marks."""
    heap = profile('''
import threading
kept = []
def keep(name):
    profiling.name_thread(name)
    kept.append('x' * 5000)
for n in range(3):
    thread = threading.Thread(target=keep, args=(b'worker-%d\\xff' % n if n else b'',))
    thread.start(); thread.join()
profiling.dump()
'''.replace("b'worker-%d\\xff' % n", "('worker-%d' % n).encode() + b'\\xff'"))
    found = [sample.labels for sample in heap.of('keep') if sample.labels['bytes'][0] >= 5000]
    assert sorted(labels.get('thread', '') for labels in found) == ['', 'worker-1?', 'worker-2?']
    assert len({labels['tid'] for labels in found}) == 3


@pytest.mark.since(3, 6)
def test_threads_without_the_gil(profile):
    """Their RAW blocks are counted, without frames."""
    heap = profile('''
import ctypes, threading
without_gil = ctypes.CDLL(None).PyMem_RawMalloc
without_gil.restype = ctypes.c_void_p
def work():
    for n in range(500):
        assert without_gil(ctypes.c_size_t(70001))
        [n] * 100
threads = [threading.Thread(target=work) for _ in range(4)]
for thread in threads: thread.start()
for thread in threads: thread.join()
profiling.dump()
''')
    blocks = [sample for sample in heap.live if sample.labels['bytes'][0] == 70001]
    assert len(blocks) == 2000
    assert {sample.labels['domain'] for sample in blocks} == {'raw'}
    assert {tuple(functions(sample)) for sample in blocks} == {(pprof.constant('NO_PYTHON'),)}
    assert int(heap.comments[pprof.constant('COMMENT_NO_FRAMES')]) >= 2000


SUB = '''
def in_sub():
    return 'x' * 5000
class Kept: here = [in_sub() for _ in range(5)]
import profiling
profiling.dump(%r)
'''


@pytest.mark.since(3, 12)
@pytest.mark.parametrize('kind', ['isolated', 'legacy'])
def test_sub_interpreters(profile, tmp_path, kind):
    """With a GIL of their own, and with the main one; also beside others in threads."""
    heap = profile('''
import inside, threading
try:
    import _interpreters as module
    create = lambda: module.create(sys.argv[3])
except ImportError:
    import _xxsubinterpreters as module
    create = lambda: module.create(isolated=sys.argv[3] == 'isolated')
PRELUDE, CODE = sys.argv[4:]
def run(path):
    name = create()
    failed = module.run_string(name, PRELUDE + CODE % path)
    assert not failed, failed
    module.destroy(name)
run(sys.argv[2])
inside.in_threads(3, lambda: run(sys.argv[2] + '-thread'))
def after(): return 'x' * 6000
kept = after()
profiling.dump()
''', str(tmp_path / 'sub'), kind, PRELUDE.replace('ctypes', ''), SUB)
    in_sub = Heap(tmp_path / 'sub').of('in_sub')
    assert sum(sample.labels['bytes'][0] >= 5000 for sample in in_sub) == 5
    assert [sample for sample in heap.of('after', '<module>')
            if sample.labels['bytes'][0] >= 6000]
    assert not heap.of('in_sub'), 'their blocks are freed'


# Offsets of the pointer to the caller's frame: in a frame object until 3.10, later in the frame to
# which the object's own pointer leads.
DAMAGE = '''
import ctypes, gc, mmap, threading
gc.disable()
after = sys.version_info >= (3, 11)
back = 24 if not after else 48 if sys.version_info < (3, 12) else 8
libc = ctypes.CDLL(None)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p] + [ctypes.c_size_t] * 5
libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
malloc = ctypes.PyDLL(None).PyObject_Malloc
malloc.restype, malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
free = ctypes.PyDLL(None).PyObject_Free
free.argtypes = [ctypes.c_void_p]
def pages(count, unmapped):
    """The address of the first of some pages, the last of which are not mapped."""
    at = libc.mmap(None, count * mmap.PAGESIZE, 3, 0x22, 2**64 - 1, 0)
    assert libc.munmap(at + (count - unmapped) * mmap.PAGESIZE, unmapped * mmap.PAGESIZE) == 0
    return at
def address(frame):
    at = id(frame)
    return ctypes.c_size_t.from_address(at + 24).value if after else at
noise = ctypes.create_string_buffer(bytes(bytearray(n * 37 % 256 for n in range(4096))))
ones = ctypes.create_string_buffer(b'\\xff' * 4096)
zeros = ctypes.create_string_buffer(4096)
def broken(frame):
    own = address(frame)
    gone, edge = pages(1, 1), pages(2, 1) + mmap.PAGESIZE
    return [8, 1, own, own + 8, gone, gone + 4088, edge - 8, edge - 16, edge - 1, 2**64 - 8,
            2**64 - 1, 2**63, 2**47, ctypes.addressof(noise), ctypes.addressof(noise) + 3,
            ctypes.addressof(ones), ctypes.addressof(zeros), id(type), id(frame), id(sys.modules),
            id(frame.f_code)]
blocks = []
def victim(n):
    if n:
        return victim(n - 1)
    frame = sys._getframe()
    slots = [ctypes.c_size_t.from_address(address(frame) + back),
             ctypes.c_size_t.from_address(address(frame.f_back) + back)]
    for value in broken(frame) + broken(frame.f_back):
        for slot in slots:
            good = slot.value
            slot.value = value
            block = malloc(6000)
            slot.value = good
            blocks.append(block)
    assert sys._getframe(1).f_code is sys._getframe().f_code
victim(3)
thread = threading.Thread(target=victim, args=(3,))
thread.start(); thread.join()
profiling.dump()
for block in blocks: free(block)
'''


def test_a_damaged_chain_of_frames(profile):
    """A pointer to the caller's frame that leads nowhere, into a ring, or to something else: the
    stack ends there, and the program goes on."""
    heap = profile(DAMAGE)
    blocks = [sample for sample in heap.live if sample.labels['bytes'][0] >= 6000]
    stacks = Counter(functions(sample)[0] for sample in blocks
                     if sample.stack[0].function == 'victim')
    # Two threads, two frames' pointers, 2 * 21 values.
    assert stacks == {'victim': 2 * 2 * 42}


FORKS = '''
import os, threading
kept, stop = [], []
def of_parent(): return 'x' * 5000
def of_child(): return 'x' * 6000
def churn():
    while not stop:
        [str(n) * 50 for n in range(200)]
for _ in range(20): kept.append(of_parent())
threads = [threading.Thread(target=churn) for _ in range(4)]
for thread in threads: thread.start()
def fork(path):
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            for _ in range(10): kept.append(of_child())
            profiling.dump(path)
            status = 0
        finally:
            os._exit(status)
    return os.waitpid(pid, 0)[1]
failed = []
def forker(number):
    for turn in range(3):
        if fork('%s-%d-%d' % (sys.argv[2], number, turn)): failed.append(number)
forkers = [threading.Thread(target=forker, args=(n,)) for n in range(3)]
for thread in forkers: thread.start()
for thread in forkers: thread.join()
stop.append(1)
for thread in threads: thread.join()
assert not failed, failed
profiling.dump()
'''


def test_forks_of_a_program_with_threads(profile, tmp_path):
    """Children have their parent's samples, and mark them; their own have no mark."""
    heap = profile(FORKS, str(tmp_path / 'child'), options=('-W', 'ignore'))
    assert len(heap.of('of_parent')) == 20 and not heap.of('of_child')
    assert not any('inherited' in sample.labels for sample in heap.live)
    children = sorted(tmp_path.glob('child-*'))
    assert len(children) == 9
    for path in children:
        child_heap = Heap(path)
        inherited, own = child_heap.of('of_parent'), child_heap.of('of_child')
        assert [sample.labels.get('inherited') for sample in inherited] == ['yes'] * 20
        assert [sample.labels.get('inherited') for sample in own] == [None] * 10
        assert child_heap.comments['pid'] != heap.comments['pid']


def test_start_and_stop_a_thousand_times(profile):
    """While other threads allocate, with a different interval each time. The last profile is of the
    last start."""
    heap = profile('''
import inside, threading
profiling.stop()
stop, failed = [], []
expected = inside.workload(1)
def work():
    while not stop:
        if inside.workload(1) != expected: failed.append(1)
threads = [threading.Thread(target=work) for _ in range(3)]
for thread in threads: thread.start()
def before(): return 'x' * 5000
def after(): return 'x' * 6000
for n in range(1000):
    profiling.start([1, 100, 4096, 1 << 19][n % 4])
    early = before()
    if n % 100 == 0: profiling.dump()
    profiling.stop()
profiling.start(1)
late = after()
stop.append(1)
for thread in threads: thread.join()
assert not failed
profiling.dump()
''')
    assert len(heap.of('after')) == 1 and not heap.of('before')
    assert heap.comments[pprof.constant('COMMENT_DOUBLED')] == '0'


@pytest.mark.parametrize('memory, slack', [('64K', 0.8), ('1M', 0.3)])
def test_full_tables(profile, memory, slack):
    """The interval is doubled. Totals stay right, within four standard errors: of some 30 samples, or of
    250 for each line."""
    heap = profile('''
def small(): return [str(n) * 20 for n in range(100000, 200000)]
def large(): return ['x' * (1 << 16) for _ in range(300)]
kept = small(), large()
freed = small(), large(); del freed
profiling.dump()
''', OBMALLOC_PROFILE_MEMORY=memory)
    doubled = int(heap.comments[pprof.constant('COMMENT_DOUBLED')])
    assert heap.profile.period == 2 ** doubled > 1000
    def line(kind, samples):
        return [sample for sample in samples if kind in functions(sample)[:2]]
    # A str of 120 ASCII characters, in its size class; and a large one, which has none.
    sizes = {'small': 100000 * 176, 'large': 300 << 16}
    if memory == '64K':
        assert abs(heap.total(heap.live) / sum(sizes.values()) - 1) < slack
        return
    for kind, size in sizes.items():
        live = heap.total(line(kind, heap.live))
        assert abs(live / size - 1) < slack, (kind, live, size)
    allocated = heap.total(line('large', heap.allocated), 'alloc_space')
    assert abs(allocated / (2 * sizes['large']) - 1) < slack


def files(folder):
    return sorted(folder.glob('p-*'))


WAIT = '''
import glob, os, signal, time
def wait(count, seconds=10):
    end = time.time() + seconds
    while len(glob.glob(sys.argv[1] + '/p-*')) < count and time.time() < end:
        [[n] for n in range(1000)]
        time.sleep(0.01)
    assert len(glob.glob(sys.argv[1] + '/p-*')) >= count
def held(): return 'x' * 100000
kept = [held() for _ in range(10)]
'''


@pytest.mark.parametrize('events, code', [
    ('exit', 'wait(0)'),
    ('USR2', 'os.kill(os.getpid(), signal.SIGUSR2); wait(1)'),
    ('1s', 'wait(2)'),
    ('limit', 'big = ["x" * 100000 for _ in range(5000)]; wait(1)'),
    ('exit,limit,USR2,1s', 'big = ["x" * 100000 for _ in range(5000)]; wait(1)\n'
     'for n in range(50): os.kill(os.getpid(), signal.SIGUSR2); time.sleep(0.02)\nwait(4)')],
    ids=['exit', 'signal', 'time', 'limit', 'all'])
def test_events(python, tmp_path, events, code):
    """OBMALLOC_PROFILE_ON. Each file is whole, and has the process's number and its own."""
    done = interpret(python, WAIT + code, str(tmp_path), env=child.preloaded(
        **ALL | dict(OBMALLOC_PROFILE='4K'), OBMALLOC_PROFILE_ON=events,
        OBMALLOC_PROFILE_FILE=tmp_path / 'p-%p-%n.pb.gz', OBMALLOC_SOFT_LIMIT='300M'))
    assert done.err == ''
    found = files(tmp_path)
    assert {path.name for path in found} == {f'p-{done.pid}-{n}.pb.gz'
                                             for n in range(1, len(found) + 1)}
    assert found
    for path in found:
        assert Heap(path).live or path == found[-1]
    assert len(Heap(found[0]).of('held')) == 10 or events == 'exit'


@pytest.mark.parametrize('path', ['/no/such/folder/%p', '/dev/full', '/', '%p/%n'])
def test_a_file_that_cannot_be_written(python, path):
    """One line on stderr. The program's status is its own."""
    done = interpret(python, 'kept = [[n] for n in range(1000)]; sys.exit(3)', env=child.preloaded(
        **ALL, OBMALLOC_PROFILE_ON='exit', OBMALLOC_PROFILE_FILE=path), status=3)
    [line] = done.err.splitlines()
    assert line.startswith('obmalloc: no profile, ') and path in line
