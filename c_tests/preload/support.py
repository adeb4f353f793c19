"""What every check needs: a clean environment, a way to run a program and to
read what it said, small C programs compiled on demand, and the base class.

Nothing here knows a topic; the topics are the test_*.py files.
"""
import functools
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import tempfile
import threading
import unittest
from typing import NamedTuple

HERE = os.path.dirname(os.path.abspath(__file__))
PROGRAMS = os.path.join(HERE, 'programs')
HOSTS = os.path.join(HERE, 'hosts')
# Where cargo builds.
TARGET = os.environ.get('CARGO_TARGET_DIR') or os.path.join(HERE, '..', '..', 'target')
RELEASE = os.path.join(TARGET, os.environ.get('CARGO_BUILD_TARGET', ''), 'release')
LIBRARY = os.path.join(RELEASE, 'libobmalloc.so')

ACTIVE = re.compile(r'^obmalloc: active in pid (\d+): CPython (\S+), domains (\S+?)(,|$)', re.I)
ASIDE = re.compile(r'^obmalloc: standing aside in pid (\d+): (.+)', re.I)

_scrubbed = re.compile(r'PYTHON|OBMALLOC_|LD_|MALLOC_|GLIBC_TUNABLES')
_scratch = tempfile.TemporaryDirectory(prefix='obmalloc-preload-')
_building = threading.Lock()


def scratch(name=''):
    """A path in a directory that goes away with the test run."""
    return os.path.join(_scratch.name, name)


def clean_environment(**extra):
    """The environment without anything that Python, the loader, malloc or we read."""
    env = {key: value for key, value in os.environ.items() if not _scrubbed.match(key)}
    env.update(extra)
    return env


def preloaded(**extra):
    return clean_environment(LD_PRELOAD=LIBRARY, **extra)


class Run(NamedTuple):
    """A program that has ended. A negative status is the signal that ended it."""
    argv: list
    pid: int
    status: int
    out: str
    err: str

    @property
    def report(self):
        """All that is known about the run, for the message of a failure."""
        words = ' '.join(shlex.quote(word if len(word) < 200 else word[:200] + '...')
                         for word in self.argv)
        return 'exit status %s of: %s\nstdout: %s\nstderr: %s' % (
            self.status, words, self.out[-1500:].strip(), self.err[-2500:].strip())

    def lines(self, pattern):
        """The matches of pattern at the beginning of the lines of stderr."""
        return [found for found in map(pattern.match, self.err.splitlines()) if found]


def run(argv, env=None, timeout=60, cwd=None):
    """Run argv to its end. One that hangs is killed with all its children and
    reported with the status 'timeout', which is no number that a program gives."""
    argv = list(argv)
    child = subprocess.Popen(argv, env=clean_environment() if env is None else env, cwd=cwd,
                             stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                             stderr=subprocess.PIPE, start_new_session=True)
    try:
        out, err = child.communicate(timeout=timeout)
        status = child.returncode
    except subprocess.TimeoutExpired:
        os.killpg(child.pid, signal.SIGKILL)
        out, err = child.communicate()
        status = 'timeout'
    return Run(argv, child.pid, status, out.decode('utf-8', 'replace'),
               err.decode('utf-8', 'replace'))


@functools.lru_cache(maxsize=None)
def _compile(output, arguments):
    done = run(['gcc', '-O2', '-g', '-Wall', '-Wextra', '-Werror', '-o', output] +
               list(arguments))
    if done.status != 0:
        raise AssertionError(done.report)
    return output


def build(output, *arguments):
    """Compile hosts/*.c (a bare name) with gcc, once for each set of arguments."""
    if not shutil.which('gcc'):
        raise unittest.SkipTest('no gcc here')
    arguments = tuple(os.path.join(HOSTS, word) if re.fullmatch(r'\w+\.c', word) else word
                      for word in arguments)
    with _building:
        return _compile(scratch(output), arguments)


def since(*first):
    """For checks of what older versions do not have: not made for these at all,
    as a check that cannot apply is neither passed nor skipped."""
    def mark(method):
        method.applies = lambda python: python.numbers >= first
        return method
    return mark


