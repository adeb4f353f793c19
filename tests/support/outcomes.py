"""One run of a test suite in a child process, and the outcomes that it recorded.

The scripts in `inside/` record; obmalloc_recorder.py describes the file that is read here.
"""
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

from support import pprof
from support.child import clean_environment

INSIDE = Path(__file__).parent / 'inside'
OUT_OF_TIME = 'no end within'

# The run is not the leader of its session: a leader that opens a pseudo-terminal gets it as
# its controlling terminal, and SIGHUP when a test closes it.
IN_A_SESSION = ['sh', '-c', '"$@"; exit $?', 'sh']


@dataclass
class Run:
    """The recorded outcomes: {test id: sorted tuple of outcomes}."""
    outcomes: dict = field(default_factory=dict)
    state: str = ''             # of the module: passed, failed, skipped: ..., crashed: ...
    ending: str = ''            # how the run broke off; '' after a whole run with status 0
    mapped: list = field(default_factory=list)      # of the files in LD_PRELOAD
    linked: str = ''            # 'yes' if the library is in the executable
    pid: int = 0                # of the process that ran the tests
    stats: str = ''             # what it wrote to FOLDER/stats-PID.json
    sampled: bool = False       # whether FOLDER/profile-PID.pb.gz has a sample
    left_out: list = field(default_factory=list)
    last_test: str = ''         # the test that was running when the run broke off
    log: str = ''
    seconds: float = 0

    @property
    def out_of_time(self):
        """The module as a whole took too long; no single test hung or crashed."""
        return self.ending.startswith(OUT_OF_TIME)

    def reason(self, test_id):
        """The last line of the first traceback recorded for this test."""
        for block in self.log.split('\n### ')[1:]:
            head, _, body = block.partition('\n')
            if head.endswith(' ' + test_id):
                lines = [line for line in body.splitlines() if line.strip()]
                traced = [line for line in lines if line[:1] not in ' \t']
                return (traced[1:] or traced or [''])[0]
        return ''


def kill_strays(folder):
    """Kill processes that left the run's session and still work in its folder."""
    mark = os.fsencode(folder)
    for pid in filter(str.isdigit, os.listdir('/proc')):
        try:
            stray = mark in Path('/proc', pid, 'environ').read_bytes()
            if stray or mark in os.fsencode(os.readlink(f'/proc/{pid}/cwd')):
                os.kill(int(pid), signal.SIGKILL)
        except OSError:
            pass                # it has ended, or belongs to another user


def default_signals():
    """In the child: a shell's background job ignores signals, and tests of interrupts would
    fail."""
    for number in signal.SIGINT, signal.SIGHUP:
        signal.signal(number, signal.SIG_DFL)


def describe_exit(status):
    """The status of the shell in words; it adds 128 to the number of a signal."""
    status = 128 - status if status > 128 else status
    if status >= 0:
        return f'exit status {status}'
    try:
        return f'killed by {signal.Signals(-status).name}'
    except ValueError:
        return f'killed by signal {-status}'


def read_outcomes(run, path):
    """Fill `run` from the file of outcome lines, as far as it was written."""
    collected, started = {}, ''
    for line in read_text(path).splitlines():
        outcome, _, name = line.partition('\t')
        kind, _, value = name.partition('\t')
        if outcome == 'module':
            run.state = name
        elif outcome != '#':
            collected.setdefault(name, []).append(outcome)
        elif kind == 'mapped':
            run.mapped = value.split()
        elif kind == 'linked':
            run.linked = value
        elif kind == 'pid':
            run.pid = int(value)
        elif kind == 'left out':
            run.left_out.append(value)
        else:
            started = value
    run.outcomes = {name: tuple(sorted(found)) for name, found in collected.items()}
    if run.ending and started not in run.outcomes:
        run.last_test = started


def wait_for(process, outfile, timeout, stall):
    """How the run ended, '' for status 0.

    A hanging test would cost the whole `timeout` on either side, so a run in which no test
    has ended for `stall` seconds is ended before.
    """
    started = last_news = time.monotonic()
    size = 0
    while True:
        try:
            status = process.wait(timeout=1)
            return describe_exit(status) if status else ''
        except subprocess.TimeoutExpired:
            pass
        now = time.monotonic()
        new_size = outfile.stat().st_size if outfile.exists() else 0
        if new_size != size:
            size, last_news = new_size, now
        if now - started > timeout:
            return f'{OUT_OF_TIME} {timeout:g} s'
        if now - last_news > stall:
            return f'no test ended for {stall:g} s'


def read_text(path):
    return path.read_text('utf-8', 'replace') if path.exists() else ''


def run(command, environment, timeout=900, stall=150):
    """One run in a new session, working directory and temporary directory.

    `command` makes the words of the command from the path of the file for the outcome lines,
    `environment` the settings from the folder that is removed after the run. stdout is
    discarded.
    """
    folder = Path(tempfile.mkdtemp(prefix='obcmp-'))
    outfile, temporary = folder / 'outcomes', folder / 't'
    temporary.mkdir()
    settings = clean_environment(TMPDIR=str(temporary), **environment(folder))
    # The shell does not get the preload: it may be for another C library.
    library = settings.pop('LD_PRELOAD', None)
    preload = ['env', f'LD_PRELOAD={library}'] if library else []
    done, began = Run(), time.monotonic()
    with open(folder / 'stderr', 'wb') as stderr:
        process = subprocess.Popen(
            IN_A_SESSION + preload + [str(word) for word in command(outfile)], env=settings,
            cwd=temporary, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=stderr,
            start_new_session=True, preexec_fn=default_signals)
    try:
        done.ending = wait_for(process, outfile, timeout, stall)
    finally:
        try:
            os.killpg(process.pid, signal.SIGKILL)      # children that the tests left behind
        except (ProcessLookupError, PermissionError):
            pass
        process.wait()
        kill_strays(str(folder))
    read_outcomes(done, outfile)
    if not done.state and not done.ending:
        done.ending = 'ended early with status 0'
    done.log = read_text(folder / 'stderr') + '\n' + read_text(folder / 'outcomes.log')
    done.stats = read_text(folder / f'stats-{done.pid}.json')
    profile = folder / f'profile-{done.pid}.pb.gz'
    # From 3.14 on no block may be live at the end.
    done.sampled = profile.exists() and any(pprof.Profile(profile).samples())
    shutil.rmtree(folder, ignore_errors=True)
    done.seconds = time.monotonic() - began
    return done


def keep(path, make):
    """The run that this file has; without the file the run that `make` makes, which the file
    then has. Without a path `make` alone."""
    if path and path.exists():
        run = Run(**json.loads(path.read_text()))
        run.outcomes = {name: tuple(found) for name, found in run.outcomes.items()}
        return run
    run = make()
    if path:
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh = path.with_name(f'{path.name}.{os.getpid()}')
        fresh.write_text(json.dumps(asdict(run)))
        fresh.replace(path)
    return run
