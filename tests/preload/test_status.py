"""The status line: one line with OBMALLOC_VERBOSE=1, otherwise no output."""
import pytest

from support import child, status
from support.preload import interpret

pytestmark = pytest.mark.everywhere


def test_one_line_when_verbose(python):
    done = interpret(python, 'pass', env=child.preloaded(OBMALLOC_VERBOSE='1'))
    status.active(done, python)
    assert len(done.err.splitlines()) == 1
    assert done.out == ''


def test_silent_when_not_asked(python):
    done = interpret(python, 'print(7 * 6)')
    assert (done.out, done.err) == ('42\n', '')


def test_active_is_true_when_said(python):
    """The library prints the line only if it serves the calls: its statistics show that."""
    done = interpret(python, 'import inside, json; lib = inside.library()\n'
                     'print(json.dumps(inside.live(inside.stats(lib))))',
                     env=child.preloaded(OBMALLOC_VERBOSE='1'))
    status.active(done, python)
    assert done.said > 10000


def test_no_line_without_preload(python):
    done = interpret(python, 'pass', env=child.clean_environment(OBMALLOC_VERBOSE='1'))
    status.silent(done)


def test_every_process_speaks_for_itself(python):
    """A child that runs Python prints a line with its own pid."""
    done = interpret(python, '''
import os, subprocess
child = subprocess.Popen([sys.executable, "-c", "pass"])
assert child.wait() == 0
print([os.getpid(), child.pid])
''', env=child.preloaded(OBMALLOC_VERBOSE='1'))
    pids = [int(found.group(1)) for found in done.lines(status.ACTIVE)]
    assert sorted(pids) == sorted(done.said)


def test_exit_status_is_the_programs(python):
    interpret(python, 'sys.exit(3)', status=3)
    interpret(python, 'import os; os.abort()', status=-6)


def test_workload_gives_what_stock_gives(python):
    code = 'import inside; print(inside.workload(4))'
    assert interpret(python, code).out == interpret(python, code, env=child.clean_environment()).out
