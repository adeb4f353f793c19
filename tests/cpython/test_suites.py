"""CPython's own test suites without the library and with it.

Every module runs in every interpreter twice, one run right after the other, in equal
environments. The two sets of (test, outcome) must be equal; a failure that both sides share
is no difference. If they are not equal, both sides run twice more, and support/verdict.py
decides.

The sides are the interpreter without and with the library in LD_PRELOAD, or two interpreters
that relink/relink.py links: one with CPython's own obmalloc.o, one with libobmalloc.a in its
place. `--modules all` takes every module that the version's regrtest would run:

    tests/run -n 2 --all-pythons --record tests/cpython -k relinked --modules all
"""
import functools
import re

import pytest

from support import child, outcomes, relinked, verdict

EXTRA_RUNS = 2
MAX_LEFT_OUT = 4
SCRIPT = outcomes.INSIDE / 'run_module.py'
ACTIVE = re.compile(r'obmalloc: active in pid \d')

# Differences that are expected: (module, end of the test's id, reason).
KNOWN_PRELOADED = ()
KNOWN_RELINKED = ()


@functools.lru_cache(maxsize=None)
def check_active(path, library=None):
    """The library is active in this interpreter: it writes its status line."""
    preload = {'LD_PRELOAD': library} if library else {}
    done = child.run([path, '-c', 'pass'], status=0,
                     env=child.clean_environment(OBMALLOC_VERBOSE='1', **preload))
    assert done.lines(ACTIVE), f'the library is not active\n{done.report}'


def run_module(path, row, left_out, settings):
    return outcomes.run(lambda outfile: [path, SCRIPT, row, outfile, *left_out],
                        lambda folder: settings)


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


@pytest.fixture
def compare(python, row, pytestconfig, tmp_path, record_property, evidence):
    """Runs both sides, again if they differ, and fails the check on a difference."""
    def compare(way, without, with_library, settings, is_ours, known):
        left_out, baselines, ours = [], [], []
        for count in range(1 + EXTRA_RUNS):
            baselines.append(run_without(without, row, left_out))
            ours.append(run_module(with_library, row, left_out, settings))
            found = verdict.judge(row, baselines, ours, known)
            if found.equal and count == 0:
                break
        found.differences += verdict.check_allocators(baselines, ours, is_ours)
        if found.differences or found.sometimes:
            for side, runs in ('without', baselines), ('with', ours):
                for number, run in enumerate(runs, 1):
                    (tmp_path / f'{side}-{number}.log').write_text(run.log)
        verdict.report(found, ours, record_property)
        whole = pytestconfig.getoption('--modules', '') == 'all'
        evidence(f"CPython's own tests, {way}{', whole suites' * whole}", "CPython's own tests",
                 {'tests': found.tests, 'modules': 1}, f'CPython {python.version}',
                 command=f'tests/run -n 2 --all-pythons --record tests/cpython -k {way}'
                         + ' --modules all' * whole)
    return compare


def test_preloaded(python, row, library, compare):
    check_active(python.path, library)
    compare('preloaded', python.path, python.path, {'LD_PRELOAD': str(library)},
            lambda run: library.name in run.mapped, KNOWN_PRELOADED)


@pytest.mark.slow
def test_packed(python, row, library, compare):
    """Blocks aligned to 8 bytes."""
    compare('packed', python.path, python.path,
            {'LD_PRELOAD': str(library), 'OBMALLOC_ALIGN': '8'},
            lambda run: library.name in run.mapped, KNOWN_PRELOADED)


def test_relinked(python, row, compare):
    stock, ours = relinked.pair(python)
    check_active(ours)
    compare('relinked', stock, ours, {}, lambda run: run.linked == 'yes', KNOWN_RELINKED)
