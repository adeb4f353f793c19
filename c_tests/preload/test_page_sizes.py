"""Python on machines with OS pages of 4, 16 and 64 KiB, simulated: what the
library hands to the kernel is whole pages (`c_tests/page_size.h` ends the program
otherwise), and programs run as ever."""
import re

import support
import test_memory

# All of the things go in the end, so that pools are empty and go back as well.
PROGRAM = test_memory.TOOLS + '''
import subprocess, sys
trim = ctypes.CDLL(None).obmalloc_trim
trim.restype, trim.argtypes = ctypes.c_size_t, [ctypes.c_size_t]
for each in range(4):
    peak, kept = build_and_drop(100000)
    assert whole(kept)
    some = [b'x' * (n % 9000) for n in range(20000)]
    del some
    time.sleep(0.1)
    if each == 2:
        trim(0)
    assert whole(kept)
assert subprocess.call([sys.executable, '-c', 'x = [str(n) for n in range(100000)]']) == 0
pid = os.fork()
if pid == 0:
    more = build_and_drop(50000)[1]
    os._exit(0 if whole(more) and whole(kept) else 3)
assert os.waitpid(pid, 0)[1] == 0
del kept
gc.collect()
trim(0)             # a program that does nothing keeps some MiB
assert rss() < peak - 4, (peak, rss())
'''


class PageSizes(support.PythonCase):

    def simulate(self, page, decay):
        shim = support.build('page_size.so', '-shared', '-fPIC', 'page_size.c', '-ldl')
        done = self.interpret(PROGRAM, env=support.clean_environment(
            LD_PRELOAD=shim + ':' + support.LIBRARY, SIMULATED_PAGE=str(page),
            OBMALLOC_DECAY_MS=decay,
            OBMALLOC_THP='never'))      # so that the shim knows arenas, by the advice
        self.assertEqual(done.out, '', done.report)
        said = re.fullmatch(r'(asked 1, arenas \d+\n)+', done.err)
        self.assertTrue(said and int(done.err.split()[-1]) > 3, done.report)

    def each_size(self, decay):
        for page in 4096, 16384, 65536:
            with self.subTest(page=page):
                self.simulate(page, decay)

    @support.only('3.11', '3.13')
    @support.takes_long
    def test_by_time(self):
        self.each_size('50')

    @support.only('3.11', '3.13')
    @support.takes_long
    def test_at_once(self):
        self.each_size('0')
