"""Child processes: by fork, while threads allocate, by multiprocessing, with another environment,
from a virtual environment."""
import pytest

from support import child, status
from support.preload import interpret, run_program

# From 3.12 on Python warns when a process with several threads forks.
FORKS_WITH_THREADS = ('-W', 'ignore::DeprecationWarning')


def test_fork(python):
    done = run_program(python, 'forks.py', 'quiet', '6')
    assert (done.out, done.err) == ('', '')


def test_fork_while_threads_allocate(python):
    done = run_program(python, 'forks.py', 'busy', '10', options=FORKS_WITH_THREADS)
    assert (done.out, done.err) == ('', '')


def test_fork_child_that_ends_the_ordinary_way(python):
    """Finalisation runs in the child as well; both are the same program, with one status line."""
    done = interpret(python, '''
import os
kept = [{n: str(n)} for n in range(20000)]
pid = os.fork()
if pid == 0:
    kept.extend([None] * n for n in range(500)); del kept[::3]
    sys.exit(7)
assert os.WEXITSTATUS(os.waitpid(pid, 0)[1]) == 7
''', env=child.preloaded(OBMALLOC_VERBOSE='1'))
    status.active(done, python)


@pytest.mark.since(3, 12)
def test_no_helper_thread_at_fork(python):
    """The helper thread must have ended when the program forks, at any time: otherwise CPython
    warns a program without threads of threads."""
    interpret(python, '''
import os, time
for wait in (0, 0.01, 0.2, 0.9, 0.4, 0.05):
    dropped = [{n: bytes(200)} for n in range(60000)]
    del dropped
    time.sleep(wait)
    pid = os.fork()
    if pid == 0: os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
''', options=('-W', 'error::DeprecationWarning'))


def multiprocessing(python, method):
    done = run_program(python, 'pools.py', method)
    assert (done.out, done.err) == ('done\n', '')


def test_multiprocessing_fork(python):
    multiprocessing(python, 'fork')


@pytest.mark.since(3, 4)
@pytest.mark.parametrize('method', ['spawn', 'forkserver'])
def test_multiprocessing(python, method):
    multiprocessing(python, method)


def test_subprocess_with_empty_environment(python):
    """The child is a plain Python, without effect on its parent."""
    done = interpret(python, '''
import subprocess
child = subprocess.Popen([sys.executable, "-c", "print(40 + 2)"], env={},
                         stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
out = child.communicate()[0]
assert (out, child.returncode) == (b"42\\n", 0), (out, child.returncode)
''', env=child.preloaded(OBMALLOC_VERBOSE='1'))
    status.active(done, python)


def test_shells_between(python):
    """Python, sh, Python: two lines, none from the shell."""
    done = interpret(python, '''
import subprocess
line = "'%s' -c pass; ls / >/dev/null" % sys.executable
assert subprocess.call(["sh", "-c", line]) == 0
''', env=child.preloaded(OBMALLOC_VERBOSE='1'))
    assert len(done.lines(status.ACTIVE)) == 2
    assert len(done.err.splitlines()) == 2


def test_exec_keeps_the_pid_and_starts_anew(python):
    done = interpret(python, '''
import os
if len(sys.argv) < 2:
    os.execv(sys.executable, [sys.executable, "-c", "pass"])
''', env=child.preloaded(OBMALLOC_VERBOSE='1'))
    pids = [int(found.group(1)) for found in done.lines(status.ACTIVE)]
    assert pids == [done.pid, done.pid]


@pytest.mark.since(3)
def test_virtual_environment(python, tmp_path):
    made = child.run([python.path, '-m', 'venv', '--without-pip', tmp_path])
    if made.status != 0:
        pytest.skip('no venv: ' + made.report)
    done = child.run([tmp_path / 'bin' / 'python', '-c', 'import sys; print(sys.prefix)'],
                     child.preloaded(OBMALLOC_VERBOSE='1'), status=0)
    assert done.out.strip() == str(tmp_path)
    status.active(done, python)


def test_symbolic_link(python, tmp_path):
    """Run by a name without `python`."""
    path = tmp_path / 'an-interpreter'
    path.symlink_to(python.executable)
    done = child.run([path, '-c', 'pass'],
                     child.preloaded(OBMALLOC_VERBOSE='1', PYTHONHOME=python.prefix), status=0)
    status.active(done, python)
