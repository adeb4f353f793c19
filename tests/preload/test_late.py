"""obmalloc_install() in an interpreter that started without the library.

Blocks of the first allocator are alive then; their realloc and free reach the library, which
must forward them to their allocator.
"""
import pytest

from support import build, child, status
from support.preload import interpret, run_program


def late(python, mode, options=(), **env):
    return run_program(python, 'late_install.py', build.LIBRARY, mode, options=options,
                       env=child.clean_environment(OBMALLOC_VERBOSE='1', **env))


def assert_landed(done):
    before, during, after = done.said
    assert during - before > 15000
    assert after - before < 5000


def assert_no_blocks(done):
    assert done.lines(status.ACTIVE) == []
    assert max(done.said) == 0


@pytest.mark.since(3, 6)
def test_install_while_running(python):
    done = late(python, 'plain')
    status.active_at_last(done, python)
    assert_landed(done)


def test_loading_alone_changes_nothing(python):
    """dlopen() is no request to install, and can come without the GIL, with threads in the
    allocator."""
    assert_no_blocks(late(python, 'loaded'))


@pytest.mark.since(3, 6)
def test_without_the_gil(python):
    """Installed or refused, as the line says."""
    done = late(python, 'no-gil')
    if done.lines(status.ACTIVE):
        assert_landed(done)
    else:
        assert_no_blocks(done)


@pytest.mark.since(3, 6)
def test_refused_while_tracemalloc_traces(python):
    """It keeps a copy of the table, and would restore that copy over the library's entries."""
    done = late(python, 'tracing')
    assert 'tracemalloc' in ' '.join(found.group(2) for found in done.lines(status.ASIDE)).lower()
    status.active_at_last(done, python)
    assert_landed(done)


@pytest.mark.since(3, 6)
def test_refused_under_debug_hooks(python):
    done = late(python, 'refused', PYTHONMALLOC='debug')
    assert done.lines(status.ASIDE)
    assert_no_blocks(done)


@pytest.mark.since(3, 7)
def test_refused_in_dev_mode(python):
    done = late(python, 'refused', options=('-X', 'dev'))
    assert done.lines(status.ASIDE)
    assert_no_blocks(done)


@pytest.mark.only('2.7')
def test_refused_without_a_table(python):
    done = late(python, 'refused')
    assert done.lines(status.ASIDE)
    assert_no_blocks(done)


def test_silent_when_not_asked(python):
    mode = 'refused' if python.minor == '2.7' else 'plain'
    done = run_program(python, 'late_install.py', build.LIBRARY, mode,
                       env=child.clean_environment())
    status.silent(done)


@pytest.mark.since(3, 6)
def test_install_when_already_preloaded(python):
    """A second call returns 0 and prints no second line."""
    done = interpret(python, '''
import inside; lib = inside.library()
assert lib.obmalloc_install() == lib.obmalloc_install() == 0
assert inside.workload(2) > 0
''', env=child.preloaded(OBMALLOC_VERBOSE='1'))
    status.active(done, python)


@pytest.mark.since(3, 6)
def test_install_from_a_thread(python):
    """The thread that installs ends; its blocks stay valid."""
    interpret(python, '''
import inside, threading, gc
kept, codes = [], []
def body():
    kept.extend([n] * (n % 50) for n in range(5000))
    codes.append(inside.library(sys.argv[1]).obmalloc_install())
    kept.extend([n] * (n % 50) for n in range(5000))
for _ in range(3):
    thread = threading.Thread(target=body)
    thread.start(); thread.join()
assert codes == [0, 0, 0], codes
assert kept == [[n] * (n % 50) for n in range(5000)] * 6
del kept[:]; gc.collect(); inside.workload(2)
''', build.LIBRARY, env=child.clean_environment())
