"""musl, as on Alpine: the library and the command for it, in CPythons that are built for it.

The interpreters are built from the source package of Debian 13 by build_musl_python.sh, once;
the library and the command by `make command TARGET=`. Programs of this machine's C library run
beside them: a preload is for the programs of one C library, so it is set for these alone.
"""
import json
import os
import platform
import re
import shutil
import sys

import pytest
from arch import musl
from compat.environment import last_line

from support import build, child, junit, platforms, status

pytestmark = [pytest.mark.slow, pytest.mark.network]

LIBRARY = build.TARGET / musl.TARGET / 'release/libobmalloc.so'
COMMAND = LIBRARY.with_name('obmalloc')
PROGRAMS = build.ROOT / 'tests/preload/programs'
VERSION = '3.13'


@pytest.fixture(scope='module')
def built():
    """The library and the command for musl."""
    musl.need_target()
    musl.make('command')
    return LIBRARY


@pytest.fixture(scope='module')
def pythons(built):
    return musl.pythons()


@pytest.fixture(params=musl.KINDS)
def interpreter(request, pythons):
    return pythons[request.param]


@pytest.fixture
def shown(evidence, request):
    """Adds a row to docs/evidence.md, with the interpreter as a platform."""
    def add(what, amount, interpreter, **options):
        version = re.search(r'Version ([\d.]+)', child.run([musl.LOADER]).err)[1]
        system = platforms.Platform(interpreter.version, interpreter.kind, platform.machine(),
                                    f'musl {version}')
        evidence(what, 'Environments', amount, versions=f'CPython {system.words}',
                 platforms=[system], **options, command='tests/run --all-pythons --record '
                 + request.node.nodeid.split('[')[0])
    return add


def interpret(interpreter, *words, preload=LIBRARY, **variables):
    variables = dict(OBMALLOC_VERBOSE='1', PYTHONPATH=PROGRAMS,
                     PYTHONDONTWRITEBYTECODE='1') | variables
    variables |= {'LD_PRELOAD': preload} if preload else {}
    return child.run([interpreter.path, *words], child.clean_environment(**variables), status=0)


# ---- the library ----

def test_needs_musl_alone(built):
    """glibc's loader, which has no libc.so, refuses it."""
    dynamic = child.run(['readelf', '-dW', built], status=0).out
    assert re.findall(r'\(NEEDED\).*\[(.*)\]', dynamic) == ['libc.so']
    assert 'STATIC_TLS' not in dynamic


def test_hit_path(built):
    """Two instructions more for each access to the thread word than with glibc."""
    done = child.run([sys.executable, build.ROOT / 'bench/asm.py', '--library', built, '--limit',
                      '34'])
    assert done.status == 0, done.report


def test_active(interpreter):
    done = interpret(interpreter, '-c', 'import inside; print(inside.workload(2))')
    status.active(done, interpreter)
    assert done.out == interpret(interpreter, '-c', 'import inside; print(inside.workload(2))',
                                 preload=None).out


def test_started_by_the_loader(interpreter):
    """The kernel starts the loader then, and the program's arguments are not the first."""
    env = child.preloaded(OBMALLOC_VERBOSE='1', LD_PRELOAD=LIBRARY)
    done = child.run([musl.LOADER, interpreter.path, '-X', 'dev', '-c', '1'], env, status=0)
    status.aside(done, '-X dev')


@pytest.mark.parametrize('options, variables, reason', [
    (['-X', 'dev'], {}, '-X dev'),
    (['-Xdev'], {}, '-X dev'),
    ([], {'PYTHONDEVMODE': '1'}, 'PYTHONDEVMODE'),
    ([], {'PYTHONMALLOC': 'malloc'}, 'PYTHONMALLOC=malloc'),
    ([], {'PYTHONMALLOC': 'pymalloc_debug'}, 'PYTHONMALLOC=pymalloc_debug'),
    (['-E'], {'PYTHONMALLOC': 'malloc', 'PYTHONDEVMODE': '1'}, None),
    (['-I'], {'PYTHONMALLOC': 'malloc'}, None),
])
def test_command_line_is_read(interpreter, options, variables, reason):
    """musl's loader passes no arguments to constructors: the library finds them."""
    done = interpret(interpreter, *options, '-c', 'pass', **variables)
    if reason:
        status.aside(done, reason)
    else:
        status.active(done, interpreter)


def test_arguments_are_found_in_any_environment(interpreter):
    """In an empty environment and in one of 100 KB the vector is at other places."""
    for variables in {}, {f'V{n}': 'x' * 1000 for n in range(100)}:
        env = {'LD_PRELOAD': str(LIBRARY), 'OBMALLOC_VERBOSE': '1', **variables}
        done = child.run([interpreter.path, '-E', '-X', 'dev', '-c', 'pass', 'a' * 5000], env,
                         status=0)
        status.aside(done, '-X dev')


