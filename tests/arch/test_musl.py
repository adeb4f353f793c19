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
def python(request, pythons):
    return pythons[request.param]


@pytest.fixture
def shown(evidence, request):
    """Adds a row to docs/evidence.md, with the interpreter as a platform."""
    def add(what, amount, python, **options):
        version = re.search(r'Version ([\d.]+)', child.run([musl.LOADER]).err)[1]
        one = platforms.Platform(python.version, python.kind, platform.machine(), f'musl {version}')
        evidence(what, 'Environments', amount, versions=f'CPython {one.words}', platforms=[one],
                 command=f'tests/run --record {request.node.nodeid.split("[")[0]}', **options)
    return add


def interpret(python, *words, preload=LIBRARY, **variables):
    env = child.clean_environment(OBMALLOC_VERBOSE='1', PYTHONPATH=str(PROGRAMS),
                                  PYTHONDONTWRITEBYTECODE='1', **variables)
    return child.run([python.path, *words], env | ({'LD_PRELOAD': str(preload)} if preload else {}),
                     status=0)


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


def test_active(python):
    done = interpret(python, '-c', 'import inside; print(inside.workload(2))')
    status.active(done, python)
    assert done.out == interpret(python, '-c', 'import inside; print(inside.workload(2))',
                                 preload=None).out


def test_started_by_the_loader(python):
    """The kernel starts the loader then, and the program's arguments are not the first."""
    env = child.preloaded(OBMALLOC_VERBOSE='1', LD_PRELOAD=LIBRARY)
    done = child.run([musl.LOADER, python.path, '-X', 'dev', '-c', '1'], env, status=0)
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
def test_command_line_is_read(python, options, variables, reason):
    """musl's loader passes no arguments to constructors: the library finds them."""
    done = interpret(python, *options, '-c', 'pass', **variables)
    if reason:
        status.aside(done, reason)
    else:
        status.active(done, python)


def test_arguments_are_found_in_any_environment(python):
    """An empty one, and one of 100 KB, between which the vector is at other places."""
    for variables in {}, {f'V{n}': 'x' * 1000 for n in range(100)}:
        env = {'LD_PRELOAD': str(LIBRARY), 'OBMALLOC_VERBOSE': '1', **variables}
        done = child.run([python.path, '-E', '-X', 'dev', '-c', 'pass', 'a' * 5000], env, status=0)
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


def test_memory_is_returned(python, shown):
    """300 000 dicts, of which every thousandth stays: 3 s later at most 15 MiB are resident."""
    ours = interpret(python, '-c', DICTS)
    status.active(ours, python)
    peak, idle = json.loads(ours.out)
    stock_peak, stock_idle = json.loads(interpret(python, '-c', DICTS, preload=None).out)
    assert idle <= 15 << 20, f'{idle >> 20} MiB idle'
    assert stock_idle > stock_peak / 2 and peak < 1.2 * stock_peak
    shown('300 000 dicts dropped, musl', python=python, result='at most 15 MiB idle',
          amount=f'{python.kind}: peak {peak >> 20} MiB, idle {idle >> 20} MiB (stock '
                 f'{stock_peak >> 20}, {stock_idle >> 20})')


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


def test_late_installation(python):
    """A library that is opened late has its thread word by a descriptor; a thread that was there
    before uses it, too."""
    done = interpret(python, '-c', LATE, LIBRARY, preload=None)
    status.active_at_last(done, python)
    plain = interpret(python, '-c', 'import inside; print(inside.workload(2))', preload=None)
    assert done.out == plain.out


# ---- the command and the package ----

def run(*words, number=0, **variables):
    env = child.clean_environment(**variables)
    return child.run([COMMAND, *words], env, status=number)


def doctor(*words, number=0, **variables):
    return json.loads(run('doctor', '--json', *words, number=number, **variables).out)


def test_doctor(python):
    said = doctor(python.path)
    assert said['active'] and said['interpreter']['version'] == python.version
    assert os.path.samefile(said['library']['path'], LIBRARY)
    assert bool(said['interpreter']['libpython']) == python.shared


def test_run(python):
    done = run('run', '-v', python.path, '-c', 'print(6 * 7)')
    status.active(done, python)
    assert done.out == '42\n'


def test_pythons_only(python):
    """The preload is not passed on to a shell, and is to a Python."""
    code = ('import subprocess, sys\n'
            'print(subprocess.check_output(["/bin/sh", "-c", "echo $LD_PRELOAD"]).decode().strip())\n'
            'subprocess.check_call([sys.executable, "-c", "pass"])')
    done = run('run', '-v', '--pythons-only', python.path, '-c', code)
    assert done.out == '\n' and len(done.lines(status.ACTIVE)) == 2, done.report


