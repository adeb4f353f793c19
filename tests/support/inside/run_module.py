"""Run one module of CPython's own test suite and record every test's outcome.

    python run_module.py MODULE OUTFILE [LEFT_OUT_ID ...]

This file runs inside the interpreter under test, so it must work unchanged on
2.7 and on every 3.x from 3.6.  It does not rebuild regrtest: it calls the
interpreter's own regrtest in this process (which chooses resources, working
directory, warnings, fault handler and test_main() or unittest loading as that
version does) and listens on the two places every test of every version passes
through: unittest.TestResult, and test.support.run_doctest for the modules whose
docstring tests never become unittest cases.

OUTFILE receives, as the tests run, one line for each outcome

    ok | FAIL | ERROR | skipped | expected failure | unexpected success <TAB> id

and, after the interpreter's regrtest has returned, one line `module<TAB>state`.
A file without that last line belongs to a run which did not reach its end.
`#<TAB>mapped<TAB>names` says which of the files in LD_PRELOAD are really mapped,
`#<TAB>linked<TAB>yes` that the library is linked into the interpreter's executable,
`#<TAB>running<TAB>id` that a test has started, so that the last test of a run that
crashed or hung is known; a test whose id is given as LEFT_OUT_ID is not run, which
`#<TAB>left out<TAB>id` records.
OUTFILE.log receives everything the run printed and the traceback of each failure
after a line `### OUTCOME id`.
"""

import os
import re
import shutil
import sys
import tempfile
import traceback
import unittest

MAIN_PROCESS = os.getpid()
SEED = 20230101         # regrtest's own default seed differs from run to run

# Tests replace functions of `os` and lower the limit of open files; the recorder
# keeps its own references and holds no file open between two records.
_open, _write, _close, _getpid = os.open, os.write, os.close, os.getpid

VOLATILE = (
    (re.compile(re.escape(sys.prefix) + r"(?![\w.-])"), "PREFIX"),
    (re.compile(r"0x[0-9a-fA-F]{4,}"), "0xADDRESS"),
    (re.compile(r"@test_\d+_tmp"), "@test_PID_tmp"),
    (re.compile(r"test_python_(worker_)?\d+"), "test_python_PID"),
    (re.compile(r"(?:/[\w.+-]+)*/tmp[\w.+-]*(?:/[\w.+-]+)*"), "TEMP"),
    (re.compile(r"\btmp[a-zA-Z0-9_]{6,8}\b"), "TEMP"),
    (re.compile(r"\bpid[ =:]+\d+", re.IGNORECASE), "pid PID"),
    (re.compile(r"\b\d+\.\d+ ?(?:s|sec|seconds)\b"), "TIME"),
)


def normalise(text):
    """Remove what differs between two runs of the same test, keep one line."""
    for pattern, name in VOLATILE:
        text = pattern.sub(name, text)
    return " ".join(text.split())


def append(path, text):
    if not isinstance(text, bytes):
        text = text.encode("utf-8", "backslashreplace")
    descriptor = _open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    try:
        _write(descriptor, text)
    finally:
        _close(descriptor)


class Recorder(object):
    """Writes outcome lines; repeated ones are numbered so that none gets lost."""

    def __init__(self, outfile):
        self.outfile = outfile
        self.log = outfile + ".log"
        self.seen = {}
        self.count = 0

    def note(self, kind, name):
        if _getpid() == MAIN_PROCESS:
            append(self.outfile, "#\t%s\t%s\n" % (kind, normalise(name)))

    def record(self, outcome, name, failure=None):
        if _getpid() != MAIN_PROCESS:
            return              # a forked child that fell back into the runner
        line = "%s\t%s" % (outcome, normalise(name))
        self.seen[line] = self.seen.get(line, 0) + 1
        if self.seen[line] > 1:
            line += " #%d" % self.seen[line]
        self.count += 1
        append(self.outfile, line + "\n")
        if failure is not None:
            text = "### %s\n%s\n" % (line.replace("\t", " "), failure)
            append(self.log, text)


def error_text(err):
    try:
        return "".join(traceback.format_exception(*err))
    except Exception as problem:
        return "(traceback not printable: %s)" % type(problem).__name__


def test_name(test):
    try:
        return test.id()
    except Exception:
        return str(test)