DICTS = '''
import gc, sys, time
def resident():
    return int(open('/proc/self/statm').read().split()[1]) * 4096
kept = [{'number': n, 'name': str(n)} for n in range(300000)]
peak, survivors = resident(), kept[::1000]
del kept
gc.collect()
time.sleep(3)
print([peak, resident()])
'''


def test_memory_is_returned(interpreter, shown):
    """300 000 dicts, of which every thousandth stays: 3 s later at most 15 MiB are resident."""
    ours = interpret(interpreter, '-c', DICTS)
    status.active(ours, interpreter)
    peak, idle = json.loads(ours.out)
    stock_peak, stock_idle = json.loads(interpret(interpreter, '-c', DICTS, preload=None).out)
    assert idle <= 15 << 20, f'{idle >> 20} MiB idle'
    assert stock_idle > stock_peak / 2 and peak < 1.2 * stock_peak
    shown(f'300 000 dicts dropped, musl, {interpreter.kind}', interpreter=interpreter,
          result='at most 15 MiB idle', amount=f'peak {peak >> 20} MiB, idle {idle >> 20} MiB '
          f'(stock {stock_peak >> 20}, {stock_idle >> 20})')


LATE = '''
import inside, sys, threading
go_on = threading.Event()
older = threading.Thread(target=lambda: (go_on.wait(), inside.workload(1)))
older.start()
before = [str(n) for n in range(20000)]
lib = inside.library(sys.argv[1])
assert lib.obmalloc_install() == 0 and lib.obmalloc_install() == 0
kept = [str(n) for n in range(30000)]
assert inside.live(inside.stats(lib)) > 25000
go_on.set()
older.join()
del before, kept
inside.in_threads(4, lambda: inside.workload(1))
print(inside.workload(2))
'''


def test_late_installation(interpreter):
    """A library that is opened late has its thread word by a descriptor; a thread that was there
    before uses it, too."""
    done = interpret(interpreter, '-c', LATE, LIBRARY, preload=None)
    status.active_at_last(done, interpreter)
    plain = interpret(interpreter, '-c', 'import inside; print(inside.workload(2))', preload=None)
    assert done.out == plain.out


# ---- the command and the package ----

def run(*words, number=0, **variables):
    env = child.clean_environment(**variables)
    return child.run([COMMAND, *words], env, status=number)


def doctor(*words, number=0, **variables):
    return json.loads(run('doctor', '--json', *words, number=number, **variables).out)


def test_doctor(interpreter):
    said = doctor(interpreter.path)
    assert said['active'] and said['interpreter']['version'] == interpreter.version
    assert os.path.samefile(said['library']['path'], LIBRARY)
    assert bool(said['interpreter']['libpython']) == interpreter.shared


def test_run(interpreter):
    done = run('run', '-v', interpreter.path, '-c', 'print(6 * 7)')
    status.active(done, interpreter)
    assert done.out == '42\n'


def test_pythons_only(interpreter):
    """The preload is not passed on to a shell, and is to a Python."""
    code = ('import subprocess, sys\n'
            'words = ["/bin/sh", "-c", "echo $LD_PRELOAD"]\n'
            'print(subprocess.check_output(words).decode().strip())\n'
            'subprocess.check_call([sys.executable, "-c", "pass"])')
    done = run('run', '-v', '--pythons-only', interpreter.path, '-c', code)
    assert done.out == '\n' and len(done.lines(status.ACTIVE)) == 2, done.report


def test_libraries_of_both_kinds(interpreter, library, tmp_path):
    """glibc's library with an interpreter of musl, and the other way round: not started, with the
    reason; `obmalloc run` starts the program without it."""
    said = doctor(interpreter.path, number=1, OBMALLOC_LIBRARY=library)
    assert said['code'] == 'musl' and 'musllinux' in said['advice']
    assert re.search('is linked with musl, and the library needs glibc', said['reason'])
    done = run('run', '-v', interpreter.path, '-c', 'print(1)', OBMALLOC_LIBRARY=library)
    assert done.out == '1\n' and 'running without the library' in done.err
    said = doctor('/bin/sh', number=1)
    assert said['code'] == 'glibc' and 'manylinux' in said['advice']
    script = tmp_path / 'script'
    script.write_text(f'#!{interpreter.path}\nprint(2)\n')
    script.chmod(0o755)
    done = run('run', script, OBMALLOC_LIBRARY=library)
    assert done.out == '2\n' and 'the library needs glibc' in done.err


