"""A CPython for musl, the library for it, and runs of other tests with both."""
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from compat.environment import FOLDER, last_line

from support import build, child, interpreters

HERE = Path(__file__).parent
TARGET = 'x86_64-unknown-linux-musl'
MUSL = FOLDER / 'musl'
KINDS = 'static', 'shared'
# Programs that the build of the interpreters needs, with Debian's packages of them.
NEEDED = {'musl-gcc': 'musl-tools', 'apt-get': 'apt', 'autoreconf': 'autoconf',
          'aclocal': 'automake', 'libtoolize': 'libtool', 'gcc': 'gcc', 'make': 'make',
          'xz': 'xz-utils'}
LTDL = Path('/usr/share/aclocal/ltdl.m4')


def pythons():
    """The interpreters by kind, which the first call builds."""
    missing = [f'{program} ({package})' for program, package in NEEDED.items()
               if not shutil.which(program)]
    missing += [] if LTDL.exists() else ['ltdl.m4 (libltdl-dev)']
    if missing and not all((MUSL / f'{kind}.complete').exists() for kind in KINDS):
        pytest.skip('no ' + ', no '.join(missing))
    MUSL.mkdir(parents=True, exist_ok=True)
    with build.locked('musl'):
        done = child.run(['sh', HERE / 'build_musl_python.sh', MUSL], dict(os.environ), 3600)
    if done.status != 0 and not (MUSL / 'sources.complete').exists():
        pytest.skip('no source packages: ' + last_line(done.err))
    assert done.status == 0, done.report
    found = {kind: interpreters.probe(str(MUSL / kind / 'bin/python3.13')) for kind in KINDS}
    return {kind: replace(python, name=f'{python.version}-musl-{kind}')
            for kind, python in found.items()}


def environment(**extra):
    """For make, cargo and the tests: everything for musl."""
    return dict(os.environ, CARGO_BUILD_TARGET=TARGET, CC=str(MUSL / 'bin/cc'), **extra)


def rust_libraries():
    """The folder of rustc's libraries for musl."""
    root = child.run(['rustc', '--print', 'sysroot'], dict(os.environ), status=0).out.strip()
    return Path(root, 'lib/rustlib', TARGET, 'lib')


def need_target():
    """Skips where rustc cannot build for musl."""
    for program, package in ('musl-gcc', 'musl-tools'), ('cargo', 'rustup'), ('rustc', 'rustup'):
        if not shutil.which(program):
            pytest.skip(f'no {program} ({package} has it)')
    if not rust_libraries().exists():
        pytest.skip(f'rustc has no libraries for it: rustup target add {TARGET}')


def make(*words):
    """`make WORDS` for musl, in the tree."""
    with build.locked('make'):
        return child.run(['make', '-s', '-C', build.ROOT, *words, f'TARGET={TARGET}'],
                         dict(os.environ, MAKEFLAGS=''), 3600, status=0)


def cargo(*words, timeout):
    """cargo for musl, with the library's own flags: shared, by musl-gcc. What needs std needs an
    unwinder, and the compiler's is for glibc: rustc's own for static programs takes its place."""
    folder = build.PROGRAMS / 'unwinder'
    folder.mkdir(parents=True, exist_ok=True)
    (folder / 'libgcc_s.so').write_text(f'INPUT({rust_libraries()}/self-contained/libunwind.a)\n')
    name = TARGET.upper().replace('-', '_')
    env = dict(os.environ, CARGO_BUILD_TARGET=TARGET)
    env[f'CARGO_TARGET_{name}_RUSTFLAGS'] = ('-C target-feature=-crt-static -C linker=musl-gcc'
                                             f' -L native={folder}')
    return child.run(['cargo', *words], env, timeout, cwd=build.ROOT)


LOADER = '/lib/ld-musl-x86_64.so.1'

# Checks of tests/preload that do not apply here, by the beginning of their names.
OF_GLIBC = "starts programs of this machine's C library, which musl's library is not for"
EXCEPTIONS = {f'tests/preload/test_{check}': reason for reason, checks in {
    OF_GLIBC: ('address_space.py::test_programs_run_under_a_limit',
               'fork_warnings.py::test_fork_with_the_usual_interval',
               'fork_warnings.py::test_subprocess',
               'inert.py::test_same_output_and_status', 'inert.py::test_no_statistics_file',
               'inert.py::test_compiling_a_program',
               'inert.py::test_same_system_calls_as_an_empty_library',
               'processes.py::test_shells_between'),
    "the interpreter is the distribution's, which is for glibc": (
        'debug.py::test_debug_build', 'reports.py::test_root_and_files_of_others',
        'reports.py::test_root_and_its_own_files', 'reports.py::test_files_of_other_users',
        'reports.py::test_signals_are_restored'),
    'musl has no dlmopen, and calls no function of the library when an object is loaded': (
        'several.py',),
    'musl has no reserve of static thread-local storage: it refuses other libraries of the check': (
        'tls_budget.py',),
    "valgrind and the sanitizers of this machine's compiler are for glibc": (
        'tools.py::test_memcheck', 'tools.py::test_sanitizer'),
}.items() for check in checks}
