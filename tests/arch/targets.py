"""Interpreters of other architectures and C libraries, and how they are started."""
import platform
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
from compat.environment import FOLDER

from support import build, child, interpreters

EMULATOR = 'qemu-aarch64-static'


@dataclass
class Interpreter:
    """An interpreter of a target; programs of the same target run in the same way."""
    path: Path
    emulator: tuple = ()

    def run(self, *words, program=None, **variables):
        """Runs it, or another program, with these variables."""
        words = [program or self.path, *words]
        if self.emulator:       # -E, as the emulator itself would read LD_PRELOAD
            passed = [word for name, value in variables.items() for word in ('-E', f'{name}={value}')]
            return child.run([*self.emulator, *passed, *words], timeout=300, status=0)
        return child.run(words, child.clean_environment(**variables), timeout=300, status=0)


def emulator(root):
    """The words that start a program of aarch64 with the libraries of a system in a folder."""
    if not shutil.which(EMULATOR):
        pytest.skip(f'no {EMULATOR} (qemu-user-static has it)')
    # Unpacked packages have all of it in usr/, and no links to its folders.
    folder = build.PROGRAMS / 'emulator' / root.parent.name
    folder.mkdir(parents=True, exist_ok=True)
    for name, target in ('usr', root / 'usr'), ('lib', root / 'usr/lib'):
        with build.locked('emulator'):
            (folder / name).unlink(missing_ok=True)
            (folder / name).symlink_to(target)
    return EMULATOR, '-L', str(folder)


def musl_of_aarch64():
    """The words that start a program of aarch64 with Debian's musl."""
    folder = FOLDER / 'musl-arm64'
    with build.locked('musl-arm64'):
        if not (folder / 'root/usr/lib/ld-musl-aarch64.so.1').exists():
            settings = FOLDER / 'sid-arm64/apt.conf'
            if not settings.exists():
                pytest.skip('no list of packages for arm64: other tests of tests/arch get it')
            folder.mkdir(parents=True, exist_ok=True)
            done = child.run(['apt-get', '-q', 'download', 'musl'],
                             child.clean_environment(APT_CONFIG=settings), 300, cwd=folder)
            for package in folder.glob('musl_*.deb'):
                child.run(['dpkg', '-x', package, folder / 'root'], status=0)
            if done.status != 0:
                pytest.skip(f'apt-get: {done.err.strip()[-200:]}')
    return emulator(folder / 'root')


def interpreter(target):
    """The newest interpreter of a target, or a skip that names what it takes."""
    machine, libc = target.split('-')[0], target.split('-')[-1]
    native = machine == platform.machine()
    if native and libc == 'gnu':
        found = [each for each in interpreters.find() if each.supported and each.numbers >= (3, 8)]
        return Interpreter(Path(found[-1].path)) if found else pytest.skip('no CPython from 3.8 on')
    if native:
        patterns = ['musl/shared/bin', 'musl/static/bin']
    elif libc == 'musl':
        pytest.skip(f'no CPython for {target}: a host that stands for one is tested')
    else:
        patterns = ['sid-arm64/root/usr/bin', 'arm64/root/usr/bin']
    found = [path for pattern in patterns
             for path in sorted(FOLDER.glob(f'{pattern}/python3.[0-9]*[0-9]'))]
    if not found:
        pytest.skip(f'no CPython for {target}: other tests of tests/arch make it')
    root = found[0].parents[2]
    return Interpreter(found[0], () if native else emulator(root))
