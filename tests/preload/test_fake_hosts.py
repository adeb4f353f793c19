"""Hosts that few machines have, built from hosts/fake_python.c.

They answer Py_GetVersion() with any version, and count the calls of their own functions, the
calls with a block that is not theirs, and the writes to their table. Each host runs without the
library first, so that the expected counts are the host's own.
"""
import re
import shutil

import pytest

from support import build, child, status
from support.preload import build_host

ORDINARY = '3.11.7 (main, Jan  1 2024, 00:00:00) [GCC 12.2.0]'
OLD = '2.7.18 (default, Jan  1 2024, 00:00:00) \n[GCC 12.2.0]'


def fake_host(version, shape, *flags):
    """shape: 'executable' (static Python: all symbols in the program), 'library' (shared
    libpython), 'symbolic' (shared, but bound to itself when linked)."""
    name = re.sub(r'\W+', '_', '-'.join((version[:20], shape) + flags))
    flags = ('-DVERSION="%s"' % version.replace('\n', '\\n'), '-Wno-unused-function') + flags
    others = (f'-Wl,-rpath,{build.PROGRAMS}/preload',)
    if any('TABLE_OF_OTHERS' in flag for flag in flags):
        others += (build_host('libforeign.so', 'foreign.c', '-shared', '-fPIC'),)
    if shape == 'executable':
        return build_host(name, *flags, '-rdynamic', 'fake_main.c', 'fake_python.c', *others)
    symbolic = ('-Wl,-Bsymbolic-functions',) if shape == 'symbolic' else ()
    library = build_host(f'lib{name}.so', *flags, *symbolic, '-shared', '-fPIC',
                         f'-Wl,-soname,lib{name}.so', 'fake_python.c', *others)
    return build_host(name, *flags, 'fake_main.c', library, *others)


def meet(version, shape, *flags, **settings):
    """The run with the library, its counts, and the counts without the library."""
    program = fake_host(version, shape, *flags)
    counts = child.run([program], status=0).said
    assert (counts['foreign'], counts['table_writes']) == (0, 0)
    done = child.run([program], child.preloaded(OBMALLOC_VERBOSE='1', **settings), status=0)
    return done, done.said, counts


def refused(reason, version, shape, *flags):
    """Aside for this reason, and the host works as without the library to the last call."""
    done, counts, plain = meet(version, shape, *flags)
    status.aside(done, reason)
    assert counts == plain


both_shapes = pytest.mark.parametrize('shape', ['executable', 'library'])


@pytest.mark.parametrize('shape', ['executable', 'library', 'symbolic'])
def test_ordinary_host_is_entered(shape):
    """Otherwise the refusals below could be for a reason of the fake's own."""
    done, counts, plain = meet(ORDINARY, shape)
    status.version(done, '3.11.7')
    assert plain['mallocs'] > 5000
    assert (counts['mallocs'], counts['frees'], counts['foreign']) == (0, 0, 0)
    assert counts['table_writes'] == 4, 'MEM and OBJ, first with the tables of the self-check'


@both_shapes
@pytest.mark.parametrize('version', ['3.15.2', '3.99.0', '4.0.0'])
def test_later_version_with_the_same_functions(version, shape):
    done, counts, plain = meet(f'{version} (main, x) [GCC 15.2.0]', shape)
    status.version(done, version)
    assert plain['mallocs'] > 5000
    assert (counts['mallocs'], counts['frees'], counts['foreign']) == (0, 0, 0)


@both_shapes
def test_later_version_without_the_setter(shape):
    refused('no tables', '3.99.0 (main, x) [GCC 15.2.0]', shape, '-DNO_SETTER')


@both_shapes
@pytest.mark.parametrize('flag', ['-DDEAF', '-DSWAPPED', '-DREAD_ONLY'])
def test_later_version_that_fails_the_self_check(flag, shape):
    """Its functions do not read their table, its table has another order, or cannot be set. The
    host works on with its own blocks; the check has requested at most one of each domain."""
    done, counts, plain = meet('3.99.0 (main, x) [GCC 15.2.0]', shape, flag)
    status.aside(done, 'do not reach the tables')
    assert counts['foreign'] == 0
    assert counts['frees'] == plain['frees']
    assert 0 <= counts['mallocs'] - plain['mallocs'] <= 2


