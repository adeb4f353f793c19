"""What the environments share: how they are listed, packages in virtual environments,
and what a process says of us. How a program is run is the preload checks' own."""
import collections
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from typing import Callable, NamedTuple

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
PROGRAMS = os.path.join(HERE, 'programs')
FOLDER = os.path.join(ROOT, 'target', 'compat')
sys.path[:0] = [os.path.join(ROOT, 'c_tests', 'preload'), os.path.join(ROOT, 'c_tests')]

import proven       # noqa: E402
import pythons      # noqa: E402
import support      # noqa: E402
from fetch import last_line     # noqa: E402


class Skip(Exception):
    """It cannot be tried here, and why."""


class Fails(Exception):
    """It is not as it is without us."""


class Verdicts:
    """A line for each check that is made; at the end what failed once more, since a log may
    be cut at its beginning, and how many they were."""

    def __init__(self):
        self.count, self.failed = collections.Counter(), []

    def of(self, where, check, *arguments):
        """(verdict, words) of a check, printed behind what tells it from others."""
        start = time.time()
        try:
            verdict, words = 'ok', check(*arguments)
        except Skip as reason:
            verdict, words = 'skip', str(reason)
        except Fails as complaint:
            verdict, words = 'FAIL', str(complaint)
        except Exception as error:      # of the check itself: one line, and the others go on
            verdict, words = 'FAIL', '%s: %s' % (type(error).__name__, error)
        said = '%-5s %s %5.0f s  %s' % (verdict, where, time.time() - start,
                                        words.strip().replace('\n', '\n        '))
        print(said, flush=True)
        self.count[verdict] += 1
        if verdict == 'FAIL':
            self.failed.append(said)
        return verdict, words

    def end(self):
        """The exit status: 1 if one failed, or if none was made."""
        if self.failed:
            print('\n'.join(['what failed, again:'] + self.failed))
        count = self.count
        print('%d passed, %d failed, %d skipped' % (count['ok'], count['FAIL'], count['skip']))
        return 1 if count['FAIL'] or not count['ok'] else 0


class Environment(NamedTuple):
    name: str
    check: Callable         # of a Python, or of nothing; returns what it found
    applies: Callable       # to this Python? None: there is one line, without a Python
    only_asked: bool        # it touches the whole machine: not unless it is named


EVERY = []


def environment(name, applies=None, only_asked=False):
    """Lists a check. It returns a few words, or raises Skip or Fails."""
    def mark(check):
        EVERY.append(Environment(name, check, applies, only_asked))
        return check
    return mark


def since(*numbers):
    return lambda python: python.numbers >= numbers


def demand(true, *words):
    if not true:
        raise Fails(' '.join(str(word) for word in words))


def same(ours, stock, what):
    demand(ours == stock, '%s: %r with us, %r without' % (what, ours, stock))


# ---- packages ----

def virtual(python, *packages):
    """The folder of programs of a virtual environment that has these packages; kept
    under target/, so that a second run fetches nothing."""
    folder = os.path.join(FOLDER, 'venv-' + python.label.replace(' ', '-'))
    programs = os.path.join(folder, 'bin')
    path = os.path.join(programs, 'python')
    if not os.path.exists(path):
        done = support.run([python.path, '-m', 'venv', folder], timeout=200)
        if done.status != 0:
            raise Skip('no virtual environment: ' + last_line(done.err or done.out))
    mark = os.path.join(folder, 'has')
    have = set(open(mark).read().split()) if os.path.exists(mark) else set()
    for package in packages:
        if package not in have:
            done = support.run([path, '-m', 'pip', 'install', '--quiet', package], timeout=400)
            if done.status != 0:
                raise Skip('pip: ' + last_line(done.err))
            with open(mark, 'a') as file:
                file.write(package + '\n')
    return programs


def need(program):
    found = shutil.which(program)
    if not found:
        raise Skip('no %s here' % program)
    return found


# ---- with us and without ----

def sides(**settings):
    """The two environments of a comparison, ours first."""
    return (support.preloaded(PYTHONPATH=PROGRAMS + os.pathsep + support.PROGRAMS,
                              PYTHONDONTWRITEBYTECODE='1', **settings),
            support.clean_environment(PYTHONPATH=PROGRAMS + os.pathsep + support.PROGRAMS,
                                      PYTHONDONTWRITEBYTECODE='1',
                                      **{name: value for name, value in settings.items()
                                         if not name.startswith('OBMALLOC_')}))


def ran(done, status=0):
    demand(done.status == status, done.report)
    return done


def active(done, python):
    """Its one line says that we are active in it."""
    lines = done.lines(support.ACTIVE)
    demand(any(int(line.group(1)) == done.pid and line.group(2) == python.version
               for line in lines), 'not active\n' + done.report)


class Running:
    """A program that goes on while others talk to it. Its output goes to files, so that
    no pipe fills; whatever is left of it ends with the block."""

    def __init__(self, argv, env, cwd=None):
        name = support.scratch('running-%d-%d-' % (os.getpid(), id(self)))
        self.out, self.err = open(name + 'out', 'w'), open(name + 'err', 'w')
        self.child = subprocess.Popen(argv, env=env, cwd=cwd, stdin=subprocess.DEVNULL,
                                      stdout=self.out, stderr=self.err, start_new_session=True)
        self.pid = self.child.pid

    def __enter__(self):
        return self

    def __exit__(self, *error):
        try:
            os.killpg(self.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.child.wait()
        self.out.close(), self.err.close()

    def said(self):
        """All that it has written so far."""
        texts = []
        for file in self.out, self.err:
            with open(file.name) as copy:
                texts.append(copy.read())
        return texts

    def end(self, number=None, seconds=60):
        """(status, stdout, stderr) when it has ended, after this signal."""
        if number is not None:
            self.child.send_signal(number)
        try:
            status = self.child.wait(seconds)
        except subprocess.TimeoutExpired:
            raise Fails('no end within %d s: %s' % (seconds, self.said()))
        return (status, *self.said())


def comes(condition, seconds=60):
    """Waits for it; what it gave at last."""
    until = time.time() + seconds
    while True:
        value = condition()
        if value or time.time() > until:
            return value
        time.sleep(0.02)


def at_once(count, body):
    """body(0), body(1), ... in threads; raises what the first of them raised."""
    failed = []

    def guarded(number):
        try:
            body(number)
        except BaseException as error:      # handed to who waits
            failed.append(error)
    threads = [threading.Thread(target=guarded, args=(n,)) for n in range(count)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    if failed:
        raise failed[0]


def kinds_of_lines(text):
    """The sorted set of what was said, without numbers and paths of this run."""
    lines = set()
    for line in text.splitlines():
        if not line.startswith('obmalloc: '):
            lines.add(re.sub(r'0x[0-9a-f]+|\d+', 'N', line).strip())
    return sorted(lines - {''})
