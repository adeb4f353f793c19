"""Writes the outcome of each test into a file as soon as it is known.

Imported by the scripts beside it, inside the interpreter under test, so it must work
unchanged on 2.7 and on every 3.x from 3.6. The file receives one line per outcome,

    ok | FAIL | ERROR | skipped | expected failure | unexpected success <TAB> test id

and a last line `module<TAB>state`; a file without it belongs to a run that broke off.
Lines that begin with `#` are notes:

    #<TAB>pid<TAB>number          the process that runs the tests
    #<TAB>mapped<TAB>names        the files of LD_PRELOAD that this process has mapped
    #<TAB>linked<TAB>yes or no    whether the library is linked into the executable
    #<TAB>running<TAB>id          a test has started: the last one of a run that crashed
    #<TAB>left out<TAB>id         a test that the caller excluded

FILE.log receives the traceback of each failure after a line `### OUTCOME id`.
"""

import os
import re
import sys
import traceback
import unittest

# Tests replace functions of `os` and lower the limit of open files: the recorder keeps its
# own references and holds no file open between two lines.
_open, _write, _close, _getpid = os.open, os.write, os.close, os.getpid
_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_CLOEXEC", 0)
LONGEST = 300           # a longer id contains the repr of an object, whose order may vary

VOLATILE = (
    (re.compile(re.escape(sys.prefix) + r"(?![\w.-])"), "PREFIX"),
    (re.compile(re.escape(os.environ.get("TMPDIR", "/tmp"))), "TEMP"),
    (re.compile(r"0x[0-9a-fA-F]{4,}"), "0xADDRESS"),
    (re.compile(r"\b[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\b"), "UUID"),
    (re.compile(r"@test_\d+_tmp"), "@test_PID_tmp"),
    (re.compile(r"test_python_(worker_)?\d+"), "test_python_PID"),
    (re.compile(r"(?:/[\w.+-]+)*/tmp[\w.+-]*(?:/[\w.+-]+)*"), "TEMP"),
    (re.compile(r"\btmp[a-zA-Z0-9_]{6,8}\b"), "TEMP"),
    (re.compile(r"\bpid[ =:]+\d+", re.IGNORECASE), "pid PID"),
    (re.compile(r"\b\d+\.\d+ ?(?:s|sec|seconds)\b"), "TIME"),
)


def normalise(text):
    """The id on one line, without the parts that differ between two runs."""
    for pattern, name in VOLATILE:
        text = pattern.sub(name, text)
    text = " ".join(text.split())
    return text if len(text) <= LONGEST else text[:LONGEST // 2] + "..."


def mapped_preloads():
    """Base names of the LD_PRELOAD files that are mapped into this process."""
    try:
        with open("/proc/self/maps") as stream:
            mapped = stream.read()
    except IOError:
        return []
    wanted = os.environ.get("LD_PRELOAD", "").replace(":", " ").split()
    return [os.path.basename(path) for path in wanted if os.path.realpath(path) in mapped]


def linked_in():
    """Whether the executable of this process contains a symbol of the library.

    Read in small pieces: a large block would move the C library's thresholds.
    """
    mark, piece, tail = b"obmalloc" + b"_version", b"start", b""
    descriptor = _open("/proc/self/exe", os.O_RDONLY)
    try:
        while piece:
            piece = os.read(descriptor, 1 << 16)
            if mark in tail + piece:
                return "yes"
            tail = piece[-len(mark):]
    finally:
        _close(descriptor)
    return "no"


class Recorder(object):
    """Repeated outcome lines are numbered, so that none gets lost."""

    def __init__(self, path):
        self.path, self.log, self.pid = path, path + ".log", _getpid()
        self.seen, self.bad, self.count = {}, False, 0
        self.note("pid", str(self.pid))
        self.note("mapped", " ".join(mapped_preloads()))
        self.note("linked", linked_in())

    def append(self, path, text):
        if _getpid() != self.pid:
            return              # a forked child that returned into the runner
        if not isinstance(text, bytes):
            text = text.encode("utf-8", "backslashreplace")
        descriptor = _open(path, _FLAGS, 0o666)
        try:
            _write(descriptor, text)
        finally:
            _close(descriptor)

    def note(self, kind, text):
        self.append(self.path, "#\t%s\t%s\n" % (kind, normalise(text)))

    def record(self, outcome, name, failure=None):
        line = "%s\t%s" % (outcome, normalise(name))
        self.seen[line] = self.seen.get(line, 0) + 1
        if self.seen[line] > 1:
            line += " #%d" % self.seen[line]
        self.count += 1
        self.bad = self.bad or outcome in ("FAIL", "ERROR", "unexpected success")
        self.append(self.path, line + "\n")
        if failure:
            self.append(self.log, "### %s\n%s\n" % (line.replace("\t", " "), failure))

    def end(self, state):
        self.append(self.path, "module\t%s\n" % state)


def error_text(error):
    try:
        return "".join(traceback.format_exception(*error))
    except Exception as problem:
        return "(traceback not printable: %s)" % type(problem).__name__


def test_name(test):
    try:
        return test.id()
    except Exception:
        return str(test)


def listen_to_unittest(recorder, name_of=test_name):
    """Wrap the methods of unittest.TestResult, which every result class calls."""
    base = unittest.TestResult

    def wrap(method, outcome, keeps_error=False):
        original = getattr(base, method)

        def wrapper(self, test, *args, **kwargs):
            failure = error_text(args[0]) if keeps_error and args else None
            recorder.record(outcome, name_of(test), failure)
            return original(self, test, *args, **kwargs)

        setattr(base, method, wrapper)

    original_start = base.startTest

    def start_test(self, test):
        recorder.note("running", name_of(test))
        return original_start(self, test)

    base.startTest = start_test
    wrap("addSuccess", "ok")
    wrap("addFailure", "FAIL", True)
    wrap("addError", "ERROR", True)
    wrap("addSkip", "skipped")
    wrap("addExpectedFailure", "expected failure")
    wrap("addUnexpectedSuccess", "unexpected success")

    original_subtest = getattr(base, "addSubTest", None)
    if original_subtest is None:
        return                  # 2.7 has no sub-tests

    def add_subtest(self, test, subtest, error):
        if error is not None:
            failed = issubclass(error[0], test.failureException)
            recorder.record("FAIL" if failed else "ERROR", name_of(subtest),
                            error_text(error))
        return original_subtest(self, test, subtest, error)

    base.addSubTest = add_subtest
