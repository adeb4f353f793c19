"""Record the outcomes of a suite that unittest runs; see obmalloc_recorder.py.

    obmalloc_unittest.py modules PACKAGE ...      each test_*.py in them
    obmalloc_unittest.py script FILE WORD ...     a test runner of the project's own

An id begins with the name of the module that was given, or with "script".
"""

import importlib
import os
import pkgutil
import runpy
import sys
import traceback
import unittest

from obmalloc_recorder import Recorder, listen_to_unittest

recorder = Recorder(os.environ.pop("RECORD_OUTCOMES"))
context = "script"


def name_of(test):
    """The id of a test; a runner's own class may need the description as well."""
    name = "%s::%s" % (context, test.id())
    description = test.shortDescription() if name.startswith("script::__main__") else ""
    return "%s %s" % (name, description) if description else name


def modules_of(name):
    """The module, or all modules test_* of the package, in the order of their names."""
    module = importlib.import_module(name)
    if not hasattr(module, "__path__"):
        return [name]
    return ["%s.%s" % (name, one.name) for one in
            sorted(pkgutil.iter_modules(module.__path__)) if one.name.startswith("test_")]


def suite_of(module):
    """The suite that the module defines, else the tests that unittest finds in it."""
    if hasattr(module, "test_suite"):
        return module.test_suite()
    return unittest.defaultTestLoader.loadTestsFromModule(module)


def run_modules(names):
    global context
    for context in [module for one in names for module in modules_of(one)]:
        try:
            suite = suite_of(importlib.import_module(context))
        except unittest.SkipTest:
            recorder.record("skipped", context)
        except Exception:
            recorder.record("ERROR", context, traceback.format_exc())
        else:
            unittest.TextTestRunner(verbosity=0).run(suite)
    return int(recorder.bad)


def run_script(path, *words):
    """The runner's exit status; 0 and 1 end a whole run."""
    sys.argv = [path] + list(words)
    sys.path[0] = os.path.dirname(path)
    try:
        runpy.run_path(path, run_name="__main__")
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def main():
    listen_to_unittest(recorder, name_of)
    kind, words = sys.argv[1], sys.argv[2:]
    status = run_modules(words) if kind == "modules" else run_script(*words)
    if status in (0, 1):
        recorder.end("failed" if status else "passed")
    return status


if __name__ == "__main__":
    sys.exit(main())
