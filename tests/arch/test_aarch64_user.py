"""aarch64 with glibc under qemu's emulation of single processes: the unit tests, the C tests, and
the checks of tests/preload with a Python of Debian's newest suite.

The preload checks run as they are, in a namespace of their own: there the kernel starts programs of
aarch64 by qemu (binfmt_misc), and the files of Debian's packages for aarch64 are beside those of
this machine. Nothing outside of it changes, and no rights of root are needed.

Emulation shows neither the time that anything takes nor the weak order of memory accesses, and qemu
answers some system calls in its own way. What cannot pass for that reason is listed in emulated.py
and c_tests/emulated.txt, and each entry is a skipped check with its reason.
"""
import functools
import os
import platform
import re
import shlex
import shutil
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
from arch import emulated
from arch.test_aarch64_kernel import PACKAGES, PYTHON       # both use one folder of packages
from compat.environment import last_line, need

from support import build, child

TARGET = 'aarch64-unknown-linux-gnu'
COMPILER = 'aarch64-linux-gnu-gcc'
LIBC = Path('/usr/aarch64-linux-gnu')           # the C library that programs are linked with
RELEASE = build.TARGET / TARGET / 'release'
# With the syndrome of a fault in the frame of its signal, which older ones leave out.
QEMU_VERSION = 11
# Bytes of addresses: an emulated program whose limits do not hold could take all memory.
ADDRESSES = 24 << 30

INSIDE = '''
set -e
mount -t tmpfs none {folder}
cp {qemu} {folder}/qemu
mount -t overlay overlay -o lowerdir={root}/usr:/usr /usr
mount -t binfmt_misc none /proc/sys/fs/binfmt_misc
printf %s {line} > /proc/sys/fs/binfmt_misc/register
exec "$@"
'''
# ELF of 64 bits, little-endian, a program or library, of machine 183; and the bits that count.
MAGIC = (r'\x7fELF\x02\x01\x01' + 9 * r'\x00' + r'\x02\x00\xb7\x00',
         7 * r'\xff' + r'\x00' + 8 * r'\xff' + r'\xfe\xff\xff\xff')

pytestmark = [pytest.mark.slow, pytest.mark.network,
              pytest.mark.skipif(platform.machine() == 'aarch64', reason='this machine is one')]


def packages(processor, names):
    """The folder with packages of Debian's newest suite."""
    machine = pytest.importorskip('arch.virtual_machine')
    return machine.Packages(processor, names).get().root


@functools.lru_cache(maxsize=None)
def qemu():
    """A qemu that is new enough: this machine's, or that of Debian's newest suite."""
    for name in 'qemu-aarch64-static', 'qemu-aarch64':
        if found := shutil.which(name):
            said = child.run([found, '--version'], status=0).out
            if int(re.search(r'version (\d+)', said)[1]) >= QEMU_VERSION:
                return Path(found)
    need('dpkg')
    own = child.run(['dpkg', '--print-architecture'], status=0).out.strip()
    return packages(own, 'qemu-user') / 'usr/bin/qemu-aarch64'


def need_compiler():
    if not shutil.which(COMPILER):
        pytest.skip(f'no {COMPILER} (gcc-aarch64-linux-gnu and libc6-dev-arm64-cross have it)')
    root = child.run(['rustc', '--print', 'sysroot'], dict(os.environ), status=0).out.strip()
    if not Path(root, 'lib/rustlib', TARGET, 'lib').exists():
        pytest.skip(f'rustc has no libraries for it: rustup target add {TARGET}')


@pytest.fixture(scope='module')
def built():
    """The library and the command for aarch64."""
    need_compiler()
    build.make('command', f'TARGET={TARGET}', timeout=3600)


def limited(*words):
    return ['prlimit', f'--as={ADDRESSES}', *words]


# ---- unit tests ----

@pytest.mark.parametrize('name', emulated.UNIT_TESTS)
def test_unit_test_that_cannot_pass(name):
    pytest.skip(emulated.UNIT_TESTS[name])


