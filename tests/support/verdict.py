"""Decide from the runs of both sides whether a module's outcomes are equal.

Outcomes are compared test by test. A test whose outcome varies between runs without the
library is flaky; it is listed, and it is still a difference if none of its outcomes with the
library ever occurred without it. A test that is steady without the library is a difference
if most runs with it differ (with one run each: if that run differs); if fewer do, it is
listed as "sometimes". A run that crashes or hangs only with the library is a difference
however seldom it happens.
"""
import warnings
from dataclasses import dataclass, field

import pytest

MODULE = '(module)'
BAD = {'FAIL', 'ERROR', 'unexpected success'}


@dataclass
class Finding:
    test_id: str
    without: list               # outcomes without the library, one a run
    with_library: list
    note: str = ''

    def __str__(self):
        text = (f'{self.test_id}: {spell(self.without)} without, '
                f'{spell(self.with_library)} with the library')
        return f'{text} ({self.note})' if self.note else text


@dataclass
class Verdict:
    tests: int = 0              # tests that ran and had equal outcomes
    skipped: int = 0            # tests that both sides skipped
    failing: list = field(default_factory=list)     # tests that fail on both sides
    left_out: list = field(default_factory=list)
    state: str = ''             # of the module without the library
    ending: str = ''            # how the run without the library broke off
    differences: list = field(default_factory=list)
    known: list = field(default_factory=list)       # differences that are expected
    stale: list = field(default_factory=list)       # expected, and equal
    flaky: list = field(default_factory=list)
    sometimes: list = field(default_factory=list)

    @property
    def equal(self):
        return not self.differences

    @property
    def nothing_ran(self):
        return self.equal and not (self.tests or self.known or self.flaky or self.sometimes)

    def __str__(self):
        text = (f'{self.tests} tests equal, {len(self.failing)} of them failing on both sides, '
                f'{self.skipped} skipped on both sides')
        for name in 'differences', 'known', 'flaky', 'sometimes', 'left_out', 'stale':
            text += ''.join(f'\n{name.replace("_", " ")}: {one}' for one in getattr(self, name))
        return text + f'\nbroke off on both sides: {self.ending}' * bool(self.ending)


def spell(outcomes):
    """Outcomes of several runs as text: each distinct one, with its count."""
    return ', '.join(
        outcome if outcomes.count(outcome) == len(outcomes)
        else f'{outcome} ({outcomes.count(outcome)} of {len(outcomes)})'
        for outcome in dict.fromkeys(outcomes))


def outcome_of(run, test_id):
    """The test's outcome as text; None if the run broke off before reaching it."""
    if test_id in run.outcomes:
        return ' + '.join(run.outcomes[test_id])
    return None if run.ending else 'absent'


def judge_outcomes(test_id, base, ours, verdict, once_is_enough=False):
    """List the test as difference, flaky or sometimes; True if it is equal."""
    base = [outcome for outcome in base if outcome is not None]
    ours = [outcome for outcome in ours if outcome is not None]
    if not base or not ours:
        return False            # the finding about the module reports that a side broke off
    different = [outcome for outcome in ours if outcome not in base]
    finding = Finding(test_id, base, ours)
    if len(different) == len(ours):
        if len(set(base)) > 1:
            finding.note = 'its outcome varies without the library too'
        verdict.differences.append(finding)
    elif len(set(base)) > 1:
        verdict.flaky.append(finding)
    elif len(different) * 2 > len(ours) or (different and once_is_enough):
        verdict.differences.append(finding)
    elif different:
        verdict.sometimes.append(finding)
    else:
        return True
    return False


def module_outcome(run, listed):
    """The module's state, and how and where the run broke off.

    A failure that comes from tests that are listed on their own counts as passed here:
    otherwise each of them would be reported twice.
    """
    state = run.state
    bad = {test_id for test_id, outcomes in run.outcomes.items() if set(outcomes) & BAD}
    if state == 'failed' and bad and bad <= listed:
        state = 'passed'
    last_test = '' if run.out_of_time else run.last_test
    ending = run.ending and ' in '.join(filter(None, (run.ending, last_test)))
    return '; '.join(filter(None, (state, ending)))


