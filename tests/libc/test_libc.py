"""The malloc tests of glibc and of musl's libc-test on this library's functions.

redirect.h redirects their calls of malloc, calloc, realloc and free to PyMem_*, PyObject_* and
PyMem_Raw*. The same programs run on the C library's own functions as well, and the results must
be equal except for DIFFERENCES, each of which the header documents.

The source package of this Debian's glibc is downloaded to target/libc, unless GLIBC names a
source tree. LIBC_TEST names a checkout of musl's libc-test.
"""
import functools
import os
import re
import tarfile
from pathlib import Path

import pytest

from support import build, child

HERE = Path(__file__).parent
BUILD = build.TARGET / 'libc'
DOMAINS = ['PyMem_', 'PyObject_', 'PyMem_Raw']
TESTS = {
    'glibc': ['tst-calloc', 'tst-free-errno', 'tst-malloc', 'tst-malloc-backtrace',
              'tst-malloc-fork-deadlock', 'tst-malloc-tcache-leak', 'tst-malloc-thread-exit',
              'tst-malloc-thread-fail', 'tst-malloc-too-large', 'tst-mallocalign1',
              'tst-mallocfork', 'tst-mallocfork2', 'tst-mallocfork3', 'tst-realloc',
              'tst-tcfree1', 'tst-tcfree2', 'tst-tcfree3', 'tst-trim1'],
    'libc-test': ['malloc-0', 'malloc-brk-fail', 'malloc-oom'],
}
DOUBLE = ('a double free is detected when the block returns to its pool',
          'FAIL: tcache double free.*')
NOTHING = "realloc(p, 0) returns a block, as CPython's does", r'.*realloc \(p, 0\).*'
INFO = 'mallinfo does not count blocks of pools', '.*info_before.uordblks != 0.*'
# (test, domain or None for all) -> why the result differs, and a pattern of every output line.
DIFFERENCES = {
    ('tst-malloc', None): NOTHING,
    ('tst-realloc', None): NOTHING,
    ('tst-tcfree1', 'PyMem_'): DOUBLE,
    ('tst-tcfree1', 'PyObject_'): DOUBLE,
    ('tst-tcfree2', 'PyMem_'): DOUBLE,
    ('tst-tcfree2', 'PyObject_'): DOUBLE,
    ('tst-malloc-tcache-leak', 'PyMem_'): INFO,
    ('tst-malloc-tcache-leak', 'PyObject_'): INFO,
}

pytestmark = [pytest.mark.slow, pytest.mark.network]


def download():
    """The malloc folder of this system's glibc, from its source package."""
    found = next(BUILD.glob('glibc-*/malloc'), None)
    if found:
        return found
    lists = BUILD / 'lists'
    (lists / 'partial').mkdir(parents=True, exist_ok=True)
    lines = [line for path in (Path('/etc/apt/sources.list'),
                               *Path('/etc/apt/sources.list.d').glob('*'))
             if path.is_file() for line in path.read_text().splitlines()]
    mirror = next((found[1] for line in lines if (found := re.match(
        r'(?:URIs:|deb(?: \[.*\])?)\s+(\S+/debian/?)(?:\s|$)', line))), None)
    release = dict(line.split('=', 1) for line in Path('/etc/os-release').read_text().splitlines()
                   if '=' in line).get('VERSION_CODENAME')
    if not mirror or not release:
        pytest.skip('no Debian: GLIBC=DIR names a source tree of glibc')
    (BUILD / 'sources.list').write_text(f'deb-src {mirror} {release} main\n')
    for words in ['update'], ['source', '--download-only', 'glibc']:
        done = child.run(['apt-get', '-qq', '-o', f'Dir::Etc::SourceList={BUILD}/sources.list',
                          '-o', 'Dir::Etc::SourceParts=/nonexistent',
                          '-o', f'Dir::State::Lists={lists}', *words], timeout=300, cwd=BUILD)
        if done.status != 0:
            pytest.skip(f'apt-get {words[0]}: {done.err.strip()}')
    for archive in BUILD.glob('glibc_*.orig.tar.*'):
        with tarfile.open(archive) as tar:
            tar.extractall(BUILD, members=[member for member in tar if re.match(
                r'glibc-[\d.]+/malloc/tst-[^/]*\.[ch]$', member.name)])
    return next(BUILD.glob('glibc-*/malloc'))


@functools.lru_cache(maxsize=None)
def sources(suite):
    """(folder of the tests, flags, further sources) of a C library."""
    BUILD.mkdir(parents=True, exist_ok=True)
    if suite == 'glibc':
        with build.locked('glibc'):     # one worker downloads
            folder = Path(os.environ['GLIBC'], 'malloc') if 'GLIBC' in os.environ else download()
        return folder, ['-I', HERE / 'shim', '-iquote', HERE / 'shim/support'], []
    if not os.environ.get('LIBC_TEST'):
        pytest.skip("LIBC_TEST=DIR names a checkout of musl's libc-test")
    common = Path(os.environ['LIBC_TEST'], 'src/common')
    return (common.parent / 'regression', ['-I', common],
            [common / f'{name}.c' for name in ('print', 'vmfill', 'memfill', 'setrlim')])


@functools.lru_cache(maxsize=None)
def result(suite, test, domain=''):
    """(status, output) on the functions of a domain, or of the C library."""
    folder, flags, more = sources(suite)
    if not (folder / f'{test}.c').exists():
        pytest.skip(f'this {suite} has no {test}')
    program = BUILD / f'{test}-{domain or "plain"}'
    if domain:
        flags = flags + ['-include', HERE / 'redirect.h', f'-DDOMAIN={domain}']
        more = more + [f'-L{build.LIBRARY.parent}', f'-l:{build.LIBRARY.name}',
                       f'-Wl,-rpath,{BUILD}/lib']
    child.run([os.environ.get('CC', 'cc'), '-std=gnu11', '-O1', '-g', '-w', '-fno-builtin',
               '-D_GNU_SOURCE', *flags, folder / f'{test}.c', '-o', program, *more, '-lpthread'],
              timeout=120, status=0)
    done = child.run([program], timeout=150, cwd=BUILD)
    return done.status, done.out + done.err


@pytest.fixture(scope='session')
def linked(library):
    """A folder with the library by its SONAME."""
    (BUILD / 'lib').mkdir(parents=True, exist_ok=True)
    new = BUILD / f'lib/new.{os.getpid()}'
    new.symlink_to(library)
    new.replace(BUILD / 'lib/libobmalloc.so.0')


@pytest.mark.parametrize('domain', DOMAINS)
@pytest.mark.parametrize('suite, test', [(suite, test) for suite in TESTS for test in TESTS[suite]])
def test_libc(linked, suite, test, domain):
    expected, _ = result(suite, test)
    status, output = result(suite, test, domain)
    _, pattern = (DIFFERENCES.get((test, domain)) or DIFFERENCES.get((test, None))
                  or (None, None))
    if pattern is None:
        assert status == expected, output
    else:
        assert status != expected, f'no difference: {output}'
        for line in filter(str.strip, output.splitlines()):
            assert re.fullmatch(pattern, line), output
