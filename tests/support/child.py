"""Child processes: a clean environment, a time limit, and a report for a failed check."""
import json
import os
import re
import shlex
import signal
import subprocess
import time
from dataclasses import dataclass

# Variables that Python, the loader, malloc or the library read.
_SCRUBBED = re.compile(r'PYTHON|OBMALLOC_|LD_|MALLOC_|GLIBC_TUNABLES')

runs = []       # of the current check, for the report of its failure


def clean_environment(**extra):
    """The environment without what Python, the loader, malloc or the library read."""
    kept = {key: value for key, value in os.environ.items() if not _SCRUBBED.match(key)}
    return kept | {key: str(value) for key, value in extra.items()}


def preloaded(**extra):
    """A clean environment with the library in LD_PRELOAD."""
    from support import build       # which compiles by this module
    return clean_environment(**{'LD_PRELOAD': build.LIBRARY} | extra)


def shown(words, most=400):
    """A command line for a shell; long words are cut."""
    return ' '.join(shlex.quote(word if len(word) <= most else word[:most] + '...')
                    for word in words)


def cut(text, most):
    """The end of a text."""
    text = text.strip()
    return text if len(text) <= most else '... ' + text[-most:]


@dataclass(frozen=True, repr=False)
class Run:
    """A program that has ended. A negative status is the signal that ended it; 'timeout' means
    that it was killed at its time limit."""
    argv: list
    env: dict
    pid: int
    status: object
    out: str
    err: str
    seconds: float

    def __repr__(self):
        return f'<Run of {self.argv[0]}, exit status {self.status}>'

    @property
    def settings(self):
        """The variables that a clean environment has not."""
        return {key: value for key, value in self.env.items() if os.environ.get(key) != value}

    @property
    def preloaded(self):
        from support import build
        return build.LIBRARY.name in self.env.get('LD_PRELOAD', '')

    @property
    def report(self):
        """Command, status and output, for the message of a failure."""
        settings = [f'{key}={value}' for key, value in self.settings.items()]
        return (f'{shown(settings + self.argv)}\nexit status {self.status}\n'
                f'stdout: {cut(self.out, 1500)}\nstderr: {cut(self.err, 2500)}')

    def lines(self, pattern):
        """The matches of a compiled pattern at the beginning of the lines of stderr."""
        return [found for found in map(pattern.match, self.err.splitlines()) if found]

    @property
    def said(self):
        """The JSON that the program printed as its last line."""
        lines = self.out.strip().splitlines()
        try:
            return json.loads(lines[-1])
        except (IndexError, ValueError):
            raise AssertionError('no JSON as last line') from None


def run(argv, env=None, timeout=60, cwd=None, status=None, **options):
    """Runs a command in a process group of its own to its end, or kills the group at the time
    limit. With `status` the check fails at once on another status. Options are Popen's."""
    argv = [str(word) for word in argv]
    env = clean_environment() if env is None else env
    began = time.monotonic()
    child = subprocess.Popen(argv, env=env, cwd=cwd, start_new_session=True, **{
        'stdin': subprocess.DEVNULL, 'stdout': subprocess.PIPE, 'stderr': subprocess.PIPE,
        **options})
    try:
        out, err = child.communicate(timeout=timeout)
        ended = child.returncode
    except subprocess.TimeoutExpired:
        os.killpg(child.pid, signal.SIGKILL)
        out, err = child.communicate()
        ended = 'timeout'
    out, err = ((text or b'').decode(errors='replace') for text in (out, err))
    done = Run(argv, env, child.pid, ended, out, err, time.monotonic() - began)
    runs.append(done)
    if status is not None:
        assert done.status == status, f'expected exit status {status}'
    return done
