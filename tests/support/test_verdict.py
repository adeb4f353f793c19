"""The verdict on made-up runs, and the recorder on a small module of tests."""
import sys

import pytest

from support import outcomes
from support.outcomes import OUT_OF_TIME, Run
from support.verdict import MODULE, check_allocators, judge

PYMALLOC = ' (env_var=None, name="pymalloc")'
KNOWN = [('test_x', '.test_known', 'a reason'), ('test_x', '.test_known' + PYMALLOC, 'a reason')]


def run(state='passed', ending='', last_test='', **found):
    return Run(outcomes={name: (outcome,) for name, outcome in found.items()},
               state=state, ending=ending, last_test=last_test)


def differences(stock, ours, known=()):
    return [one.test_id for one in judge('test_x', stock, ours, known).differences]


GOOD, BAD, CRASH = run(a='ok'), run('failed', a='FAIL'), run('', 'killed by SIGSEGV', 'b', a='ok')


def test_equal_results_with_a_shared_failure():
    side = [run('failed', a='ok', b='FAIL', c='skipped', d='ERROR')]
    found = judge('test_x', side, side)
    assert found.equal and not found.nothing_ran
    assert (found.tests, found.skipped, found.failing) == (3, 1, ['b', 'd'])
    side[0].state = 'passed'        # a test of a test framework
    assert judge('test_x', side, side).failing == []


@pytest.mark.parametrize('stock, ours, ids', [
    ([GOOD], [BAD], ['a']),
    ([BAD], [GOOD], ['a']),         # a success with the library only is a difference, too
    ([run(a='ok', b='ok')], [GOOD], ['b']),
    ([run()], [run('crashed: ImportError: x')], [MODULE]),
    ([GOOD, BAD], [run('failed', a='ERROR')] * 2, ['a']),      # flaky, and a new outcome
    ([GOOD] * 3, [BAD, GOOD, BAD], ['a']),
    ([run(a='ok', b='ok')] * 3, [CRASH] + [run(a='ok', b='ok')] * 2, [MODULE]),
    ([CRASH], [CRASH], []),
    ([run('', 'killed by SIGSEGV', 'c', a='ok', b='ok')], [CRASH], [MODULE])])
def test_differences(stock, ours, ids):
    assert differences(stock, ours) == ids


def test_flaky_without_the_library():
    found = judge('test_x', [GOOD, BAD], [BAD, GOOD])
    assert found.equal and [one.test_id for one in found.flaky] == ['a']


def test_one_failure_in_three_is_listed():
    found = judge('test_x', [GOOD] * 3, [BAD, GOOD, GOOD])
    assert found.equal and [one.test_id for one in found.sometimes] == ['a']


def test_modules_that_take_too_long_are_compared_as_far_as_they_ran():
    slow = OUT_OF_TIME + ' 5 s'
    base = run('', slow, 'c', a='ok', b='FAIL')
    found = judge('test_x', [base], [run('', slow, 'b', a='ok')])
    assert found.equal and found.tests == 1
    assert differences([base], [run('', slow, 'b', a='FAIL')]) == ['a']


def test_known_differences_and_stale_entries():
    good, bad = run(**{'x.test_known': 'ok'}), run('failed', **{'x.test_known': 'FAIL'})
    found = judge('test_x', [good], [bad], KNOWN)
    assert found.equal and [one.test_id for one in found.known] == ['x.test_known']
    assert judge('test_x', [good], [good], KNOWN).stale == ['x.test_known']
    assert not judge('test_y', [good], [bad], KNOWN).equal
    assert not judge('test_x', [good], [bad], ()).equal


def test_a_known_difference_excuses_no_other_test():
    good = run(a='ok', **{'x.test_known': 'ok'})
    known = {'x.test_known' + PYMALLOC: 'FAIL'}
    neighbour = 'x.test_known (env_var="malloc")'
    assert differences([good], [run('failed', a='ok', **known)], KNOWN) == []
    assert differences([good], [run('failed', a='FAIL', **known)], KNOWN) == ['a']
    assert differences([good], [run('failed', a='ok', **known, **{neighbour: 'FAIL'})],
                       KNOWN) == [neighbour]


@pytest.mark.parametrize('stock, ours, right', [
    (['no'], ['yes', 'yes'], True), (['no'], ['no'], False), (['yes'], ['yes'], False),
    (['no'], ['yes', 'no'], False)])
def test_each_side_must_have_its_allocator(stock, ours, right):
    sides = [[Run(linked=word) for word in words] for words in (stock, ours)]
    found = check_allocators(*sides, lambda one: one.linked == 'yes')
    assert [one.test_id for one in found] == ([] if right else ['(library)'])


SMALL = '''
import os, signal, unittest
class Case(unittest.TestCase):
    def test_a_passes(self): pass
    def test_b_fails(self): self.fail("no")
    def test_c_breaks(self): raise ValueError("at 0x7f0011223344")
    @unittest.skip("why not")
    def test_d_skipped(self): pass
    def test_e_parts(self):
        for part in (1, 2):
            with self.subTest(part=part): self.assertEqual(part, 1)
    def test_f_forks(self):
        child = os.fork()
        if child == 0: raise SystemExit(7)
        os.waitpid(child, 0)
    @unittest.expectedFailure
    def test_g_expected(self): self.fail("as it should")
    def test_z_crashes(self):
        if os.environ.get("CRASH"): os.kill(os.getpid(), signal.SIGSEGV)
'''


def recorded(folder, **settings):
    """A run of SMALL under the recorder for unittest."""
    (folder / 'small.py').write_text(SMALL)
    return outcomes.run(
        lambda outfile: [sys.executable, '-B', outcomes.INSIDE / 'obmalloc_unittest.py',
                         'modules', 'small'],
        lambda run: dict(settings, PYTHONPATH=str(folder),
                         RECORD_OUTCOMES=str(run / 'outcomes')), 60, 30)


def test_every_outcome_is_recorded(tmp_path):
    found = recorded(tmp_path)
    assert {name.rsplit('.', 1)[1]: words for name, words in found.outcomes.items()} == {
        'test_a_passes': ('ok',), 'test_b_fails': ('FAIL',), 'test_c_breaks': ('ERROR',),
        'test_d_skipped': ('skipped',), 'test_e_parts (part=2)': ('FAIL',),
        'test_f_forks': ('ok',), 'test_g_expected': ('expected failure',),
        'test_z_crashes': ('ok',)}
    assert (found.state, found.ending) == ('failed', 'exit status 1')
    assert 'ValueError: at 0x7f0011223344' in found.log and found.pid > 0


def test_a_crash_leaves_the_outcomes_before_it(tmp_path):
    found = recorded(tmp_path, CRASH='1')
    assert found.ending == 'killed by SIGSEGV' and found.last_test.endswith('test_z_crashes')
    assert len(found.outcomes) == 7 and found.state == ''