def test_libraries_of_both_kinds(python, library, tmp_path):
    """glibc's library with an interpreter of musl, and the other way round: not started, with the
    reason; `obmalloc run` starts the program without it."""
    said = doctor(python.path, number=1, OBMALLOC_LIBRARY=library)
    assert said['code'] == 'musl' and 'musllinux' in said['advice']
    assert re.search('is linked with musl, and the library needs glibc', said['reason'])
    done = run('run', '-v', python.path, '-c', 'print(1)', OBMALLOC_LIBRARY=library)
    assert done.out == '1\n' and 'running without the library' in done.err
    said = doctor('/bin/sh', number=1)
    assert said['code'] == 'glibc' and 'manylinux' in said['advice']
    script = tmp_path / 'script'
    script.write_text(f'#!{python.path}\nprint(2)\n')
    script.chmod(0o755)
    done = run('run', script, OBMALLOC_LIBRARY=library)
    assert done.out == '2\n' and 'the library needs glibc' in done.err


def test_preloads_that_the_loader_does_not_take(python, tmp_path):
    """musl's loader says nothing of a file that is not there."""
    said = doctor('--as-is', python.path, number=1, LD_PRELOAD=tmp_path / 'libobmalloc.so')
    assert said['code'] == 'loader_refused' and 'does not exist' in said['reason']
    broken = tmp_path / 'libobmalloc.so.0'
    broken.write_bytes(LIBRARY.read_bytes().replace(b'\0pthread_key_create\0',
                                                    b'\0pthread_key_xxxxxx\0'))
    said = doctor('--as-is', python.path, number=1, LD_PRELOAD=broken)
    assert said['code'] == 'loader_refused' and 'pthread_key_xxxxxx' in said['reason']


def test_package(python, tmp_path):
    """obmalloc.install() of the package, and a library for the other C library."""
    folder = tmp_path / 'obmalloc'
    shutil.copytree(build.ROOT / 'python/obmalloc', folder)
    shutil.copy(LIBRARY, folder)
    code = ('import obmalloc; obmalloc.install(); kept = [str(n) for n in range(30000)]\n'
            'print(obmalloc.is_active(), obmalloc.version())')
    done = interpret(python, '-c', code, preload=None, PYTHONPATH=f'{tmp_path}')
    assert done.out == f'True {build.version()}\n'
    shutil.copy(build.LIBRARY, folder)
    code = 'import obmalloc\ntry: obmalloc.install()\nexcept ImportError as error: print(error)'
    done = interpret(python, '-c', code, preload=None, PYTHONPATH=f'{tmp_path}')
    assert re.search('libobmalloc.so cannot be loaded: .*libc.so.6.*the wheel for this C library', done.out), \
        done.report


# ---- other tests, with these interpreters and this library ----

def pytest_for_musl(report, *words, timeout=3600):
    """Runs checks in a process of their own, with everything for musl; (its run, the report)."""
    report.parent.mkdir(parents=True, exist_ok=True)
    report.unlink(missing_ok=True)
    env = musl.environment(PYTHONPATH='')
    done = child.run([sys.executable, '-m', 'pytest', '-q',
                      f'--junitxml={report}', *words], env, timeout, cwd=build.ROOT)
    assert report.exists(), done.report
    return done


MODULES = ('test_gc', 'test_json', 'test_list', 'test_dict', 'test_set', 'test_tuple',
           'test_tracemalloc', 'test_threading', 'test_sys', 'test_capi', 'test_weakref',
           'test_exceptions', 'test_bytes', 'test_generators', 'test_fork1', 'test_io')


@pytest.mark.parametrize('kind', musl.KINDS)
def test_own_tests(pythons, kind, shown):
    """CPython's own tests, outcome by outcome."""
    python = pythons[kind]
    report = build.PROGRAMS / f'musl-own-{kind}.xml'
    done = pytest_for_musl(report, 'tests/cpython/test_suites.py', '-k', 'preloaded', '--pythons',
                           python.path, '--modules', ','.join(MODULES), timeout=7200)
    comparison = junit.read(report)
    print(comparison.summary)
    assert comparison.modules == len(MODULES) and done.status == 0, \
        comparison.summary + done.report
    shown("CPython's own tests, musl, preloaded", comparison.amount, python,
          seconds=comparison.seconds, shows="CPython's own tests, preloaded")


@pytest.mark.parametrize('kind', musl.KINDS)
def test_preload_checks(pythons, kind, shown):
    """All checks of a preloaded interpreter but those that EXCEPTIONS names."""
    python = pythons[kind]
    report = build.PROGRAMS / f'musl-preload-{kind}.xml'
    left_out = [f'--deselect={check}' for check in musl.EXCEPTIONS]
    done = pytest_for_musl(report, 'tests/preload', '--all-pythons', '--pythons', python.path,
                           *left_out)
    assert done.status == 0, done.report
    shown('preload checks, musl', last_line(done.out).strip('= '), python, shows='preload checks')


def test_c_programs(built, shown, pythons):
    """The C tests in the ways that need no interpreter."""
    done = child.run(['make', '-s', '-C', build.ROOT / 'c_tests', 'WAYS=so a pre dl', 'MAKEFLAGS='],
                     musl.environment(), 3600)
    assert done.status == 0, done.report
    shown('C tests, musl', last_line(done.out), pythons['shared'], shows='C tests')


def test_unit_tests(built):
    """The library's unit tests, linked with musl."""
    done = musl.cargo('test', '--quiet', '--lib', timeout=3600)
    assert done.status == 0 and re.search(r'test result: ok. [1-9]\d\d passed; 0 failed', done.out), \
        done.report
