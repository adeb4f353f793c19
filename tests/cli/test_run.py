"""`obmalloc run`: the program starts with the library and is otherwise the same."""
import os
import resource
import shutil
import signal
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from cli import command
from support import build, child, status

SELF = '''
import os, signal, sys
print(os.getpid())
print(os.environ.get('LD_PRELOAD'))
print(sorted(key for key in os.environ if key.startswith('OBMALLOC')))
print(sys.argv[1:])
'''

# Prints the version, whether the library is mapped, and the arguments.
SHOWN = '''import sys
print("%s %s %s" % (sys.version.split()[0], "libobmalloc.so" in open("/proc/self/maps").read(),
                    sys.argv[1:]))
sys.exit(7)
'''
PRELOAD = 'import os; print(os.environ["LD_PRELOAD"])'


def active(done):
    """The number of processes in which the library became active."""
    return len(done.lines(status.ACTIVE))


def test_active_in_the_same_process(python):
    done = command.run('run', '--verbose', '--', python.path, '-c', SELF, '-x', '--', 'a b')
    status.active(done, python)         # and its pid is the command's
    pid, preload, settings, words = done.out.splitlines()
    assert int(pid) == done.pid
    assert os.path.samefile(preload, build.LIBRARY)
    assert settings == "['OBMALLOC_VERBOSE']"
    assert words == "['-x', '--', 'a b']"


def test_silent_by_default(python):
    done = command.run('run', python.path, '-c', 'print(1)')
    assert (done.out, done.err) == ('1\n', '')


# ---- `obmalloc run` and `python -m obmalloc run` take the same words ----

@pytest.fixture
def spellings(python, tmp_path):
    """Runs both ways in a folder with programs. On PATH are python, python3 (this one), the
    command, and a console script."""
    def file(name, text, mode=0o644):
        command.script(tmp_path / name, text, mode)
    for name in 'bin/python', 'bin/python3':
        file(name, f'#!/bin/sh\nexec {python.path} "$@"\n', 0o755)
    (tmp_path / 'bin/obmalloc').symlink_to(build.COMMAND)
    for name in 'bin/console', 'executable.py':
        file(name, f'#!{python.path}\n{SHOWN}', 0o755)
    for name in 'app.py', 'pkg/__main__.py', 'pkg/sub/mod.py', 'folder/__main__.py', 'plain':
        file(name, SHOWN)
    file('pkg/__init__.py', '')
    file('no_first_line.py', SHOWN, 0o755)
    file('unmarked', '#!/usr/bin/env python3\n' + SHOWN)
    with zipfile.ZipFile(tmp_path / 'app.zip', 'w') as archive:
        archive.writestr('__main__.py', SHOWN)
        if python.numbers >= (3, 8):        # 3.7 itself does not run one with a comment
            archive.comment = b'PK, with a comment'
    env = child.clean_environment(
        PATH=f'{tmp_path}/bin:{os.environ["PATH"]}', OBMALLOC_LIBRARY=str(build.LIBRARY),
        PYTHONPATH=str(build.ROOT / 'python'), PYTHONDONTWRITEBYTECODE='1')

    def run(*words, status):
        for way in [build.COMMAND], [python.path, '-m', 'obmalloc']:
            yield child.run([*way, *words], env, cwd=tmp_path, status=status)
    return run


STARTED = [
    ['app.py'], ['./app.py'], ['--', 'app.py'], ['--', 'python', 'app.py'], ['python', 'app.py'],
    ['python3', 'app.py'], ['console'], ['bin/console'], ['-m', 'pkg'], ['--', '-m', 'pkg'],
    ['-c', SHOWN], ['folder'], ['--', '-B', '-s', 'app.py'], ['./executable.py'],
    ['executable.py'], ['no_first_line.py'], ['./no_first_line.py'], ['unmarked'],
    ['-v', 'app.py'], ['app.zip'], ['./app.zip'], ['PYTHON', 'app.py'],
    ['--python', 'PYTHON', 'app.py']]


@pytest.mark.since(3, 7)
@pytest.mark.one_python
def test_programs(python, spellings):
    for words in STARTED:
        words = [python.path if word == 'PYTHON' else word for word in words]
        for done in spellings('run', *words, 'x', '-v', '--', 'a b', status=7):
            assert done.out == f"{python.version} True ['x', '-v', '--', 'a b']\n", done.report
            assert active(done) == (words[0] == '-v'), done.report


