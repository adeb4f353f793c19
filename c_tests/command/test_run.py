"""`obmalloc run`: the program is started with the library and is otherwise the same."""
import glob
import os
import resource
import shutil
import signal
import subprocess
import sys
import zipfile

import command
import support

# Says what it sees of itself.
SELF = '''
import os, signal, sys
print(os.getpid())
print(os.environ.get('LD_PRELOAD'))
print(sorted(key for key in os.environ if key.startswith('OBMALLOC')))
print(sys.argv[1:])
'''


# Says which Python it is, whether it has the library, and its arguments.
SHOWN = '''import sys
print("%s %s %s" % (sys.version.split()[0], "libobmalloc.so" in open("/proc/self/maps").read(),
                    sys.argv[1:]))
sys.exit(7)
'''


class InEachPython(support.PythonCase):

    def test_active_and_the_same_process(self):
        done = command.run('run', '--verbose', '--', self.python.path, '-c', SELF, '-x', '--', 'a b')
        self.assertRan(done)
        self.assertUs(done)             # and its pid is that of the command
        pid, preload, settings, words = done.out.splitlines()
        self.assertEqual(int(pid), done.pid)
        self.assertTrue(os.path.samefile(preload, support.LIBRARY), done.report)
        self.assertEqual(settings, "['OBMALLOC_VERBOSE']")
        self.assertEqual(words, "['-x', '--', 'a b']")

    def test_silent_unless_asked(self):
        done = command.run('run', self.python.path, '-c', 'print(1)')
        self.assertEqual((done.status, done.out, done.err), (0, '1\n', ''), done.report)


class Spellings(support.PythonCase):
    """`obmalloc run` and `python -m obmalloc run` take the same words."""

    def setUp(self):
        self.folder = support.scratch('spellings-' + self.python.label.replace(' ', '-'))
        if os.path.exists(self.folder):
            return
        # On PATH are this python3 and the command; a console script and a program are, too.
        for place in 'bin', 'pkg/sub', 'folder':
            os.makedirs(os.path.join(self.folder, place))
        for name in 'python', 'python3':
            self.file('bin/' + name, '#!/bin/sh\nexec %s "$@"\n' % self.python.path, 0o755)
        os.symlink(command.path(), os.path.join(self.folder, 'bin/obmalloc'))
        self.file('bin/console', '#!%s\n%s' % (self.python.path, SHOWN), 0o755)
        for name in 'app.py', 'pkg/__init__.py', 'pkg/__main__.py', 'pkg/sub/mod.py', 'folder/__main__.py':
            self.file(name, SHOWN if 'init' not in name else '', 0o644)
        self.file('executable.py', '#!%s\n%s' % (self.python.path, SHOWN), 0o755)
        self.file('no_first_line.py', SHOWN, 0o755)
        self.file('unmarked', '#!/usr/bin/env python3\n' + SHOWN, 0o644)
        self.file('plain', SHOWN, 0o644)
        with zipfile.ZipFile(os.path.join(self.folder, 'app.zip'), 'w') as archive:
            archive.writestr('__main__.py', SHOWN)
            archive.comment = b'PK, with a comment'

    def file(self, name, text, mode):
        path = os.path.join(self.folder, name)
        with open(path, 'w') as file:
            file.write(text)
        os.chmod(path, mode)

    def spellings(self, *words):
        env = support.clean_environment(
            PATH='%s/bin:%s' % (self.folder, os.environ['PATH']), OBMALLOC_LIBRARY=support.LIBRARY,
            PYTHONPATH=os.path.join(support.HERE, '..', '..', 'python'), PYTHONDONTWRITEBYTECODE='1')
        yield support.run([command.path(), *words], env, cwd=self.folder)
        yield support.run([self.python.path, '-m', 'obmalloc', *words], env, cwd=self.folder)

    @support.since(3, 7)
    @support.takes_long
    def test_what_is_started(self):
        for words in (['app.py'], ['./app.py'], ['--', 'app.py'], ['--', 'python', 'app.py'],
                      ['python', 'app.py'], ['python3', 'app.py'], ['console'], ['bin/console'],
                      ['-m', 'pkg'], ['--', '-m', 'pkg'], ['-c', SHOWN], ['folder'],
                      ['--', '-B', '-s', 'app.py'], ['./executable.py'], ['executable.py'],
                      ['no_first_line.py'], ['./no_first_line.py'], ['unmarked'], ['-v', 'app.py'],
                      ['app.zip'], ['./app.zip'],
                      [self.python.path, 'app.py'], ['--python', self.python.path, 'app.py']):
            for done in self.spellings('run', *words, 'x', '-v', '--', 'a b'):
                with self.subTest(words=words, argv=done.argv[:2]):
                    self.assertRan(done, 7)
                    self.assertEqual(done.out, "%s True ['x', '-v', '--', 'a b']\n"
                                     % self.python.version)
                    self.assertEqual(bool(done.lines(support.ACTIVE)), words[0] == '-v', done.report)

    @support.since(3, 7)
    def test_what_may_be_meant(self):
        for word, meant in (('app', 'app.py'), ('consoel', 'console'), ('console3', 'console'),
                            ('ap.py', 'app.py'), ('plain', 'python3 plain'), ('pkg.sub.mod', '-m pkg.sub.mod'),
                            ('obmalloc-no-such-thing', 'is its name right'),
                            ('./nothing', 'is its name right')):
            for done in self.spellings('run', word):
                with self.subTest(word=word, argv=done.argv[:2]):
                    self.assertRan(done, 127)
                    self.assertRegex(done.err, r'\Aobmalloc: cannot start .*; .*%s.*\n\Z' % meant)

    @support.since(3, 7)
    def test_path(self):
        for done in self.spellings('path'):
            self.assertRan(done)
            self.assertEqual(done.out, os.path.abspath(support.LIBRARY) + '\n')