FREE_THREADED = [
    '3.13.0 experimental free-threading build (main, Oct  7 2024) [GCC 12.2.0]',
    '3.14.0 free-threading build (main, Oct  7 2025) [GCC 12.2.0]']


@both_shapes
@pytest.mark.parametrize('version', FREE_THREADED, ids=['3.13', '3.14'])
def test_free_threaded(version, shape):
    refused(r'free.?thread', version, shape)


@both_shapes
def test_mem_of_a_free_threaded_host(shape):
    """The host serves OBJ itself: as many calls as without the library, but for those of MEM."""
    done, counts, plain = meet(FREE_THREADED[1], shape, OBMALLOC_FREE_THREADED='mem')
    status.version(done, '3.14.0', 'mem')
    assert (counts['table_writes'], counts['foreign']) == (2, 0)
    assert 0 < counts['mallocs'] < plain['mallocs']
    assert 0 < counts['frees'] < plain['frees']


@both_shapes
@pytest.mark.parametrize('flags, reason', [
    (('-DTABLE_OF_OTHERS=2',), 'another allocator'), (('-DDEAF',), 'do not reach')])
def test_mem_of_a_free_threaded_host_is_checked(flags, reason, shape):
    done, counts, _ = meet(FREE_THREADED[1], shape, *flags, OBMALLOC_FREE_THREADED='mem')
    status.aside(done, reason)
    assert counts['foreign'] == 0


@both_shapes
def test_table_of_four_pointers(shape):
    refused(r'3\.4|version|support', '3.4.10 (default, x) [GCC 12.2.0]', shape, '-DFOUR_POINTERS')


@both_shapes
@pytest.mark.parametrize('version', ['3.5.3', '3.3.7', '2.6.9'])
def test_unsupported_version(version, shape):
    refused(fr'{re.escape(version)}|version|support', f'{version} (main, x) [GCC 12.2.0]', shape)


@both_shapes
@pytest.mark.parametrize('domains', ['2', '4', '6'])
def test_another_allocator_in_the_table(domains, shape):
    refused('another allocator', ORDINARY, shape, '-DTABLE_OF_OTHERS=' + domains)


@pytest.mark.skipif(not shutil.which('strace'), reason='needs strace')
@pytest.mark.parametrize('version, value, setting, advised', [
    ('3.15.2', '1', None, True), ('3.15.2', '0', None, False), ('3.15.2', 'x', None, False),
    ('3.15.2', None, None, False), ('3.15.2', '1', 'never', False), ('3.15.2', '0', 'always', True),
    ('3.14.0', '1', None, False), ('3.14.0', None, 'always', True)])
def test_huge_pages_as_cpython_requests_them(version, value, setting, advised, tmp_path):
    program = fake_host(f'{version} (main, x) [GCC 15.2.0]', 'library')
    variables = dict(PYTHON_PYMALLOC_HUGEPAGES=value, OBMALLOC_THP=setting)
    given = [f'-E{name}={text}' for name, text in variables.items() if text is not None]
    done = child.run(['strace', '-f', '-e', 'madvise', '-o', tmp_path / 'trace',
                      '-E', f'LD_PRELOAD={build.LIBRARY}', *given, program])
    if 'ptrace' in done.err:
        pytest.skip('strace may not trace')
    assert done.status == 0
    assert ('MADV_HUGEPAGE' in (tmp_path / 'trace').read_text()) == advised


def test_2_7_that_can_be_interposed():
    done, counts, plain = meet(OLD, 'library', '-DNO_TABLE')
    status.version(done, '2.7.18', 'obj')
    assert plain['mallocs'] > 2000
    assert set(counts.values()) == {0}


@pytest.mark.parametrize('shape', ['executable', 'symbolic'])
def test_2_7_that_calls_itself_directly(shape):
    """Its own calls never reach the library's names, those of an extension do; all must end in
    the host's functions: malloc, realloc and free."""
    refused('', OLD, shape, '-DNO_TABLE')


def test_2_7_that_calls_itself_in_part():
    """One direct call among the three is enough to make interposing wrong."""
    refused('', OLD, 'library', '-DNO_TABLE', '-DDIRECT_FREE')


@both_shapes
def test_silent_when_not_asked(shape):
    status.silent(child.run([fake_host('3.5.3', shape)], child.preloaded(), status=0))
