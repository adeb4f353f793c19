"""`obmalloc doctor`: its verdict and reason are true, and it never says OK in error.

OK needs the library's count of allocations; each case that is known not to work has its
reason by name.
"""
import glob
import json
import os
import re
import shutil
import struct
import sys
import time
from pathlib import Path

import pytest

from cli import command
from support import build, child, privileges, status

STATIC = os.path.realpath('/usr/bin/python3')
VERDICTS = ['active', 'not active', 'unknown']
debian = pytest.mark.skipif(not os.path.exists(STATIC), reason='no /usr/bin/python3')


def ask(*words, number=0, env=None, **options):
    """The doctor's JSON, with the exit status `number`."""
    done = command.run('doctor', '--json', *words, env=env, status=number, **options)
    said = json.loads(done.out)
    assert said['active'] == (number == 0), done.report
    assert said['verdict'] == VERDICTS[number], done.report
    assert said['advice'] or not number, done.report
    return said


def refused(reason, *words, number=1, **settings):
    env = child.clean_environment(**settings)
    said = ask(*words, number=number, env=env)
    assert re.search(reason, said['reason'])
    return said


def notes(*words, **settings):
    return ' '.join(ask(*words, env=child.clean_environment(**settings))['notes'])


# ---- with each interpreter ----

def test_active(python):
    said = ask(python.path)
    assert said['interpreter']['version'] == python.version
    assert said['domains'] == status.domains(python)
    assert bool(said['interpreter']['libpython']) == python.shared
    assert said['library']['version'] == build.version()
    assert os.path.samefile(said['library']['path'], build.LIBRARY)
    assert said['page_size'] == os.sysconf('SC_PAGESIZE')
    assert said['preloaded_by'] == 'run'


def test_text(python):
    text = command.run('doctor', python.path).out
    assert text.startswith(f'obmalloc is active in {python.path}\n')
    assert python.version in text
    assert re.search('proof +it counted', text)


def test_without_ctypes(python, tmp_path):
    """The second way to a count: a module that cannot be imported is put in the way."""
    (tmp_path / 'ctypes.py').write_text('raise ImportError("built without")\n')
    settings = {'PYTHONPATH': str(tmp_path), 'PYTHONDONTWRITEBYTECODE': '1'}
    said = ask(python.path, env=child.clean_environment(**settings))
    assert 'without ctypes' in said['reason']
    assert said['library']['version'] == build.version()
    refused('loader has not taken', python.path, LD_PRELOAD='/nowhere/libobmalloc.so', **settings)


@pytest.mark.since(3, 6)
@pytest.mark.parametrize('value', ['malloc', 'debug', 'pymalloc'])
def test_python_malloc(python, value):
    said = refused(f'PYTHONMALLOC={value} chooses', python.path, PYTHONMALLOC=value)
    assert 'unset PYTHONMALLOC' in said['advice']
    # -E ignores it: then the library is active, with a note.
    said = ask(python.path, '--', '-E', env=child.clean_environment(PYTHONMALLOC=value))
    assert 'PYTHONMALLOC is set, and this interpreter ignores it' in said['notes']


@pytest.mark.since(3, 7)
def test_dev_mode(python):
    said = refused('-X dev', python.path, '--', '-X', 'dev')
    assert said['interpreter']['dev_mode']
    refused('PYTHONDEVMODE', python.path, PYTHONDEVMODE='1')


def test_wrong_path_in_the_environment(python):
    """ld.so prints a line and goes on: here it is the verdict."""
    said = refused('/nowhere/libobmalloc.so.0: cannot open', python.path,
                   LD_PRELOAD='/nowhere/libobmalloc.so.0')
    assert said['preloaded_by'] == 'environment'


@pytest.mark.parametrize('variable', ['LD_PRELOAD', 'OBMALLOC_LIBRARY'])
def test_library_for_another_machine(python, tmp_path, variable):
    other = command.for_another_machine(tmp_path / 'libobmalloc.so')
    refused('another machine .ARM64', python.path, **{variable: str(other)})


def test_not_preloaded(python):
    refused('does not name the library', '--as-is', python.path)


def test_named_by_the_environment(python):
    said = ask('--as-is', python.path, env=child.preloaded())
    assert said['preloaded_by'] == 'environment'


@pytest.mark.parametrize('name', [
    'libjemalloc.so.2', 'libmimalloc.so.2', 'libtcmalloc_minimal.so.4'])