class Run(support.Case):

    def test_exit_status(self):
        for status in 0, 1, 77, 255:
            done = command.run('run', '--', 'sh', '-c', 'exit %d' % status)
            self.assertRan(done, status)

    def test_signals(self):
        """Of its own, and from outside: they reach the program, as it is the process."""
        for number in signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV:
            done = command.run('run', '--', 'sh', '-c', 'kill -%d $$' % number)
            self.assertRan(done, -number)
        child = subprocess.Popen([command.path(), 'run', '--', 'sh', '-c',
                                  'trap "echo caught; exit 5" TERM; echo up; read never'],
                                 env=support.clean_environment(), stdin=subprocess.PIPE,
                                 stdout=subprocess.PIPE)
        self.assertEqual(child.stdout.readline(), b'up\n')
        child.terminate()
        self.assertEqual(child.communicate(timeout=30)[0], b'caught\n')
        self.assertEqual(child.returncode, 5)

    def test_ignored_signals_stay_as_they_were(self):
        """Rust ignores SIGPIPE; the program must find what the caller had."""
        show = ['sh', '-c', 'grep -E "Sig(Ign|Blk|Cgt)" /proc/self/status']
        for ignored in signal.SIG_DFL, signal.SIG_IGN:
            with self.subTest(sigpipe=ignored):
                def start(argv):
                    return subprocess.run(argv, stdout=subprocess.PIPE, restore_signals=False,
                                          preexec_fn=lambda: signal.signal(signal.SIGPIPE, ignored),
                                          env=support.clean_environment()).stdout
                plain = start(show)
                self.assertIn(b'SigIgn', plain)
                self.assertEqual(start([command.path(), 'run', '--'] + show), plain)

    def test_a_line_of_the_command_does_not_end_the_program(self):
        """No library is found, and nobody reads the line that says so; or it cannot be
        written. The program runs, and gets the signals as they were."""
        alone = command.layout('no-library', library=None)
        code = ('import signal, sys; signals = signal.SIGPIPE, signal.SIGXFSZ, signal.SIGTTOU\n'
                'print([signal.getsignal(each).value for each in signals],'
                ' signal.pthread_sigmask(signal.SIG_BLOCK, []), signal.sigpending())\n'
                'sys.exit(7)\n')
        python = ['/usr/bin/python3', '-c', code]
        show = ['sh', '-c', 'grep -E "(Sig|Shd)[PBIC]" /proc/self/status; exit 7']

        def broken():
            reader, writer = os.pipe()
            os.close(reader)
            return writer

        def full():
            reader, writer = os.pipe()
            self.addCleanup(os.close, reader)
            os.set_blocking(writer, False)
            try:
                while True:
                    os.write(writer, b'x' * 4096)
            except BlockingIOError:
                pass
            os.set_blocking(writer, True)
            return writer

        def at_its_limit():
            return os.open(support.scratch('log'), os.O_WRONLY | os.O_CREAT)

        def start(argv, stderr, limit=None):
            def prepare():
                for each in signal.SIGPIPE, signal.SIGXFSZ:
                    signal.signal(each, signal.SIG_DFL)
                if limit is not None:
                    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
            done = subprocess.run(argv, stdout=subprocess.PIPE, stderr=stderr, preexec_fn=prepare,
                                  restore_signals=False, env=support.clean_environment(), timeout=20)
            os.close(stderr)
            return done.returncode, done.stdout
        for make, limit in (broken, None), (full, None), (at_its_limit, 0):
            with self.subTest(stderr=make.__name__):
                for program in show, python:
                    plain = start(program, make(), limit)
                    self.assertEqual(plain[0], 7)
                    self.assertEqual(start([alone, 'run', '--', *program], make(), limit), plain)
                missing = start([alone, 'run', '--', '/no/such/program'], make(), limit)
                self.assertEqual(missing, (127, b''))

    def test_closed_descriptors_stay_closed(self):
        """Rust opens /dev/null in their place."""
        show = ['sh', '-c', 'for n in 0 2; do test -e /proc/self/fd/$n && echo $n; done; exit 7']
        for words in show, [command.path(), 'run', '--', *show]:
            done = subprocess.run(['sh', '-c', 'exec "$@" <&- 2>&-', 'sh', *words],
                                  stdout=subprocess.PIPE, env=support.clean_environment())
            self.assertEqual((done.returncode, done.stdout), (7, b''))

    def test_what_is_preloaded_stays_behind_us(self):
        show = ['sh', '-c', 'echo $LD_PRELOAD']
        others = glob.glob('/usr/lib/*/libjemalloc.so.2')
        if not others:
            self.skipTest('no jemalloc here')
        other = others[0]
        us = os.path.realpath(support.LIBRARY)
        for given, expected in [(other, [us, other]),
                                ('%s:%s' % (other, us), [us, other]),
                                ('%s %s' % (us, other), [us, other]),
                                (us, [us]), ('', [us]),
                                ('%s:/elsewhere/libobmalloc.so.0' % other, [us, other])]:
            with self.subTest(LD_PRELOAD=given):
                done = command.run('run', '--', *show, env=support.clean_environment(LD_PRELOAD=given))
                self.assertRan(done)
                self.assertEqual(done.out.strip().split(':'), expected)

    def test_options_are_settings(self):
        show = ['sh', '-c', 'env | grep ^OBMALLOC_ | sort']
        done = command.run('run', '-v', '--stats', '/tmp/%p.json', '--live', '--limit', 'auto',
                           '--limit-hard', '2G', '--decay', '-1', '--packed', '--guard', '100',
                           '--no-thread', '-s', 'thp=never', '--set', 'OBMALLOC_FORK=seal',
                           '--', *show, env=support.clean_environment(OBMALLOC_THP='always'))
        self.assertRan(done)
        self.assertEqual(done.out.split(), [
            'OBMALLOC_ALIGN=8', 'OBMALLOC_DECAY_MS=-1', 'OBMALLOC_FORK=seal', 'OBMALLOC_GUARD=100',
            'OBMALLOC_LIMIT=auto', 'OBMALLOC_LIMIT_HARD=2G', 'OBMALLOC_LIVE=1',
            'OBMALLOC_STATS=/tmp/%p.json', 'OBMALLOC_THP=never', 'OBMALLOC_THREAD=0',
            'OBMALLOC_VERBOSE=1'])

    def test_the_library_understands_what_options_set(self):
        """It complains of what it does not understand, in a Python where it is active."""
        folder = support.scratch('stats-of-run')
        os.makedirs(folder, exist_ok=True)
        done = command.run('run', '-v', '--stats', folder + '/out.json', '--limit', '4G',
                           '--limit-hard', 'auto', '--decay', '50', '--packed=obj', '--guard', '0',
                           '--no-thread', '-s', 'small_max=8K', '--', 'python3', '-c', 'pass')
        self.assertRan(done)
        self.assertIn('packed obj', done.err)
        self.assertNotIn('not understood', done.err, done.report)
        self.assertEqual(os.listdir(folder), ['out.json'])

    def test_wrong_use(self):
        """One line each, that says what to do next; and nothing is started."""
        for words, said in [([], r'no command to run; .*obmalloc run -- python3'),
                            (['-s', 'decay', 'echo'], r'decay is no setting; write NAME=VALUE'),
                            (['-s', 'decay=1', 'echo'], r'decay is no setting.*DECAY_MS'),
                            (['--limit', '0', 'echo'], r'0 is no size; .*512M'),
                            (['--decay', '-2', 'echo'], r'-2 is no time; .*--decay')]:
            with self.subTest(words=words):
                done = command.run('run', *words)
                self.assertRan(done, 2)
                self.assertEqual(done.out, '')
                self.assertRegex(done.err, '^obmalloc: ' + said)
                self.assertEqual(done.err.count('\n'), 1)

    def test_programs_that_cannot_be_started(self):
        folder = support.scratch('no-program')
        with open(folder, 'w') as file:
            file.write('text')
        for name, status in ('obmalloc-no-such-program', 127), (folder, 126):
            done = command.run('run', '--', name)
            self.assertRan(done, status)
            self.assertRegex(done.err, '^obmalloc: cannot start .*; .*\n$')


