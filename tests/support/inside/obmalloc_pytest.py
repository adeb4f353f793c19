"""A pytest plugin (`-p obmalloc_pytest`) that records each outcome; see obmalloc_recorder.py.

pytest's own reports are written at the end of a run, so they say nothing about a run that
crashes. The plugin changes nothing in the tests.
"""

import os

from obmalloc_recorder import Recorder

recorder = Recorder(os.environ.pop("RECORD_OUTCOMES"))


def pytest_runtest_logstart(nodeid, location):
    recorder.note("running", nodeid)


def pytest_runtest_logreport(report):
    """Called for setup, call and teardown; only a call records a success."""
    expected = hasattr(report, "wasxfail")
    if report.failed:
        recorder.record("FAIL" if report.when == "call" else "ERROR", report.nodeid,
                        report.longreprtext)
    elif report.skipped:
        recorder.record("expected failure" if expected else "skipped", report.nodeid)
    elif report.when == "call":
        recorder.record("unexpected success" if expected else "ok", report.nodeid)


def pytest_collectreport(report):
    """A module that cannot be imported, or skips itself, has an outcome of its own."""
    if report.failed:
        recorder.record("ERROR", report.nodeid, report.longreprtext)
    elif report.skipped:
        recorder.record("skipped", report.nodeid)


def pytest_sessionfinish(session, exitstatus):
    """0 and 1 end a whole run; after any other status the run counts as broken off."""
    if int(exitstatus) in (0, 1):
        recorder.end("failed" if exitstatus else "passed")


def pytest_internalerror(excrepr):
    recorder.append(recorder.log, "### internal error of pytest\n%s\n" % excrepr)
