"""Decide from the runs of both sides whether a module's results are equal.

Outcomes are compared test by test.  A test whose outcome varies between runs
without the library is flaky; it is listed, and it is still a difference when
none of the outcomes seen with the library was ever seen without it.  A test that
is steady without the library is a difference when most of the runs with it differ
(with one run each: when that run differs); seen in fewer runs it is listed as
"sometimes".  A run that crashes or hangs only with the library is a difference
however seldom it happens.
"""

from dataclasses import dataclass, field

from known import PRELOADED, reason_for

MODULE = "(module)"
BAD = {"FAIL", "ERROR", "unexpected success"}


@dataclass
class Finding:
    test_id: str
    without: list               # outcomes seen without the library, one a run
    with_library: list
    note: str = ""

    def __str__(self):
        text = "%s: %s without, %s with the library" % (
            self.test_id, spell(self.without), spell(self.with_library))
        return "%s (%s)" % (text, self.note) if self.note else text


@dataclass
class Verdict:
    tests: int = 0              # tests that ran and had equal outcomes
    skipped: int = 0            # tests that both sides skipped
    failing: list = field(default_factory=list)     # that fail on both sides
    left_out: list = field(default_factory=list)
    state: str = ""             # the module's state without the library
    ending: str = ""            # how the run without the library broke off, if so
    differences: list = field(default_factory=list)
    known: list = field(default_factory=list)
    stale: list = field(default_factory=list)
    flaky: list = field(default_factory=list)
    sometimes: list = field(default_factory=list)

    @property
    def equal(self):
        return not self.differences


def spell(outcomes):
    """Outcomes of several runs as text: each distinct one, with its count."""
    words = []
    for outcome in sorted(set(outcomes), key=outcomes.index):
        count = outcomes.count(outcome)
        words.append(outcome if len(outcomes) == 1 or count == len(outcomes)
                     else "%s (%d of %d)" % (outcome, count, len(outcomes)))
    return ", ".join(words)


def outcome_of(run, test_id):
    """The test's outcome as text; None when the run broke off before reaching it."""
    if test_id in run.outcomes:
        return " + ".join(run.outcomes[test_id])
    return None if run.ending else "absent"


def judge_outcomes(test_id, base, ours, verdict, once_is_enough=False):
    """File one test under equal, difference, flaky or sometimes."""
    base = [outcome for outcome in base if outcome is not None]
    ours = [outcome for outcome in ours if outcome is not None]
    if not base or not ours:
        return False            # the module's own line tells that a side broke off
    different = [outcome for outcome in ours if outcome not in base]
    finding = Finding(test_id, base, ours)
    if len(different) == len(ours):
        if len(set(base)) > 1:
            finding.note = "its outcome varies without the library too"
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
    """The module's state, and how and where the run broke off if it did.

    A failure which comes from tests that are listed on their own counts as passed
    here: otherwise each of them would be reported twice.
    """
    state = run.state
    bad = {test_id for test_id, outcomes in run.outcomes.items()
           if set(outcomes) & BAD}
    if state == "failed" and bad and bad <= listed:
        state = "passed"
    last_test = "" if run.out_of_time else run.last_test
    ending = run.ending and " in ".join(filter(None, (run.ending, last_test)))
    return "; ".join(filter(None, (state, ending)))


def judge(module, baselines, preloaded, known=PRELOADED):
    """The Verdict on `module` from the runs without and with the library.

    `known` are the entries of known.py that hold for this way of comparing.
    """
    first = baselines[0]
    verdict = Verdict(left_out=first.left_out, state=first.state, ending=first.ending)
    every_id = sorted({test_id for run in baselines + preloaded
                       for test_id in run.outcomes})
    for test_id in every_id:
        base = [outcome_of(run, test_id) for run in baselines]
        ours = [outcome_of(run, test_id) for run in preloaded]
        if judge_outcomes(test_id, base, ours, verdict):
            both_skipped = set(first.outcomes.get(test_id, ())) == {"skipped"}
            verdict.skipped += both_skipped
            verdict.tests += not both_skipped
            # Tests of test frameworks let tests fail on purpose, and pass.
            if first.state != "passed" and set(first.outcomes.get(test_id, ())) & BAD:
                verdict.failing.append(test_id)

    ran_ids = [test_id for test_id in every_id
               if first.outcomes.get(test_id) not in (None, ("skipped",))]
    separate_known(module, verdict, ran_ids, known)
    compare_modules(baselines, preloaded, verdict)
    return verdict


def separate_known(module, verdict, ran_ids, known):
    """Move the expected differences out of the differences; find stale entries."""
    for findings in (verdict.differences, verdict.sometimes):
        for finding in list(findings):
            reason = reason_for(module, finding.test_id, known)
            finding.note = reason or finding.note
            if reason:
                findings.remove(finding)
                verdict.known.append(finding)
    shown = {finding.test_id for finding in verdict.known + verdict.flaky}
    verdict.stale = [test_id for test_id in ran_ids
                     if reason_for(module, test_id, known) and test_id not in shown]


def compare_modules(baselines, preloaded, verdict):
    """Compare the module's own state; crashes and hangs may never be new."""
    listed = {finding.test_id for findings in
              (verdict.differences, verdict.known, verdict.flaky, verdict.sometimes)
              for finding in findings}
    base = [module_outcome(run, listed) for run in baselines]
    ours = [module_outcome(run, listed) for run in preloaded]
    broke_off = any(run.ending for run in preloaded) \
        and not any(run.ending for run in baselines)
    judge_outcomes(MODULE, base, ours, verdict, once_is_enough=broke_off)
