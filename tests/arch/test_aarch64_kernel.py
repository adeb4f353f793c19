"""A real kernel with pages of 16 KiB: Debian's for 64-bit ARM, booted by qemu-system with a Debian
userland, CPython among it, and with what the cross compilers build here. The machine boots once in
a run of the tests, does all jobs (guest.py), and reports them; each check looks at one report.

What emulation cannot show: the time that anything takes, and the weak order of memory accesses,
which this machine's processor does not have.
"""
import base64
import fnmatch
import json
import os
import re
import shutil
import subprocess
import uuid
import zlib
from pathlib import Path

import pytest
from arch import virtual_machine as vm

from support import build, child, outcomes, verdict
from support.platforms import Platform
from support.status import ACTIVE

PYTHON = 'python3.14'
PACKAGES = f'{PYTHON} lib{PYTHON}-testsuite dash coreutils'     # C tests start sh and true
KERNEL = r'linux-(binary|image)-\d\S*-arm64-16k'
PAGE = 16384
TARGET = 'aarch64-unknown-linux-gnu'
# Signed pointers by the emulator's own algorithm: a boot takes 9 s of a processor, 29 s with the
# architecture's. (A cortex-a72 has no pages of 16 KiB.)
CPU = 'max,pauth-impdef=on,sve=off'
COMPILER = 'aarch64-linux-gnu-gcc'
RELEASE = build.TARGET / TARGET / 'release'
LIBRARY, COMMAND = RELEASE / 'libobmalloc.so', RELEASE / 'obmalloc'
C_TESTS = build.TARGET / TARGET / 'c_tests'
# The archive differs from the library by how it is linked, which pages have no part in; the tests
# under qemu-user run it.
WAYS = ('so', 'pre', 'dl')
MODULES = ('test_gc', 'test_list', 'test_dict', 'test_json')
FOLDER = build.PROGRAMS / 'kernel-16k'
RUN = os.environ.get('PYTEST_XDIST_TESTRUNUID') or uuid.uuid4().hex

# C cases that do not pass here: pattern, ways (empty: all), reason.
EXCEPTIONS = [
    ('fork/anywhere', '', 'it steps through every instruction, which takes hours in an emulator'),
    ('side_effect/reading-shows-nothing', '',
     'one reading in a hundred may meet a thread that ends: an emulated one takes longer to end'),
]

# An emulated processor is slow: seconds for a C case, for a module's tests, for the whole run, and
# without any output.
CASE, MODULE, ALL, SILENCE = 600, 1800, 3 * 3600, 3600

DROP = '''
import gc, json, os, random, time
def rss():
    with open('/proc/self/statm') as file:
        return int(file.read().split()[1]) * os.sysconf('SC_PAGESIZE') / 1048576
things = [{'n': n, 'text': str(n)} for n in range(150000)]
peak = rss()
random.seed(7)
kept = random.sample(things, 150)
del things
gc.collect()
time.sleep(5)
print(json.dumps([peak, rss(), all(each['text'] == str(each['n']) for each in kept)]))
'''
LIVE = '''
import json, os, random, sys, time, obmalloc
things = [{'n': n, 'text': str(n)} for n in range(60000)]
random.seed(7)
kept = random.sample(things, 60)
del things
time.sleep(3)
obmalloc.trim()
obmalloc.snapshot(sys.argv[1])
print(json.dumps(obmalloc.stats()), flush=True)
sys.stdin.readline()
'''
# By name: the words of the command, for the program and for its snapshot.
ASKED = {f'{words} {place}': [*words.split(' ', 1)[:1], place, *words.split(' ')[1:]]
         for words in ('map', 'pins --json', 'stats --json', 'stats')
         for place in ('{PID}', '{FILE}')}

pytestmark = [pytest.mark.network, pytest.mark.slow]


def programs():
    """(program, way) of the C tests, by the first lines of their files."""
    found = set()
    for path in (build.ROOT / 'c_tests').glob('*/*.c'):
        with open(path) as file:
            ways = re.match(r'/\* ways: ([a-z ]+)', file.readline())
        found |= {(path.parent.name, way) for way in (ways[1].split() if ways else ())}
    return sorted((program, way) for program, way in found if way in WAYS)


