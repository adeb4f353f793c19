"""The tag of a wheel, from what its ELF files need (python/build_wheel.py)."""
import platform
import re
import shutil
import sys

import pytest

from support import build, child

sys.path.insert(0, str(build.ROOT / 'python'))
import build_wheel      # noqa: E402
from build_wheel import Needs, Unfit        # noqa: E402

HERE = platform.machine()
STATIC = Needs('x86_64', '', (0, 0))


def glibc(minor, machine='x86_64'):
    return Needs(machine, 'glibc', (2, minor))


@pytest.mark.parametrize('files, tag', [
    ([glibc(17), glibc(14), glibc(4)], 'manylinux_2_17_x86_64.manylinux2014_x86_64'),
    ([glibc(5), glibc(5)], 'manylinux_2_17_x86_64.manylinux2014_x86_64'),
    ([glibc(17), glibc(34), glibc(9)], 'manylinux_2_34_x86_64'),
    ([glibc(17, 'aarch64'), glibc(28, 'aarch64')], 'manylinux_2_28_aarch64'),
    ([glibc(17, 'aarch64')], 'manylinux_2_17_aarch64.manylinux2014_aarch64'),
    ([Needs('aarch64', 'musl', (0, 0)), Needs('aarch64', '', (0, 0))], 'musllinux_1_2_aarch64'),
    ([glibc(18), STATIC], 'manylinux_2_18_x86_64'),
])
def test_the_tag_is_of_the_newest_need(files, tag):
    assert build_wheel.tag(files) == tag


@pytest.mark.parametrize('files, words', [
    ([glibc(17), glibc(17, 'aarch64')], 'aarch64 and glibc and x86_64'),
    ([glibc(17), Needs('x86_64', 'musl', (0, 0))], 'glibc and musl and x86_64'),
    ([STATIC], 'are for x86_64'),
])
def test_files_of_several_kinds_are_refused(files, words):
    with pytest.raises(Unfit, match=words):
        build_wheel.tag(files)


@pytest.fixture
def compiled(tmp_path):
    """The needs of a library, or a program, of this C source by a compiler."""
    def needs(source, *options, compiler='gcc'):
        if not shutil.which(compiler):
            pytest.skip(f'no {compiler}')
        (tmp_path / 'file.c').write_text(source)
        words = compiler, '-O1', '-o', tmp_path / 'file', tmp_path / 'file.c', *options
        child.run(words, status=0)
        return build_wheel.needs(str(tmp_path / 'file'))
    return needs


LIBRARY = '-shared', '-fPIC'
ALLOCATES = '#include <stdlib.h>\nvoid *f(void) { return malloc(1); }\n'


def test_versions_of_symbols(compiled):
    """getauxval came with glibc 2.16 on all machines; a weak name needs no version."""
    if platform.libc_ver()[0] != 'glibc':
        pytest.skip('no glibc')
    source = '#include <sys/auxv.h>\nlong f(void) { return getauxval(6); }\n'
    floor = max((2, 17) if HERE == 'aarch64' else (2, 16), (2, 2))
    assert compiled(source, *LIBRARY) == Needs(HERE, 'glibc', floor)
    weak = compiled('#pragma weak getauxval\n' + source, *LIBRARY)
    assert weak.glibc < (2, 16) or HERE != 'x86_64'


@pytest.mark.parametrize('machine', sorted(build_wheel.MACHINES.values()))
def test_each_machine(compiled, machine):
    compiler = 'gcc' if machine == HERE else f'{machine}-linux-gnu-gcc'
    found = compiled(ALLOCATES, *LIBRARY, compiler=compiler)
    assert (found.machine, found.libc) == (machine, 'glibc')


def test_other_libraries_are_refused(compiled, tmp_path):
    child.run(['gcc', *LIBRARY, '-o', tmp_path / 'libstrange.so', '-Wl,-soname,libstrange.so.1',
               '-x', 'c', '/dev/null'], status=0)
    with pytest.raises(Unfit, match=r'needs libstrange.so.1, which not every system has'):
        compiled(ALLOCATES, *LIBRARY, '-Wl,--no-as-needed', f'-L{tmp_path}', '-lstrange')


def test_compact_relocations_are_refused(compiled):
    """Their version, GLIBC_ABI_DT_RELR, has no number: glibc before 2.36 refuses the file."""
    source = ALLOCATES + 'void *(*table[])(void) = {f, f, f};\n'
    packed = '-Wl,-z,pack-relative-relocs'
    if 'pack-relative-relocs' not in child.run(['ld', '--help']).out:
        pytest.skip("this linker does not make them")
    with pytest.raises(Unfit, match='GLIBC_ABI_DT_RELR'):
        compiled(source, *LIBRARY, packed)


def test_musl(compiled):
    assert compiled(ALLOCATES, *LIBRARY, compiler='musl-gcc') == Needs(HERE, 'musl', (0, 0))
    assert compiled('int main(void) { return 0; }', '-static', compiler='musl-gcc').libc == ''
    with pytest.raises(Unfit, match=r'musl 1\.2\.0 does not have: gettid \(1\.2\.2\)'):
        compiled('int gettid(void);\nint f(void) { return gettid(); }', *LIBRARY,
                 compiler='musl-gcc')


def test_the_page_has_the_wheels_of_a_release():
    """docs/packaging.md: `make wheels` builds each row's target, which gets the row's tag."""
    rows = re.findall(r'(?m)^\| `make wheel TARGET=(\S+)` \| `(\w+)` \|',
                      (build.ROOT / 'docs/packaging.md').read_text())
    tags = {}
    for target, _ in rows:
        machine, *_, libc = target.split('-')
        kind = Needs(machine, 'musl', (0, 0)) if libc == 'musl' else glibc(17, machine)
        tags[target] = build_wheel.tag([kind]).split('.')[0]
    assert dict(rows) == tags
    shown = child.run(['make', '-s', '-n', '-C', build.ROOT, 'wheels'],
                      child.clean_environment(MAKEFLAGS=''), status=0).out
    assert re.findall(r'^for target in (.*?);', shown) == [' '.join(tags)]


def test_missing_tools_are_named():
    """With the command that installs them; nothing is built."""
    path = child.clean_environment(PATH='/usr/bin:/bin', MAKEFLAGS='', CARGO='true')
    if shutil.which('cargo-zigbuild', path=path['PATH']) or not shutil.which('make'):
        pytest.skip('cargo-zigbuild is installed, or there is no make')
    done = child.run(['make', '-s', '-C', build.ROOT, 'wheel', 'TARGET=aarch64-unknown-linux-musl'],
                     path)
    assert done.status == 2
    assert 'no cargo-zigbuild here: pip install cargo-zigbuild\n' in done.err
