#!/usr/bin/env python3
"""Checks every way of the library into a process.

    c_tests/preload/run.py [--sample] [--pythons 3.11 static ...] [--only status late ...]

Runs the methods of the test_*.py files beside it, once for each interpreter on
this machine where the topic depends on one.  One line for each check; at the end
what failed once more, and the last line counts them.  Fails if a check fails or if none
was made.
"""
import sys
sys.dont_write_bytecode = True      # before the modules beside us are imported

import argparse
import collections
import concurrent.futures
import glob
import importlib
import os
import threading
import time
import unittest

import pythons
import support


class Lines(unittest.TestResult):
    """Prints a line for each check as it ends. Used by several threads, each
    with checks of its own; the lock keeps their lines and counts whole."""

    def __init__(self):
        super().__init__()
        self.lock = threading.Lock()
        self.count = collections.Counter()
        self.failed = []    # as it was printed

    def startTest(self, test):
        test.started = time.time()

    def line(self, verdict, name, text=''):
        with self.lock:
            self.count[verdict] += 1
            details = text.strip().replace('\n', '\n        ')
            said = '%-5s %s%s' % (verdict, name, details and '\n        ' + details)
            print(said, flush=True)
            if verdict == 'FAIL':
                self.failed.append(said)

    def addSuccess(self, test):
        seconds = time.time() - test.started
        self.line('ok', name_of(test) + (' (%.1f s)' % seconds if seconds > 3 else ''))

    def addFailure(self, test, error):
        self.line('FAIL', name_of(test), str(error[1]))

    def addError(self, test, error):
        self.line('FAIL', name_of(test), self._exc_info_to_string(error, test))

    def addSkip(self, test, reason):
        self.line('skip', name_of(test), reason)

    def addSubTest(self, test, subtest, error):
        if error is not None:
            add = self.addFailure if issubclass(error[0], test.failureException) else self.addError
            add(subtest, error)


def words_of(case):
    """'status: one line at start', from module and method."""
    topic = type(case).__module__.replace('test_', '')
    return topic + ': ' + case._testMethodName.replace('test_', '', 1).replace('_', ' ')


def name_of(test):
    """Interpreter and check; a sub-test adds its parameters."""
    case = getattr(test, 'test_case', test)
    details = test._subDescription() if test is not case else ''
    return ('%-14s %s %s' % (case.python.label if case.python else '',
                             words_of(case), details)).rstrip()


# Topics that a sample, too, checks with every interpreter.
EVERYWHERE = ('status', 'landing')


def sample(found):
    """The interpreters that differ most: the two oldest, the newest, and static ones."""
    shared = sorted((python for python in found if python.shared), key=lambda each: each.numbers)
    return [each for each in found if not each.shared or each in shared[:2] + shared[-1:]]


def is_left_out(python, topic, method, sampled):
    """Whether a sample does without this check, as others of it make the same."""
    if sampled is not None and getattr(method, 'not_in_a_sample', False):
        return True
    if sampled is None or python is None or topic in EVERYWHERE:
        return False
    same = [each for each in sampled if applies(method, each)]
    if getattr(method, 'takes_long', False):
        same = same[-1:]
    return bool(same) and python not in same


def applies(method, python):
    return getattr(method, 'applies', lambda python: True)(python)


def collect(found, only, sampled=None, folder=support.HERE):
    """Lists of checks that can run at the same time as other lists, one for each class
    and interpreter; and how many a sample leaves out."""
    left_out = 0
    loader = unittest.TestLoader()
    lists = []
    for path in sorted(glob.glob(os.path.join(folder, 'test_*.py'))):
        module = importlib.import_module(os.path.basename(path)[:-3])
        for case in vars(module).values():
            if not (isinstance(case, type) and issubclass(case, support.Case)
                    and case.__module__ == module.__name__):
                continue
            for python in found if issubclass(case, support.PythonCase) else [None]:
                checks = []
                for name in loader.getTestCaseNames(case):
                    test, method = case(name), getattr(case, name)
                    test.python = python
                    wanted = not only or any(word in words_of(test) for word in only)
                    if not (wanted and applies(method, python)):
                        continue
                    if is_left_out(python, words_of(test).split(':')[0], method, sampled):
                        left_out += 1
                    else:
                        checks.append(test)
                lists.append(checks)
    return lists, left_out


def main(folder=support.HERE, description=__doc__.split('\n')[0]):
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument('--pythons', nargs='+', default=[], metavar='WHICH',
                        help="only these: '3.11', '3.11.7', 'static', 'shared'")
    parser.add_argument('--only', nargs='+', default=[], metavar='WORD',
                        help='only the checks with one of these in topic or name')
    parser.add_argument('--sample', action='store_true',
                        help='most topics with some of the interpreters only')
    parser.add_argument('--library', default=support.LIBRARY, help='another libobmalloc.so')
    parser.add_argument('--jobs', type=int, default=4,
                        help='checks at a time (%(default)s); many of them wait most of the time')
    options = parser.parse_args()

    support.LIBRARY = os.path.abspath(options.library)
    if not os.path.exists(support.LIBRARY):
        sys.exit('%s is not there: cargo build --release' % support.LIBRARY)
    found, missing = pythons.find()
    if options.pythons:
        found = [python for python in found if pythons.matches(python, options.pythons)]

    start = time.time()
    result = Lines()
    for sentence in missing:
        result.line('skip', sentence)

    def perform(checks):
        for check in checks:
            check(result)

    with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
        sampled = sample(found) if options.sample else None
        lists, left_out = collect(found, options.only, sampled, folder)
        for done in [pool.submit(perform, checks) for checks in lists]:
            done.result()
    count = result.count
    if left_out:
        print('%d checks are left out, with other interpreters than %s, and with all but one '
              'of these where it takes long: make test-preload'
              % (left_out, ', '.join(python.label for python in sampled)))
    print('%.0f seconds' % (time.time() - start))
    if result.failed:
        print('\n'.join(['what failed, again:'] + result.failed))
    print('%d passed, %d failed, %d skipped' % (count['ok'], count['FAIL'], count['skip']))
    return 1 if count['FAIL'] or not count['ok'] else 0


if __name__ == '__main__':
    sys.exit(main())
