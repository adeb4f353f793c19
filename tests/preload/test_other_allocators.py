"""Beside a library that replaces malloc, preloaded before or after: it is the fallback allocator,
and the library serves Python's small objects."""
import pytest

from support import build, child, mallocs, status
from support.preload import interpret

PROGRAM = '''
import ctypes, gc, inside, json, os, threading
other = sys.argv[1]
# The library that has malloc, found by a name to which no program links: malloc's address would
# be a stub of the program.
malloc = ctypes.cast(ctypes.CDLL(None).malloc_usable_size, ctypes.c_void_p).value
with open('/proc/self/maps') as maps:
    owner = [line.split()[-1] for line in maps
             if int(line.split('-')[0], 16) <= malloc < int(line.split('-')[1].split()[0], 16)]
assert os.path.realpath(other) == os.path.realpath(owner[0]), owner
checksum = inside.workload(2)
inside.in_threads(6, lambda: inside.workload(1))
kept = [b'x' * (n % 20000) for n in range(5000)]        # from both allocators
for turn in range(20):
    grown = bytearray()
    while len(grown) < 100000:
        grown += b'y' * 97
    while grown:
        del grown[len(grown) // 2:]
        if len(grown) < 2: break
assert [len(each) for each in kept] == [n % 20000 for n in range(5000)]
for turn in range(3):
    pid = os.fork()
    if pid == 0:
        inside.in_threads(3, lambda: inside.workload(1))
        del kept[::2]
        os._exit(0 if inside.workload(2) == checksum else 3)
    assert os.waitpid(pid, 0)[1] == 0
with open(os.devnull) as nothing:                       # getline and printf use malloc
    nothing.read()
live = inside.live(inside.stats(inside.library()))
assert ctypes.CDLL(None).obmalloc_trim(ctypes.c_size_t(0)) >= 0
print(json.dumps([checksum, live]))
'''


@pytest.mark.parametrize('first', ['library', 'other'])
@pytest.mark.parametrize('kind', mallocs.NAMES)
def test_preloaded_together(python, kind, first):
    other = mallocs.find(kind)
    stock = interpret(python, 'import inside; print(inside.workload(2))',
                      env=child.clean_environment(LD_PRELOAD=other))
    order = [str(build.LIBRARY), other]
    done = interpret(python, PROGRAM, other, env=child.clean_environment(
        LD_PRELOAD=':'.join(order if first == 'library' else reversed(order)),
        OBMALLOC_VERBOSE='1', OBMALLOC_DECAY_MS='50'))
    checksum, live = done.said
    assert checksum == int(stock.out)
    assert live > 5000
    status.active(done, python)