def test_preloads_that_the_loader_does_not_take(interpreter, tmp_path):
    """musl's loader says nothing of a file that is not there."""
    said = doctor('--as-is', interpreter.path, number=1, LD_PRELOAD=tmp_path / 'libobmalloc.so')
    assert said['code'] == 'loader_refused' and 'does not exist' in said['reason']
    broken = tmp_path / 'libobmalloc.so.0'
    broken.write_bytes(LIBRARY.read_bytes().replace(b'\0pthread_key_create\0',
                                                    b'\0pthread_key_xxxxxx\0'))
    said = doctor('--as-is', interpreter.path, number=1, LD_PRELOAD=broken)
    assert said['code'] == 'loader_refused' and 'pthread_key_xxxxxx' in said['reason']


def test_package(interpreter, tmp_path):
    """obmalloc.install() of the package, and a library for the other C library."""
    folder = tmp_path / 'obmalloc'
    shutil.copytree(build.ROOT / 'python/obmalloc', folder)
    shutil.copy(LIBRARY, folder)
    code = ('import obmalloc; obmalloc.install(); kept = [str(n) for n in range(30000)]\n'
            'print(obmalloc.is_active(), obmalloc.version())')
    done = interpret(interpreter, '-c', code, preload=None, PYTHONPATH=f'{tmp_path}')
    assert done.out == f'True {build.version()}\n'
    shutil.copy(build.LIBRARY, folder)
    code = 'import obmalloc\ntry: obmalloc.install()\nexcept ImportError as error: print(error)'
    done = interpret(interpreter, '-c', code, preload=None, PYTHONPATH=f'{tmp_path}')
    assert re.match('libobmalloc.so cannot be loaded: .*the wheel for this C library', done.out), \
        done.report


# ---- other tests, with these interpreters and this library ----

def run_pytest(interpreter, report, *words):
    """Runs checks with this interpreter in a process of their own, with everything for musl."""
    report.parent.mkdir(parents=True, exist_ok=True)
    report.unlink(missing_ok=True)
    env = musl.environment(PYTHONPATH='')
    done = child.run([sys.executable, '-m', 'pytest', '-q', '--all-pythons', '--pythons',
                      interpreter.path, f'--junitxml={report}', *words], env, 7200, cwd=build.ROOT)
    assert report.exists(), done.report
    return done


MODULES = ('test_gc', 'test_json', 'test_list', 'test_dict', 'test_set', 'test_tuple',
           'test_tracemalloc', 'test_threading', 'test_sys', 'test_capi', 'test_weakref',
           'test_exceptions', 'test_bytes', 'test_generators', 'test_fork1', 'test_io')


@pytest.mark.parametrize('kind', musl.KINDS)
def test_own_tests(pythons, kind, shown):
    """CPython's own tests, outcome by outcome."""
    interpreter = pythons[kind]
    report = build.PROGRAMS / f'musl-own-{kind}.xml'
    done = run_pytest(interpreter, report, 'tests/cpython/test_suites.py', '-k', 'preloaded',
                      '--modules', ','.join(MODULES))
    comparison = junit.read(report)
    print(comparison.summary)
    assert comparison.modules == len(MODULES) and done.status == 0, \
        comparison.summary + done.report
    shown(f"CPython's own tests, musl, preloaded, {kind}", comparison.amount, interpreter,
          seconds=comparison.seconds, shows="CPython's own tests, preloaded")


@pytest.mark.parametrize('kind', musl.KINDS)
def test_preload_checks(pythons, kind, shown):
    """All checks of a preloaded interpreter but those that EXCEPTIONS names."""
    interpreter = pythons[kind]
    report = build.PROGRAMS / f'musl-preload-{kind}.xml'
    left_out = [f'--deselect={check}' for check in musl.EXCEPTIONS]
    done = run_pytest(interpreter, report, 'tests/preload', '-n2', *left_out)
    assert done.status == 0, done.report
    shown(f'preload checks, musl, {kind}', last_line(done.out).strip('= '), interpreter,
          shows='preload checks')


def test_c_programs(built, shown, pythons):
    """The C tests in the ways that need no interpreter."""
    done = child.run(['make', '-s', '-C', build.ROOT / 'c_tests', 'WAYS=so a pre dl', 'MAKEFLAGS='],
                     musl.environment(), 3600)
    assert done.status == 0, done.report
    shown('C tests, musl', last_line(done.out), pythons['shared'], shows='C tests')


def test_unit_tests(built):
    """The library's unit tests, linked with musl."""
    done = musl.cargo('test', '--quiet', '--lib', timeout=3600)
    assert done.status == 0, done.report
    assert re.search(r'test result: ok. [1-9]\d\d passed; 0 failed', done.out), done.report
