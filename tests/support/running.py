"""Programs that run while a check talks to them, and waiting."""
import os
import signal
import socket
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor

import pytest


class Running:
    """A program that runs while the check talks to it. Its output goes to files, so that no pipe
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


def free_port():
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        return free.getsockname()[1]


def is_open(port):
    try:
        socket.create_connection(('127.0.0.1', port), 1).close()
        return True
    except OSError:
        return False


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
