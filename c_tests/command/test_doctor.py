"""`obmalloc doctor` tells the truth: the verdict, the reason, and never a false OK.

What it says is compared with what is so: an OK only where the library has counted, and
in each case that is known not to work the reason by its name.
"""
import glob
import json
import os
import shutil
import struct
import sys
import time

import command
import support
import test_privileges as privileges


class Doctor:
    """Asks the doctor."""

    def ask(self, *words, env=None, status):
        """The doctor's JSON; its words must have the same verdict."""
        done = command.run('doctor', '--json', *words, env=env)
        self.assertRan(done, status)
        said = json.loads(done.out)
        self.assertEqual(said['active'], status == 0, done.report)
        self.assertEqual(said['verdict'], ['active', 'not active', 'unknown'][status])
        if status:
            self.assertTrue(said['advice'], done.report)
        return said

    def refused(self, reason, *words, env=None, status=1):
        said = self.ask(*words, env=env, status=status)
        self.assertRegex(said['reason'], reason)
        return said


class InEachPython(support.PythonCase, Doctor):

    def test_active(self):
        said = self.ask(self.python.path, status=0)
        self.assertEqual(said['interpreter']['version'], self.python.version)
        self.assertEqual(said['domains'], self.domains)
        self.assertEqual(bool(said['interpreter']['libpython']), self.python.shared)
        self.assertEqual(said['library']['version'], version())
        self.assertTrue(os.path.samefile(said['library']['path'], support.LIBRARY))
        self.assertEqual(said['page_size'], os.sysconf('SC_PAGESIZE'))
        self.assertEqual(said['preloaded_by'], 'run')

    def test_in_words(self):
        done = command.run('doctor', self.python.path)
        self.assertRan(done)
        self.assertTrue(done.out.startswith('obmalloc is active in %s\n' % self.python.path))
        self.assertIn(self.python.version, done.out)
        self.assertRegex(done.out, 'proof +it counted')

    def test_without_ctypes(self):
        """The second witness: a module that cannot be imported is put in the way."""
        folder = support.scratch('no-ctypes')
        os.makedirs(folder, exist_ok=True)
        with open(os.path.join(folder, 'ctypes.py'), 'w') as file:
            file.write('raise ImportError("built without")\n')
        env = support.clean_environment(PYTHONPATH=folder, PYTHONDONTWRITEBYTECODE='1')
        said = self.ask(self.python.path, env=env, status=0)
        self.assertIn('without ctypes', said['reason'])
        self.assertEqual(said['library']['version'], version())
        env['LD_PRELOAD'] = '/nowhere/libobmalloc.so'
        self.refused('loader has not taken', self.python.path, env=env)

    @support.since(3, 6)
    def test_python_malloc(self):
        for value in 'malloc', 'debug', 'pymalloc':
            env = support.clean_environment(PYTHONMALLOC=value)
            said = self.refused('PYTHONMALLOC=%s chooses' % value, self.python.path, env=env)
            self.assertIn('unset PYTHONMALLOC', said['advice'])
        # -E ignores it: then it is active, and that is said.
        said = self.ask(self.python.path, '--', '-E', env=env, status=0)
        self.assertIn('PYTHONMALLOC is set, and this interpreter ignores it', said['notes'])

    @support.since(3, 7)
    def test_dev_mode(self):
        said = self.refused('-X dev', self.python.path, '--', '-X', 'dev')
        self.assertTrue(said['interpreter']['dev_mode'])
        self.refused('PYTHONDEVMODE', self.python.path,
                     env=support.clean_environment(PYTHONDEVMODE='1'))

    def test_wrong_path_in_the_environment(self):
        """ld.so prints a line and goes on: here it is the verdict."""
        env = support.clean_environment(LD_PRELOAD='/nowhere/libobmalloc.so.0')
        said = self.refused('/nowhere/libobmalloc.so.0: cannot open', self.python.path, env=env)
        self.assertEqual(said['preloaded_by'], 'environment')

    def test_library_for_another_machine(self):
        other = command.for_another_machine('doctor-%s/libobmalloc.so' % self.python.version)
        self.refused('another machine .ARM64', self.python.path,
                     env=support.clean_environment(LD_PRELOAD=other))
        self.refused('another machine .ARM64', self.python.path,
                     env=support.clean_environment(OBMALLOC_LIBRARY=other))

    def test_not_preloaded(self):
        self.refused('does not name the library', '--as-is', self.python.path)

    def test_named_by_the_environment(self):
        said = self.ask('--as-is', self.python.path, env=support.preloaded(), status=0)
        self.assertEqual(said['preloaded_by'], 'environment')

    def test_other_allocators(self):
        for name in 'libjemalloc.so.2', 'libmimalloc.so.2', 'libtcmalloc_minimal.so.4':
            with self.subTest(other=name):
                others = glob.glob('/usr/lib/*/' + name)
                if not others:
                    self.skipTest('no %s here' % name)
                said = self.ask(self.python.path, status=0,
                                env=support.clean_environment(LD_PRELOAD=others[0]))
                self.assertTrue(os.path.samefile(said['other_allocators'][0], others[0]))
                self.assertIn('is in the process, too', ' '.join(said['notes']))

    @support.since(3, 6)
    def test_a_program_that_only_says_so(self):
        """The library is loaded and installed, and then somebody replaces it: the line
        on stderr says active, the count does not."""
        folder = support.scratch('replaced-%s' % self.python.label.replace(' ', '-'))
        os.makedirs(folder, exist_ok=True)
        with open(os.path.join(folder, 'sitecustomize.py'), 'w') as file:
            # New blocks of OBJ come from RAW's functions, which look at no ctx; what there
            # is, ours or theirs, is still changed and freed by ours.
            file.write('import ctypes\n'
                       'class Table(ctypes.Structure):\n'
                       '    _fields_ = [(name, ctypes.c_void_p) for name in'
                       ' ("ctx", "malloc", "calloc", "realloc", "free")]\n'
                       'raw, table = Table(), Table()\n'
                       'api = ctypes.pythonapi\n'
                       'api.PyMem_GetAllocator(0, ctypes.byref(raw))\n'
                       'api.PyMem_GetAllocator(2, ctypes.byref(table))\n'
                       'table.malloc, table.calloc = raw.malloc, raw.calloc\n'
                       'api.PyMem_SetAllocator(2, ctypes.byref(table))\n')
        env = support.clean_environment(PYTHONPATH=folder, PYTHONDONTWRITEBYTECODE='1')
        said = self.ask(self.python.path, env=env, status=1)
        self.assertNotIn('does not answer', said['reason'], 'it must get as far as to count')

    def test_blocks_that_are_mallocs_in_stock_are_noted(self):
        for env, noted in ({}, True), ({'OBMALLOC_SMALL_MAX': '512'}, False):
            said = self.ask(self.python.path, status=0, env=support.clean_environment(**env))
            self.assertEqual('OBMALLOC_SMALL_MAX=512' in ' '.join(said['notes']), noted, said)

    @support.since(3, 6)
    def test_debug_hooks_are_noted(self):
        said = self.ask(self.python.path, status=0, env=support.clean_environment(OBMALLOC_DEBUG='1'))
        self.assertRegex(' '.join(said['notes']), 'debug hooks are over the library')
        self.assertNotIn('OBMALLOC_SMALL_MAX', ' '.join(said['notes']))

    def test_bad_settings_are_noted(self):
        said = self.ask(self.python.path, status=0,
                        env=support.clean_environment(OBMALLOC_DECAY='5'))
        self.assertRegex(' '.join(said['notes']), 'OBMALLOC_DECAY=5: not understood')

    def folder(self, name, **files):
        """A folder with these files of Python."""
        folder = support.scratch('doctor-%s-%s' % (name, self.python.label.replace(' ', '-')))
        os.makedirs(folder, exist_ok=True)
        for module, text in files.items():
            with open(os.path.join(folder, module + '.py'), 'w') as file:
                file.write(text)
        return folder

    def test_it_imports_nothing_of_the_working_directory(self):
        names = 'types struct ctypes os array re json codecs io warnings collections'.split()
        folder = self.folder('modules', **{name: 'raise SystemError("of the folder")' for name in names})
        for options in [], ['--', '-S'], ['--', '-E']:
            done = command.run('doctor', '--json', self.python.path, *options, cwd=folder,
                               env=support.clean_environment(PYTHONDONTWRITEBYTECODE='1'))
            self.assertRan(done)

    @support.takes_long
    def test_odd_environments(self):
        """The program's stdout, and what else its user has set, are no affair of the doctor's."""
        noisy = ('import os, sys; sys.stdout.write("a word"); sys.stdout.flush(); '
                 'os.write(1, b"\\xff\\0 no end of line"); os.write(2, b"\\xff\\0")')
        closing = 'import os; os.close(0); os.close(1)'
        holding = ('import subprocess; subprocess.Popen(["sleep", "300"], close_fds=False)')
        raising = 'raise KeyError("of sitecustomize")'
        for name, settings in {
                'guard 1': {'OBMALLOC_GUARD': '1'}, 'guard 10': {'OBMALLOC_GUARD': '10'},
                'utf-16': {'PYTHONIOENCODING': 'utf-16'}, 'ascii': {'PYTHONIOENCODING': 'ascii:strict'},
                'noisy': {'PYTHONPATH': self.folder('noisy', sitecustomize=noisy)},
                'closing': {'PYTHONPATH': self.folder('closing', sitecustomize=closing)},
                'holding': {'PYTHONPATH': self.folder('holding', sitecustomize=holding)},
                'raising': {'PYTHONPATH': self.folder('raising', sitecustomize=raising)},
                'POSIX locale': {'LC_ALL': 'POSIX', 'PYTHONCOERCECLOCALE': '0', 'PYTHONUTF8': '0'},
                'a locale that is none': {'LC_ALL': 'xx_YY.ISO-8859-15', 'LANG': 'nothing'},
                'no home': {'HOME': '/nowhere', 'TMPDIR': '/nowhere', 'PATH': '/nowhere'},
                'startup': {'PYTHONSTARTUP': '/nowhere.py'}, 'inspect': {'PYTHONINSPECT': '1'},
                'import times': {'PYTHONPROFILEIMPORTTIME': '1'}, 'verbose': {'PYTHONVERBOSE': '2'},
                'warnings': {'PYTHONWARNINGS': 'error', 'PYTHONWARNDEFAULTENCODING': '1'},
                'unbuffered': {'PYTHONUNBUFFERED': '1'}, 'optimized': {'PYTHONOPTIMIZE': '2'},
                'faults': {'PYTHONFAULTHANDLER': '1', 'PYTHONMALLOCSTATS': '1'},
                'library': {'OBMALLOC_STATS': '/dev/full', 'OBMALLOC_VERBOSE': '0',
                            'OBMALLOC_LIVE': '1', 'OBMALLOC_DECAY_MS': '0'}}.items():
            with self.subTest(environment=name):
                env = support.clean_environment(PYTHONDONTWRITEBYTECODE='1', **settings)
                began = time.monotonic()
                done = command.run('doctor', '--json', self.python.path, env=env)
                self.assertRan(done)
                self.assertIn('blocks more while', done.out)
                self.assertLess(time.monotonic() - began, 30)

    def test_odd_processes(self):
        """Nothing open, hardly anything that may be opened, signals ignored, a folder that is
        gone: the words of a shell before it."""
        gone = self.folder('gone')
        for name, words in {
                'closed': 'exec <&- >&-', 'all closed': 'exec <&- >&- 2>&-',
                'to a full disk': 'exec < /dev/full', 'few descriptors': 'ulimit -n 20',
                'signals': "trap '' CHLD PIPE INT HUP TERM",
                'read-only': 'mkdir -p locked; chmod 555 locked; cd locked',
                'gone': 'mkdir gone; cd gone; rmdir ../gone',
                'no environment': 'exec env -i "$@"', 'mask': 'umask 777'}.items():
            with self.subTest(process=name):
                done = support.run(['sh', '-c', words + '; exec "$@"', 'sh', command.path(), 'doctor',
                                    '--json', self.python.path], cwd=gone)
                self.assertRan(done)

    def test_odd_places(self):
        """A link, a path with blanks and other letters, and a virtual environment there."""
        folder = self.folder('mit Leerzeichen \u00e9 \u4e2d')
        link = os.path.join(folder, 'python link')
        if not os.path.lexists(link):
            os.symlink(self.python.path, link)
        for env in {}, {'LC_ALL': 'C', 'PYTHONCOERCECLOCALE': '0', 'PYTHONUTF8': '0'}:
            self.ask(link, env=support.clean_environment(**env), status=0)
        if self.python.numbers >= (3, 7):
            made = support.run([self.python.path, '-m', 'venv', '--without-pip', folder + '/venv'])
            if made.status == 0:
                said = self.ask(folder + '/venv/bin/python', status=0,
                                env=support.clean_environment(LC_ALL='C'))
                self.assertEqual(said['interpreter']['version'], self.python.version)

    def test_an_interpreter_that_does_not_start(self):
        """Its own error is quoted, and not ours or a line of no meaning."""
        cases = [('PYTHONHASHSEED', 'foo', 'PYTHONHASHSEED must be')]
        if self.python.numbers >= (3, 8):
            cases += [('PYTHONHOME', '/nowhere', 'Fatal Python error'),
                      ('PYTHONUTF8', 'x', 'Fatal Python error: .*PYTHONUTF8')]
        for name, value, said in cases:
            env = support.clean_environment(**{name: value})
            if name == 'PYTHONHASHSEED' and self.python.numbers < (3,):
                said = self.refused(said, self.python.path, '--', '-R', env=env, status=2)
            else:
                said = self.refused(said, self.python.path, env=env, status=2)
            self.assertNotIn('does not answer as a Python', said['reason'])
        if self.python.numbers >= (3, 8):
            # Without the library it would start.
            said = self.refused('[Mm]emory', self.python.path, status=2,
                                env=support.clean_environment(OBMALLOC_LIMIT_HARD='1M'))
            self.assertEqual(said['advice'], 'raise OBMALLOC_LIMIT_HARD, or unset it')

    def test_a_program_between_that_closes_descriptors(self):
        """Then the answer comes by stdout."""
        script = support.scratch('closer-' + self.python.label.replace(' ', '-'))
        with open(script, 'w') as file:
            file.write('#!%s\nimport os, sys\nos.closerange(3, 1000)\n'
                       'os.open("/dev/null", os.O_RDWR)\n'
                       'os.execv(%r, ["python"] + sys.argv[1:])\n'
                       % (os.path.realpath(sys.executable), self.python.path))
        os.chmod(script, 0o755)
        self.ask(script, status=0)

    def test_a_script_before_it(self):
        """A wrapper that keeps the environment is seen through; one that clears it is found."""
        for clears in False, True:
            script = support.scratch('wrapper-%d-%s' % (clears, self.python.label.replace(' ', '-')))
            with open(script, 'w') as file:
                file.write('#!/bin/sh\n%sexec %s "$@"\n' % ('unset LD_PRELOAD\n' * clears,
                                                            self.python.path))
            os.chmod(script, 0o755)
            if clears:
                said = self.refused('script .* without LD_PRELOAD', script)
                self.assertIn(os.path.realpath(self.python.path), said['advice'])
            else:
                said = self.ask(script, status=0)
            self.assertEqual(said['interpreter']['executable'], os.path.realpath(self.python.path))
            self.assertIn('is a script (#!/bin/sh)', ' '.join(said['notes']))