def test_other_allocators(python, name):
    others = glob.glob('/usr/lib/*/' + name)
    if not others:
        pytest.skip(f'no {name}')
    said = ask(python.path, env=child.clean_environment(LD_PRELOAD=others[0]))
    assert os.path.samefile(said['other_allocators'][0], others[0])
    assert 'is in the process, too' in ' '.join(said['notes'])


# New blocks of the object domain come from RAW's functions, which do not read ctx; the blocks
# are resized and freed by the library as before.
REPLACED = '''
import ctypes
class Table(ctypes.Structure):
    _fields_ = [(name, ctypes.c_void_p) for name in ("ctx", "malloc", "calloc", "realloc", "free")]
raw, table = Table(), Table()
api = ctypes.pythonapi
api.PyMem_GetAllocator(0, ctypes.byref(raw))
api.PyMem_GetAllocator(2, ctypes.byref(table))
table.malloc, table.calloc = raw.malloc, raw.calloc
api.PyMem_SetAllocator(2, ctypes.byref(table))
'''


@pytest.mark.one_python
@pytest.mark.since(3, 7)
def test_codes(python):
    """The reason for programs, of the library's own and of the doctor's."""
    assert ask(python.path)['code'] == 'active'
    for code, words, settings in [
            ('pythonmalloc', [], {'PYTHONMALLOC': 'malloc'}),
            ('dev_option', ['--', '-X', 'dev'], {}),
            ('dev_variable', [], {'PYTHONDEVMODE': '1'}),
            ('not_in_preload', ['--as-is'], {}),
            ('loader_refused', [], {'LD_PRELOAD': '/nowhere/libobmalloc.so'})]:
        options, words = (words, []) if words == ['--as-is'] else ([], words)
        assert refused('', *options, python.path, *words, **settings)['code'] == code
    assert refused('', '/bin/true', number=2)['code'] == 'not_python'


@pytest.mark.since(3, 6)
def test_a_program_that_replaces_the_library(python, tmp_path):
    """The line on stderr says active, the count does not."""
    (tmp_path / 'sitecustomize.py').write_text(REPLACED)
    said = refused('', python.path, PYTHONPATH=str(tmp_path), PYTHONDONTWRITEBYTECODE='1')
    assert 'does not answer' not in said['reason'], 'it must get as far as the count'


def test_blocks_that_stock_takes_from_malloc_are_noted(python):
    assert 'OBMALLOC_POOL_MAX=512' in notes(python.path)
    assert 'OBMALLOC_POOL_MAX=512' not in notes(python.path, OBMALLOC_POOL_MAX='512')


@pytest.mark.since(3, 6)
def test_debug_hooks_are_noted(python):
    found = notes(python.path, OBMALLOC_DEBUG='1')
    assert 'debug hooks are over the library' in found
    assert 'OBMALLOC_POOL_MAX' not in found


def test_bad_settings_are_noted(python):
    assert 'OBMALLOC_DECAY=5: not understood' in notes(python.path, OBMALLOC_DECAY='5')


@pytest.mark.parametrize('options', [[], ['--', '-S'], ['--', '-E']], ids=' '.join)
def test_it_imports_nothing_of_the_working_directory(python, tmp_path, options):
    for name in 'types struct ctypes os array re json codecs io warnings collections'.split():
        (tmp_path / f'{name}.py').write_text('raise SystemError("of the folder")')
    ask(python.path, *options, cwd=tmp_path,
        env=child.clean_environment(PYTHONDONTWRITEBYTECODE='1'))


SITE = {
    'noisy': 'import os, sys; sys.stdout.write("a word"); sys.stdout.flush(); '
             'os.write(1, b"\\xff\\0 no end of line"); os.write(2, b"\\xff\\0")',
    'closing': 'import os; os.close(0); os.close(1)',
    'holding': 'import subprocess; subprocess.Popen(["sleep", "300"], close_fds=False)',
    'raising': 'raise KeyError("of sitecustomize")',
}
ODD = {
    'guard 1': {'OBMALLOC_GUARD_SAMPLE_RATE': '1'},
    'guard 10': {'OBMALLOC_GUARD_SAMPLE_RATE': '10'},
    'utf-16': {'PYTHONIOENCODING': 'utf-16'}, 'ascii': {'PYTHONIOENCODING': 'ascii:strict'},
    'POSIX locale': {'LC_ALL': 'POSIX', 'PYTHONCOERCECLOCALE': '0', 'PYTHONUTF8': '0'},
    'no such locale': {'LC_ALL': 'xx_YY.ISO-8859-15', 'LANG': 'nothing'},
    'no home': {'HOME': '/nowhere', 'TMPDIR': '/nowhere', 'PATH': '/nowhere'},
    'startup': {'PYTHONSTARTUP': '/nowhere.py'}, 'inspect': {'PYTHONINSPECT': '1'},
    'import times': {'PYTHONPROFILEIMPORTTIME': '1'}, 'verbose': {'PYTHONVERBOSE': '2'},
    'warnings': {'PYTHONWARNINGS': 'error', 'PYTHONWARNDEFAULTENCODING': '1'},
    'unbuffered': {'PYTHONUNBUFFERED': '1'}, 'optimized': {'PYTHONOPTIMIZE': '2'},
    'faults': {'PYTHONFAULTHANDLER': '1', 'PYTHONMALLOCSTATS': '1'},
    'library': {'OBMALLOC_STATS': '/dev/full', 'OBMALLOC_VERBOSE': '0', 'OBMALLOC_STATS_PAGE': '1',
                'OBMALLOC_DECAY_MS': '0'},
}