def listen_to_unittest(recorder):
    """Wrap the base class's methods: every result class of regrtest calls them."""
    base = unittest.TestResult

    def wrap(method, outcome, keeps_error):
        original = getattr(base, method)

        def wrapper(self, test, *args, **kwargs):
            failure = error_text(args[0]) if keeps_error and args else None
            recorder.record(outcome, test_name(test), failure)
            return original(self, test, *args, **kwargs)

        setattr(base, method, wrapper)

    original_start = base.startTest

    def start_test(self, test):
        recorder.note("running", test_name(test))
        return original_start(self, test)

    base.startTest = start_test
    wrap("addSuccess", "ok", False)
    wrap("addFailure", "FAIL", True)
    wrap("addError", "ERROR", True)
    wrap("addSkip", "skipped", False)
    wrap("addExpectedFailure", "expected failure", False)
    wrap("addUnexpectedSuccess", "unexpected success", False)

    original_subtest = getattr(base, "addSubTest", None)
    if original_subtest is None:
        return                  # 2.7 has no sub-tests

    def add_subtest(self, test, subtest, err):
        if err is not None:
            failed = issubclass(err[0], test.failureException)
            recorder.record("FAIL" if failed else "ERROR", test_name(subtest),
                            error_text(err))
        return original_subtest(self, test, subtest, err)

    base.addSubTest = add_subtest


def leave_out(recorder, ids):
    """Do not run the tests in which the run breaks off even without the library."""
    original = unittest.TestCase.run

    def run(self, result=None):
        if normalise(test_name(self)) in ids:
            return recorder.note("left out", test_name(self))
        return original(self, result)

    if ids:
        unittest.TestCase.run = run


def listen_to_doctest(recorder, support):
    """Record run_doctest()'s docstring tests; those never reach unittest."""
    original = getattr(support, "run_doctest", None)
    if original is None:
        return

    def run_doctest(*args, **kwargs):
        import doctest
        original_run = doctest.DocTestRunner.run

        def run(self, test, *run_args, **run_kwargs):
            result = original_run(self, test, *run_args, **run_kwargs)
            outcome = "FAIL" if result.failed else "ok"
            recorder.record(outcome, "doctest %s (%d examples)"
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
    """Call the interpreter's regrtest as `python -m test MODULE` would."""
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
        pass                    # regrtest's status; the lines say more than it does


def first_group(pattern, text):
    found = re.search(pattern, text, re.MULTILINE)
    return found and found.group(1)


def printed(recorder):
    with open(recorder.log, "rb") as stream:
        return stream.read().decode("utf-8", "replace")


def record_whole_module(recorder, module):
    """Some old modules hold no test cases: they are one test, which passes or fails."""
    if not recorder.count and first_group(r"^(1 test OK\.)", printed(recorder)):
        recorder.record("ok", module + " as a whole")


def module_state(recorder):
    """Read the state regrtest printed for the module; its wording is old and stable."""
    text = printed(recorder)
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


def mapped_preloads():
    """Base names of the LD_PRELOAD files that are mapped into this process."""
    wanted = os.environ.get("LD_PRELOAD", "").replace(":", " ").split()
    try:
        with open("/proc/self/maps") as stream:
            mapped = stream.read()
    except IOError:
        return []
    return [os.path.basename(path) for path in wanted if path in mapped]


def linked_in():
    """Whether the executable of this process has the library's mark in it.

    Read in small pieces: a large block would move the C library's thresholds.
    """
    mark, piece, tail = b"obmalloc" + b"_version", b"start", b""
    descriptor = os.open("/proc/self/exe", os.O_RDONLY)
    try:
        while piece:
            piece = os.read(descriptor, 1 << 16)
            if mark in tail + piece:
                return "yes"
            tail = piece[-len(mark):]
    finally:
        os.close(descriptor)
    return "no"


def redirect_output(log):
    """Send file descriptors 1 and 2 to the log, so that children write there too."""
    sys.stdout.flush()
    sys.stderr.flush()
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)


def main():
    if len(sys.argv) < 3:
        sys.exit("usage: python run_module.py MODULE OUTFILE [LEFT_OUT_ID ...]")
    module, outfile = sys.argv[1], os.path.abspath(sys.argv[2])
    left_out_ids = sys.argv[3:]
    for old in (outfile, outfile + ".log"):
        if os.path.exists(old):
            os.remove(old)
    recorder = Recorder(outfile)
    recorder.note("mapped", " ".join(mapped_preloads()))
    recorder.note("linked", linked_in())
    del sys.path[0]             # this folder: its modules are not the interpreter's
    if not installed(module):
        append(outfile, "module\tnot installed\n")
        return

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
        leave_out(recorder, left_out_ids)
        listen_to_doctest(recorder, support)
        run_regrtest(module)
    finally:
        if _getpid() == MAIN_PROCESS:
            sys.stdout.flush()
            sys.stderr.flush()
            os.chdir("/")
            shutil.rmtree(work, ignore_errors=True)
    if _getpid() == MAIN_PROCESS:
        record_whole_module(recorder, module)
        append(outfile, "module\t%s\n" % module_state(recorder))


if __name__ == "__main__":
    main()
