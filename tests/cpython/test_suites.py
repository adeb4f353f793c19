"""CPython's own test suites without the library and with it.

Every module runs in every interpreter twice, one run right after the other, in equal
environments. The two sets of (test, outcome) must be equal; a failure that both sides share
is no difference. If they are not equal, both sides run twice more, and support/verdict.py
decides.

The sides are the interpreter without and with the library in LD_PRELOAD, also with the heap profile
of every allocation, or two interpreters that relink/relink.py links: one with CPython's own
obmalloc.o, one with libobmalloc.a in its place. `--modules all` takes every module that the version's
regrtest would run:

    tests/run -n 2 --all-pythons --record tests/cpython -k relinked --modules all

With `--keep-runs FOLDER` an interrupted comparison goes on where it was.
"""
import functools
import hashlib
import re
from dataclasses import replace
from pathlib import Path

import pytest

from support import child, outcomes, platforms, relinked, verdict

EXTRA_RUNS = 2
MAX_LEFT_OUT = 4
SCRIPT = outcomes.INSIDE / 'run_module.py'
ACTIVE = re.compile(r'obmalloc: active in pid \d')

# Differences that are expected: (module, end of the test's id, reason).
KNOWN_PRELOADED = ()
# In a static build CPython's own functions answer when the allocator's name and its table are
# read (README, "What it replaces"): they report that it is not pymalloc.
KNOWN_STATIC = tuple((module, name, "CPython's own function answers") for module, name in (
    ('test_sys', 'test_sys.SysModuleTest.test_debugmallocstats'),
    ('test_cmd_line', 'test_cmd_line.CmdLineTest.test_python_malloc_stats'),
    ('test_cmd_line', 'test_cmd_line.CmdLineTest.test_pythonmalloc'),
    ('test_cmd_line', "test_cmd_line.CmdLineTest.test_pythonmalloc (env_var=None, "
                      "name='pymalloc')")))
KNOWN_RELINKED = ()


@functools.lru_cache(maxsize=None)
def check_active(path, library=None):
    """The library is active in this interpreter: it writes its status line."""
    preload = {'LD_PRELOAD': library} if library else {}
    done = child.run([path, '-c', 'pass'], status=0,
                     env=child.clean_environment(OBMALLOC_VERBOSE='1', **preload))
    assert done.lines(ACTIVE), f'the library is not active\n{done.report}'


def run_module(path, row, left_out, settings):
    is_profiled = 'OBMALLOC_PROFILE' in settings

    def in_folder(folder):
        profile = {'OBMALLOC_PROFILE_FILE': folder / 'profile-%p.pb.gz'}
        return settings | (profile if is_profiled else {})
    # Some modules take ten times as long if every allocation is sampled.
    limits = dict(timeout=3600, stall=900) if is_profiled else {}
    return outcomes.run(lambda outfile: [path, SCRIPT, row, outfile, *left_out], in_folder, **limits)


def run_without(path, row, left_out):
    """One run without the library, which must reach the module's end.

    A test that crashes or hangs the run by itself would hide all tests after it, so it is
    added to `left_out` (for both sides) and the module starts again.
    """
    while True:
        run = run_module(path, row, left_out, {})
        if not run.last_test or run.out_of_time or len(left_out) >= MAX_LEFT_OUT:
            return run
        print(f'without the library: {run.ending} in {run.last_test}, which is left out')
        left_out.append(run.last_test)


@functools.lru_cache(maxsize=None)
def digest(path):
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()[:12]


def kept_runs(folder, python, path, settings):
    """The folder for the runs of this interpreter with these settings, None without --keep-runs.
    An interpreter or a library that was built again has another one."""
    words = [python.name, digest(path)]
    words += [digest(value) if Path(value).is_file() else f'{name}={value}'
              for name, value in sorted(settings.items())]
    return folder and folder / '-'.join(words)


@pytest.fixture
def compare(python, row, pytestconfig, tmp_path, record_property, evidence):
    """Runs both sides, again if they differ, and fails the check on a difference."""
    def compare(way, without, with_library, settings, is_ours, known):
        left_out, baselines, ours = [], [], []
        folder = pytestconfig.getoption('--keep-runs')
        stock_runs = kept_runs(folder, python, without, {})
        our_runs = kept_runs(folder, python, with_library, settings)
        for count in range(1 + EXTRA_RUNS):
            name = f'{row.replace("|", "-")}-{count + 1}.json'
            baselines.append(outcomes.keep(stock_runs and stock_runs / name,
                                           lambda: run_without(without, row, left_out)))
            left_out += [one for one in baselines[-1].left_out if one not in left_out]
            ours.append(outcomes.keep(
                our_runs and our_runs / name,
                lambda: run_module(with_library, row, left_out, settings)))
            found = verdict.judge(row, baselines, ours, known)
            if found.equal and count == 0:
                break
        found.differences += verdict.check_allocators(baselines, ours, is_ours)
        if found.differences or found.sometimes:
            for side, runs in ('without', baselines), ('with', ours):
                for number, run in enumerate(runs, 1):
                    (tmp_path / f'{side}-{number}.log').write_text(run.log)
        record_property('seconds', round(sum(run.seconds for run in baselines + ours)))
        verdict.report(found, ours, record_property)
        whole = pytestconfig.getoption('--modules', '') == 'all'
        evidence(f"CPython's own tests, {way}{', whole suites' * whole}", "CPython's own tests",
                 {'tests': found.tests, 'modules': 1}, f'CPython {python.version}',
                 platforms=[replace(platforms.here(python), build='static')
                            if way == 'relinked' else platforms.here(python)],
                 shows=f"CPython's own tests, {way}{', whole suite' * whole}",
                 command=f'tests/run -n 2 --all-pythons --record tests/cpython -k {way}'
                         + ' --modules all' * whole)
    return compare


def test_preloaded(python, row, library, compare):
    check_active(python.path, library)
    compare('preloaded', python.path, python.path, {'LD_PRELOAD': str(library)},
            lambda run: library.name in run.mapped,
            KNOWN_PRELOADED + KNOWN_STATIC * (not python.shared))


@pytest.mark.slow
def test_packed(python, row, library, compare):
    """Blocks aligned to 8 bytes."""
    compare('packed', python.path, python.path,
            {'LD_PRELOAD': str(library), 'OBMALLOC_ALIGN': '8'},
            lambda run: library.name in run.mapped,
            KNOWN_PRELOADED + KNOWN_STATIC * (not python.shared))


@pytest.mark.slow
@pytest.mark.only('3.8', '3.11', '3.13', '3.14', '3.15')
@pytest.mark.parametrize('memory', ['64M', '2M'])
def test_profiled(python, row, memory, library, compare):
    """A heap profile of every allocation; with little memory its interval is doubled many times. The
    profile at the end of a run has samples."""
    check_active(python.path, library)
    compare('profiled' if memory == '64M' else 'profiled with 2 MiB of tables', python.path,
            python.path, {'LD_PRELOAD': str(library), 'OBMALLOC_PROFILE': '1',
                          'OBMALLOC_PROFILE_MEMORY': memory, 'OBMALLOC_PROFILE_ON': 'exit'},
            lambda run: library.name in run.mapped and (run.sampled or bool(run.ending)),
            KNOWN_PRELOADED + KNOWN_STATIC * (not python.shared))


def test_relinked(python, row, compare):
    stock, ours = relinked.pair(python)
    check_active(ours)
    compare('relinked', stock, ours, {}, lambda run: run.linked == 'yes', KNOWN_RELINKED)
