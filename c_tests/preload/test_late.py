"""obmalloc_install() in an interpreter that started without us.

Blocks of the first allocator are alive everywhere; from then on they reach our
realloc and free, which must hand them back to whom they belong.
"""
import support


class Late(support.PythonCase):

    def late(self, mode, options=(), **env):
        return self.program('late_install.py', support.LIBRARY, mode, options=options,
                            env=support.clean_environment(OBMALLOC_VERBOSE='1', **env))

    def assertLanded(self, done):
        before, during, after = support.said(done)
        self.assertGreater(during - before, 15000, done.report)
        self.assertLess(after - before, 5000, done.report)

    def assertNotOurs(self, done):
        self.assertEqual(done.lines(support.ACTIVE), [], done.report)
        self.assertEqual(max(support.said(done)), 0, done.report)

    @support.since(3, 6)
    def test_install_while_running(self):
        done = self.late('plain')
        self.assertActiveAtLast(done, self.python.version)
        self.assertLanded(done)

    def test_loading_alone_changes_nothing(self):
        """Who opens the library, to ask its version, say, has asked for nothing;
        and dlopen() can come without the GIL, with threads in the allocator."""
        self.assertNotOurs(self.late('loaded'))

    @support.since(3, 6)
    def test_without_the_gil(self):
        """Taken or refused, but as the line says, and nothing breaks."""
        done = self.late('no-gil')
        if done.lines(support.ACTIVE):
            self.assertLanded(done)
        else:
            self.assertNotOurs(done)

    @support.since(3, 6)
    def test_refused_while_tracemalloc_traces(self):
        """It keeps a copy of the table and would put that back over ours."""
        done = self.late('tracing')
        self.assertIn('tracemalloc', ' '.join(
            found.group(2) for found in done.lines(support.ASIDE)).lower(), done.report)
        self.assertActiveAtLast(done, self.python.version)
        self.assertLanded(done)

    @support.since(3, 6)
    def test_refused_under_debug_hooks(self):
        done = self.late('refused', PYTHONMALLOC='debug')
        self.assertTrue(done.lines(support.ASIDE), done.report)
        self.assertNotOurs(done)

    @support.since(3, 7)
    def test_refused_in_dev_mode(self):
        done = self.late('refused', options=('-X', 'dev'))
        self.assertTrue(done.lines(support.ASIDE), done.report)
        self.assertNotOurs(done)

    @support.only('2.7')
    def test_refused_without_a_table(self):
        done = self.late('refused')
        self.assertTrue(done.lines(support.ASIDE), done.report)
        self.assertNotOurs(done)

    def test_silent_when_not_asked(self):
        mode = 'refused' if self.python.minor == '2.7' else 'plain'
        done = self.program('late_install.py', support.LIBRARY, mode,
                            env=support.clean_environment())
        self.assertSaysNothing(done)

    @support.since(3, 6)
    def test_install_when_already_preloaded(self):
        """Nothing to do: 0, and no second line."""
        done = self.interpret('import inside; lib = inside.library()\n'
                              'assert lib.obmalloc_install() == lib.obmalloc_install() == 0\n'
                              'assert inside.workload(2) > 0',
                              env=support.preloaded(OBMALLOC_VERBOSE='1'))
        self.assertUs(done)

    @support.since(3, 6)
    def test_install_from_a_thread(self):
        """The thread that installs ends; what it allocated lives on."""
        self.interpret('import inside, threading, gc\n'
                       'kept, codes = [], []\n'
                       'def body():\n'
                       '    kept.extend([n] * (n % 50) for n in range(5000))\n'
                       '    codes.append(inside.library(sys.argv[1]).obmalloc_install())\n'
                       '    kept.extend([n] * (n % 50) for n in range(5000))\n'
                       'for _ in range(3):\n'
                       '    thread = threading.Thread(target=body)\n'
                       '    thread.start(); thread.join()\n'
                       'assert codes == [0, 0, 0], codes\n'
                       'assert kept == [[n] * (n % 50) for n in range(5000)] * 6\n'
                       'del kept[:]; gc.collect(); inside.workload(2)\n',
                       support.LIBRARY, env=support.clean_environment())