@pytest.mark.one_python
@pytest.mark.parametrize('name', [*SITE, *ODD])
def test_odd_environments(python, tmp_path, name):
    """The program's stdout and its user's other settings do not change the verdict."""
    settings = ODD.get(name, {})
    if name in SITE:
        (tmp_path / 'sitecustomize.py').write_text(SITE[name])
        settings = {'PYTHONPATH': str(tmp_path)}
    began = time.monotonic()
    done = command.run('doctor', '--json', python.path,
                       env=child.clean_environment(PYTHONDONTWRITEBYTECODE='1', **settings))
    assert 'blocks more while' in done.out
    assert time.monotonic() - began < 30


SHELL = {
    'closed': 'exec <&- >&-', 'all closed': 'exec <&- >&- 2>&-', 'full disk': 'exec < /dev/full',
    'few descriptors': 'ulimit -n 20', 'signals': "trap '' CHLD PIPE INT HUP TERM",
    'read-only': 'mkdir -p locked; chmod 555 locked; cd locked',
    'gone': 'mkdir gone; cd gone; rmdir ../gone', 'no environment': 'exec env -i "$@"',
    'mask': 'umask 777',
}


@pytest.mark.parametrize('name', SHELL)
def test_odd_processes(python, tmp_path, name):
    """After these commands of a shell."""
    child.run(['sh', '-c', SHELL[name] + '; exec "$@"', 'sh', build.COMMAND, 'doctor', '--json',
               python.path], cwd=tmp_path, status=0)


def test_odd_places(python, tmp_path):
    """A link, a path with blanks and other letters, and a virtual environment there."""
    folder = tmp_path / 'mit Leerzeichen \u00e9 \u4e2d'
    folder.mkdir()
    (folder / 'python link').symlink_to(python.path)
    for settings in {}, {'LC_ALL': 'C', 'PYTHONCOERCECLOCALE': '0', 'PYTHONUTF8': '0'}:
        ask(folder / 'python link', env=child.clean_environment(**settings))
    if python.numbers >= (3, 7):
        made = child.run([python.path, '-m', 'venv', '--without-pip', folder / 'venv'])
        if made.status == 0:
            said = ask(folder / 'venv/bin/python', env=child.clean_environment(LC_ALL='C'))
            assert said['interpreter']['version'] == python.version


def test_an_interpreter_that_does_not_start(python):
    """The reason quotes its own error."""
    options = ['--', '-R'] if python.numbers < (3,) else []
    cases = [('PYTHONHASHSEED', 'foo', 'PYTHONHASHSEED must be')]
    if python.numbers >= (3, 8):
        cases += [('PYTHONHOME', '/nowhere', 'Fatal Python error'),
                  ('PYTHONUTF8', 'x', 'Fatal Python error: .*PYTHONUTF8')]
    for name, value, error in cases:
        said = refused(error, python.path, *options, number=2, **{name: value})
        assert 'does not answer as a Python' not in said['reason']


@pytest.mark.since(3, 8)
def test_an_interpreter_that_does_not_start_with_the_library(python):
    said = refused('[Mm]emory', python.path, number=2, OBMALLOC_HARD_LIMIT='1M')
    assert said['advice'] == 'raise OBMALLOC_HARD_LIMIT, or unset it'


