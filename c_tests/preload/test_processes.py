"""Children of all kinds: by fork, with threads at work, by multiprocessing, with
another environment, and from a virtual environment."""
import os
import unittest

import support

# From 3.12 on Python warns when a process with several threads forks.
FORKS_WITH_THREADS = ('-W', 'ignore::DeprecationWarning')


class Processes(support.PythonCase):

    def test_fork(self):
        done = self.program('forks.py', 'quiet', '6')
        self.assertEqual((done.out, done.err), ('', ''))

    def test_fork_while_threads_allocate(self):
        done = self.program('forks.py', 'busy', '10', options=FORKS_WITH_THREADS)
        self.assertEqual((done.out, done.err), ('', ''))

    def test_fork_child_that_ends_the_ordinary_way(self):
        """Finalisation runs in the child as well; one status line for both, as
        both are the same program."""
        done = self.interpret('import os\n'
                              'kept = [{n: str(n)} for n in range(20000)]\n'
                              'pid = os.fork()\n'
                              'if pid == 0:\n'
                              '    kept.extend([None] * n for n in range(500)); del kept[::3]\n'
                              '    sys.exit(7)\n'
                              'assert os.WEXITSTATUS(os.waitpid(pid, 0)[1]) == 7\n',
                              env=support.preloaded(OBMALLOC_VERBOSE='1'))
        self.assertUs(done)

    @support.since(3, 12)
    def test_no_thread_of_ours_at_fork(self):
        """A thread that gives memory back must be gone when the program forks, or
        a program without threads is warned of threads. Whenever the fork comes."""
        self.interpret('import os, time\n'
                       'for wait in (0, 0.01, 0.2, 0.9, 0.4, 0.05):\n'
                       '    dropped = [{n: bytes(200)} for n in range(60000)]\n'
                       '    del dropped\n'
                       '    time.sleep(wait)\n'
                       '    pid = os.fork()\n'
                       '    if pid == 0: os._exit(0)\n'
                       '    assert os.waitpid(pid, 0)[1] == 0\n',
                       options=('-W', 'error::DeprecationWarning'))

    def multiprocessing(self, method):
        done = self.program('pools.py', method)
        self.assertEqual((done.out, done.err), ('done\n', ''))

    def test_multiprocessing_fork(self):
        self.multiprocessing('fork')

    @support.since(3, 4)
    def test_multiprocessing_spawn(self):
        self.multiprocessing('spawn')

    @support.since(3, 4)
    def test_multiprocessing_forkserver(self):
        self.multiprocessing('forkserver')

    def test_subprocess_with_empty_environment(self):
        """Such a child is a plain Python; its parent is not disturbed."""
        done = self.interpret(
            'import subprocess\n'
            'child = subprocess.Popen([sys.executable, "-c", "print(40 + 2)"], env={},\n'
            '                         stdout=subprocess.PIPE, stderr=subprocess.STDOUT)\n'
            'out = child.communicate()[0]\n'
            'assert (out, child.returncode) == (b"42\\n", 0), (out, child.returncode)\n',
            env=support.preloaded(OBMALLOC_VERBOSE='1'))
        self.assertUs(done)

    def test_shells_between(self):
        """Python, sh, Python: two lines, none from the shell."""
        done = self.interpret('import subprocess\n'
                              'line = "\'%s\' -c pass; ls / >/dev/null" % sys.executable\n'
                              'assert subprocess.call(["sh", "-c", line]) == 0\n',
                              env=support.preloaded(OBMALLOC_VERBOSE='1'))
        self.assertEqual(len(done.lines(support.ACTIVE)), 2, done.report)
        self.assertEqual(len(done.err.splitlines()), 2, done.report)

    def test_exec_keeps_the_pid_and_starts_anew(self):
        done = self.interpret('import os\n'
                              'if len(sys.argv) < 2:\n'
                              '    os.execv(sys.executable, [sys.executable, "-c", "pass"])\n',
                              env=support.preloaded(OBMALLOC_VERBOSE='1'))
        pids = [int(found.group(1)) for found in done.lines(support.ACTIVE)]
        self.assertEqual(pids, [done.pid, done.pid], done.report)

    @support.since(3)
    def test_virtual_environment(self):
        folder = support.scratch('venv-' + self.python.label.replace(' ', '-'))
        made = support.run([self.python.path, '-m', 'venv', '--without-pip', folder])
        if made.status != 0:
            raise unittest.SkipTest('no venv: ' + made.report)
        path = os.path.join(folder, 'bin', 'python')
        done = support.run([path, '-c', 'import sys; print(sys.prefix)'],
                           support.preloaded(OBMALLOC_VERBOSE='1'))
        self.assertRan(done)
        self.assertEqual(done.out.strip(), folder)
        self.assertUs(done)

    def test_symbolic_link(self):
        """Run by another name, which no name of a Python gives away."""
        path = support.scratch('an-interpreter-' + self.python.label.replace(' ', '-'))
        os.symlink(os.path.realpath(self.python.path), path)
        done = support.run([path, '-c', 'pass'],
                           support.preloaded(OBMALLOC_VERBOSE='1', PYTHONHOME=self.python.prefix))
        self.assertRan(done)
        self.assertUs(done)
