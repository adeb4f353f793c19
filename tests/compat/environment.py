"""What the environments share: packages in virtual environments, both sides of a comparison,
and programs that run while others talk to them."""
import fcntl
import os
import re
import shutil
import signal
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from support import build, child

HERE = Path(__file__).parent
PROGRAMS = HERE / 'programs'
INSIDE = HERE.parent / 'preload/programs'
FOLDER = build.TARGET / 'compat'
ACTIVE = re.compile(r'^obmalloc: active in pid (\d+): CPython (\S+), domains (\S+?)(,|$)', re.I)
ASIDE = re.compile(r'^obmalloc: standing aside in pid (\d+): (.+)', re.I)
SHARED = ('3.12', '3.13')      # the environments run with these and with a static build


def usual(python):
    """Whether the environments run with this interpreter; --pythons chooses others."""
    return not python.shared or python.minor in SHARED


def last_line(text):
    return (text.strip().splitlines() or ['no output'])[-1]


def need(program):
    if not shutil.which(program):
        pytest.skip(f'no {program}')


def virtual(python, *packages):
    """The folder of programs of a virtual environment that has these packages, kept under
    target/compat; skips if they cannot be installed."""
    folder = FOLDER / f'venv-{python.name}'
    inside, installed = folder / 'bin/python', folder / 'installed'
    FOLDER.mkdir(parents=True, exist_ok=True)
    with open(FOLDER / f'venv-{python.name}.lock', 'w') as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)        # another worker may install, too
        if not inside.exists():
            done = child.run([python.path, '-m', 'venv', folder], timeout=200)
            if done.status != 0:
                pytest.skip('no virtual environment: ' + last_line(done.err or done.out))
        have = installed.read_text().split() if installed.exists() else []
        for package in set(packages) - set(have):
            done = child.run([inside, '-m', 'pip', 'install', '--quiet', package], timeout=400)
            if done.status != 0:
                pytest.skip('pip: ' + last_line(done.err))
            with open(installed, 'a') as file:
                file.write(package + '\n')
    return folder / 'bin'


def sides(**settings):
    """The environments with the library and without it, in this order."""
    common = dict(PYTHONPATH=f'{PROGRAMS}{os.pathsep}{INSIDE}', PYTHONDONTWRITEBYTECODE='1')
    plain = {key: value for key, value in settings.items() if not key.startswith('OBMALLOC_')}
    return child.preloaded(**common, **settings), child.clean_environment(**common, **plain)


def run_both(argv, timeout=60, status=0, **settings):
    """Runs the command on both sides: (with, without)."""
    return [child.run(argv, env, timeout, status=status) for env in sides(**settings)]


def assert_active(done, python):
    """The status line reports the library active in the process itself."""
    assert any(int(line[1]) == done.pid and line[2] == python.version
               for line in done.lines(ACTIVE)), 'not active\n' + done.report


def kinds_of_lines(text):
    """The sorted set of lines of other programs, without numbers."""
    return sorted({re.sub(r'0x[0-9a-f]+|\d+', 'N', line).strip() for line in text.splitlines()
                   if line.strip() and not line.startswith('obmalloc: ')})


class Running:
    """A program that runs while others talk to it. Its output goes to files, so that no pipe
    fills; its processes end with the block."""

    def __init__(self, argv, env, folder, cwd=None):
        self.files = [folder / f'running-{id(self)}-{name}' for name in ('out', 'err')]
        streams = [file.open('w') for file in self.files]
        self.child = subprocess.Popen([str(word) for word in argv], env=env, cwd=cwd,
                                      stdin=subprocess.DEVNULL, stdout=streams[0],
                                      stderr=streams[1], start_new_session=True)
        for stream in streams:
            stream.close()
        self.pid = self.child.pid

    def __enter__(self):
        return self

    def __exit__(self, *error):
        try:
            os.killpg(self.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.child.wait()

    def output(self):
        """[stdout, stderr] so far."""
        return [file.read_text() for file in self.files]

    def wait_until(self, condition):
        assert eventually(lambda: condition() or self.child.poll() is not None) \
            and self.child.poll() is None, f'it does not start: {self.output()}'

    def end(self, number=None, seconds=60):
        """Sends the signal, if one is given, and waits; (stdout, stderr) of status 0."""
        if number is not None:
            self.child.send_signal(number)
        try:
            status = self.child.wait(seconds)
        except subprocess.TimeoutExpired:
            pytest.fail(f'no end within {seconds} s: {self.output()}')
        out, err = self.output()
        assert status == 0, err[-2000:]
        return out, err


def eventually(condition, seconds=60):
    """Waits until the condition is true, or for so long; its last value."""
    until = time.monotonic() + seconds
    while True:
        value = condition()
        if value or time.monotonic() > until:
            return value
        time.sleep(0.02)


def in_threads(count, body):
    """body(0), body(1), ... at once; raises the first exception."""
    with ThreadPoolExecutor(count) as pool:
        list(pool.map(body, range(count)))
