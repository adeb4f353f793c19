"""C code that passes a block of PyMem_Malloc to the C library's free or realloc. The API forbids
it; stock CPython tolerates it above 512 bytes, where malloc serves PyMem_Malloc."""
import pytest

from support import build, child

# Makes argv[1] requests above 512 bytes, then passes blocks of 1000 bytes to libc's free and
# realloc.
BORROW = '''
import ctypes, sys
for n in range(int(sys.argv[1])):
    bytearray(1000)
libc, api = ctypes.CDLL(None), ctypes.pythonapi
for function in api.PyMem_Malloc, libc.realloc:
    function.restype = ctypes.c_void_p
api.PyMem_Malloc.argtypes = [ctypes.c_size_t]
libc.realloc.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]
for n in range(200):
    block = api.PyMem_Malloc(1000)
    ctypes.memset(block, 0, 1000)
    if n % 2 and sys.argv[2] == 'realloc':
        block = libc.realloc(block, 2000)
        ctypes.memset(block, 1, 2000)
    libc.free(block)
print('done')
'''


def borrow(python, requests, by, env):
    return child.run([python.path, '-B', '-S', '-c', BORROW, str(requests), by], env)


@pytest.mark.since(3, 6)
def test_of_a_small_program(python):
    for by in 'free', 'realloc':
        assert borrow(python, 1, by, child.preloaded()).status == 0


@pytest.mark.since(3, 6)
def test_of_a_large_program(python):
    """OBMALLOC_POOL_MAX=512 leaves these blocks to malloc; otherwise the C library's free ends the
    program: glibc's with a message that docs/complaints.md quotes, musl's by a fault."""
    for by in 'free', 'realloc':
        assert borrow(python, 250000, by, child.clean_environment()).status == 0
        assert borrow(python, 250000, by, child.preloaded(OBMALLOC_POOL_MAX='512')).status == 0
    done = borrow(python, 250000, 'free', child.preloaded())
    assert done.status == (-11 if build.FOR_MUSL else -6)
    # glibc 2.43 reports the size.
    said = 'free(): invalid pointer' in done.err or 'free(): invalid size' in done.err
    assert said != build.FOR_MUSL
