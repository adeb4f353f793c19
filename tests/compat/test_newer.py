"""Debian's newest suite in a folder: a newer C library, CPython 3.14 and 3.15, and a free-threaded
one. The library is the one that was built here.

CPython's own tests run there as in tests/cpython: a part of them, or every module that the
version's regrtest runs, which takes hours:

    tests/run --all-pythons --record tests/compat/test_newer.py -k newer_tests --whole-suites

target/compat/sid/cpython-runs keeps the runs and a summary of the comparison.
"""
import glob
import os
import platform
import re
import shutil
from pathlib import Path

import pytest
from compat.environment import FOLDER, INSIDE, last_line, need

from support import build, child, junit, outcomes, platforms, verdict
from support.status import ACTIVE, ASIDE

SUITE = 'sid'
SYSTEM = FOLDER / SUITE
# For the preload checks and CPython's own tests.
PACKAGES = ('python3.15 libpython3.15-testsuite libpython3.15-dev'
            ' python3.14 libpython3.14-testsuite libpython3.14-dev python3.13 python3 gcc'
            ' libc6-dev binutils strace git tzdata python3-pytest python3-pytest-xdist'
            ' python3-hypothesis')
VERSIONS = '3.14', '3.15'
# Many of CPython's tests wait rather than compute. With `-n 1` there is one job.
JOBS = os.environ.get('PYTEST_XDIST_WORKER_COUNT', '3')
# Where a free-threaded CPython is available as source, by Debian's name.
SOURCE = ('trixie', 'python3.13')

# The folder as root of a process and its children only, with /dev, /proc, /sys and /tmp.
ENTER = '''
mount --bind "$0" "$0" && cd "$0" && mount --rbind /dev dev && mount -t proc proc proc \
  && mount -t sysfs none sys && mount -t tmpfs none tmp && mount --make-rprivate . || exit 77
exec chroot . "$@"
'''

pytestmark = [pytest.mark.network, pytest.mark.root]


def inside(command, timeout=1200, **settings):
    """Runs a command in the newer system."""
    env = child.clean_environment(PATH='/usr/sbin:/usr/bin:/sbin:/bin', **settings)
    done = child.run(['unshare', '-m', 'sh', '-c', ENTER, SYSTEM, *command], env, timeout)
    if done.status == 77:
        pytest.skip('nothing can be mounted here: ' + last_line(done.err))
    return done


def debootstrap():
    """The program, from the system or from its package, and its folder of scripts."""
    found = shutil.which('debootstrap')
    if found:
        return found, {}
    folder = FOLDER / 'debootstrap'
    if not folder.exists():
        done = child.run(['sh', '-c', 'mkdir -p "$1.deb" && cd "$1.deb" &&'
                          ' apt-get download debootstrap && dpkg -x debootstrap*.deb "$1"',
                          'sh', folder], timeout=200)
        if done.status != 0:
            pytest.skip('no debootstrap: ' + last_line(done.err))
    return (folder / 'usr/sbin/debootstrap',
            {'DEBOOTSTRAP_DIR': str(folder / 'usr/share/debootstrap')})


def bootstrap():
    """Creates the newer system unless it is complete."""
    mark = SYSTEM / 'is-complete'
    if mark.exists() and mark.read_text() == PACKAGES:
        return
    program, scripts = debootstrap()
    if not (SYSTEM / 'etc/apt/sources.list').exists():
        done = child.run(['sh', program, '--variant=minbase', SUITE, SYSTEM],
                         child.clean_environment(**scripts), 1800)
        if done.status != 0:
            pytest.skip('debootstrap: ' + last_line(done.out))
    # A mirror may be older than its lists allow.
    done = inside(['sh', '-c', 'apt-get -o Acquire::Check-Valid-Until=false update &&'
                   ' apt-get install -y --no-install-recommends ' + PACKAGES], 1800,
                  DEBIAN_FRONTEND='noninteractive')
    if done.status != 0:
        pytest.skip('apt-get: ' + last_line(done.err))
    mark.write_text(PACKAGES)


@pytest.fixture(scope='module')
def system(library):
    """The newer system with the library and the checks in a folder of this worker: its path
    there."""
    if os.geteuid() != 0:
        pytest.skip('only root can make another system')
    need('unshare')
    FOLDER.mkdir(parents=True, exist_ok=True)
    with build.locked(SUITE):
        bootstrap()
    name = 'obmalloc-' + os.environ.get('PYTEST_XDIST_WORKER', 'main')
    work = SYSTEM / name
    shutil.rmtree(work, ignore_errors=True)
    (work / 'target/release').mkdir(parents=True)
    shutil.copy(library, work / RELEASE)
    for part in 'tests', 'c_tests', 'docs', 'include', 'python':
        shutil.copytree(build.ROOT / part, work / part,
                        ignore=shutil.ignore_patterns('__pycache__'))
    shutil.copy(build.ROOT / 'pytest.ini', work)
    return f'/{name}'


RELEASE = 'target/release/libobmalloc.so'
RUNS = 'cpython-runs'
WORK = ('import sys; sys.path.insert(0, sys.argv[1]); import inside\n'
        'print(sys.version.split()[0], inside.workload(3))')