@pytest.mark.since(3, 7)
def test_suggestions(python, spellings):
    for word, suggestion in (
            ('app', 'app.py'), ('consoel', 'console'), ('console3', 'console'), ('ap.py', 'app.py'),
            ('plain', 'python3 plain'), ('pkg.sub.mod', '-m pkg.sub.mod'),
            ('obmalloc-no-such-thing', 'is its name right'), ('./nothing', 'is its name right')):
        for done in spellings('run', word, status=127):
            status.says(done, f'cannot start .*; .*{suggestion}.*')


@pytest.mark.since(3, 7)
def test_path(python, spellings):
    for done in spellings('path', status=0):
        assert done.out == f'{build.LIBRARY}\n'


# ---- the program is the process ----

@pytest.mark.parametrize('number', [0, 1, 77, 255])
def test_exit_status(number):
    command.run('run', '--', 'sh', '-c', f'exit {number}', status=number)


@pytest.mark.parametrize('number', [signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV])
def test_signals_of_the_program(number):
    command.run('run', '--', 'sh', '-c', f'kill -{number:d} $$', status=-number)


def test_signals_from_outside_reach_the_program():
    program = subprocess.Popen(
        [build.COMMAND, 'run', '--', 'sh', '-c',
         'trap "echo caught; exit 5" TERM; echo up; read never'],
        env=child.clean_environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert program.stdout.readline() == b'up\n'
    program.terminate()
    assert program.communicate(timeout=30)[0] == b'caught\n'
    assert program.returncode == 5


@pytest.mark.parametrize('handler', [signal.SIG_DFL, signal.SIG_IGN])
def test_signal_masks_are_the_callers(handler):
    """Rust ignores SIGPIPE; the program must find the caller's setting."""
    show = ['sh', '-c', 'grep -E "Sig(Ign|Blk|Cgt)" /proc/self/status']

    def start(argv):
        return subprocess.run(argv, stdout=subprocess.PIPE, restore_signals=False,
                              preexec_fn=lambda: signal.signal(signal.SIGPIPE, handler),
                              env=child.clean_environment()).stdout
    plain = start(show)
    assert b'SigIgn' in plain
    assert start([build.COMMAND, 'run', '--', *show]) == plain


def broken_pipe(_):
    reader, writer = os.pipe()
    os.close(reader)
    return writer


def full_pipe(request):
    reader, writer = os.pipe()
    request.addfinalizer(lambda: os.close(reader))
    os.set_blocking(writer, False)
    try:
        while True:
            os.write(writer, b'x' * 4096)
    except BlockingIOError:
        os.set_blocking(writer, True)
    return writer


def file_at_its_limit(request):
    return os.open(request.getfixturevalue('tmp_path') / 'log', os.O_WRONLY | os.O_CREAT)


@pytest.mark.parametrize('make, limit', [
    (broken_pipe, None), (full_pipe, None), (file_at_its_limit, 0)])
def test_an_unwritable_message_does_not_end_the_program(request, tmp_path, make, limit):
    """The command finds no library and cannot write so. The program runs, with its caller's
    signal settings."""
    alone = command.layout(tmp_path, library=None)
    code = ('import signal, sys; signals = signal.SIGPIPE, signal.SIGXFSZ, signal.SIGTTOU\n'
            'print([signal.getsignal(each).value for each in signals],'
            ' signal.pthread_sigmask(signal.SIG_BLOCK, []), signal.sigpending())\n'
            'sys.exit(7)\n')

    def prepare():
        for each in signal.SIGPIPE, signal.SIGXFSZ:
            signal.signal(each, signal.SIG_DFL)
        if limit is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    def start(*argv):
        stderr = make(request)
        done = subprocess.run(argv, stdout=subprocess.PIPE, stderr=stderr, preexec_fn=prepare,
                              restore_signals=False, env=child.clean_environment(), timeout=20)
        os.close(stderr)
        return done.returncode, done.stdout
    for program in (['sh', '-c', 'grep -E "(Sig|Shd)[PBIC]" /proc/self/status; exit 7'],
                    ['/usr/bin/python3', '-c', code]):
        plain = start(*program)
        assert plain[0] == 7
        assert start(alone, 'run', '--', *program) == plain
    assert start(alone, 'run', '--', '/no/such/program') == (127, b'')


def test_closed_descriptors_stay_closed():
    """Rust opens /dev/null in their place."""
    show = ['sh', '-c', 'for n in 0 2; do test -e /proc/self/fd/$n && echo $n; done; exit 7']
    for words in show, [build.COMMAND, 'run', '--', *show]:
        done = subprocess.run(['sh', '-c', 'exec "$@" <&- 2>&-', 'sh', *words],
                              stdout=subprocess.PIPE, env=child.clean_environment())
        assert (done.returncode, done.stdout) == (7, b'')


# ---- settings, wrong use ----

@pytest.mark.parametrize('given, expected', [
    ('{other}', '{us}:{other}'), ('{other}:{us}', '{us}:{other}'), ('{us} {other}', '{us}:{other}'),
    ('{us}', '{us}'), ('', '{us}'), ('{other}:/elsewhere/libobmalloc.so.0', '{us}:{other}')])
def test_other_preloads_stay_behind_the_library(given, expected):
    others = [str(path) for path in Path('/usr/lib').glob('*/libjemalloc.so.2')]
    if not others:
        pytest.skip('no jemalloc')
    names = {'us': os.path.realpath(build.LIBRARY), 'other': others[0]}
    done = command.run('run', '--', 'sh', '-c', 'echo $LD_PRELOAD',
                       env=child.clean_environment(LD_PRELOAD=given.format(**names)))
    assert done.out.strip() == expected.format(**names)


def test_options_set_variables():
    done = command.run('run', '-v', '--stats', '/tmp/%p.json', '--stats-page', '--soft-limit',
                       'auto', '--hard-limit', '2G', '--decay', '-1', '--packed',
                       '--guard-sample-rate', '100', '--no-background-thread', '-s', 'thp=never',
                       '--set', 'OBMALLOC_FORK_COW=freeze',
                       '--', 'sh', '-c', 'env | grep ^OBMALLOC_ | sort',
                       env=child.clean_environment(OBMALLOC_THP='always'))
    assert done.out.split() == [
        'OBMALLOC_ALIGN=8', 'OBMALLOC_BACKGROUND_THREAD=0', 'OBMALLOC_DECAY_MS=-1',
        'OBMALLOC_FORK_COW=freeze', 'OBMALLOC_GUARD_SAMPLE_RATE=100', 'OBMALLOC_HARD_LIMIT=2G',
        'OBMALLOC_SOFT_LIMIT=auto', 'OBMALLOC_STATS=/tmp/%p.json', 'OBMALLOC_STATS_PAGE=1',
        'OBMALLOC_THP=never', 'OBMALLOC_VERBOSE=1']


@pytest.mark.parametrize('word, value', [('--profile', '512K'), ('--profile=1', '1'),
                                         ('--profile=64K', '64K')])
def test_profile_sets_its_interval_and_the_stats_page(word, value):
    """The interval is part of the word: the next word is the program."""
    done = command.run('run', word, 'sh', '-c', 'env | grep ^OBMALLOC_ | sort',
                       env=child.clean_environment())
    assert done.out.split() == [f'OBMALLOC_PROFILE={value}', 'OBMALLOC_STATS_PAGE=1']


@pytest.mark.parametrize('deprecated, variable', [
    (['--live'], 'OBMALLOC_STATS_PAGE=1'),
    (['--limit', '1G'], 'OBMALLOC_SOFT_LIMIT=1G'),
    (['--limit-hard', '2G'], 'OBMALLOC_HARD_LIMIT=2G'),
    (['--guard', '100'], 'OBMALLOC_GUARD_SAMPLE_RATE=100'),
    (['--no-thread'], 'OBMALLOC_BACKGROUND_THREAD=0'),
    (['-s', 'small_max=8K'], 'OBMALLOC_POOL_MAX=8K'),
    (['-s', 'OBMALLOC_FORK=seal'], 'OBMALLOC_FORK_COW=seal'),
    (['-s', 'tools=0'], 'OBMALLOC_TOOL_ANNOTATIONS=0')])
def test_deprecated_names_set_the_present_variables(deprecated, variable):
    done = command.run('run', *deprecated, '--', 'sh', '-c', 'env | grep ^OBMALLOC_')
    assert done.out.split() == [variable]
    assert done.err == ''


def test_the_library_understands_what_options_set(tmp_path):
    """It warns of a value that it does not understand, in a Python where it is active."""
    done = command.run('run', '-v', '--stats', f'{tmp_path}/out.json', '--soft-limit',
                       '4G', '--hard-limit', 'auto', '--decay', '50', '--packed=obj',
                       '--guard-sample-rate', '0', '--no-background-thread', '-s', 'pool_max=8K',
                       '--', 'python3', '-c', 'pass')
    assert 'packed obj' in done.err
    assert 'not understood' not in done.err
    assert os.listdir(tmp_path) == ['out.json']


@pytest.mark.parametrize('words, advice', [
    ([], r'no command to run; .*obmalloc run -- python3'),
    (['-s', 'decay', 'echo'], r'decay is no setting; write NAME=VALUE'),
    (['-s', 'decay=1', 'echo'], r'decay is no setting.*DECAY_MS'),
    (['--soft-limit', '0', 'echo'], r'--soft-limit takes bytes .*, not 0; .*512M'),
    (['--profile=often', 'echo'], r'--profile takes bytes.*, not often; .*--profile=512K'),
    (['--decay', '-2', 'echo'], r'--decay takes milliseconds, or -1, not -2; .*--decay')])
def test_wrong_use(words, advice):
    """One line with the next step; and nothing is started."""
    done = command.run('run', *words, status=2)
    assert done.out == ''
    status.says(done, advice + '.*')


def test_programs_that_cannot_be_started(tmp_path):
    (tmp_path / 'text').write_text('text')
    for name, number in ('obmalloc-no-such-program', 127), (tmp_path / 'text', 126):
        status.says(command.run('run', '--', name, status=number), 'cannot start .*; .*')


# ---- without a library that fits: one line, and the program runs ----

def runs_without(warning, program=None, **env):
    done = child.run([program or build.COMMAND, 'run', '--', 'sh', '-c',
                      'echo ${LD_PRELOAD:-none}; exit 4'], child.clean_environment(**env), status=4)
    assert done.out == 'none\n'
    status.says(done, warning + r'.*running without the library\)')


def test_no_library(tmp_path):
    runs_without('no libobmalloc.so near', command.layout(tmp_path, library=None))


def test_a_variable_that_names_no_library(tmp_path):
    runs_without('OBMALLOC_LIBRARY=/nowhere.so: No such file', OBMALLOC_LIBRARY='/nowhere.so')
    os.mkfifo(tmp_path / 'fifo.so')
    for path in __file__, build.COMMAND, tmp_path / 'fifo.so':
        runs_without('OBMALLOC_LIBRARY=.*: is no shared library', OBMALLOC_LIBRARY=str(path))


@pytest.mark.parametrize('length', [64, 200, 3000, 100000])
def test_a_truncated_library(tmp_path, length):
    """The loader would end the program with SIGBUS."""
    (tmp_path / 'cut.so').write_bytes(build.LIBRARY.read_bytes()[:length])
    runs_without('OBMALLOC_LIBRARY=.*: is cut off', OBMALLOC_LIBRARY=f'{tmp_path}/cut.so')


def test_a_library_for_another_machine(tmp_path):
    other = command.for_another_machine(tmp_path / 'lib/libobmalloc.so')
    runs_without(r'.*is for another machine \(ARM64\)', OBMALLOC_LIBRARY=str(other))
    runs_without(r'.*is for another machine \(ARM64\)', command.layout(tmp_path, library=None))


@pytest.mark.parametrize('to', ['closed pipe', 'full disk'])
def test_a_warning_without_a_reader(to):
    writer = broken_pipe(None) if to == 'closed pipe' else os.open('/dev/full', os.O_WRONLY)
    done = subprocess.run([build.COMMAND, 'run', '--', 'sh', '-c', 'echo runs; exit 4'],
                          env=child.clean_environment(OBMALLOC_LIBRARY='/nowhere.so'),
                          stdout=subprocess.PIPE, stderr=writer)
    os.close(writer)
    assert (done.returncode, done.stdout) == (4, b'runs\n')


@pytest.mark.parametrize('name', ['with blank', 'with:colon'])
def test_a_path_that_the_loader_would_split(tmp_path, name):
    runs_without('.*blank or a colon', command.layout(tmp_path / name))


# ---- launchers: programs that cannot load the library, and that start others ----

def launcher(option):
    return build.program('launcher' + option, option, 'launcher.c', folder=command.PROGRAMS)


def serves(*words, warning):
    """The launcher's Python has the library; the warning is the only other line."""
    done = command.run('run', '-v', '--', *words, 'python3', '-c', 'print(1)')
    assert done.out == '1\n'
    assert active(done) == 1, done.report
    if warning:
        status.says(done, warning, others=status.ACTIVE)


@pytest.mark.parametrize('option', ['-static', '-static-pie'])
def test_static_launchers(option):
    """A line says that they do not have the library and that their children do."""
    serves(launcher(option),
           warning='.* is linked statically.*; programs that it starts have the library')


@pytest.mark.parametrize('words', ['tini-static -s --', 'busybox env', 'dumb-init'])
def test_launchers_of_distributions(words):
    words = words.split()
    if not shutil.which(words[0]):
        pytest.skip(f'no {words[0]}')
    serves(*words, warning=None)


def test_the_loader():
    """ld.so preloads into the program that it starts, so there is no warning."""
    loader = '/lib64/ld-linux-x86-64.so.2'
    if not os.path.exists(loader):
        pytest.skip(f'no {loader}')
    done = command.run('run', '-v', '--', loader, os.path.realpath(sys.executable), '-c',
                       'print(1)')
    assert done.out == '1\n'
    assert done.err.count('\n') == active(done) == 1, done.report


def test_the_status_is_the_launchers():
    command.run('run', '--', launcher('-static'), '/nowhere/at/all', status=6)


# ---- sanitizers' runtimes come before the library ----

@pytest.mark.parametrize('name, options', [
    ('libasan.so', []), ('libasan.so', ['--pythons-only']), ('libubsan.so', []),
    ('liblsan.so', [])])
def test_sanitizers_come_first(name, options):
    if not shutil.which('gcc'):
        pytest.skip('no gcc')
    path = child.run(['gcc', '-print-file-name=' + name]).out.strip()
    if not os.path.isabs(path) or Path(path).read_bytes()[:4] != b'\x7fELF':    # or a linker script
        pytest.skip(f'no {name}')
    env = child.clean_environment(LD_PRELOAD=os.path.realpath(path), ASAN_OPTIONS='detect_leaks=0',
                                  LSAN_OPTIONS='detect_leaks=0')
    program = [os.path.realpath(sys.executable), '-c',
               'import os, subprocess, sys\n'
               'subprocess.check_call([sys.executable, "-c", "print(2)"])\n'
               'print(1)']
    plain = child.run(program, env)
    if plain.status != 0:
        pytest.skip(f'{name} does not run: {plain.err[-200:]}')
    done = command.run('run', '-v', *options, '--', *program, env=env)
    assert done.out == '2\n1\n'
    assert active(done) == 2


def test_the_order_of_sanitizers():
    done = command.run('run', '--', 'sh', '-c', 'echo $LD_PRELOAD', env=child.clean_environment(
        LD_PRELOAD='/nowhere/one.so:/nowhere/libasan.so.8 /nowhere/libubsan.so.1'))
    assert done.out.strip().split(':') == [
        '/nowhere/libasan.so.8', '/nowhere/libubsan.so.1', os.path.realpath(build.LIBRARY),
        '/nowhere/one.so']


# ---- the library is found wherever an installation puts it ----

def finds(program, library, env=None):
    done = child.run([program, 'run', '-v', '--', 'python3', '-c', PRELOAD], env, status=0)
    assert done.out.strip() == str(library)
    assert active(done) == 1
    assert 'not understood' not in done.err


@pytest.mark.parametrize('place', [
    'bin/libobmalloc.so', 'lib/libobmalloc.so', 'lib/libobmalloc.so.0', 'lib64/libobmalloc.so',
    'lib/x86_64-linux-gnu/libobmalloc.so.0', 'lib/python3.9/site-packages/obmalloc/libobmalloc.so'])
def test_places(tmp_path, place):
    finds(command.layout(tmp_path, place), tmp_path / place)


def test_the_library_that_the_variable_names(tmp_path):
    """And the variable is not handed on: the library has no such setting."""
    library = tmp_path / 'elsewhere/libobmalloc.so'
    finds(command.layout(tmp_path, 'elsewhere/libobmalloc.so'), library,
          child.clean_environment(OBMALLOC_LIBRARY=str(library)))


def test_a_symbolic_link_to_the_command(tmp_path):
    program = command.layout(tmp_path)
    (tmp_path / 'link').symlink_to(program)
    finds(tmp_path / 'link', tmp_path / 'lib/libobmalloc.so')
