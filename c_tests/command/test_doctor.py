"""`obmalloc doctor` tells the truth: the verdict, the reason, and never a false OK.

What it says is compared with what is so: an OK only where the library has counted, and
in each case that is known not to work the reason by its name.
"""
import glob
import json
import os
import shutil
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

    def test_bad_settings_are_noted(self):
        said = self.ask(self.python.path, status=0,
                        env=support.clean_environment(OBMALLOC_DECAY='5'))
        self.assertRegex(' '.join(said['notes']), 'OBMALLOC_DECAY=5: not understood')

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

    def test_it_leaves_nothing_behind(self):
        folder = support.scratch('tmp-of-doctor')
        os.makedirs(folder)
        self.ask(sys.executable, env=support.clean_environment(TMPDIR=folder), status=0)
        self.assertEqual(os.listdir(folder), [])

    def test_a_reader_that_goes_away(self):
        done = support.run(['sh', '-c', '"$1" doctor "$2" | true', 'sh', command.path(),
                            sys.executable])
        self.assertEqual(done.err, '')