def version():
    """The version in Cargo.toml."""
    with open(os.path.join(support.HERE, '..', '..', 'Cargo.toml')) as file:
        return next(line.split('"')[1] for line in file if line.startswith('version'))


class Elsewhere(support.Case, Doctor):

    def test_the_default_is_the_virtual_environment_then_path(self):
        folder = support.scratch('venv/bin')
        os.makedirs(folder)
        real = os.path.realpath(sys.executable)
        os.symlink(real, os.path.join(folder, 'python'))
        said = self.ask(env=support.clean_environment(VIRTUAL_ENV=os.path.dirname(folder)), status=0)
        self.assertEqual(said['interpreter']['path'], os.path.join(folder, 'python'))
        os.symlink(real, os.path.join(folder, 'python3'))
        said = self.ask(env=support.clean_environment(PATH=folder), status=0)
        self.assertEqual(said['interpreter']['path'], os.path.join(folder, 'python3'))
        empty = support.scratch('empty-path')
        os.makedirs(empty)
        done = command.run('doctor', env=support.clean_environment(PATH=empty))
        self.assertRan(done, 2)
        self.assertRegex(done.err, '^obmalloc: there is no python3 on PATH; ')

    def test_called_by_its_path_it_means_the_environment_in_which_it_lies(self):
        """Whichever is active, and whatever is on PATH."""
        program = command.layout('own-venv', library='lib/python3/site-packages/obmalloc/libobmalloc.so')
        folder, root = os.path.dirname(program), support.scratch('own-venv')
        python = os.path.join(folder, 'python')
        os.symlink(os.path.realpath(sys.executable), python)
        env = support.clean_environment(VIRTUAL_ENV='/nowhere')

        def asked(*words, cwd=None):
            done = support.run([*words, 'doctor', '--json'], env, 60, cwd)
            self.assertRan(done)
            return json.loads(done.out)['interpreter']['path']

        self.assertNotEqual(asked(program), python, 'there is no pyvenv.cfg')
        with open(os.path.join(root, 'pyvenv.cfg'), 'w') as file:
            file.write('home = %s\n' % os.path.dirname(os.path.realpath(sys.executable)))
        self.assertEqual(asked(program), python)
        self.assertEqual(asked('./obmalloc', cwd=folder), python)
        link = support.scratch('link-to-own-venv')
        os.symlink(program, link)
        self.assertNotEqual(asked(link), python, 'a link elsewhere, as pipx makes')

    def test_no_program(self):
        for name in 'obmalloc-no-such-program', '/nowhere/python3', os.path.abspath(__file__):
            done = command.run('doctor', name)
            self.assertRan(done, 2)
            self.assertRegex(done.err, '^obmalloc: .* no program that can be started; .*\n$')

    def test_programs_that_are_no_python(self):
        for name in 'sh', 'bash', 'perl', 'cat', 'true', 'yes':
            with self.subTest(program=name):
                if not shutil.which(name):
                    self.skipTest('no %s here' % name)
                self.refused('does not answer as a Python does', name, status=2)

    def test_a_shell_runs_nothing_of_the_probe(self):
        """Its lines are words of commands to a shell: `import` is one of ImageMagick's."""
        folder = support.scratch('trap')
        os.makedirs(folder)
        trap = os.path.join(folder, 'import')
        with open(trap, 'w') as file:
            file.write('#!/bin/sh\ntouch %s/sprung\n' % folder)
        os.chmod(trap, 0o755)
        path = folder + ':' + os.environ['PATH']
        for shell in 'sh', 'bash':
            self.refused('status 3', shell, env=support.clean_environment(PATH=path), status=2)
        self.assertEqual(os.listdir(folder), ['import'])

    def test_an_interpreter_that_hangs_or_dies(self):
        script = support.scratch('dies')
        with open(script, 'w') as file:
            file.write('#!/bin/sh\nkill -11 $$\n')
        os.chmod(script, 0o755)
        self.refused('signal 11', script, status=2)
        with open(script, 'w') as file:
            file.write('#!/bin/sh\nsleep 300; echo never\n')
        began = time.monotonic()
        self.refused('did not end within 1 second', '--timeout', '1', script, status=2)
        self.assertLess(time.monotonic() - began, 30, 'its child has kept the pipe open')

    def test_a_liar(self):
        """A program that says all the right words has not made the library count."""
        script = support.scratch('liar')
        with open(script, 'w') as file:
            file.write('#!/bin/sh\necho "obmalloc: active in pid $$: CPython 3.11.7, '
                       'domains mem+obj" >&2\n')
        os.chmod(script, 0o755)
        self.refused('does not answer', script, status=2)

    def test_interpreters_of_other_kinds(self):
        """Their files say it; they are not started."""
        static = '/usr/bin/python3'
        if not os.path.exists(static):
            self.skipTest('no interpreter to copy')
        self.refused('another machine .ARM64', command.for_another_machine('arm/python3', static))
        loader = b'/lib64/ld-linux-x86-64.so.2\0'
        copy = support.scratch('musl-python3')
        with open(static, 'rb') as file:
            image = file.read()
        with open(copy, 'wb') as file:
            file.write(image.replace(loader, b'/lib/ld-musl-x86_64.so.1'.ljust(len(loader), b'\0'), 1))
        os.chmod(copy, 0o755)
        self.refused('musl', copy)
        source = support.scratch('doctor-static.c')
        with open(source, 'w') as file:
            file.write('int main(void) { return 0; }\n')
        self.refused('statically', support.build('doctor-static', '-static', source))

    def test_32_bits(self):
        source = support.scratch('doctor-32.c')
        with open(source, 'w') as file:
            file.write('int main(void) { return 0; }\n')
        try:
            program = support.build('doctor-32', '-m32', source)
        except AssertionError:
            # The head alone then: class and machine of a 32-bit program.
            program = support.scratch('doctor-head-32')
            with open(program, 'wb') as file:
                file.write(b'\x7fELF\1\1\1' + bytes(9) + b'\2\0\3\0' + bytes(100))
            os.chmod(program, 0o755)
        self.refused('another machine .x86 of 32 bits', program)

    def test_free_threaded(self):
        """One that is here, found on PATH as python3.13t or the like."""
        found = [path for folder in os.environ['PATH'].split(':')
                 for path in glob.glob(os.path.join(folder, 'python3.1[3-9]t'))]
        if not found:
            self.skipTest('no free-threaded interpreter here; the unit test of its reason stands for it')
        said = self.refused('free-threaded', found[0])
        self.assertTrue(said['interpreter']['free_threaded'])

    def test_setuid(self):
        """Started by another user, the loader leaves the preload out."""
        if os.geteuid() != 0:
            self.skipTest('only root can give rights away')
        static = os.path.realpath('/usr/bin/python3')
        if not os.path.exists(static):
            self.skipTest('no interpreter to copy')
        folder = privileges.open_folder('for-all')
        privileges.library_for_all()
        doctor = os.path.join(folder, 'obmalloc')
        shutil.copy(command.path(), doctor)
        program = os.path.join(folder, 'python3-with-rights')
        shutil.copy(static, program)
        for mode, status in (0o755, 0), (0o4755, 1):
            os.chmod(program, mode)
            done = privileges.as_nobody([doctor, 'doctor', '--json', program],
                                        support.clean_environment(TMPDIR='/tmp'))
            said = json.loads(done.out)
            if mode == 0o4755 and said['active']:
                self.skipTest('programs here get no rights by the file')
            self.assertRan(done, status)
        self.assertIn('more rights than its user', said['reason'])

    def test_capabilities_of_the_file(self):
        """The same by an attribute of the file: and /proc says nothing of such a process."""
        if os.geteuid() != 0:
            self.skipTest('only root can give rights away')
        static = os.path.realpath('/usr/bin/python3')
        if not os.path.exists(static):
            self.skipTest('no interpreter to copy')
        folder = privileges.open_folder('with-capabilities')
        privileges.library_for_all()
        doctor = os.path.join(os.path.dirname(privileges.library_for_all()), 'obmalloc')
        if not os.path.exists(doctor):
            shutil.copy(command.path(), doctor)
        program = os.path.join(folder, 'python3-with-capabilities')
        shutil.copy(static, program)
        os.chmod(program, 0o755)
        try:
            # CAP_NET_BIND_SERVICE, permitted and effective, in the second version's form.
            os.setxattr(program, 'security.capability',
                        struct.pack('<IIIII', 0x02000001, 1 << 10, 0, 0, 0))
        except OSError as error:
            self.skipTest('files have no capabilities here: %s' % error)
        done = privileges.as_nobody([doctor, 'doctor', '--json', program],
                                    support.clean_environment(TMPDIR='/tmp'))
        said = json.loads(done.out)
        if said['active'] or 'cannot be started' in said['reason']:
            self.skipTest('programs here get no rights by the file: ' + said['reason'])
        self.assertRan(done, 1)
        self.assertIn('more rights than its user (its file has capabilities)', said['reason'])

    def test_it_leaves_nothing_behind(self):
        folder = support.scratch('tmp-of-doctor')
        os.makedirs(folder)
        self.ask(sys.executable, env=support.clean_environment(TMPDIR=folder), status=0)
        self.assertEqual(os.listdir(folder), [])

    def test_a_full_disk_below_stdout(self):
        """Also where SIGPIPE is ignored, as Python does for what it starts."""
        for words in ['doctor', sys.executable], ['doctor', '--json', sys.executable]:
            done = support.run(['sh', '-c', '"$@" > /dev/full', 'sh', command.path(), *words])
            self.assertRan(done, 1)
            self.assertRegex(done.err, r'\Aobmalloc: cannot write to stdout: .*; .*\n\Z')
            done = support.run(['sh', '-c', 'trap "" PIPE; { "$@"; echo $? >&2; } | true', 'sh',
                                command.path(), *words])
            self.assertEqual(done.err, '0\n')

    def test_a_reader_that_goes_away(self):
        done = support.run(['sh', '-c', '"$1" doctor "$2" | true', 'sh', command.path(),
                            sys.executable])
        self.assertEqual(done.err, '')
