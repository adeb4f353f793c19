"""Where cargo puts the libraries and the command, and small C programs for the tests."""
import fcntl
import functools
import os
import platform
import re
import shutil
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

from support import child

ROOT = Path(__file__).resolve().parents[2]
TARGET = ROOT / os.environ.get('CARGO_TARGET_DIR', 'target')
RELEASE = TARGET / os.environ.get('CARGO_BUILD_TARGET', '') / 'release'
LIBRARY = RELEASE / 'libobmalloc.so'        # the option --library replaces it
FOR_MUSL = RELEASE.parent.name.endswith('musl')         # else for glibc
ARCHIVE = RELEASE / 'libobmalloc.a'         # with weak names (`make all`)
PYTHONS_ONLY = RELEASE / 'libobmalloc_pythons.so'
COMMAND = RELEASE / 'obmalloc'
HEADER = ROOT / 'include' / 'obmalloc.h'
PROGRAMS = RELEASE.parent / 'tests'         # what `program` compiles

FLAGS = ['-O2', '-g', '-Wall', '-Wextra', '-Werror']


@functools.lru_cache(maxsize=None)
def _compile(output, arguments, folder):
    words = [str(folder / word) if re.fullmatch(r'\w+\.c', word) else word for word in arguments]
    output.parent.mkdir(parents=True, exist_ok=True)
    fresh = output.with_name(f'{output.name}.{os.getpid()}')
    done = child.run([os.environ.get('CC', 'gcc'), *FLAGS, '-o', fresh, *words], timeout=120)
    assert done.status == 0, done.report
    fresh.replace(output)       # another worker may run the old one
    return output


def program(name, *arguments, folder):
    """Compiles `arguments` (sources of `folder` by their bare names, options) to a program or
    library `name` under target/tests, once in a process. Skips without a compiler."""
    if not shutil.which(os.environ.get('CC', 'gcc')):
        pytest.skip('no C compiler')
    return _compile(PROGRAMS / Path(folder).parent.name / name, tuple(map(str, arguments)),
                    Path(folder))


@contextmanager
def locked(name):
    """One process at a time: workers of pytest share the folder target/."""
    PROGRAMS.mkdir(parents=True, exist_ok=True)
    with (PROGRAMS / f'{name}.lock').open('w') as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def virtual(name, *packages, python=sys.executable):
    """The programs of a virtual environment with packages from PyPI, kept as target/tools/NAME.
    Skips where they cannot be installed."""
    folder = TARGET / 'tools' / name
    installed = folder / 'packages'

    def run(*words):
        done = child.run(words, dict(os.environ), 600)      # with the user's settings of pip
        if done.status != 0:
            what = ' '.join(packages) or 'virtual environment'
            pytest.skip(f'no {what}: {(done.err or done.out).strip()[-200:]}')

    with locked(name):
        if not installed.exists():
            run(python, '-m', 'venv', '--clear', folder)
            installed.touch()
        for package in set(packages) - set(installed.read_text().split()):
            run(folder / 'bin/python', '-m', 'pip', 'install', '--quiet', '--no-input',
                '--disable-pip-version-check', package)
            with installed.open('a') as file:
                file.write(package + '\n')
    return folder / 'bin'


def tool(program, package):
    """The path of a program: on PATH, else in a virtual environment with this package."""
    return shutil.which(program) or virtual(program, package) / program


def make(*words, env=None, timeout=900):
    """`make WORDS` in the tree, whose own library must be the one under test."""
    for program in 'make', 'cargo':
        if not shutil.which(program):
            pytest.skip(f'no {program}')
    if LIBRARY != RELEASE / 'libobmalloc.so':
        pytest.skip("the library under test is not the tree's own")
    with locked('make'):
        return child.run(['make', '-s', '-C', ROOT, *words],
                         child.clean_environment(MAKEFLAGS='') if env is None else env, timeout,
                         status=0)


def files(folder):
    """The files and links under a folder, relative to it."""
    return sorted(str(path.relative_to(folder)) for path in Path(folder).rglob('*')
                  if path.is_symlink() or not path.is_dir())


def version():
    """The version in Cargo.toml."""
    return re.search(r'^version = "(.*)"', (ROOT / 'Cargo.toml').read_text(), re.M).group(1)


def wheel():
    """The newest wheel for this machine if it is newer than what it was packed from, else a new
    one."""
    packed = [COMMAND, LIBRARY, *(ROOT / 'python').rglob('*.py*')]
    with locked('wheel'):
        libc = 'manylinux' if platform.libc_ver()[0] else 'musllinux'
        names = f'wheels/*-{libc}_*_{platform.machine()}*.whl'
        made = [*TARGET.glob(names), *PROGRAMS.glob(names)]
        newest = max(made, key=os.path.getmtime, default=None)
        if newest and os.path.getmtime(newest) > max(map(os.path.getmtime, packed)):
            return newest
        done = child.run([sys.executable, '-B', ROOT / 'python' / 'build_wheel.py', '--from',
                          LIBRARY.parent, '--to', PROGRAMS / 'wheels'], status=0)
        return Path(done.out.splitlines()[-1])


def library_folder():
    """A folder with the library under the names that -lobmalloc and the loader look for."""
    folder = PROGRAMS / 'lib'
    folder.mkdir(parents=True, exist_ok=True)
    for name in 'libobmalloc.so', 'libobmalloc.so.0':
        link = folder / f'{name}.{os.getpid()}'
        link.symlink_to(LIBRARY.resolve())
        link.replace(folder / name)
    return folder