# ---- the machine ----

def need_tools():
    for program, package in (('qemu-system-aarch64', 'qemu-system-arm'),
                             (COMPILER, 'gcc-aarch64-linux-gnu'), ('make', 'make'),
                             ('cargo', 'cargo')):
        if not shutil.which(program):
            pytest.skip(f'no {program}: install {package}')
    done = subprocess.run(['rustc', '--print', 'target-libdir', '--target', TARGET],
                          capture_output=True, text=True)
    if not list(Path(done.stdout.strip() or '/none').glob('libstd-*')):
        pytest.skip(f'no Rust target {TARGET}: rustup target add {TARGET}')


def build_all():
    """The library, the command and the C tests for that machine."""
    env = child.clean_environment(MAKEFLAGS='')
    with build.locked('make'):
        for words in (['command'], ['-C', 'c_tests', 'build', f'WAYS={" ".join(WAYS)}']):
            child.run(['make', '-s', f'TARGET={TARGET}', *words], env, 3600, cwd=build.ROOT,
                      status=0)


def entries(packages, jobs):
    """The first file system: the packages, and the built files where they are on this machine."""
    guest = Path(__file__).with_name('guest.py').read_text()
    yield from vm.folders('dev', 'proc', 'sys', 'tmp', 'run', 'root')
    for name in 'lib', 'bin', 'sbin':
        yield vm.link(name, f'usr/{name}')
    yield from vm.tree(packages.root, wanted=lambda path: not re.match(
        r'usr/(share/(?!zoneinfo)|lib/.*/gconv/)', str(path.relative_to(packages.root))))
    yield vm.link('usr/bin/sh', 'dash')
    yield vm.link('usr/bin/python3', PYTHON)
    yield vm.file('etc/passwd', b'root:x:0:0::/root:/bin/sh\nnobody:x:65534:65534::/:/bin/sh\n',
                  0o644)
    yield vm.file('init', f'#!/usr/bin/{PYTHON} -B\n{guest}'.encode())
    yield vm.file('jobs.json', json.dumps(jobs).encode(), 0o644)
    yield from vm.parents(build.TARGET / TARGET / 'file')
    for folder in 'c_tests', 'tests/support', 'python/obmalloc':
        path = build.ROOT / folder
        yield from vm.parents(path / 'file')
        yield from vm.tree(path, str(path).lstrip('/'),
                           lambda path: path.is_dir() or path.suffix in ('.py', '.txt'))
    yield from vm.parents(RELEASE / 'file')
    for path in RELEASE.glob('*'):
        if path.is_symlink():
            yield vm.link(str(path).lstrip('/'), os.readlink(path))
        elif path.suffix == '.so' or path == COMMAND:
            yield vm.file(str(path).lstrip('/'), path.read_bytes())
    yield from vm.parents(C_TESTS / 'file')
    yield from vm.tree(C_TESTS, str(C_TESTS).lstrip('/'), lambda path: 'objects' not in path.parts
                       and (path.is_dir() or path.is_symlink() or not path.suffix))


def jobs():
    """What the machine does, in this order."""
    yield {'name': 'machine', 'kind': 'machine'}
    preload = {'LD_PRELOAD': str(LIBRARY), 'OBMALLOC_VERBOSE': '1'}
    for side, env in ('stock', {}), ('obmalloc', preload):
        yield {'name': f'memory {side}', 'kind': 'program',
               'command': [f'/usr/bin/{PYTHON}', '-c', DROP], 'env': env}
    yield {'name': 'live', 'kind': 'live', 'program': LIVE,
           'env': {**preload, 'OBMALLOC_STATS_PAGE': '1', 'PYTHONPATH': str(build.ROOT / 'python')},
           'commands': {name: [str(COMMAND), *words] for name, words in ASKED.items()}}
    for module in MODULES:
        for side, env in ('stock', {}), ('obmalloc', {'LD_PRELOAD': str(LIBRARY)}):
            yield {'name': f'{module} {side}', 'kind': 'cpython_tests', 'module': module,
                   'script': str(outcomes.INSIDE / 'run_module.py'), 'env': env,
                   'timeout': MODULE}
    for program, way in sorted(programs(), key=lambda each: WAYS.index(each[1])):
        yield {'name': f'{program} {way}', 'kind': 'c_tests',
               'script': str(build.ROOT / 'c_tests/run.py'), 'timeout': 10 * MODULE,
               'words': [program, way, str(C_TESTS / way / program)],
               'env': {'SO': str(LIBRARY), 'CASE': '', 'TIMEOUT': str(CASE),
                       'SLOWNESS': '10'}}


