"""C code that gives a block of PyMem_Malloc to the C library's free or realloc. By the letter that
is a mistake; in stock it works beyond 512 bytes, where such a block is malloc's."""
import support

# Makes so many requests above 512 bytes, then has C code free and grow blocks of 1000 bytes that it
# borrowed.
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


class Borrowed(support.PythonCase):

    def borrow(self, requests, by, env):
        return support.run([self.python.path, '-B', '-S', '-c', BORROW, str(requests), by], env)

    @support.since(3, 6)
    def test_of_a_small_program(self):
        for by in 'free', 'realloc':
            self.assertRan(self.borrow(1, by, support.preloaded()))

    @support.since(3, 6)
    def test_of_a_large_program(self):
        """OBMALLOC_SMALL_MAX=512 leaves such blocks to malloc; else glibc's free ends the program,
        with the words that docs/complaints.md has."""
        for by in 'free', 'realloc':
            self.assertRan(self.borrow(250000, by, support.clean_environment()))
            self.assertRan(self.borrow(250000, by, support.preloaded(OBMALLOC_SMALL_MAX='512')))
        done = self.borrow(250000, 'free', support.preloaded())
        self.assertEqual(done.status, -6, done.report)
        self.assertIn('free(): invalid pointer', done.err, done.report)
