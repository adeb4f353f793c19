"""Checks that the comparison finds what it must find, without network: test_packages.py

The recorder is run with the interpreter that runs this file, on a small module of tests;
the library is not needed.
"""

import json
import os
import sys
import tempfile
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.append(HERE)

import packages  # noqa: E402
import runner  # noqa: E402
from projects import KNOWN, PROJECTS  # noqa: E402
from runner import Run  # noqa: E402

MODULE = '''
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
STATS = {"host": "3.11.7", "pid": 12, "pools": {"used": 3}}


def recorded(**settings):
    """A run of MODULE under the wrapper for unittest."""
    with tempfile.TemporaryDirectory() as folder:
        with open(os.path.join(folder, "small.py"), "w", encoding="utf-8") as stream:
            stream.write(MODULE)
        return runner.run_command(
            lambda outfile: [sys.executable,
                             os.path.join(HERE, "plugin", "obmalloc_unittest.py"),
                             "modules", "small"],
            lambda run: dict(settings, PYTHONPATH=folder, PYTHONDONTWRITEBYTECODE="1",
                             COMPAT_OUTCOMES=os.path.join(run, "outcomes")), 60, 30)


class Recorder(unittest.TestCase):
    def test_every_outcome_has_its_word(self):
        run = recorded()
        found = {name.rsplit(".", 1)[1]: words for name, words in run.outcomes.items()}
        self.assertEqual(found, {
            "test_a_passes": ("passed",), "test_b_fails": ("FAIL",),
            "test_c_breaks": ("ERROR",), "test_d_skipped": ("skipped",),
            "test_e_parts (part=2)": ("FAIL",), "test_f_forks": ("passed",),
            "test_g_expected": ("expected failure",), "test_z_crashes": ("passed",)})
        self.assertEqual((run.state, run.ending), ("failed", "exit status 1"))
        self.assertIn("ValueError: at 0x7f0011223344", run.log)
        self.assertGreater(run.pid, 0)

    def test_a_crash_leaves_what_was_before_it(self):
        run = recorded(CRASH="1")
        self.assertEqual(run.ending, "killed by SIGSEGV")
        self.assertTrue(run.last_test.endswith("test_z_crashes"), run.last_test)
        self.assertEqual(len(run.outcomes), 7)
        self.assertEqual(run.state, "")


class Proof(unittest.TestCase):
    """A side without proof that the library served it is no comparison."""

    def run_with(self, **changes):
        stats = json.dumps(dict(STATS, **changes))
        return Run(mapped=["libobmalloc.so"], pid=12, stats=stats)

    def test_whole(self):
        self.assertEqual(packages.why_inactive(self.run_with(), "3.11.7"), "")

    def test_lacking(self):
        wrong = (Run(pid=12, stats=json.dumps(STATS)),
                 Run(mapped=["libobmalloc.so"], pid=12), self.run_with(pid=13),
                 self.run_with(host="3.13.0"), self.run_with(host=None),
                 self.run_with(pools={"used": 0}))
        for run in wrong:
            self.assertNotEqual(packages.why_inactive(run, "3.11.7"), "", run)


class Reruns(unittest.TestCase):
    def test_files_that_differ(self):
        one = Run(outcomes={"a.py::x": ("passed",), "b.py::y": ("passed",)})
        other = Run(outcomes={"a.py::x": ("FAIL",), "b.py::y": ("passed",)})
        self.assertEqual(packages.differing(one, other), ["a.py"])
        self.assertEqual(packages.differing(one, one), [])

    def test_a_crash_is_run_again(self):
        crashed = Run(outcomes={}, last_test="c.py::z", ending="killed by SIGSEGV")
        self.assertEqual(packages.differing(Run(), crashed), ["c.py"])

    def test_a_part_takes_its_place_in_the_whole(self):
        first = Run(outcomes={"a::x": ("FAIL",), "b::y": ("passed",)}, state="failed")
        again = packages.merged(first, Run(outcomes={"a::x": ("passed",)}, state="passed"))
        self.assertEqual(again.outcomes, {"a::x": ("passed",), "b::y": ("passed",)})
        self.assertEqual(again.state, "passed")


class Verdicts(unittest.TestCase):
    """What compare() says of runs that are made up: no process is started."""

    class Suite:
        python = type("python", (), {"version": "3.11.7"})
        project = type("project", (), {"name": "none", "title": ""})
        store = type("store", (), {"save": staticmethod(lambda *words: None)})

        def __init__(self, ours, reruns):
            self.ours, self.reruns = ours, reruns

        def whole(self, side, options):
            return self.ours

        def run(self, side, options, part=()):
            return self.reruns[side]

    def compare(self, stock, ours, stock_again=None, ours_again=None):
        reruns = {"stock": stock_again or stock, "preloaded": ours_again or ours}
        for run in (stock, ours, *reruns.values()):
            run.state = run.state or ("" if run.ending else "passed")
            run.pid, run.mapped, run.stats = 12, ["libobmalloc.so"], json.dumps(STATS)
        return packages.compare(self.Suite(ours, reruns), "preloaded", stock, None)

    def test_equal(self):
        both = {"a::x": ("passed",), "a::y": ("FAIL",), "a::z": ("skipped",)}
        verdict, wrong, _ = self.compare(Run(outcomes=both), Run(outcomes=dict(both)))
        self.assertEqual((verdict.equal, wrong, verdict.tests, verdict.failing,
                          verdict.skipped), (True, [], 2, ["a::y"], 1))

    def test_a_new_failure(self):
        verdict, _, _ = self.compare(Run(outcomes={"a::x": ("passed",)}),
                                     Run(outcomes={"a::x": ("FAIL",)}))
        self.assertEqual([one.test_id for one in verdict.differences], ["a::x"])

    def test_a_test_that_is_gone(self):
        verdict, _, _ = self.compare(
            Run(outcomes={"a::x": ("passed",), "a::y": ("passed",)}),
            Run(outcomes={"a::x": ("passed",)}))
        self.assertEqual([one.test_id for one in verdict.differences], ["a::y"])

    def test_a_failure_that_is_flaky_without_us(self):
        verdict, _, _ = self.compare(
            Run(outcomes={"a::x": ("passed",)}), Run(outcomes={"a::x": ("FAIL",)}),
            stock_again=Run(outcomes={"a::x": ("FAIL",)}),
            ours_again=Run(outcomes={"a::x": ("passed",)}))
        self.assertTrue(verdict.equal)
        self.assertEqual([one.test_id for one in verdict.flaky], ["a::x"])

    def test_a_crash_of_ours_alone_and_once(self):
        whole = {"a::x": ("passed",), "a::y": ("passed",)}
        verdict, _, _ = self.compare(
            Run(outcomes=dict(whole)), ours_again=Run(outcomes=dict(whole)),
            ours=Run(outcomes={"a::x": ("passed",)}, ending="killed by SIGSEGV",
                     last_test="a::y"))
        self.assertIn("(module)", [one.test_id for one in verdict.differences])

    def test_nothing_ran(self):
        for run in (Run(), Run(ending="exit status 4")):
            _, wrong, _ = self.compare(run, Run(ending=run.ending))
            self.assertTrue(wrong)


class Table(unittest.TestCase):
    def test_titles_tell_projects_apart(self):
        names = [packages.named(one) for one in PROJECTS]
        self.assertEqual(len(set(names)), len(names))

    def test_known_has_reasons(self):
        for name, ending, reason in KNOWN:
            self.assertIn(name, [one.name for one in PROJECTS])
            self.assertTrue(ending and reason)


if __name__ == "__main__":
    unittest.main()