@pytest.mark.parametrize('package, least', [('obmalloc', 150), ('obmalloc-format', 5)])
def test_unit_tests(package, least):
    need_compiler()
    variable = 'CARGO_TARGET_' + TARGET.upper().replace('-', '_')
    skipped = [word for name in emulated.UNIT_TESTS for word in ('--skip', name)]
    done = child.run(
        limited('cargo', 'test', '-p', package, '--lib', '--target', TARGET, '--', *skipped),
        child.clean_environment(**{f'{variable}_LINKER': COMPILER,
                                   f'{variable}_RUNNER': f'{qemu()} -L {LIBC}'}),
        5400, cwd=build.ROOT)
    assert done.status == 0, done.report
    passed, failed = map(int, re.search(r'(\d+) passed; (\d+) failed', done.out).groups())
    print(f'{package}: {passed} passed')
    assert failed == 0 and passed >= least


# ---- C tests ----

C_TESTS = build.ROOT / 'c_tests'
PROGRAMS = sorted({path.parent.name for path in C_TESTS.glob('*/*.c')} - {'harness'}) + ['header']
C_EXCEPTIONS = [line.split(None, 2) for line in (C_TESTS / 'emulated.txt').read_text().splitlines()
                if line and not line.startswith('#')]


@pytest.mark.parametrize('pattern, ways, reason', C_EXCEPTIONS)
def test_c_case_that_cannot_pass(pattern, ways, reason):
    pytest.skip(f'{pattern}, ways: {ways}: {reason}')


@pytest.mark.parametrize('program', PROGRAMS)
def test_c_program(built, program):
    done = child.run(
        limited('make', '-k', '-C', C_TESTS, f'TARGET={TARGET}', f'RUNNER={qemu()} -L {LIBC}',
                'EMULATED=1', 'TIMEOUT=300', f'CASE={program}', 'WAYS=so a pre dl header'),
        child.clean_environment(MAKEFLAGS=''), 5400)
    print(done.out)
    assert done.status == 0, done.report
    passed, failed = map(int, re.search(r'(\d+) passed, (\d+) failed', done.out).groups())
    assert passed > 0 and failed == 0


# ---- a Python ----

@functools.lru_cache(maxsize=None)
def inside():
    """The words before a command that enter the namespace with both systems."""
    for program in 'unshare', 'mount':
        need(program)
    folder = build.PROGRAMS / 'emulated'
    folder.mkdir(parents=True, exist_ok=True)
    # O: qemu gets the opened file, so that programs which may not be read run, too.
    line = f':obmalloc-aarch64:M::{MAGIC[0]}:{MAGIC[1]}:{folder}/qemu:O'
    script = INSIDE.format(folder=folder, qemu=qemu(), root=packages('arm64', PACKAGES),
                           line=shlex.quote(line))
    words = ['unshare', '--user', '--map-root-user', '--mount', 'sh', '-c', script, 'sh']
    tried = child.run([*words, f'/usr/bin/{PYTHON}', '-c', 'import os; print(os.uname()[4])'])
    if tried.out.strip() != 'aarch64':
        pytest.skip('needs Linux 6.7 or later, with binfmt_misc in namespaces of users: '
                    + last_line(tried.err))
    return words


CHECKS = sorted(path.name for path in (build.ROOT / 'tests/preload').glob('test_*.py'))


@pytest.mark.parametrize('check', emulated.PRELOAD)
def test_preload_check_that_cannot_pass(check):
    pytest.skip(emulated.PRELOAD[check])


@pytest.mark.parametrize('file', [file for file in CHECKS if file not in emulated.PRELOAD])
def test_preload_checks(built, tmp_path, file):
    left_out = [f'--deselect=tests/preload/{check}' for check in emulated.PRELOAD
                if check.startswith(f'{file}::')]
    results = tmp_path / 'results.xml'
    done = child.run(
        limited(*inside(), sys.executable, '-B', '-m', 'pytest', f'tests/preload/{file}', '-q',
                '--tb=short', '--all-pythons', '--pythons', f'/usr/bin/{PYTHON}', *left_out,
                f'--junitxml={results}', '-o', f'cache_dir={tmp_path}/cache'),
        child.clean_environment(CARGO_BUILD_TARGET=TARGET, CC=COMPILER), 5400, cwd=build.ROOT)
    print(done.out)
    nothing = done.status == 5                  # pytest's, if no check is left
    assert done.status == 0 or nothing, done.report
    cases = list(ElementTree.parse(results).iter('testcase'))
    skipped = sum(case.find('skipped') is not None for case in cases)
    print(f'{file}: {len(cases) - skipped} passed, {skipped} skipped')
    if len(cases) == skipped:
        pytest.skip(f'{skipped} checks, which are skipped, or are for other interpreters')
