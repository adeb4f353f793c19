"""A pytest plugin: write each test's outcome into a file, as soon as it is known.

Loaded by `-p obmalloc_record` in the process that runs a project's tests. The lines are those of
c_tests/cpython/run_module.py, so the same code reads them: `OUTCOME<TAB>id`, and
`#<TAB>KIND<TAB>value` for what is noted beside. Written at once, they tell of a run that
crashes which test it was in; pytest's own reports are written at the end, if there is one.

Nothing of the tests' own is changed, and nothing of the library is called: whether it was
active is told by what it writes itself when the process ends (OBMALLOC_STATS).
"""

import os
import re

OUTCOMES = os.environ.pop("COMPAT_OUTCOMES", "")
ADDRESS = re.compile(r"0x[0-9a-f]{6,}")
UUID = re.compile(r"\b[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\b")
LONGEST = 300                   # what is longer is an object's repr, in an order of its own
TEMPORARY = re.compile(re.escape(os.environ.get("TMPDIR", "/tmp")))

# Tests replace functions of `os` and lower the limit of open files.
_open, _write, _close, _getpid = os.open, os.write, os.close, os.getpid
_flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_CLOEXEC", 0)
_pid = _getpid()


def append(path, text):
    if _getpid() != _pid:
        return                  # a forked child that fell back into the runner
    descriptor = _open(path, _flags, 0o666)
    _write(descriptor, text.encode("utf-8", "backslashreplace"))
    _close(descriptor)


def normal(name):
    """An id that is the same in every run, on one line."""
    name = TEMPORARY.sub("TMPDIR", UUID.sub("UUID", ADDRESS.sub("0x", name)))
    name = name if len(name) <= LONGEST else name[:LONGEST // 2] + "..."
    return name.replace("\t", " ").replace("\n", "\\n").replace("\r", "\\r")


def note(kind, value):
    append(OUTCOMES, "#\t%s\t%s\n" % (kind, value))


def outcome(word, name, text=""):
    append(OUTCOMES, "%s\t%s\n" % (word, normal(name)))
    if text:
        append(OUTCOMES + ".log", "### %s %s\n%s\n" % (word, normal(name), text))


def mapped_preloads():
    """Base names of the LD_PRELOAD files that are mapped into this process."""
    with open("/proc/self/maps") as stream:
        maps = stream.read()
    wanted = os.environ.get("LD_PRELOAD", "").replace(":", " ").split()
    return [os.path.basename(path) for path in wanted if os.path.realpath(path) in maps]


def start():
    note("pid", _pid)
    note("mapped", " ".join(mapped_preloads()))


def end(status):
    append(OUTCOMES, "module\t%s\n" % ("failed" if status else "passed"))


def pytest_sessionstart(session):
    start()


def pytest_runtest_logstart(nodeid, location):
    note("running", normal(nodeid))


def pytest_runtest_logreport(report):
    """Called for setup, call and teardown; what went well is told by the call alone."""
    expected = hasattr(report, "wasxfail")
    if report.failed:
        outcome("FAIL" if report.when == "call" else "ERROR", report.nodeid,
                report.longreprtext)
    elif report.skipped:
        outcome("expected failure" if expected else "skipped", report.nodeid)
    elif report.when == "call":
        outcome("passed unexpectedly" if expected else "passed", report.nodeid)


def pytest_collectreport(report):
    """A module that cannot be imported, or skips itself, has an outcome of its own."""
    if report.failed:
        outcome("ERROR", report.nodeid, report.longreprtext)
    elif report.skipped:
        outcome("skipped", report.nodeid)


def pytest_sessionfinish(session, exitstatus):
    """0 and 1 are the ends of whole runs; others have no state, and so broke off."""
    if int(exitstatus) in (0, 1):
        end(int(exitstatus))


def pytest_internalerror(excrepr):
    append(OUTCOMES + ".log", "### internal error of pytest\n%s\n" % excrepr)