def boot(packages):
    image = packages.kernel(KERNEL)
    todo = list(jobs())
    vm.write_cpio(FOLDER / 'first.cpio', no_twice(entries(packages, todo)))
    command = ['qemu-system-aarch64', '-machine', 'virt', '-cpu', CPU, '-smp', '2', '-m', '3G',
               '-display', 'none', '-monitor', 'none', '-serial', 'stdio', '-net', 'none',
               '-no-reboot', '-kernel', image, '-initrd', FOLDER / 'first.cpio',
               '-append', 'console=ttyAMA0 panic=-1 quiet']
    return vm.run(command, FOLDER / 'console', ALL, SILENCE)


def no_twice(entries):
    seen = set()
    for entry in entries:
        if entry[0] not in seen:
            seen.add(entry[0])
            yield entry


@pytest.fixture(scope='session')
def reports(library):
    """{name: report}, of one boot for all workers of this run."""
    need_tools()
    packages = vm.Packages('arm64', PACKAGES).get()
    FOLDER.mkdir(parents=True, exist_ok=True)
    said = FOLDER / f'{RUN}.json'
    with build.locked('kernel-16k'):
        if not said.exists():
            for old in FOLDER.glob('*.json'):
                old.unlink()
            build_all()
            said.write_text(json.dumps(boot(packages)))
    result, broken = json.loads(said.read_text())
    return {'broken': broken, **{report['name']: report for report in result}}


@pytest.fixture
def report(reports):
    def of(name):
        if name not in reports:
            pytest.fail(f'the machine did not come to it: {reports["broken"]}', pytrace=False)
        assert 'error' not in reports[name], reports[name]['error']
        return reports[name]
    return of


@pytest.fixture
def found(report, evidence, request):
    """A row of docs/evidence.md."""
    def add(what, amount, result, seconds, python=True):
        machine = report('machine')
        served = [Platform(machine['python'], 'static', 'aarch64', machine['libc'], emulator(),
                           machine['page'])] if python else []
        evidence(f'aarch64, pages of 16 KiB: {what}', 'Other architectures and C libraries', amount,
                 result=result, seconds=seconds, platforms=served, shows=what,
                 versions=f'CPython {machine["python"]}, {machine["libc"]}, '
                          f'Linux {machine["uname"][2].split("+")[0]}, {emulator()}',
                 command='tests/run --all-pythons --record tests/arch/test_aarch64_kernel.py')
    return add


def emulator():
    version = child.run(['qemu-system-aarch64', '--version'], status=0).out
    return 'qemu-system ' + re.search(r'version (\d+\.\d+)', version)[1]


def said(report):
    return f'status {report["status"]}\n{report["out"][-3000:]}\n{report["err"][-3000:]}'


def unpacked(text):
    return zlib.decompress(base64.b64decode(text))


# ---- the checks ----

def test_pages_are_of_16_kib(report):
    machine = report('machine')
    assert machine['page'] == PAGE and machine['uname'][4] == 'aarch64'


def test_memory_is_returned(report, found):
    """An idle program after 150 000 dictionaries, one in a thousand of which stays."""
    sides = {}
    for side in 'stock', 'obmalloc':
        done = report(f'memory {side}')
        assert done['status'] == 0, said(done)
        assert bool(ACTIVE.search(done['err'])) == (side == 'obmalloc'), said(done)
        peak, idle, whole = json.loads(done['out'])
        assert whole
        sides[side] = peak, idle
    text = ', '.join(f'{side}: peak {peak:.0f}, idle {idle:.0f} MiB'
                     for side, (peak, idle) in sides.items())
    print(text)
    assert sides['obmalloc'][1] < sides['stock'][1] / 2, text
    assert sides['obmalloc'][0] < sides['stock'][0] * 1.1, text
    found('150 000 dictionaries, of which 150 stay', text, 'idle: less than half of stock',
          sum(report(f'memory {side}')['seconds'] for side in sides))


