"""Settings of Python that choose an allocator put us out, cleanly and said.

Every case is checked twice: by the status line, and by what it claims: a process
in which we are active holds thousands of our blocks, one in which we stand aside
not a single one.  Which settings count is decided by Python's own reading of its
command line and environment, so the cases are those where a quick look would
read it differently.
"""
import os

import support

REPORT = '''
import inside, json
inside.workload(1)
print(json.dumps([inside.live(inside.stats(inside.library())),
                  getattr(sys.flags, "dev_mode", False)]))
'''


class Aside(support.PythonCase):

    def verdict(self, expected, options=(), arguments=(), **env):
        """Run with these settings; expected is None for active, else a pattern."""
        done = self.interpret(REPORT, *arguments, options=options,
                              env=support.preloaded(OBMALLOC_VERBOSE='1', **env))
        live, dev_mode = support.said(done)
        if expected is None:
            self.assertUs(done)
            self.assertGreater(live, 10000, done.report)
            self.assertFalse(dev_mode, 'the check itself is wrong\n' + done.report)
        else:
            self.assertAside(done, expected)
            self.assertEqual(live, 0, done.report)

    @property
    def names(self):
        names = 'malloc malloc_debug pymalloc pymalloc_debug debug'.split()
        if self.python.numbers >= (3, 7):
            names.append('default')
        if self.python.numbers >= (3, 13):
            names += ['mimalloc', 'mimalloc_debug']
        return names

    @support.since(3, 6)
    def test_each_value_of_PYTHONMALLOC(self):
        for name in self.names:
            with self.subTest(PYTHONMALLOC=name):
                self.verdict('PYTHONMALLOC', PYTHONMALLOC=name)

    def test_empty_PYTHONMALLOC_is_none(self):
        self.verdict(None, PYTHONMALLOC='')

    @support.only('2.7')
    def test_PYTHONMALLOC_means_nothing_to_it(self):
        self.verdict(None, PYTHONMALLOC='malloc')
        self.verdict(None, PYTHONDEVMODE='1')

    def test_ignored_environment(self):
        """-E and -I, alone, in a cluster, or after an option with a value."""
        cases = [('-E',), ('-sE',), ('-W', 'ignore', '-E'), ('-Wignore', '-E')]
        if self.python.numbers >= (3,):
            cases += [('-X', 'faulthandler', '-E')]
        if self.python.numbers >= (3, 7):
            cases += [('-I',), ('-bI',)]
        for options in cases:
            with self.subTest(options=options):
                self.verdict(None, options, PYTHONMALLOC='malloc', PYTHONDEVMODE='1')

    @support.only('3.6')
    def test_isolated_mode_comes_too_late(self):
        """3.6 looks for -E before it reads PYTHONMALLOC, and for -I after that."""
        self.verdict('', options=['-I'], PYTHONMALLOC='malloc')

    @support.since(3, 6)
    def test_options_of_the_program_do_not_ignore_the_environment(self):
        self.verdict('PYTHONMALLOC', arguments=['-E', '-I'], PYTHONMALLOC='malloc')
        self.verdict('PYTHONMALLOC', options=['-W', 'ignore::E-I'], PYTHONMALLOC='malloc')

    @support.since(3, 7)
    def test_dev_mode(self):
        """All spellings that Python takes for -X dev."""
        for options in (('-X', 'dev'), ('-Xdev',), ('-sX', 'dev'), ('-sXdev',),
                        ('-E', '-X', 'dev'), ('-W', 'ignore', '-X', 'dev'),
                        ('-X', 'faulthandler', '-Xdev')):
            with self.subTest(options=options):
                self.verdict(r'-X ?dev', options)
        for value in ('1', 'yes'):
            with self.subTest(PYTHONDEVMODE=value):
                self.verdict('PYTHONDEVMODE', PYTHONDEVMODE=value)

    @support.since(3, 7)
    def test_dev_mode_as_python_reads_odd_spellings(self):
        """-X dev=1 and PYTHONDEVMODE=0: whatever this version makes of them, the
        line and the blocks follow it."""
        for options, env in ((('-X', 'dev=1'), {}), (('-X', 'development'), {}),
                             (('-X', 'de'), {}), ((), {'PYTHONDEVMODE': '0'}),
                             ((), {'PYTHONDEVMODE': ''})):
            with self.subTest(options=options, env=env):
                stock = self.interpret(REPORT.replace('inside.live(inside.stats(inside.library()))', '0'),
                                       options=options, env=support.clean_environment(**env))
                dev_mode = support.said(stock)[1]
                self.verdict('dev' if dev_mode else None, options, **env)

    def test_no_dev_mode(self):
        """The words belong to the program, or to another option."""
        words = ['-X', 'dev', '-Xdev', '-E']
        self.verdict(None, arguments=words)
        cases = [('-W', 'ignore::-Xdev'), ('-W', '-Xdev')]
        if self.python.minor == '3.6':
            cases += [('-X', 'dev')]
        for options in cases:
            with self.subTest(options=options):
                self.verdict(None, options)

    def test_no_dev_mode_from_scripts_and_modules(self):
        """python FILE -X dev, python -m MODULE -X dev, python -cCODE -X dev,
        python -- FILE -X dev"""
        code = 'import sys; sys.path.insert(0, %r)\n%s' % (support.PROGRAMS, REPORT)
        path = support.scratch('dev_%d_%d_%d.py' % self.python.numbers)
        with open(path, 'w') as file:
            file.write(code)
        folder, name = os.path.split(path)
        for options in ((path,), ('-m', name[:-3]), ('-c' + code,), ('-sc', code), ('--', path)):
            with self.subTest(options=options[0][:20]):
                done = support.run([self.python.path, '-B', *options, '-X', 'dev'], cwd=folder,
                                   env=support.preloaded(OBMALLOC_VERBOSE='1', PYTHONPATH=folder))
                self.assertRan(done)
                self.assertUs(done)
                self.assertGreater(support.said(done)[0], 10000, done.report)

    @support.since(3, 6)
    def test_unknown_value_stays_pythons_error(self):
        """Fatal in stock; the message is Python's."""
        done = support.run([self.python.path, '-c', 'pass'],
                           support.preloaded(PYTHONMALLOC='banana'))
        self.assertNotEqual(done.status, 0, done.report)
        self.assertIn('PYTHONMALLOC', done.err, done.report)
        self.assertSaysNothing(done)

    @support.since(3, 6)
    def test_silent_when_aside_and_not_asked(self):
        done = self.interpret('print(6)', env=support.preloaded(PYTHONMALLOC='debug'))
        self.assertEqual((done.out, done.err), ('6\n', ''))
