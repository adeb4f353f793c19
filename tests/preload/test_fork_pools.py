"""Another library's fork handler that waits for the end of its threads, registered before
obmalloc_install(), after it, or when the interpreter starts. The threads need locks of the
library before they end; fork holds these locks if the library's handler runs first."""
import pytest

from support import build, child
from support.preload import build_host, interpret

PROGRAM = '''
import ctypes, faulthandler, os, sys
faulthandler.dump_traceback_later(40, exit=True)
order, pool, ours = sys.argv[1:]
def install():
    assert ctypes.PyDLL(ours).obmalloc_install() == 0
if order == 'after':
    install()
pool = ctypes.CDLL(pool)
if order != 'at start':
    pool.pool_register()
if order == 'before':
    install()
for turn in range(3):
    assert pool.pool_start() == 0
    kept = [(n, str(n)) for n in range(20000)]
    pid = os.fork()
    if pid == 0:
        good = all(n == int(text) for n, text in kept)
        more = [[n] for n in range(20000)]
        del more, kept
        os._exit(0 if good else 3)
    assert os.waitpid(pid, 0)[1] == 0, turn
'''


pytestmark = pytest.mark.since(3, 6)


def fork(python, order, pool, env):
    interpret(python, PROGRAM, order, pool, build.LIBRARY, options=('-W', 'ignore'), env=env)


def pool(*flags):
    return build_host(f'thread_pool{len(flags)}.so', *flags, '-shared', '-fPIC', 'thread_pool.c',
                      '-lpthread')


@pytest.mark.parametrize('order', ['before', 'after'])
def test_installed_late(python, order):
    fork(python, order, pool(), child.clean_environment())


def test_preloaded(python):
    fork(python, 'preloaded', pool(), child.preloaded())


@pytest.mark.parametrize('first', ['library', 'pool'])
def test_preloaded_beside_a_pool_that_registers_at_start(python, first):
    at_start = pool('-DAT_START')
    libraries = [str(build.LIBRARY), str(at_start)]
    fork(python, 'at start', at_start, child.preloaded(LD_PRELOAD=':'.join(
        libraries if first == 'library' else reversed(libraries))))
