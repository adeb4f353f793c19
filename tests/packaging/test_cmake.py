"""The CMake package of `make install`: a project finds it and links both libraries, wherever
the tree is."""
import re
import shutil
from pathlib import Path

import pytest

from support import build, child

pytestmark = pytest.mark.slow
PROJECT = Path(__file__).parent / 'cmake'
SONAME = 'libobmalloc.so.0'


@pytest.fixture
def cmake():
    if not shutil.which('gcc'):
        pytest.skip('no gcc')
    return build.tool('cmake', 'cmake')


@pytest.fixture
def configure(cmake, tmp_path):
    """cmake of the project, which looks for packages in prefix; the folder is tmp_path/build."""
    def run(prefix, *words, status=None):
        return child.run([cmake, '-S', PROJECT, '-B', tmp_path / 'build',
                          f'-DCMAKE_PREFIX_PATH={prefix}', *words], timeout=300, status=status)
    return run


@pytest.fixture
def builds_and_runs(cmake, configure, tmp_path):
    def run(prefix, libdir):
        folder = tmp_path / 'build'
        done = configure(prefix, f'-DWANTED={build.version()}', status=0)
        assert f'found obmalloc {build.version()} in {libdir}/' in done.out
        child.run([cmake, '--build', folder], timeout=300, status=0)
        for program in 'with_shared', 'with_static':
            version, held = child.run([folder / program], status=0).out.split()
            assert version == build.version()
            # A thousand blocks of 48 bytes, some of them perhaps allocated before.
            assert int(held) > 40 * 1000, program
            needed = child.run(['readelf', '-d', folder / program]).out
            assert (SONAME in needed) == (program == 'with_shared')
        linked = child.run(['ldd', folder / 'with_shared']).out
        assert f'{SONAME} => {libdir}/' in linked
    return run


def test_in_its_prefix(builds_and_runs, tmp_path):
    prefix = tmp_path / 'prefix'
    build.make('install', f'PREFIX={prefix}')
    for name in 'LICENSE-MIT', 'LICENSE-APACHE', 'THIRD-PARTY.txt':
        assert (prefix / 'share/doc/obmalloc' / name).exists()
    builds_and_runs(prefix, prefix / 'lib')
    build.make('uninstall', f'PREFIX={prefix}')
    assert build.files(prefix) == []
    assert not (prefix / 'lib/cmake/obmalloc').exists()


@pytest.fixture(scope='module')
def moved(tmp_path_factory):
    """A tree as for a package (DESTDIR, a multiarch LIBDIR), moved elsewhere."""
    stage = tmp_path_factory.mktemp('stage')
    words = 'PREFIX=/usr', 'LIBDIR=/usr/lib/x86_64-linux-gnu', f'DESTDIR={stage}'
    build.make('install', *words)
    for name in build.files(stage):
        if name.endswith(('.cmake', '.pc')):
            assert str(stage) not in (stage / name).read_text(), name
    moved = tmp_path_factory.mktemp('moved') / 'tree'
    shutil.copytree(stage, moved, symlinks=True)
    build.make('uninstall', *words)
    assert build.files(stage) == []
    return moved


def test_staged_multiarch_and_moved(builds_and_runs, moved):
    builds_and_runs(moved / 'usr', moved / 'usr/lib/x86_64-linux-gnu')


def test_a_link_to_the_folder_of_libraries(configure, moved):
    """As /lib is one to /usr/lib."""
    (moved / 'lib').symlink_to('usr/lib')
    configure(moved, status=0)
    (moved / 'lib').unlink()


def wanted():
    """Versions that a project may want, and whether this one fits."""
    version = build.version()
    major, minor, patch = map(int, version.split('.'))
    newer = f'{major}.{minor}.{patch + 1}'
    return [(f'{major}', True), (f'{major}.0', True), (f'{version};EXACT', True), (newer, False),
            (f'{major + 1}.0.0', False), (f'{major}.0...<{newer}', True),
            (f'{major}.0...<{version}', False), (f'{major}.0...{version}', True)]


@pytest.mark.parametrize('version, fits', wanted())
def test_versions(configure, moved, version, fits):
    done = configure(moved / 'usr', f'-DWANTED={version}')
    assert (done.status == 0) == fits, done.report
    assert fits or f'version: {build.version()}' in done.err


def test_an_incomplete_tree(configure, moved, tmp_path):
    tree = tmp_path / 'incomplete'
    shutil.copytree(moved, tree, symlinks=True)
    (tree / 'usr/lib/x86_64-linux-gnu/libobmalloc.a').unlink()
    done = configure(tree / 'usr')
    assert done.status != 0
    assert 'libobmalloc.a is missing: install' in re.sub(r'\n  ', ' ', done.err)