def judge(module, baselines, ours, known=()):
    """The Verdict on `module` from the runs without the library and with it.

    `known` has the differences that are expected: (module, end of the test's id, reason). A
    failing sub-test has an id of its own, and the test around it then has no outcome: both
    have an entry, so that the other sub-tests of that test stay checked.
    """
    first = baselines[0]
    verdict = Verdict(left_out=first.left_out, state=first.state, ending=first.ending)
    every_id = sorted({test_id for run in baselines + ours for test_id in run.outcomes})
    for test_id in every_id:
        if not judge_outcomes(test_id, [outcome_of(run, test_id) for run in baselines],
                              [outcome_of(run, test_id) for run in ours], verdict):
            continue
        outcomes = set(first.outcomes.get(test_id, ()))
        verdict.skipped += outcomes == {'skipped'}
        verdict.tests += outcomes != {'skipped'}
        # Tests of test frameworks let tests fail on purpose, and pass.
        if first.state != 'passed' and outcomes & BAD:
            verdict.failing.append(test_id)
    reasons = {test_id: reason for test_id in every_id for name, ending, reason in known
               if name == module and test_id.endswith(ending)}
    separate_known(verdict, first, reasons)
    compare_modules(baselines, ours, verdict)
    return verdict


def separate_known(verdict, first, reasons):
    """Move the expected differences out of the differences; find stale entries."""
    for findings in verdict.differences, verdict.sometimes:
        for finding in [one for one in findings if one.test_id in reasons]:
            finding.note = reasons[finding.test_id]
            findings.remove(finding)
            verdict.known.append(finding)
    shown = {finding.test_id for finding in verdict.known + verdict.flaky}
    verdict.stale = [test_id for test_id in reasons if test_id not in shown
                     and first.outcomes.get(test_id) not in (None, ('skipped',))]


def compare_modules(baselines, ours, verdict):
    """Compare the module's own state; a crash or hang only with the library is a difference."""
    listed = {finding.test_id for findings in
              (verdict.differences, verdict.known, verdict.flaky, verdict.sometimes)
              for finding in findings}
    broke_off = any(run.ending for run in ours) and not any(run.ending for run in baselines)
    judge_outcomes(MODULE, [module_outcome(run, listed) for run in baselines],
                   [module_outcome(run, listed) for run in ours], verdict,
                   once_is_enough=broke_off)


def check_allocators(baselines, ours, is_ours):
    """The library must have been active in each run with it, and in no run without it."""
    without, with_library = (['obmalloc' if is_ours(run) else "CPython's own" for run in runs]
                             for runs in (baselines, ours))
    if set(without) == {"CPython's own"} and set(with_library) == {'obmalloc'}:
        return []
    return [Finding('(library)', without, with_library)]


def report(verdict, ours, record_property):
    """Fail the check on a difference, skip it if no test ran; counts go to --junitxml."""
    for name in 'tests', 'skipped':
        record_property(name, getattr(verdict, name))
    for name in 'failing', 'known', 'flaky', 'sometimes', 'left_out':
        if getattr(verdict, name):
            record_property(name, '; '.join(map(str, getattr(verdict, name))))
    print(verdict)
    for test_id in verdict.stale:
        warnings.warn(f'{test_id} is listed as a known difference, and does not differ')
    if verdict.differences:
        lines = []
        for finding in verdict.differences:
            reasons = [run.reason(finding.test_id) for run in ours]
            lines += [str(finding)] + [f'    {one[:300]}' for one in filter(None, reasons)][:1]
        pytest.fail('\n'.join(lines), pytrace=False)
    if verdict.nothing_ran:
        # Without a state not even the reason is known.
        (pytest.skip if verdict.state else pytest.fail)(
            f'both sides skip all {verdict.skipped} tests' if verdict.skipped
            else 'no test ran: ' + (verdict.state or verdict.ending))
