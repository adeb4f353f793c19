"""Lines on stderr and files of statistics never change how the program ends, and go to no file
of another user."""
import fcntl
import json
import os
import re
import resource
import shutil
import stat
import subprocess
from pathlib import Path

import pytest

from support import child
from support.interpreters import DISTRIBUTION
from support.preload import interpret
from support.privileges import as_nobody, library_for_all, needs_root, open_folder

# Not NOBODY, who may have one process only in test_privileges.py.
OTHER = 65533

# Dies by the signals of a write, which Python by itself ignores.
PLAIN = '''
import signal, sys
signal.signal(signal.SIGPIPE, signal.SIG_DFL)
signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
kept = [[n] for n in range(20000)]
sys.exit(7)
'''

# Closes 0 to 2, and opens files of its own, which get these numbers.
REUSES = '''
import os, sys
os.closerange(0, 3)
files = [os.open(sys.argv[1] + str(n), os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
         for n in range(3)]
assert files == [0, 1, 2]
for fd in files:
    os.write(fd, b'D' * 100)
kept = [[n] for n in range(20000)]
pid = os.fork()
if pid:
    os.waitpid(pid, 0)
sys.exit(7)
'''


LOUD = [dict(OBMALLOC_STATS='1'), dict(OBMALLOC_VERBOSE='1'), dict(OBMALLOC_NO_SUCH='1'),
        dict(OBMALLOC_STATS='/no/such/folder/file')]
loud = pytest.mark.parametrize('setting', LOUD, ids=['STATS', 'VERBOSE', 'unknown', 'no file'])


def same(python, code, *arguments, setting, stderr=subprocess.DEVNULL, limit=None, closed=False):
    """The program ends as without the library, at most 2.5 seconds later."""
    def prepare():
        if limit is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        if closed:
            for fd in range(3):
                os.close(fd)
    stock, ours = (child.run([python.path, '-B', '-c', code, *arguments], env, timeout=10,
                             preexec_fn=prepare, stdout=subprocess.DEVNULL, stderr=stderr)
                   for env in (child.clean_environment(), child.preloaded(**setting)))
    assert ours.status == stock.status
    assert ours.seconds < stock.seconds + 2.5


@loud
def test_stderr_without_a_reader(python, setting):
    reader, writer = os.pipe()
    os.close(reader)
    same(python, PLAIN, setting=setting, stderr=writer)
    os.close(writer)


def test_stderr_that_nobody_empties(python):
    reader, writer = os.pipe()
    fcntl.fcntl(writer, 1031, 4096)     # F_SETPIPE_SZ
    os.write(writer, b'x' * 4096)
    same(python, PLAIN, setting=LOUD[0], stderr=writer)
    os.close(reader)
    os.close(writer)


@pytest.mark.parametrize('limit', [0, 512])
def test_a_limit_to_files(python, limit, tmp_path):
    path = tmp_path / 'limited.json'
    same(python, PLAIN, setting=dict(OBMALLOC_STATS=path), limit=limit)
    assert not path.exists()


@loud
def test_a_log_that_may_not_grow(python, setting, tmp_path):
    with open(tmp_path / 'log', 'w') as file:
        same(python, PLAIN, setting=setting, limit=0, stderr=file)
    assert os.path.getsize(tmp_path / 'log') == 0


def test_a_fifo(python, tmp_path):
    path = tmp_path / 'fifo'
    os.mkfifo(path)
    same(python, PLAIN, setting=dict(OBMALLOC_STATS=path))
    end = os.open(path, os.O_RDWR | os.O_NONBLOCK)
    with pytest.raises(BlockingIOError):
        while True:
            os.write(end, b'x' * 4096)
    same(python, PLAIN, setting=dict(OBMALLOC_STATS=path))
    os.close(end)


@pytest.mark.parametrize('path, reason', [
    ('/dev/full', 'no space'), ('/no/such/folder/file', 'no such folder'), ('/tmp', 'folder'),
    ('x' * 300, 'name is too long')], ids=['full', 'no folder', 'folder', 'long'])
def test_one_line_says_why_there_is_no_file(python, path, reason):
    done = interpret(python, 'sys.exit(7)', status=7, env=child.preloaded(OBMALLOC_STATS=path))
    assert re.search(f'^obmalloc: no statistics, [^\n]*{reason}[^\n]*\n$', done.err)


@pytest.mark.parametrize('closed', [False, True], ids=['open', 'closed'])
@pytest.mark.parametrize('setting', LOUD + [
    dict(OBMALLOC_STATS='/dev/stderr'), dict(OBMALLOC_STATS='/dev/fd/1')],
    ids=['STATS', 'VERBOSE', 'unknown', 'no file', 'stderr', 'fd 1'])
def test_files_with_the_numbers_of_the_standard_ones(python, setting, closed, tmp_path):
    same(python, REUSES, f'{tmp_path}/own-', closed=closed, setting=setting)
    for n in range(3):
        assert (tmp_path / f'own-{n}').read_bytes() == b'D' * 100


def test_a_descriptor_that_the_setting_names(python):
    reader, writer = os.pipe()
    done = child.run([python.path, '-c', 'pass'], child.preloaded(
        OBMALLOC_STATS=f'/dev/fd/{writer}'), pass_fds=[writer], status=0)
    os.close(writer)
    with open(reader) as file:
        assert json.load(file)['pid'] == done.pid


