"""Python on machines with OS pages of 4, 16 and 64 KiB, simulated by hosts/page_size.c: the
library's arguments for the kernel are whole pages (page_size.h ends the program otherwise), and
programs run as without the library."""
import re

import pytest

from support import build, child
from support.preload import build_host, interpret

# Drops all things in the end, so that pools become empty and are returned.
PROGRAM = '''
import subprocess, sys
from memory import *
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
trim(0)             # a program that does nothing keeps a few MiB
assert rss() < peak - 4, (peak, rss())
'''


@pytest.mark.only('3.11', '3.13')
@pytest.mark.one_python
@pytest.mark.parametrize('page', [4096, 16384, 65536])
@pytest.mark.parametrize('decay', ['50', '0'])
def test_programs_run(python, page, decay):
    shim = build_host('page_size.so', '-shared', '-fPIC', 'page_size.c', '-ldl')
    done = interpret(python, PROGRAM, env=child.clean_environment(
        LD_PRELOAD=f'{shim}:{build.LIBRARY}', SIMULATED_PAGE=page, OBMALLOC_DECAY_MS=decay,
        OBMALLOC_THP='never'))      # so that the shim recognises arenas, by the advice
    assert done.out == ''
    assert re.fullmatch(r'(asked 1, arenas \d+\n)+', done.err)
    assert int(done.err.split()[-1]) > 3
