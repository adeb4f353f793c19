"""What a preloaded interpreter says: one line when asked, and else nothing."""
import support


class Status(support.PythonCase):

    def test_one_line_when_verbose(self):
        done = self.interpret('pass', env=support.preloaded(OBMALLOC_VERBOSE='1'))
        self.assertUs(done)
        self.assertEqual(len(done.err.splitlines()), 1, done.report)
        self.assertEqual(done.out, '')

    def test_silent_when_not_asked(self):
        done = self.interpret('print(7 * 6)')
        self.assertEqual((done.out, done.err), ('42\n', ''))

    def test_active_is_true_when_said(self):
        """The line is printed only if calls really land on us: ask the allocator."""
        done = self.interpret('import inside, json; lib = inside.library()\n'
                              'print(json.dumps(inside.live(inside.stats(lib))))',
                              env=support.preloaded(OBMALLOC_VERBOSE='1'))
        self.assertUs(done)
        self.assertGreater(support.said(done), 10000, done.report)

    def test_no_line_without_preload(self):
        done = self.interpret('pass', env=support.clean_environment(OBMALLOC_VERBOSE='1'))
        self.assertSaysNothing(done)

    def test_every_process_speaks_for_itself(self):
        """A child that runs Python gives a line with its own pid."""
        done = self.interpret(
            'import os, subprocess\n'
            'child = subprocess.Popen([sys.executable, "-c", "pass"])\n'
            'assert child.wait() == 0\n'
            'print([os.getpid(), child.pid])', env=support.preloaded(OBMALLOC_VERBOSE='1'))
        pids = [int(found.group(1)) for found in done.lines(support.ACTIVE)]
        self.assertEqual(sorted(pids), sorted(support.said(done)), done.report)

    def test_exit_status_is_the_programs(self):
        self.interpret('sys.exit(3)', status=3)
        self.interpret('import os; os.abort()', status=-6)

    def test_workload_gives_what_stock_gives(self):
        code = 'import inside; print(inside.workload(4))'
        self.assertEqual(self.interpret(code).out,
                         self.interpret(code, env=support.clean_environment()).out)