class FailsOpen(support.Case):
    """Without a library that fits, one line, and the program runs."""

    def without(self, said, program='obmalloc', **env):
        done = support.run([program, 'run', '--', 'sh', '-c', 'echo ${LD_PRELOAD:-none}; exit 4'],
                           support.clean_environment(**env))
        self.assertRan(done, 4)
        self.assertEqual(done.out, 'none\n')
        self.assertRegex(done.err, r'\Aobmalloc: %s.*running without the library\)\n\Z' % said)

    def test_no_library(self):
        self.without('no libobmalloc.so near', command.layout('alone', library=None))

    def test_variable_that_names_none(self):
        self.without('OBMALLOC_LIBRARY=/nowhere.so: No such file', command.path(),
                     OBMALLOC_LIBRARY='/nowhere.so')
        self.without('OBMALLOC_LIBRARY=.*: is no shared library', command.path(),
                     OBMALLOC_LIBRARY=os.path.abspath(__file__))
        self.without('OBMALLOC_LIBRARY=.*: is no shared library', command.path(),
                     OBMALLOC_LIBRARY=command.path())
        fifo = support.scratch('fifo.so')
        os.mkfifo(fifo)
        self.without('OBMALLOC_LIBRARY=.*: is no shared library', command.path(),
                     OBMALLOC_LIBRARY=fifo)

    def test_a_copy_that_is_cut_off(self):
        """The loader ends a program with SIGBUS."""
        with open(support.LIBRARY, 'rb') as file:
            library = file.read()
        for length in 64, 200, 3000, 100000:
            cut = support.scratch('cut-%d' % length)
            with open(cut, 'wb') as file:
                file.write(library[:length])
            self.without('OBMALLOC_LIBRARY=.*: is cut off', command.path(), OBMALLOC_LIBRARY=cut)

    def test_library_for_another_machine(self):
        other = command.for_another_machine('other/lib/libobmalloc.so')
        self.without(r'.*is for another machine \(ARM64\)', command.path(), OBMALLOC_LIBRARY=other)
        program = command.layout('other', library=None)
        self.without(r'.*is for another machine \(ARM64\)', program)

    def test_with_nobody_who_reads_it(self):
        """A line that cannot be written is no reason not to start the program."""
        env = support.clean_environment(OBMALLOC_LIBRARY='/nowhere.so')
        for to in 'pipe', '/dev/full':
            with self.subTest(stderr=to):
                if to == 'pipe':
                    reader, writer = os.pipe()
                    os.close(reader)
                else:
                    writer = os.open(to, os.O_WRONLY)
                done = subprocess.run([command.path(), 'run', '--', 'sh', '-c', 'echo runs; exit 4'],
                                      env=env, stdout=subprocess.PIPE, stderr=writer)
                os.close(writer)
                self.assertEqual((done.returncode, done.stdout), (4, b'runs\n'))

    def test_a_path_that_the_loader_would_cut(self):
        for name in 'with blank', 'with:colon':
            self.without('.*blank or a colon', command.layout(name))