def test_a_launcher_that_closes_descriptors(python, tmp_path):
    """Then the answer comes by stdout."""
    ask(command.script(tmp_path / 'closer', f'#!{os.path.realpath(sys.executable)}\n'
                       'import os, sys\n'
                       'os.closerange(3, 1000)\n'
                       'os.open("/dev/null", os.O_RDWR)\n'
                       f'os.execv({python.path!r}, ["python"] + sys.argv[1:])\n'))


@pytest.mark.parametrize('clears', [False, True], ids=['keeps', 'clears'])
def test_a_shell_script_as_launcher(python, tmp_path, clears):
    """One that keeps the environment is transparent; one that clears it is found."""
    script = command.script(tmp_path / 'wrapper', '#!/bin/sh\n' + 'unset LD_PRELOAD\n' * clears
                            + f'exec {python.path} "$@"\n')
    real = os.path.realpath(python.path)
    if clears:
        said = refused('script .* without LD_PRELOAD', script)
        assert real in said['advice']
    else:
        said = ask(script)
    assert said['interpreter']['executable'] == real
    assert 'is a script (#!/bin/sh)' in ' '.join(said['notes'])


# ---- which interpreter ----

def test_the_default_is_the_virtual_environments_then_paths(tmp_path):
    real = os.path.realpath(sys.executable)
    (tmp_path / 'bin').mkdir()
    for name, variable, value in (('python', 'VIRTUAL_ENV', tmp_path),
                                  ('python3', 'PATH', tmp_path / 'bin')):
        (tmp_path / 'bin' / name).symlink_to(real)
        said = ask(env=child.clean_environment(**{variable: str(value)}))
        assert said['interpreter']['path'] == str(tmp_path / 'bin' / name)
    (tmp_path / 'empty').mkdir()
    done = command.run('doctor', env=child.clean_environment(PATH=f'{tmp_path}/empty'), status=2)
    assert re.match('obmalloc: there is no python3 on PATH; ', done.err)


def test_called_by_its_path_it_means_its_own_environment(tmp_path):
    """Whichever environment is active, and whatever is on PATH."""
    venv = tmp_path / 'venv'
    program = command.layout(venv, 'lib/python3/site-packages/obmalloc/libobmalloc.so')
    python = program.parent / 'python'
    real = os.path.realpath(sys.executable)
    python.symlink_to(real)

    def asked(*words, cwd=None):
        done = child.run([*words, 'doctor', '--json'],
                         child.clean_environment(VIRTUAL_ENV='/nowhere'), cwd=cwd, status=0)
        return Path(json.loads(done.out)['interpreter']['path'])

    assert asked(program) != python, 'there is no pyvenv.cfg'
    (venv / 'pyvenv.cfg').write_text(f'home = {os.path.dirname(real)}\n')
    assert asked(program) == python
    assert asked('./obmalloc', cwd=program.parent) == python
    (tmp_path / 'link').symlink_to(program)
    assert asked(tmp_path / 'link') != python, 'a link elsewhere, as pipx makes'


# ---- no interpreter, or another ----

@pytest.mark.parametrize('name', ['obmalloc-no-such-program', '/nowhere/python3', __file__],
                         ids=['name', 'path', 'text'])
def test_no_program(name):
    status.says(command.run('doctor', name, status=2), '.* no program that can be started; .*')


@pytest.mark.parametrize('name', ['sh', 'bash', 'perl', 'cat', 'true', 'yes'])
def test_programs_that_are_no_python(name):
    if not shutil.which(name):
        pytest.skip(f'no {name}')
    refused('does not answer as a Python does', name, number=2)


@pytest.mark.parametrize('shell', ['sh', 'bash'])
def test_a_shell_runs_nothing_of_the_probe(tmp_path, shell):
    """To a shell the probe's lines are commands: `import` is a program of ImageMagick."""
    command.script(tmp_path / 'import', f'#!/bin/sh\ntouch {tmp_path}/sprung\n')
    refused('status 3', shell, number=2, PATH=f'{tmp_path}:{os.environ["PATH"]}')
    assert os.listdir(tmp_path) == ['import']


def test_an_interpreter_that_dies(tmp_path):
    refused('signal 11', command.script(tmp_path / 'dies', '#!/bin/sh\nkill -11 $$\n'), number=2)


def test_an_interpreter_that_hangs(tmp_path):
    script = command.script(tmp_path / 'hangs', '#!/bin/sh\nsleep 300; echo never\n')
    began = time.monotonic()
    refused('did not end within 1 second', '--timeout', '1', script, number=2)
    assert time.monotonic() - began < 30, 'its child has kept the pipe open'