def libc():
    """The C library of the newer system."""
    text = inside(['/lib64/ld-linux-x86-64.so.2', '--version']).out
    return 'glibc ' + re.search(r'version ([\d.]+?)\.?\s', text)[1]


def newer(version):
    """The platform of a CPython there, which is a static build."""
    code = 'import sys; print(sys.version.split()[0])'
    number = inside([f'python{version}', '-c', code]).out.strip()
    return platforms.Platform(number, 'static', platform.machine(), libc())


def test_newer_debian(system, library, found):
    """Loads with the newer C library; each CPython prints the status line of its version."""
    names = child.run(['objdump', '-T', library], status=0).out
    floor = max(re.findall(r'GLIBC_([\d.]+)', names),
                key=lambda text: [int(part) for part in text.split('.')])
    words = [f'the library needs glibc {floor}, the system has {libc()}']
    pythons = sorted(SYSTEM.glob('usr/bin/python3.??'))
    assert {path.name for path in pythons} >= {f'python{version}' for version in VERSIONS}
    for path in pythons:
        work = [f'/usr/bin/{path.name}', '-B', '-c', WORK,
                f'{system}/{INSIDE.relative_to(build.ROOT)}']
        stock = inside(work)
        done = inside(['env', f'LD_PRELOAD={system}/{RELEASE}', *work], OBMALLOC_VERBOSE='1')
        assert stock.status == done.status == 0 and done.out == stock.out, done.report
        version = stock.out.split()[0]
        lines = done.lines(ACTIVE)
        assert len(done.err.splitlines()) == len(lines) == 1, done.report
        assert lines[0][2] == version, done.report
        words.append(version + ' active')
    found(', '.join(words))


@pytest.mark.parametrize('version', VERSIONS)
def test_newer_preload(system, version, found):
    """All checks of every way into a process. Their memory cost is only reported: other
    libraries and other pages are mapped there."""
    run = (f'cd {system} && python{version} -m pytest -n 2 --all-pythons --pythons {version} -q'
           ' tests/preload')
    done = inside(['sh', '-c', run + ' --ignore tests/preload/test_cost.py'], 2400)
    assert done.status == 0, done.report
    cost = inside(['sh', '-c', run + '/test_cost.py'])
    found(f'{last_line(done.out)}; memory cost: {last_line(cost.out)}',
          name=f'newer-preload {version}', platforms=[newer(version)], shows='preload checks')


SLICE = ('test_gc test_json test_list test_dict test_set test_str|test_unicode test_tracemalloc'
         ' test_threading test_sys test_capi test_fork1 test_interpreters test_weakref'
         ' test_exceptions test_bytes test_multiprocessing_fork test_cmd_line test_embed'
         ' test_io').replace(' ', ',')


@pytest.mark.parametrize('way', ['preloaded', 'profiled'])
@pytest.mark.parametrize('version', VERSIONS)
def test_newer_tests(system, version, way, pytestconfig, evidence):
    """A part of the version's own tests outcome by outcome; with --whole-suites every module
    that its regrtest runs. A repeated run takes the runs of the modules that it has."""
    whole = pytestconfig.option.whole_suites
    # The whole suites are not profiled with little memory.
    chosen = 'profiled and 64M' if whole and way == 'profiled' else way
    report = SYSTEM / RUNS / f'{"whole" if whole else "slice"}-{version}-{way}.xml'
    report.parent.mkdir(exist_ok=True)
    report.unlink(missing_ok=True)
    done = inside(['sh', '-c', f'cd {system} && nice python{version} -m pytest -n {JOBS} -q'
                   f' tests/cpython/test_suites.py -k "{chosen}" --pythons {version} --all-pythons'
                   f' --modules "{"all" if whole else SLICE}" --keep-runs /{RUNS}'
                   f' --junitxml /{RUNS}/{report.name}'], 8 * 3600)
    assert report.exists(), done.report
    comparison = junit.read(report)
    report.with_suffix('.txt').write_text(comparison.summary)
    print(comparison.summary)
    assert comparison.tests and done.status == 0, comparison.summary + done.report
    evidence(f"CPython's own tests, Debian's {version}, {way}" + ', whole suite' * whole,
             "CPython's own tests", comparison.amount, seconds=comparison.seconds,
             versions=f'CPython {newer(version).words}', platforms=[newer(version)],
             shows=f"CPython's own tests, {way}" + ', whole suite' * whole,
             command='tests/run --all-pythons --record tests/compat/test_newer.py -k'
             f' "newer_tests and {version} and {way}"' + ' --whole-suites' * whole)