@pytest.mark.parametrize('module', MODULES)
def test_cpythons_own_tests(report, module, tmp_path, record_property, found):
    """Outcome by outcome as without the library."""
    sides = []
    for side in 'stock', 'obmalloc':
        done, run = report(f'{module} {side}'), outcomes.Run()
        run.ending = '' if done['status'] == 0 else f'exit status {done["status"]}'
        path = tmp_path / side
        assert done['outcomes'], said(done)
        path.write_bytes(unpacked(done['outcomes']))
        outcomes.read_outcomes(run, path)
        run.log = unpacked(done['log']).decode('utf-8', 'replace')
        sides.append([run])
    stock, ours = sides
    assert ours[0].outcomes, f'no test ran\n{ours[0].log[-3000:]}'
    judged = verdict.judge(module, stock, ours)
    judged.differences += verdict.check_allocators(stock, ours, lambda run: run.mapped)
    verdict.report(judged, ours, record_property)
    found("CPython's own tests", {'tests': judged.tests, 'modules': 1}, 'same as stock',
          sum(report(f'{module} {side}')['seconds'] for side in ('stock', 'obmalloc')))


@pytest.mark.parametrize('asked', ASKED)
def test_the_command(report, asked):
    """The command reads the statistics page of a running program, and its snapshot."""
    live = report('live')
    assert live['status'] == 0 and ACTIVE.search(live['err']), live['err']
    done = live['commands'][asked]
    assert done['status'] == 0 and not done['err'], said(done)
    if asked == 'stats --json {PID}':
        inside, outside = json.loads(live['ready']), json.loads(done['out'])
        assert inside['bytes']['live'] > 1 << 20
        assert abs(outside['bytes']['live'] - inside['bytes']['live']) < 1 << 18
        assert not any(each['resident'] % PAGE for each in outside['classes'])
    elif asked.startswith('map'):
        assert 'block size' in done['out']


def test_the_memory_of_a_snapshot_is_returned(report):
    """The page's file has had snapshots; only the page itself is in memory afterwards."""
    size, in_memory = report('live')['file']
    assert size > 1 << 17
    assert in_memory <= PAGE


@pytest.mark.parametrize('asked', [name for name in ASKED if '{FILE}' in name])
def test_this_machine_reads_the_snapshot(report, asked, tmp_path):
    """The command of this machine shows the same as that machine's."""
    if not build.COMMAND.exists():
        pytest.skip('no command here: make command')
    live, path = report('live'), tmp_path / 'heap.map'
    path.write_bytes(unpacked(live['snapshot']))
    words = [str(path) if word == '{FILE}' else word for word in ASKED[asked]]
    done = child.run([build.COMMAND, *words], status=0)
    assert done.out == live['commands'][asked]['out'].replace('/tmp/heap.map', str(path))


def reason_of(name, way):
    for pattern, ways, reason in EXCEPTIONS:
        if fnmatch.fnmatch(name, pattern) and way in (ways or way).split():
            return reason
    return None


@pytest.mark.parametrize('program, way', programs())
def test_c_program(reports, report, program, way, subtests, found):
    """Each case of a C program, as c_tests/run.py judges it."""
    counts = {'passed': 0, 'skipped': 0, 'exceptions': 0}
    begin = f'{program} {way}: '
    for name in [name.removeprefix(begin) for name in reports if name.startswith(begin)]:
        case = report(begin + name)
        result, text = case['result'], case['text']
        reason = reason_of(name, way)
        kind = ('exceptions' if reason and result == 'FAILED' else
                'skipped' if result.startswith('skip') else 'passed')
        counts[kind] += 1
        with subtests.test(name):
            if kind == 'exceptions':
                pytest.xfail(reason)
            if kind == 'skipped':
                pytest.skip(result)
            assert result == 'ok', text
    done = report(f'{program} {way}')
    assert done['status'] == 0 and done['cases'], said(done)
    found('C tests', counts, 'no finding', done['seconds'], python=False)