class Launchers(support.Case):
    """Programs that the library cannot be in, and that start others."""

    def launcher(self, *options):
        source = support.scratch('launcher.c')
        with open(source, 'w') as file:
            file.write('#include <unistd.h>\n'
                       'int main(int argc, char **argv) {\n'
                       '    (void)argc;\n'
                       '    execvp(argv[1], argv + 1);\n'
                       '    return 6;\n'
                       '}\n')
        return support.build('launcher' + ''.join(options), *options, source)

    def serves(self, *words, said=''):
        done = command.run('run', '-v', '--', *words, 'python3', '-c', 'print(1)')
        self.assertRan(done)
        self.assertEqual(done.out, '1\n')
        self.assertEqual(len(done.lines(support.ACTIVE)), 1, done.report)
        others = [line for line in done.err.splitlines() if not support.ACTIVE.match(line)]
        self.assertRegex('\n'.join(others), r'\A%s\Z' % said, done.report)

    def test_static_ones(self):
        """It is said that they are not served; what they start is."""
        said = 'obmalloc: .* is linked statically.*; programs that it starts have the library'
        for options in ('-static',), ('-static-pie',):
            self.serves(self.launcher(*options), said=said)

    def test_static_ones_of_distributions(self):
        found = [words for words in (['tini-static', '-s', '--'], ['busybox', 'env'], ['dumb-init'])
                 if shutil.which(words[0])]
        if not found:
            self.skipTest('no tini-static, busybox or dumb-init here')
        for words in found:
            self.serves(*words, said='(?s:.*)')

    def test_the_loader(self):
        """It preloads into what it starts, so there is nothing to say."""
        loader = '/lib64/ld-linux-x86-64.so.2'
        if not os.path.exists(loader):
            self.skipTest('no %s here' % loader)
        done = command.run('run', '-v', '--', loader, os.path.realpath(sys.executable), '-c', 'print(1)')
        self.assertRan(done)
        self.assertEqual(done.out, '1\n')
        self.assertEqual(done.err.count('\n'), len(done.lines(support.ACTIVE)), done.report)
        self.assertEqual(len(done.lines(support.ACTIVE)), 1, done.report)

    def test_the_status_is_the_launchers(self):
        done = command.run('run', '--', self.launcher('-static'), '/nowhere/at/all')
        self.assertRan(done, 6)