def only(*versions):
    """For checks of single minor versions, given as strings."""
    def mark(method):
        method.applies = lambda python: python.minor in versions
        return method
    return mark


def takes_long(method):
    """For checks that a sample makes with one interpreter only."""
    method.takes_long = True
    return method


def not_in_a_sample(method):
    """For checks that a sample does without."""
    method.not_in_a_sample = True
    return method


class Case(unittest.TestCase):
    """A topic that does not depend on an interpreter."""
    python = None
    maxDiff = None

    def assertRan(self, done, status=0):
        if done.status != status:
            self.fail('expected exit status %s\n%s' % (status, done.report))

    def assertSaysNothing(self, done):
        """The rule for everybody who did not ask: no word of ours anywhere."""
        self.assertNotIn('obmalloc', (done.out + done.err).lower(), done.report)

    def assertOneStatusLine(self, done, pattern):
        """The match of the one status line, which must be of this kind."""
        lines = done.lines(ACTIVE) + done.lines(ASIDE)
        self.assertEqual(len(lines), 1, 'status lines\n' + done.report)
        found = pattern.match(lines[0].group())
        self.assertTrue(found, 'another verdict than expected\n' + done.report)
        self.assertEqual(int(found.group(1)), done.pid, 'pid of the line\n' + done.report)
        return found

    def assertActiveAtLast(self, done, version):
        """Who installs late may have been told before why not yet: then the last
        word counts, and active is said once."""
        lines = done.lines(ACTIVE) + done.lines(ASIDE)
        self.assertTrue(lines, 'no status line\n' + done.report)
        for line in lines:
            self.assertEqual(int(line.group(1)), done.pid, 'pid of the line\n' + done.report)
        self.assertEqual(len(done.lines(ACTIVE)), 1, 'lines that say active\n' + done.report)
        last = ACTIVE.match([line for line in done.err.splitlines() if 'obmalloc: ' in line][-1])
        self.assertTrue(last, 'the last word is another\n' + done.report)
        self.assertEqual(last.group(2), version, done.report)

    def assertActive(self, done, version, domains='mem+obj'):
        found = self.assertOneStatusLine(done, ACTIVE)
        self.assertEqual(found.group(2), version, done.report)
        self.assertEqual(found.group(3).lower(), domains, done.report)

    def assertAside(self, done, reason):
        """Aside, and for a reason that a reader of the line understands."""
        found = self.assertOneStatusLine(done, ASIDE)
        self.assertRegex(found.group(2), re.compile(reason, re.I), done.report)


class PythonCase(Case):
    """A topic that is checked with every interpreter: the driver sets python."""

    @property
    def domains(self):
        """2.7 has one allocator and no table; MEM is libc there and stays so."""
        return 'obj' if self.python.numbers < (3,) else 'mem+obj'

    def interpret(self, code, *arguments, options=(), env=None, status=0, timeout=60):
        """python OPTIONS -c CODE ARGUMENTS, where code can import our programs.
        -B, because the programs' folder is not to be littered."""
        prelude = 'import sys; sys.path.insert(0, %r)\n' % PROGRAMS
        done = run([self.python.path, '-B', *options, '-c', prelude + code, *arguments],
                   preloaded() if env is None else env, timeout)
        self.assertRan(done, status)
        return done

    def program(self, name, *arguments, options=(), env=None, status=0, timeout=100):
        """python OPTIONS programs/NAME ARGUMENTS"""
        done = run([self.python.path, '-B', *options, os.path.join(PROGRAMS, name), *arguments],
                   preloaded() if env is None else env, timeout)
        self.assertRan(done, status)
        return done

    def assertUs(self, done):
        self.assertActive(done, self.python.version, self.domains)


def said(done):
    """The JSON that a program printed as its last line."""
    lines = done.out.strip().splitlines()
    try:
        return json.loads(lines[-1])
    except (IndexError, ValueError):
        raise AssertionError('no JSON as last line\n' + done.report)