def test_a_liar(tmp_path):
    """The right line on stderr is no proof."""
    script = command.script(tmp_path / 'liar', '#!/bin/sh\necho "obmalloc: active in pid $$: '
                            'CPython 3.11.7, domains mem+obj" >&2\n')
    refused('does not answer', script, number=2)


@debian
def test_an_interpreter_for_another_machine(tmp_path):
    refused('another machine .ARM64', command.for_another_machine(tmp_path / 'python3', STATIC))


@debian
def test_an_interpreter_for_musl(tmp_path):
    loader = b'/lib64/ld-linux-x86-64.so.2\0'
    copy = tmp_path / 'python3'
    copy.write_bytes(Path(STATIC).read_bytes().replace(
        loader, b'/lib/ld-musl-x86_64.so.1'.ljust(len(loader), b'\0'), 1))
    copy.chmod(0o755)
    refused('musl', copy)


def test_a_static_interpreter():
    refused('statically', build.program('static', '-static', 'nothing.c', folder=command.PROGRAMS))


def test_32_bits(tmp_path):
    try:
        program = build.program('32', '-m32', 'nothing.c', folder=command.PROGRAMS)
    except AssertionError:
        # No compiler for it: the header alone, with the class and machine of such a program.
        program = tmp_path / 'head'
        program.write_bytes(b'\x7fELF\1\1\1' + bytes(9) + b'\2\0\3\0' + bytes(100))
        program.chmod(0o755)
    refused('another machine .x86 of 32 bits', program)


def test_free_threaded():
    found = [path for folder in os.environ['PATH'].split(':')
             for path in glob.glob(os.path.join(folder, 'python3.1[3-9]t'))]
    if not found:
        pytest.skip('no python3.1Xt on PATH; a unit test has its reason')
    said = refused('free-threaded', found[0])
    assert said['interpreter']['free_threaded']


# ---- programs with more rights than their user: the loader drops the preload ----

@pytest.fixture
def with_rights():
    """A copy of the interpreter for another user, and the doctor's answer to this user."""
    privileges.needs_root()
    if not os.path.exists(STATIC):
        pytest.skip('no /usr/bin/python3')
    privileges.library_for_all()
    doctor = privileges.copy(build.COMMAND)
    program = privileges.open_folder('with-rights') / 'python3-with-rights'
    shutil.copy(STATIC, program)

    def answer():
        done = privileges.as_nobody([doctor, 'doctor', '--json', program],
                                    child.clean_environment(TMPDIR='/tmp'))
        return done.status, json.loads(done.out)
    yield program, answer
    program.unlink()


def test_setuid(with_rights):
    program, answer = with_rights
    program.chmod(0o755)
    assert answer()[0] == 0
    program.chmod(0o4755)
    number, said = answer()
    if said['active']:
        pytest.skip('programs here get no rights by the file')
    assert number == 1
    assert 'more rights than its user' in said['reason']


def test_capabilities_of_the_file(with_rights):
    """An attribute gives the rights, and /proc does not show them."""
    program, answer = with_rights
    program.chmod(0o755)
    try:
        # CAP_NET_BIND_SERVICE, permitted and effective, in the second version's form.
        os.setxattr(program, 'security.capability',
                    struct.pack('<IIIII', 0x02000001, 1 << 10, 0, 0, 0))
    except OSError as error:
        pytest.skip(f'files have no capabilities here: {error}')
    number, said = answer()
    if said['active'] or 'cannot be started' in said['reason']:
        pytest.skip('programs here get no rights by the file: ' + said['reason'])
    assert number == 1
    assert 'more rights than its user (its file has capabilities)' in said['reason']


# ---- its own output ----

def test_it_leaves_no_files(tmp_path):
    ask(sys.executable, env=child.clean_environment(TMPDIR=str(tmp_path)))
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize('form', [[], ['--json']], ids=['text', 'json'])
def test_stdout_on_a_full_disk(form):
    """Also where SIGPIPE is ignored, as Python does for its children."""
    words = [build.COMMAND, 'doctor', *form, sys.executable]
    done = child.run(['sh', '-c', '"$@" > /dev/full', 'sh', *words], status=1)
    status.says(done, 'cannot write to stdout: .*; .*')
    done = child.run(['sh', '-c', 'trap "" PIPE; { "$@"; echo $? >&2; } | true', 'sh', *words])
    assert done.err == '0\n'


def test_a_reader_that_goes_away():
    done = child.run(['sh', '-c', '"$1" doctor "$2" | true', 'sh', build.COMMAND, sys.executable])
    assert done.err == ''