class Sanitizers(support.Case):

    def runtimes(self):
        """Those of gcc that are here."""
        for name in 'libasan.so', 'libubsan.so', 'liblsan.so':
            path = support.run(['gcc', '-print-file-name=' + name]).out.strip() if shutil.which('gcc') else ''
            if os.path.isabs(path) and not self.is_text(path):
                yield name, os.path.realpath(path)

    def is_text(self, path):
        with open(path, 'rb') as file:
            return file.read(4) != b'\x7fELF'

    def test_they_come_first(self):
        found = list(self.runtimes())
        if not found:
            self.skipTest('no runtimes of sanitizers here')
        python = os.path.realpath(sys.executable)
        for name, path in found:
            for options in ([], ['--pythons-only'])[:2 if name == "libasan.so" else 1]:
                with self.subTest(runtime=name, options=options):
                    env = support.clean_environment(LD_PRELOAD=path, ASAN_OPTIONS='detect_leaks=0',
                                                    LSAN_OPTIONS='detect_leaks=0')
                    code = ('import os, subprocess, sys\n'
                            'subprocess.check_call([sys.executable, "-c", "print(2)"])\n'
                            'print(1)')
                    plain = support.run([python, '-c', code], env)
                    if plain.status != 0:
                        self.skipTest('%s does not run here: %s' % (name, plain.err[-200:]))
                    done = command.run('run', '-v', *options, '--', python, '-c', code, env=env)
                    self.assertRan(done)
                    self.assertEqual(done.out, '2\n1\n')
                    self.assertEqual(len(done.lines(support.ACTIVE)), 2, done.report)

    def test_the_order(self):
        done = command.run('run', '--', 'sh', '-c', 'echo $LD_PRELOAD', env=support.clean_environment(
            LD_PRELOAD='/nowhere/one.so:/nowhere/libasan.so.8 /nowhere/libubsan.so.1'))
        self.assertRan(done)
        self.assertEqual(done.out.strip().split(':'), [
            '/nowhere/libasan.so.8', '/nowhere/libubsan.so.1', os.path.realpath(support.LIBRARY),
            '/nowhere/one.so'])


