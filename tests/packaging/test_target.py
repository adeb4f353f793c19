"""make installs and packs from the folder where cargo builds: CARGO_TARGET_DIR,
CARGO_BUILD_TARGET, cargo's own configuration. A stand-in for cargo copies the built files,
marked, to where the real one would have built them."""
import os
import shutil
import sys

import pytest

from support import build, child

pytestmark = pytest.mark.slow
MACHINE = 'x86_64-unknown-linux-gnu'
MARK = b'made by the cargo of this check'
CARGO = r'''#!/bin/sh -e
case "$*" in
tree*|*--filter-platform*) exec "$REAL_CARGO" "$@";;    # for the licences of the crates
esac
case $1 in
metadata) echo "{\"packages\":[],\"target_directory\":\"$CONFIGURED\",\"version\":1}"; exit;;
-Zunstable-options) [ -n "$CONFIGURED_MACHINE" ] || exit 1; echo "\"$CONFIGURED_MACHINE\""; exit;;
build) ;;
*) echo "cargo $*: not expected" >&2; exit 9;;
esac
target=${CARGO_TARGET_DIR:-$CONFIGURED} profile=release pythons=
while [ $# -gt 0 ]; do
    case $1 in
    --profile) profile=$2; shift;;
    --target-dir) target=$2; shift;;
    -p) [ "$2" != obmalloc-exec-scope ] || pythons=yes; shift;;
    esac
    shift
done
folder=$target/${CARGO_BUILD_TARGET:+$CARGO_BUILD_TARGET/}$profile
mkdir -p "$folder"
if [ "$profile" = command ]; then names=obmalloc
elif [ "$pythons" ]; then names=libobmalloc_pythons.so
else names='libobmalloc.so libobmalloc.a'
fi
for name in $names; do
    cp "$BUILT_ALREADY/$name" "$folder/$name"
    case $name in *.so) printf '%s' "$MARK" >> "$folder/$name";; esac
done
'''


@pytest.fixture
def install(tmp_path):
    """`make install WORDS` with the stand-in: to tmp_path/prefix; cargo builds in `release`."""
    for tool in 'make', 'objcopy', 'cargo':
        if not shutil.which(tool):
            pytest.skip(f'no {tool}')
    for path in build.LIBRARY, build.ARCHIVE, build.PYTHONS_ONLY, build.COMMAND:
        if not path.exists():
            pytest.skip(f'no {path.name}: run make command')
    cargo = tmp_path / 'cargo'
    cargo.write_text(CARGO)
    cargo.chmod(0o755)
    prefix = tmp_path / 'prefix'

    def times():
        own = build.ROOT / 'target' / 'release' / 'libobmalloc.so'
        return own.exists() and (own.stat().st_ino, own.stat().st_mtime_ns)

    def run(release, *words, configured=build.ROOT / 'target', machine='', **variables):
        given = {'CARGO_TARGET_DIR': '', 'CARGO_BUILD_TARGET': ''} | variables
        before = times()
        build.make('install', f'PREFIX={prefix}', *words, env=child.clean_environment(
            CARGO=str(cargo), REAL_CARGO=shutil.which('cargo'), MARK=MARK.decode(), MAKEFLAGS='',
            BUILT_ALREADY=str(build.RELEASE), CONFIGURED=str(configured),
            CONFIGURED_MACHINE=machine, **given))
        assert times() == before, "the tree's own library is replaced"
        for name in 'libobmalloc.so', 'libobmalloc_pythons.so':
            assert (prefix / 'lib' / name).read_bytes().endswith(MARK), name
        assert (prefix / 'lib' / build.ARCHIVE.name).read_bytes() == (
            release / build.ARCHIVE.name).read_bytes()
        child.run([prefix / 'bin/obmalloc', '--version'], status=0)
        assert os.readlink(release / 'libobmalloc.so.0') == 'libobmalloc.so'
    return run


@pytest.fixture
def folder(tmp_path):
    return tmp_path / 'target'


def test_the_variable(install, folder):
    install(folder / 'release', CARGO_TARGET_DIR=str(folder))


def test_a_relative_path(install, folder):
    install(folder / 'release', CARGO_TARGET_DIR=os.path.relpath(folder, build.ROOT))


def test_makes_variables_and_a_named_machine(install, folder):
    install(folder / MACHINE / 'release', f'CARGO_TARGET_DIR={folder}', CARGO_BUILD_TARGET=MACHINE)


def test_cargos_configuration(install, folder):
    install(folder / 'release', configured=folder)


def test_cargos_configuration_of_the_machine(install, folder):
    install(folder / MACHINE / 'release', machine=MACHINE, CARGO_TARGET_DIR=str(folder))


def test_wheels_are_packed_from_there(install, folder):
    install(folder / 'release', CARGO_TARGET_DIR=str(folder))
    done = child.run([sys.executable, '-B', build.ROOT / 'python' / 'build_wheel.py'],
                     child.clean_environment(CARGO_TARGET_DIR=str(folder)), status=0)
    assert done.out.splitlines()[-1].startswith(f'{folder}/wheels/')
