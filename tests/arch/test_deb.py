"""The packages of `make deb TARGET=aarch64-unknown-linux-gnu`: they have the files of this
machine's, for arm64; the library serves an interpreter there, and the archive can be linked."""
import re
import shutil
from pathlib import Path

import pytest
from arch import targets

from support import build, child, debian, status

pytestmark = pytest.mark.slow
TARGET = 'aarch64-unknown-linux-gnu'
LIBRARIES = 'usr/lib/aarch64-linux-gnu'
USER = Path(__file__).parents[1] / 'packaging/cmake/user.c'


@pytest.fixture(scope='module')
def packages():
    """{name: file}"""
    for tool in 'dpkg-deb', 'dpkg-shlibdeps', 'aarch64-linux-gnu-gcc':
        if not shutil.which(tool):
            pytest.skip(f'no {tool} (dpkg-dev and gcc-aarch64-linux-gnu have it)')
    done = build.make('deb', f'TARGET={TARGET}', f'MAINTAINER={debian.MAINTAINER}', timeout=3600)
    files = [build.ROOT / line for line in done.out.splitlines() if line.endswith('_arm64.deb')]
    return {path.name.split('_')[0]: path for path in files}


@pytest.fixture(scope='module')
def tree(packages, tmp_path_factory):
    """All packages, unpacked."""
    folder = tmp_path_factory.mktemp('arm64')
    for path in packages.values():
        child.run(['dpkg-deb', '--extract', path, folder], status=0)
    return folder


def test_fields(packages):
    assert sorted(packages) == ['libobmalloc-dev', 'libobmalloc0', 'obmalloc']
    for name, path in packages.items():
        fields = dict(line.split(': ', 1) for line in child.run(
            ['dpkg-deb', '--field', path, 'Architecture', 'Depends'], status=0).out.splitlines())
        assert fields['Architecture'] == 'arm64'
        assert 'cross' not in fields['Depends'] and ':' not in fields['Depends']
        if name != 'libobmalloc-dev':
            assert re.search(r'libc6 \(>= 2\.\d+\)', fields['Depends'])


def test_files(tree):
    """Those of packaging/debian/contents, and no machine code but aarch64's."""
    for name in build.files(tree):
        path = tree / name
        if path.is_symlink() or not path.read_bytes().startswith((b'\x7fELF', b'!<arch>\n')):
            continue
        machines = set(re.findall(r'Machine: +(.*)', child.run(['readelf', '-h', path]).out))
        assert machines == {'AArch64'}, name
    assert (tree / LIBRARIES / f'libobmalloc.so.{build.version()}').exists()
    assert (tree / LIBRARIES / 'obmalloc/libobmalloc_pythons.so').exists()
    assert (tree / 'usr/share/man/man1/obmalloc-doctor.1.gz').exists()
    config = (tree / LIBRARIES / 'cmake/obmalloc/obmallocConfig.cmake').read_text()
    assert 'x86_64' not in config


def test_the_library_serves_an_interpreter(tree):
    python = targets.interpreter(TARGET)
    library = tree / LIBRARIES / 'libobmalloc.so.0'
    done = python.run('-c', 'pass', LD_PRELOAD=library, OBMALLOC_VERBOSE=1)
    assert len(done.lines(status.ACTIVE)) == 1
    found = python.run('path', program=tree / 'usr/bin/obmalloc').out.strip()
    assert Path(found).resolve() == library.resolve()


@pytest.mark.parametrize('way', ['shared', 'archive'])
def test_a_program_for_c(tree, tmp_path, way):
    """By the cross compiler, with its own C library."""
    folder = tree / LIBRARIES
    words = [f'-L{folder}', '-lobmalloc'] if way == 'shared' else [folder / 'libobmalloc.a']
    child.run(['aarch64-linux-gnu-gcc', '-o', tmp_path / 'user', USER, f'-I{tree}/usr/include',
               *words], status=0)
    system = Path('/usr/aarch64-linux-gnu')
    if not (system / 'lib/ld-linux-aarch64.so.1').exists() or not shutil.which(targets.EMULATOR):
        pytest.skip(f'no {targets.EMULATOR}, or no libc6-arm64-cross')
    program = targets.Interpreter(tmp_path / 'user', (targets.EMULATOR, '-L', str(system)))
    version, held = program.run(LD_LIBRARY_PATH=folder).out.split()
    assert version == build.version()
    assert int(held) > 40 * 1000
