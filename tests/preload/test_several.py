"""Programs with several Pythons, as plugins bring them along: each with a libpython of its own
that was opened privately, globally, bound to itself, in a namespace of its own, or as a copy of
another; at once or one after the other; with the library installed in one of them.

All of them call the library's names. A call must never reach another Python's functions:
output and exit status are the same as without the library.
"""
import re
import shutil
from dataclasses import replace

import pytest

from support import child, interpreters, status
from support.preload import build_host

LEFT_ALONE = re.compile(r'^obmalloc: CPython (\S+) in pid (\d+) keeps its own allocator: ')


@pytest.fixture
def others(python):
    """The other interpreters with a libpython to open."""
    if not python.library:
        pytest.skip('no libpython to open')
    return [other for other in interpreters.find() if other.supported and other.library
            and other.path != python.path] or pytest.skip('one libpython only')


@pytest.fixture
def neighbour(python, others):
    """The next older one, or the newest for the oldest, so that a few pairs are diverse."""
    return others[sum(other.numbers < python.numbers for other in others) - 1]


def meet(subtests, when, *hosts, **env):
    """The run with the library, which equals the run without it; None if it was skipped."""
    program = build_host('several', 'several.c', '-ldl', '-pthread')
    words = [word for mode, python in hosts for word in (mode, python.library, python.prefix)]
    shown = ' '.join(f'{mode}:{python.minor}' for mode, python in hosts)
    with subtests.test(when=when, hosts=shown):
        argv = [program, '2', when] + words
        plain = child.run(argv)
        if plain.status != 0:
            pytest.skip(f'cannot run together without the library: status {plain.status}')
        done = child.run(argv, child.preloaded(**env), status=0)
        assert sorted(done.out.splitlines()) == sorted(plain.out.splitlines())
        return done


def test_two_at_once(python, neighbour, subtests):
    meet(subtests, 'parallel', ('local', python), ('local', neighbour))


def test_one_after_the_other(python, neighbour, subtests):
    me, other = python, neighbour
    # 2.7 finds the names of a global libpython when it starts.
    scope = 'global' if (2, 7) < min(me.numbers, other.numbers)[:2] else 'local'
    meet(subtests, 'serial', ('local', me), (scope, other))
    meet(subtests, 'reopened', ('local', me), ('local', other), ('local', me))


def test_bound_to_itself_and_in_a_namespace_of_its_own(python, neighbour, subtests):
    me, other = python, neighbour
    meet(subtests, 'parallel', ('deep', me), ('local', other))
    meet(subtests, 'parallel', ('local', me), ('own', other))


def test_two_copies_of_one_version(python, others, subtests, tmp_path):
    """The same libpython from a file of its own is another object."""
    copy = replace(python, library=shutil.copy(python.library, tmp_path))
    meet(subtests, 'parallel', ('local+bare', python), ('local+bare', copy))


def test_three_at_once(python, others, subtests):
    if len(others) < 2:
        pytest.skip('two libpythons only')
    meet(subtests, 'parallel', ('local', python), ('local', others[0]), ('local', others[-1]))


def test_the_program_used_the_library_before(python, neighbour, subtests):
    """Blocks of the program stay valid."""
    meet(subtests, 'parallel+used', ('local', python), ('local', neighbour))
    meet(subtests, 'serial+used', ('local', python))


@pytest.mark.since(3, 6)
def test_installed_in_one(python, neighbour, subtests):
    """The library serves one, and the line says so; the other keeps its allocator."""
    me, other = python, neighbour
    hosts = [('local+install', me), ('local', other)]
    for pair in hosts, hosts[::-1]:
        done = meet(subtests, 'parallel', *pair, OBMALLOC_VERBOSE='1')
        if done is not None:
            assert 'install=0' in done.err
            assert [line.group(2) for line in done.lines(status.ACTIVE)] == [me.version]
            assert len(done.lines(LEFT_ALONE)) == 1


@pytest.mark.since(3, 6)
def test_installed_in_one_of_them_only(python, others, subtests):
    me, other = python, others[-1]
    done = meet(subtests, 'serial', ('local+install', me), ('local+install', other),
                OBMALLOC_VERBOSE='1')
    if done is not None:
        assert 'install=0' in done.err
        assert 'install=9' in done.err
        assert 'another CPython of this process is served' in done.err


@pytest.mark.slow
@pytest.mark.parametrize('when, mine, theirs', [
    ('parallel', 'local', 'local'), ('serial', 'local', 'global'), ('parallel', 'deep', 'local'),
    ('parallel', 'local', 'global'), ('parallel', 'local', 'own'), ('reopened', 'local', 'local'),
    ('parallel', 'local+install', 'local'), ('parallel', 'local', 'local+install')])
def test_all_pairs(python, others, subtests, when, mine, theirs):
    for other in others:
        again = [(mine, python)] if when == 'reopened' else []
        meet(subtests, when, (mine, python), (theirs, other), *again)
