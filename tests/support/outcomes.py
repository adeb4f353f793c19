"""Run one module once, with or without the library, and read what it recorded."""

import os
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from dataclasses import dataclass, field

SCRIPT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "run_module.py")

OUT_OF_TIME = "no end within"

# The run is not the leader of its session: a leader that opens a pseudo-terminal gets
# it for its controlling terminal, and SIGHUP when a test closes it.
IN_A_SESSION = ["sh", "-c", '"$@"; exit $?', "sh"]

_running = set()
_lock = threading.Lock()
_stopped = threading.Event()


class Stopped(Exception):
    """Raised in the worker threads when the whole comparison is being given up."""


@dataclass
class Run:
    """The recorded outcomes of one run: {test id: sorted tuple of outcomes}."""
    outcomes: dict = field(default_factory=dict)
    state: str = ""             # the module line
    ending: str = ""            # "" when the run reached its end and exited with 0
    mapped: list = field(default_factory=list)
    linked: str = ""            # "yes" when the library is in the executable
    pid: int = 0                # of the process that ran the tests, where it says so
    stats: str = ""             # what it left in FOLDER/stats-PID.json, if asked to
    left_out: list = field(default_factory=list)
    last_test: str = ""         # the test that was running when the run broke off
    seconds: float = 0.0
    log: str = ""

    @property
    def not_installed(self):
        return self.state == "not installed"

    @property
    def out_of_time(self):
        """The module as a whole took too long; no single test hung or crashed."""
        return self.ending.startswith(OUT_OF_TIME)

    def reason(self, test_id):
        """The last line of the first traceback recorded for this test."""
        for block in self.log.split("\n### ")[1:]:
            head, _, body = block.partition("\n")
            if head.endswith(" " + test_id):
                lines = [line for line in body.splitlines() if line.strip()]
                traced = [line for line in lines if line[:1] not in " \t"]
                return (traced[1:] or traced or [""])[0]
        return ""


def clean_environment():
    """This process's environment without anything that steers either side."""
    return {name: value for name, value in os.environ.items()
            if not name.startswith(("PYTHON", "OBMALLOC_")) and name != "LD_PRELOAD"}


def undo_ignored_signals():
    """Started in a shell's background or by nohup, this process ignores signals.

    Children would inherit that, and tests of interrupts would fail; what has a
    handler here is the system's default in a child.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:
        signal.signal(signal.SIGHUP, lambda number, frame: None)


def kill_group(process):
    """Kill what is left of the run: the tests leave children behind at times."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        pass


def kill_strays(folder):
    """Kill processes that left the run's session and still work in its folder."""
    mark = os.fsencode(folder)
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open("/proc/%s/environ" % pid, "rb") as stream:
                stray = mark in stream.read()
            if stray or mark in os.fsencode(os.readlink("/proc/%s/cwd" % pid)):
                os.kill(int(pid), signal.SIGKILL)
        except OSError:
            pass                # it is gone, or not ours to look at


def stop():
    """End all runs and start no further one."""
    _stopped.set()
    with _lock:
        for process in _running:
            kill_group(process)


def describe_exit(status):
    """The shell's status in words; it adds 128 to the number of a signal."""
    status = 128 - status if status > 128 else status
    if status < 0:
        try:
            return "killed by %s" % signal.Signals(-status).name
        except ValueError:
            return "killed by signal %d" % -status
    return "exit status %d" % status


def read_outcomes(run, path):
    """Fill `run` from the file of outcome lines, as far as it was written."""
    collected, started = {}, ""
    for line in read_text(path).splitlines():
        outcome, _, name = line.partition("\t")
        if outcome == "#":
            kind, _, value = name.partition("\t")
            if kind == "mapped":
                run.mapped = value.split()
            elif kind == "linked":
                run.linked = value
            elif kind == "pid":
                run.pid = int(value)
            elif kind == "left out":
                run.left_out.append(value)
            else:
                started = value
        elif outcome == "module":
            run.state = name
        else:
            collected.setdefault(name, []).append(outcome)
    run.outcomes = {name: tuple(sorted(all_)) for name, all_ in collected.items()}
    if run.ending and started not in run.outcomes:
        run.last_test = started


def wait_for(process, outfile, timeout, stall):
    """Wait for the end; returns how the run ended, "" for well.

    A hanging test would cost the whole `timeout` on either side, so a run in which
    no test has ended for `stall` seconds is given up before.
    """
    started = last_news = time.monotonic()
    size = 0
    while True:
        try:
            status = process.wait(timeout=1)
            return describe_exit(status) if status else ""
        except subprocess.TimeoutExpired:
            pass
        now = time.monotonic()
        new_size = os.path.getsize(outfile) if os.path.exists(outfile) else 0
        if new_size != size:
            size, last_news = new_size, now
        if now - started > timeout:
            return "%s %g s" % (OUT_OF_TIME, timeout)
        if now - last_news > stall:
            return "no test ended for %g s" % stall


def read_text(path):
    try:
        with open(path, encoding="utf-8", errors="replace") as stream:
            return stream.read()
    except FileNotFoundError:
        return ""


def run_command(command, environment, timeout, stall):
    """One run in a new session, working directory and temporary directory.

    `command` makes the words of the command from the name of the file into which the
    process is to write its outcome lines; `environment` its settings from the folder
    that is removed after the run. stdout is not kept: modules print what they like.
    """
    if _stopped.is_set():
        raise Stopped
    folder = tempfile.mkdtemp(prefix="obcmp-")
    outfile = os.path.join(folder, "outcomes")
    temporary = os.path.join(folder, "t")
    os.mkdir(temporary)
    settings = dict(clean_environment(), TMPDIR=temporary)
    settings.update(environment(folder))
    run = Run()
    started = time.monotonic()
    with open(os.path.join(folder, "stderr"), "wb") as stderr:
        process = subprocess.Popen(IN_A_SESSION + command(outfile),
                                   env=settings, cwd=temporary,
                                   stdin=subprocess.DEVNULL,
                                   stdout=subprocess.DEVNULL, stderr=stderr,
                                   start_new_session=True)
    with _lock:
        _running.add(process)
    try:
        run.ending = wait_for(process, outfile, timeout, stall)
    finally:
        kill_group(process)
        process.wait()
        kill_strays(folder)
        with _lock:
            _running.discard(process)
    run.seconds = time.monotonic() - started
    read_outcomes(run, outfile)
    if not run.state and not run.ending:
        run.ending = "ended early with status 0"
    run.log = (read_text(os.path.join(folder, "stderr")) + "\n"
               + read_text(outfile + ".log"))
    run.stats = read_text(os.path.join(folder, "stats-%d.json" % run.pid))
    shutil.rmtree(folder, ignore_errors=True)
    return run


def run_once(path, module, library, options, left_out=()):
    """One run of a module of CPython's own suite."""
    settings = {}
    if library:
        settings["LD_PRELOAD"] = library
        if options.packed:
            settings["OBMALLOC_ALIGN"] = "8"
    return run_command(lambda outfile: [path, SCRIPT, module, outfile] + list(left_out),
                       lambda folder: settings, options.timeout, options.stall)
