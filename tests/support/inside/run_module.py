"""Run one module of CPython's own test suite and record every test's outcome.

    python run_module.py MODULE OUTFILE [LEFT_OUT_ID ...]

Runs inside the interpreter under test: 2.7 and every 3.x from 3.6. It calls the
interpreter's own regrtest in this process, which chooses resources, working directory,
warnings, fault handler and test_main() or unittest loading as that version does, and
records at the two places that every test of every version passes: unittest.TestResult,
and test.support.run_doctest for modules whose docstring tests never become unittest cases.
MODULE may be alternatives, "a|b": the first that the interpreter has.

obmalloc_recorder.py describes OUTFILE. OUTFILE.log also receives all output of the run. A test
whose id is given as LEFT_OUT_ID does not run.
"""

import os
import re
import shutil
import sys
import tempfile
import unittest

if __name__ == "__main__":      # and not in a child of multiprocessing, which imports this file
    writes_bytecode, sys.dont_write_bytecode = not sys.dont_write_bytecode, True
    from obmalloc_recorder import Recorder, listen_to_unittest, normalise, test_name
    sys.dont_write_bytecode = not writes_bytecode

SEED = 20230101         # the default seed of regrtest differs from run to run


def leave_out(recorder, ids):
    """Exclude the tests in which the run breaks off even without the library."""
    original = unittest.TestCase.run

    def run(self, result=None):
        if normalise(test_name(self)) in ids:
            return recorder.note("left out", test_name(self))
        return original(self, result)

    if ids:
        unittest.TestCase.run = run


def listen_to_doctest(recorder, support):
    """Record the docstring tests of run_doctest()."""
    original = getattr(support, "run_doctest", None)
    if original is None:
        return

    def run_doctest(*args, **kwargs):
        import doctest
        original_run = doctest.DocTestRunner.run

        def run(self, test, *run_args, **run_kwargs):
            result = original_run(self, test, *run_args, **run_kwargs)
            recorder.record("FAIL" if result.failed else "ok", "doctest %s (%d examples)"
                            % (test.name, result.attempted))
            return result

        doctest.DocTestRunner.run = run
        try:
            return original(*args, **kwargs)
        finally:
            doctest.DocTestRunner.run = original_run

    support.run_doctest = run_doctest


def installed(module):
    """Whether this interpreter has test.MODULE, without importing it."""
    try:
        import test
        folders = list(test.__path__)
    except ImportError:
        return False
    if module.startswith("test."):
        module = module[len("test."):]
    path = module.replace(".", os.sep)
    return any(os.path.isfile(os.path.join(folder, path + ".py")) or
               os.path.isfile(os.path.join(folder, path, "__init__.py"))
               for folder in folders)


def run_regrtest(module):
    """Call regrtest as `python -m test MODULE` would."""
    sys.argv = ["regrtest.py", "--randseed", str(SEED), module]
    import random
    random.seed(SEED)
    if sys.version_info[0] == 2:
        from test import regrtest
        entry = regrtest.main_in_temp_cwd
    else:
        from test.libregrtest.main import main as entry
    try:
        entry()
    except SystemExit:
        pass                    # the recorded lines say more than regrtest's status


def first_group(pattern, text):
    found = re.search(pattern, text, re.MULTILINE)
    return found and found.group(1)


def module_state(recorder, module):
    """The state that regrtest printed for the module; its wording is old and stable."""
    with open(recorder.log, "rb") as stream:
        text = stream.read().decode("utf-8", "replace")
    # Some old modules contain no test cases: each is one test, which passes or fails.
    if not recorder.count and first_group(r"^(1 test OK\.)", text):
        recorder.record("ok", module + " as a whole")
    reason = first_group(r"^\S+ skipped -- (.*)$", text)
    if reason is not None and not recorder.count:
        return "skipped: " + normalise(reason)
    if "\ntest test_" in "\n" + text or "\ntest test." in "\n" + text:
        crashed = re.search(r"^test \S+ crashed -- ((?:.|\n)*)", text, re.MULTILINE)
        if crashed:
            problem = first_group(r"^(?!Traceback)(\S.*)$", crashed.group(1))
            return "crashed: " + normalise(problem or "without a message")
        if re.search(r"^test \S+ failed", text, re.MULTILINE):
            return "failed"
    if "altered the execution environment" in text:
        return "environment changed"
    return "passed" if recorder.count else "no tests ran"


def redirect_output(log):
    """Redirect file descriptors 1 and 2 to the log, for children as well."""
    sys.stdout.flush()
    sys.stderr.flush()
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)


def main():
    if len(sys.argv) < 3:
        sys.exit("usage: python run_module.py MODULE OUTFILE [LEFT_OUT_ID ...]")
    names, outfile, left_out = sys.argv[1], os.path.abspath(sys.argv[2]), sys.argv[3:]
    for old in (outfile, outfile + ".log"):
        if os.path.exists(old):
            os.remove(old)
    recorder = Recorder(outfile)
    del sys.path[0]             # this folder: its modules are not the interpreter's
    module = ([name for name in names.split("|") if installed(name)] + [""])[0]
    if not module:
        return recorder.end("not installed")

    redirect_output(recorder.log)
    work = tempfile.mkdtemp()
    os.environ["TMPDIR"] = work
    tempfile.tempdir = None
    os.chdir(work)
    try:
        if sys.version_info[0] == 2:
            from test import test_support as support
        else:
            from test import support
        listen_to_unittest(recorder)
        leave_out(recorder, left_out)
        listen_to_doctest(recorder, support)
        run_regrtest(module)
    finally:
        if os.getpid() == recorder.pid:
            sys.stdout.flush()
            sys.stderr.flush()
            os.chdir("/")
            shutil.rmtree(work, ignore_errors=True)
    if os.getpid() == recorder.pid:
        recorder.end(module_state(recorder, module))


if __name__ == "__main__":
    main()