def free_threaded_python():
    """A free-threaded interpreter: of this system, or built from Debian's source, which takes
    ten minutes."""
    for path in glob.glob('/usr/bin/python3*t') + glob.glob('/usr/bin/python3*-nogil'):
        return path
    folder = FOLDER / 'free-threaded'
    built = glob.glob(f'{folder}/install/bin/python3.??t')
    if built:
        return built[0]
    suite, name = SOURCE
    done = inside(['sh', '-c', f'sed -n "s/^deb \\(.*\\) {SUITE} main.*/deb-src \\1 {suite} main/p"'
                   ' /etc/apt/sources.list > /etc/apt/sources.list.d/source.list;'
                   ' apt-get -o Acquire::Check-Valid-Until=false update && mkdir -p /src && cd /src'
                   f' && apt-get source --download-only {name}/{suite}'], 600)
    if done.status != 0:
        pytest.skip('no source: ' + last_line(done.err))
    done = child.run(['sh', '-c', f'mkdir -p "$1/src"; tar -xf "$2"/src/{name}_*.orig.tar.xz -C'
                      ' "$1/src" --strip-components=1 && cd "$1/src" && ./configure -q'
                      ' --disable-gil --enable-shared --prefix="$1/install" --without-ensurepip'
                      ' CFLAGS=-O1 && make -s -j2 && make -s altinstall', 'sh', folder, SYSTEM],
                     timeout=3600, status=0)
    built = glob.glob(f'{folder}/install/bin/python3.??t')
    assert built, done.report
    return built[0]


@pytest.fixture(scope='module')
def free_threaded(system):
    """A free-threaded interpreter, and the variable by which it finds its libpython."""
    path = free_threaded_python()
    return path, dict(LD_LIBRARY_PATH=str(Path(path).parents[1] / 'lib'))


def platform_of(path, loader, **what):
    number = child.run([path, '-c', 'import sys; print(sys.version.split()[0])'],
                       child.clean_environment(**loader), status=0).out.strip()
    return platforms.Platform(number, 'free-threaded', platform.machine(),
                              ' '.join(platform.libc_ver()), **what)


def test_free_threaded(free_threaded, library, found):
    """Stands aside with the reason, and the program runs; also if it is opened late."""
    path, loader = free_threaded
    env = dict(loader, PYTHONPATH=str(INSIDE), PYTHONDONTWRITEBYTECODE='1', OBMALLOC_VERBOSE='1')
    code = ('import inside, sys; inside.in_threads(4, lambda: inside.workload(1));'
            ' print(sys._is_gil_enabled(), inside.workload(2))')
    stock = child.run([path, '-c', code], child.clean_environment(**env), status=0)
    assert stock.out.startswith('False'), 'it has a GIL'
    done = child.run([path, '-c', code], child.preloaded(**env), status=0)
    assert done.out == stock.out
    lines = done.lines(ASIDE)
    assert len(lines) == 1 and 'free-threaded' in done.err and len(done.err.splitlines()) == 1, \
        done.report
    late = child.run([path, '-c', 'import inside, sys; lib = inside.library(sys.argv[1])\n'
                      'assert lib.obmalloc_install() != 0\n'
                      'assert inside.live(inside.stats(lib)) == 0\n' + code, library],
                     child.clean_environment(**env), status=0)
    assert late.out == stock.out and 'free-threaded' in late.err, late.report
    found('obmalloc stands aside: ' + lines[0][2], shows='a program that runs as without it',
          platforms=[platform_of(path, loader, served=False)])


# Modules in which threads share the containers whose memory is in MEM.
FREE_THREADED_SLICE = (
    'test_free_threading test_threading test_thread test_threadsignals test_threading_local'
    ' test_concurrent_futures.test_thread_pool test_queue test_gc test_weakref test_dict'
    ' test_list test_set test_deque test_bytes test_str test_json test_pickle test_io test_ctypes'
    ' test_capi test_fork1 test_multiprocessing_fork.test_processes').split()


@pytest.mark.parametrize('module', FREE_THREADED_SLICE)
def test_mem_of_free_threaded(free_threaded, library, module, record_property, evidence):
    """OBMALLOC_FREE_THREADED=mem: CPython's own tests, outcome by outcome."""
    path, loader = free_threaded
    settings = dict(loader, LD_PRELOAD=str(library), OBMALLOC_FREE_THREADED='mem')
    said = child.run([path, '-c', 'pass'], dict(child.clean_environment(**settings),
                                                OBMALLOC_VERBOSE='1'), status=0)
    assert re.search(r'^obmalloc: active in .*, domains mem$', said.err, re.M), said.report
    script, baselines, ours = outcomes.INSIDE / 'run_module.py', [], []
    for _ in range(3):
        for runs, variables in (baselines, loader), (ours, settings):
            runs.append(outcomes.run(lambda outfile: [path, script, module, outfile],
                                     lambda folder: variables))
        found = verdict.judge(module, baselines, ours)
        if found.equal:
            break
    found.differences += verdict.check_allocators(baselines, ours,
                                                  lambda run: library.name in run.mapped)
    verdict.report(found, ours, record_property)
    evidence("CPython's own tests, free-threaded, domain MEM", "CPython's own tests",
             {'tests': found.tests, 'modules': 1}, 'CPython 3.13.5 free-threaded',
             platforms=[platform_of(path, loader, served=True)],
             shows="CPython's own tests, `OBMALLOC_FREE_THREADED=mem`",
             command='tests/run --record tests/compat/test_newer.py -k mem_of_free_threaded')
