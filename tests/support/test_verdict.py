"""Checks that the verdict finds what it must find: python3 test_verdict.py"""

import unittest

from known import RELINKED
from runner import OUT_OF_TIME, Run
from sides import check_marks
from verdict import MODULE, judge


def run(state="passed", ending="", last_test="", **outcomes):
    return Run(outcomes={name: (outcome,) for name, outcome in outcomes.items()},
               state=state, ending=ending, last_test=last_test)


def ids(findings):
    return [finding.test_id for finding in findings]


class VerdictTests(unittest.TestCase):

    def test_equal_results_with_a_shared_failure(self):
        side = [run("failed", a="ok", b="FAIL", c="skipped")]
        verdict = judge("test_x", side, side)
        self.assertTrue(verdict.equal)
        self.assertEqual((verdict.tests, verdict.skipped), (2, 1))

    def test_failure_only_with_the_library(self):
        verdict = judge("test_x", [run(a="ok")], [run("failed", a="FAIL")])
        self.assertEqual(ids(verdict.differences), ["a"])

    def test_success_only_with_the_library_is_a_difference_too(self):
        verdict = judge("test_x", [run("failed", a="FAIL")], [run(a="ok")])
        self.assertEqual(ids(verdict.differences), ["a"])

    def test_test_that_disappears(self):
        verdict = judge("test_x", [run(a="ok", b="ok")], [run(a="ok")])
        self.assertEqual(ids(verdict.differences), ["b"])

    def test_flaky_without_the_library(self):
        verdict = judge("test_x", [run(a="ok"), run("failed", a="FAIL")],
                        [run("failed", a="FAIL"), run(a="ok")])
        self.assertEqual(ids(verdict.flaky), ["a"])
        self.assertTrue(verdict.equal)

    def test_flaky_baseline_does_not_excuse_a_new_outcome(self):
        verdict = judge("test_x", [run(a="ok"), run("failed", a="FAIL")],
                        [run("failed", a="ERROR"), run("failed", a="ERROR")])
        self.assertEqual(ids(verdict.differences), ["a"])

    def test_one_failure_in_three_is_shown_and_two_are_a_difference(self):
        good, bad = run(a="ok"), run("failed", a="FAIL")
        verdict = judge("test_x", [good] * 3, [bad, good, good])
        self.assertEqual(ids(verdict.sometimes), ["a"])
        verdict = judge("test_x", [good] * 3, [bad, good, bad])
        self.assertEqual(ids(verdict.differences), ["a"])

    def test_one_crash_in_three_is_a_difference(self):
        crash = run("", "killed by SIGSEGV", "b", a="ok")
        good = run(a="ok", b="ok")
        verdict = judge("test_x", [good] * 3, [crash, good, good])
        self.assertEqual(ids(verdict.differences), [MODULE])

    def test_crash_at_the_same_place_on_both_sides(self):
        crash = run("", "killed by SIGSEGV", "b", a="ok")
        other = run("", "killed by SIGSEGV", "c", a="ok", b="ok")
        self.assertTrue(judge("test_x", [crash], [crash]).equal)
        self.assertFalse(judge("test_x", [other], [crash]).equal)

    def test_modules_that_take_too_long_are_compared_as_far_as_they_came(self):
        slow = OUT_OF_TIME + " 5 s"
        base = run("", slow, "c", a="ok", b="FAIL")
        verdict = judge("test_x", [base], [run("", slow, "b", a="ok")])
        self.assertTrue(verdict.equal)
        self.assertEqual(verdict.tests, 1)
        self.assertFalse(judge("test_x", [base], [run("", slow, "b", a="FAIL")]).equal)

    def test_failures_on_both_sides_are_counted(self):
        side = [run("failed", a="ok", b="FAIL", c="ERROR")]
        self.assertEqual(judge("test_x", side, side).failing, ["b", "c"])
        side[0].state = "passed"
        self.assertEqual(judge("test_x", side, side).failing, [])

    def test_module_that_only_the_library_breaks(self):
        verdict = judge("test_x", [run()], [run("crashed: ImportError: x")])
        self.assertEqual(ids(verdict.differences), [MODULE])

    def test_known_difference_and_stale_entry(self):
        name = "test.test_sys.SysModuleTest.test_debugmallocstats"
        good, bad = run(**{name: "ok"}), run("failed", **{name: "FAIL"})
        verdict = judge("test_sys", [good], [bad])
        self.assertEqual(ids(verdict.known), [name])
        self.assertTrue(verdict.equal)
        self.assertEqual(judge("test_sys", [good], [good]).stale, [name])
        self.assertEqual(ids(judge("test_gc", [good], [bad]).differences), [name])

    def test_known_entries_hold_for_one_way_of_comparing(self):
        name = "test.test_sys.SysModuleTest.test_debugmallocstats"
        good, bad = run(**{name: "ok"}), run("failed", **{name: "FAIL"})
        verdict = judge("test_sys", [good], [bad], RELINKED)
        self.assertEqual(ids(verdict.differences), [name])

    def test_each_side_must_have_had_its_allocator(self):
        def marks(one):
            return one.linked == "yes"

        def linked(*words):
            return [Run(linked=word) for word in words]

        self.assertEqual(check_marks(linked("no"), linked("yes", "yes"), marks), [])
        for sides in ((linked("no"), linked("no")), (linked("yes"), linked("yes")),
                      (linked("no"), linked("yes", "no"))):
            self.assertEqual(ids(check_marks(*sides, marks)), ["(library)"])

    def test_known_difference_does_not_excuse_another_one(self):
        name = "test.test_sys.SysModuleTest.test_debugmallocstats"
        verdict = judge("test_sys", [run(a="ok", **{name: "ok"})],
                        [run("failed", a="FAIL", **{name: "FAIL"})])
        self.assertEqual(ids(verdict.differences), ["a"])

    def test_known_sub_test_does_not_excuse_its_neighbours(self):
        name = "test.test_cmd_line.CmdLineTest.test_pythonmalloc"
        known = name + " (env_var=None, name='pymalloc')"
        other = name + " (env_var='malloc', name='malloc')"
        good = run(**{name: "ok"})
        one = judge("test_cmd_line", [good], [run("failed", **{known: "FAIL"})])
        self.assertEqual((ids(one.known), one.equal), ([name, known], True))
        two = judge("test_cmd_line", [good],
                    [run("failed", **{known: "FAIL", other: "FAIL"})])
        self.assertEqual(ids(two.differences), [other])


if __name__ == "__main__":
    unittest.main()
