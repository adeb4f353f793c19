"""The same records for suites that unittest runs: a wrapper around their runner.

    obmalloc_unittest.py modules PACKAGE ...      each test_*.py in them
    obmalloc_unittest.py script FILE WORD ...     a runner of the project's own

Outcomes are taken where every unittest runner passes: the methods of TextTestResult. An
id begins with the name of the module that was asked for, or with "script".
"""

import importlib
import os
import pkgutil
import runpy
import sys
import traceback
import unittest

import obmalloc_record as record

CONTEXT = ["script"]
WORDS = {"addFailure": "FAIL", "addError": "ERROR", "addSkip": "skipped",
         "addExpectedFailure": "expected failure",
         "addUnexpectedSuccess": "unexpected success", "addSuccess": "passed"}
BAD = {"FAIL", "ERROR", "unexpected success"}
seen_bad = []


def name_of(test):
    """A test case's id tells it apart; that of a runner's own class may not."""
    name = "%s::%s" % (CONTEXT[0], test.id())
    description = test.shortDescription() if name.startswith("script::__main__") else ""
    return "%s %s" % (name, description) if description else name


def note(word, test, problem=None):
    text = ""
    if isinstance(problem, tuple):
        text = "".join(traceback.format_exception(*problem))
    if word in BAD:
        seen_bad.append(word)
    record.outcome(word, name_of(test), text)


def hook(method, word):
    original = getattr(unittest.TextTestResult, method)

    def recording(self, test, *more):
        note(word, test, *more[:1])
        return original(self, test, *more)
    setattr(unittest.TextTestResult, method, recording)


def hook_all():
    for method, word in WORDS.items():
        hook(method, word)
    start, sub = unittest.TextTestResult.startTest, unittest.TextTestResult.addSubTest

    def starting(self, test):
        record.note("running", record.normal(name_of(test)))
        return start(self, test)

    def subtest(self, test, part, problem):
        if problem is not None:
            note("FAIL", part, problem)
        return sub(self, test, part, problem)
    unittest.TextTestResult.startTest = starting
    unittest.TextTestResult.addSubTest = subtest


def modules_of(name):
    """A module, or all modules test_* of a package, in the order of their names."""
    module = importlib.import_module(name)
    if not hasattr(module, "__path__"):
        return [name]
    return ["%s.%s" % (name, one.name) for one in
            sorted(pkgutil.iter_modules(module.__path__)) if one.name.startswith("test_")]


def suite_of(module):
    """The suite that the module says it is, else what unittest finds in it."""
    if hasattr(module, "test_suite"):
        return module.test_suite()
    return unittest.defaultTestLoader.loadTestsFromModule(module)


def run_modules(names):
    for name in [module for one in names for module in modules_of(one)]:
        CONTEXT[0] = name
        try:
            suite = suite_of(importlib.import_module(name))
        except unittest.SkipTest:
            record.outcome("skipped", name)
            continue
        except Exception:
            seen_bad.append("ERROR")
            record.outcome("ERROR", name, traceback.format_exc())
            continue
        unittest.TextTestRunner(verbosity=0).run(suite)
    return 1 if seen_bad else 0


def run_script(path, words):
    """The runner's exit status: 0 or 1; anything else is no end of a whole run."""
    sys.argv = [path] + words
    sys.path[0] = os.path.dirname(path)
    try:
        runpy.run_path(path, run_name="__main__")
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def main():
    hook_all()
    record.start()
    kind, first, *rest = sys.argv[1:]
    status = run_modules([first] + rest) if kind == "modules" else run_script(first, rest)
    if status in (0, 1):
        record.end(status)
    return status


if __name__ == "__main__":
    sys.exit(main())