class Places(support.Case):
    """The library is found wherever a way to install puts it."""

    def test_each(self):
        for number, place in enumerate([
                'bin/libobmalloc.so', 'lib/libobmalloc.so', 'lib/libobmalloc.so.0',
                'lib64/libobmalloc.so', 'lib/x86_64-linux-gnu/libobmalloc.so.0',
                'lib/python3.9/site-packages/obmalloc/libobmalloc.so']):
            with self.subTest(place=place):
                root = 'place-%d' % number
                program = command.layout(root, library=place)
                done = support.run([program, 'run', '-v', '--', 'python3', '-c',
                                    'import os; print(os.environ["LD_PRELOAD"])'])
                self.assertRan(done)
                self.assertEqual(done.out.strip(), os.path.join(support.scratch(root), place))
                self.assertEqual(len(done.lines(support.ACTIVE)), 1, done.report)

    def test_the_one_that_the_variable_names(self):
        """And the variable is not handed on: the library has no such setting."""
        other = command.layout('named', library='elsewhere/libobmalloc.so')
        library = os.path.join(support.scratch('named'), 'elsewhere', 'libobmalloc.so')
        done = support.run([other, 'run', '-v', '--', 'python3', '-c',
                            'import os; print(os.environ["LD_PRELOAD"])'],
                           support.clean_environment(OBMALLOC_LIBRARY=library))
        self.assertRan(done)
        self.assertEqual(done.out.strip(), library)
        self.assertEqual(len(done.lines(support.ACTIVE)), 1, done.report)
        self.assertNotIn('not understood', done.err)

    def test_by_a_link(self):
        """The command is started by a symbolic link somewhere else."""
        program = command.layout('real')
        link = support.scratch('link-to-obmalloc')
        os.symlink(program, link)
        done = support.run([link, 'run', '-v', '--', 'python3', '-c', 'pass'])
        self.assertRan(done)
        self.assertEqual(len(done.lines(support.ACTIVE)), 1, done.report)