# Files of other users: refused to a privileged process, allowed to others.
TAKE = '''
import ctypes, os, sys
take = ctypes.CDLL(os.environ["LD_PRELOAD"]).obmalloc_snapshot
for path in sys.argv[1:]: print(take(path.encode()))
'''
needs_distribution = pytest.mark.skipif(not os.path.exists(DISTRIBUTION),
                                        reason='no interpreter that other users can run')


@pytest.fixture
def folder():
    """An empty folder with the mode of /tmp."""
    needs_root()
    folder = open_folder('files')
    folder.chmod(0o1777)
    yield folder
    shutil.rmtree(folder)


def make(path, owner=0, mode=0o644):
    path.write_text('before')
    path.chmod(mode)
    os.chown(path, owner, owner)


def take(folder, *names, user=0):
    """The error of a snapshot to each file, '' for none."""
    done = as_nobody([DISTRIBUTION, '-c', TAKE, *[folder / name for name in names]],
                  child.clean_environment(LD_PRELOAD=library_for_all()), user=user, status=0)
    return [os.strerror(int(line)) if line != '0' else '' for line in done.out.split()]


@needs_distribution
def test_root_and_files_of_others(folder):
    for name in 'theirs', 'hard', 'target':
        make(folder / name, OTHER if name == 'theirs' else 0)
    os.link(folder / 'hard', folder / 'hard-2')
    for link, to in ('planted', 'target'), ('nowhere', 'not-there'), ('away', '/etc/passwd'):
        os.symlink(to, folder / link)
        os.lchown(folder / link, OTHER, OTHER)
    os.symlink('target', folder / 'own-link')      # but others can write to the folder
    os.mkfifo(folder / 'fifo', 0o666)
    os.chown(folder / 'fifo', OTHER, OTHER)
    reader = os.open(folder / 'fifo', os.O_RDWR | os.O_NONBLOCK)
    passwd = Path('/etc/passwd').read_bytes()
    names = 'theirs', 'hard', 'fifo', 'planted', 'nowhere', 'away', 'own-link'
    entries = sorted(os.listdir(folder))
    refused = ['Operation not permitted', 'Too many levels of symbolic links']
    assert take(folder, *names) == refused[:1] * 3 + refused[1:] * 4
    assert sorted(os.listdir(folder)) == entries
    os.close(reader)
    assert Path('/etc/passwd').read_bytes() == passwd
    for name in 'theirs', 'hard', 'target':
        assert (folder / name).read_text() == 'before'
    # Statistics at exit obey the same rules, and the library says so.
    done = child.run([DISTRIBUTION, '-c', 'pass'],
                     child.preloaded(OBMALLOC_STATS=folder / 'planted'), status=0)
    assert re.search('^obmalloc: no statistics, a symbolic link [^\n]*\n$', done.err)


@needs_distribution
def test_root_and_its_own_files(folder):
    folder.chmod(0o755)
    make(folder / 'own', mode=0o640)
    os.symlink('own', folder / 'link')
    os.symlink('/dev/stdout', folder / 'out')
    assert take(folder, 'own', 'link', 'new', '/dev/null') == [''] * 4
    assert (folder / 'link').is_symlink()
    assert stat.S_IMODE((folder / 'own').stat().st_mode) == 0o640
    assert stat.S_IMODE((folder / 'new').stat().st_mode) == 0o600
    done = child.run([DISTRIBUTION, '-c', 'print("mine", flush=True)'],
                     child.preloaded(OBMALLOC_STATS=folder / 'out'), status=0)
    assert re.match(r'mine\n\{"version"', done.out)


@needs_distribution
def test_files_of_other_users(folder):
    make(folder / 'theirs', OTHER)
    make(folder / 'writable', 0, 0o666)
    make(folder / 'closed', 0, 0o644)
    make(folder / 'read-only', OTHER, 0o444)
    make(folder / 'hard', OTHER)
    os.link(folder / 'hard', folder / 'hard-2')
    for link, to in ('link', 'theirs'), ('nowhere', 'not-there'):
        os.symlink(to, folder / link)
        os.lchown(folder / link, OTHER, OTHER)     # in a folder like /tmp only owners follow links
    denied = 'Permission denied'
    names = 'theirs', 'closed', 'read-only', 'hard', 'link', 'nowhere'
    assert take(folder, *names, user=OTHER) == ['', denied, denied, '', '', '']
    assert (folder / 'hard').stat().st_nlink == 2
    assert (folder / 'hard').samefile(folder / 'hard-2')
    assert (folder / 'link').is_symlink()
    assert (folder / 'not-there').stat().st_size > 6672
    assert not list(folder.glob('.*'))
    # In a folder where this user can make no file, an existing one is written in place.
    folder.chmod(0o755)
    assert take(folder, 'writable', 'theirs', 'new', user=OTHER) == ['', '', denied]
    assert (folder / 'writable').stat().st_size > 6672


@needs_distribution
def test_signals_are_restored():
    """The thread's mask, and a signal that was pending before."""
    child.run([DISTRIBUTION, '-c', '''
import ctypes, os, signal
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGPIPE])
os.kill(os.getpid(), signal.SIGPIPE)
ctypes.CDLL(os.environ["LD_PRELOAD"]).obmalloc_snapshot(b"/dev/full")
assert signal.sigpending() == {signal.SIGPIPE}
assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == {signal.SIGPIPE}
'''], child.preloaded(), status=0)
