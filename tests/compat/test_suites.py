"""The comparison of packages on made-up runs."""
import json

import pytest
from compat.projects import PROJECTS
from compat.suites import Suite, differing, merged, why_inactive
from compat.test_packages import KNOWN

from support.outcomes import Run

STATS = {'host': '3.11.7', 'pid': 12, 'pools': {'used': 3}}


def proven(**changes):
    return Run(mapped=['libobmalloc.so'], pid=12, stats=json.dumps(STATS | changes))


def test_a_run_with_the_library_is_active():
    assert why_inactive(proven(), '3.11.7') == ''


@pytest.mark.parametrize('run', [
    Run(pid=12, stats=json.dumps(STATS)), Run(mapped=['libobmalloc.so'], pid=12),
    proven(pid=13), proven(host='3.13.0'), proven(host=None), proven(pools={'used': 0})])
def test_a_run_without_proof_is_inactive(run):
    assert why_inactive(run, '3.11.7')


def test_files_that_differ_run_again():
    one = Run(outcomes={'a.py::x': ('ok',), 'b.py::y': ('ok',)})
    other = Run(outcomes={'a.py::x': ('FAIL',), 'b.py::y': ('ok',)})
    crashed = Run(outcomes={}, last_test='c.py::z', ending='killed by SIGSEGV')
    assert differing(one, other) == ['a.py']
    assert differing(one, one) == []
    assert differing(Run(), crashed) == ['c.py']


def test_a_part_replaces_its_outcomes_in_the_whole():
    first = Run(outcomes={'a::x': ('FAIL',), 'b::y': ('ok',)}, state='failed')
    again = merged(first, Run(outcomes={'a::x': ('ok',)}, state='passed'))
    assert again.outcomes == {'a::x': ('ok',), 'b::y': ('ok',)} and again.state == 'passed'


class Made(Suite):
    """A suite whose runs are given."""

    def __init__(self, ours, stock_again, ours_again):
        self.project, self.ours = PROJECTS[0], ours
        self.again = {'stock': stock_again, 'ours': ours_again}

    def run(self, side, part=()):
        return self.again[side] if part else self.ours


def compare(stock, ours, stock_again=None, ours_again=None):
    for run in filter(None, (stock, ours, stock_again, ours_again)):
        run.state = '' if run.ending else 'passed'
    suite = Made(ours, stock_again or stock, ours_again or ours)
    return suite.compare('stock', stock, 'ours')[0]


WHOLE = Run(outcomes={'a::x': ('ok',), 'a::y': ('ok',)})
BAD = Run(outcomes={'a::x': ('FAIL',), 'a::y': ('ok',)})


def test_equal():
    both = {'a::x': ('ok',), 'a::y': ('FAIL',), 'a::z': ('skipped',)}
    found = compare(Run(outcomes=both), Run(outcomes=dict(both)))
    assert (found.equal, found.tests, found.failing, found.skipped) == (True, 2, ['a::y'], 1)


@pytest.mark.parametrize('ours, ids', [
    (BAD, ['a::x']), (Run(outcomes={'a::x': ('ok',)}), ['a::y'])])
def test_a_new_failure_and_a_test_that_disappears(ours, ids):
    assert [one.test_id for one in compare(WHOLE, ours).differences] == ids


def test_a_failure_that_is_flaky_without_the_library():
    found = compare(WHOLE, BAD, stock_again=BAD, ours_again=WHOLE)
    assert found.equal and [one.test_id for one in found.flaky] == ['a::x']


def test_a_crash_with_the_library_only_and_once():
    crash = Run(outcomes={'a::x': ('ok',)}, ending='killed by SIGSEGV', last_test='a::y')
    found = compare(WHOLE, crash, ours_again=WHOLE)
    assert '(module)' in [one.test_id for one in found.differences]


def test_nothing_ran():
    assert compare(Run(), Run()).nothing_ran
    with pytest.raises(AssertionError, match='broke off on both sides: exit status 4'):
        compare(Run(ending='exit status 4'), Run(ending='exit status 4'))


def test_titles_are_unique():
    assert len({project.label for project in PROJECTS}) == len(PROJECTS)


def test_known_differences_have_a_project_and_a_reason():
    for name, ending, reason in KNOWN:
        assert name in [project.name for project in PROJECTS] and ending and reason
