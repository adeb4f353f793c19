"""Programs that embed Python: they open libpython after their start, in the global and in a
local scope, and initialise it several times.

The process has no Python when the library's constructor runs. A libpython that is opened later
binds its calls of PyObject_Malloc to the library's names, which come first in the global scope;
the library must forward them to the host's own table, which cannot be found by name in a local
scope.
"""
import pytest

from preload import embedding
from preload.embedding import BUILD, LESS, MORE, ROUND, TRACED, live_in
from support import child, status

def plan(*, install, traced):
    steps = ['init', 'run', BUILD, *(TRACED if traced else ['grab', '100', '100', 'drop'])]
    if install:
        steps += ['stats', 'install', 'stats']
    steps += ['run', MORE, *(['stats', 'install'] if install else [])]
    steps += [*(TRACED if traced else []), 'run', LESS]
    return steps + (['stats'] if install else []) + ['finalize']


def embed(python, scope, steps, linked=False):
    if not python.library:
        pytest.skip('no libpython to open')
    program = embedding.linked_with_library() if linked else embedding.late()
    environment = child.clean_environment if linked else child.preloaded
    return child.run([program, python.library, scope] + steps, environment(
        OBMALLOC_VERBOSE='1', PYTHONHOME=python.prefix), status=0)


def assert_installed(python, done):
    """Both calls returned 0, the last line says `active`, and the counts follow the program."""
    words = [line.split('=', 1) for line in done.out.splitlines()]
    assert [value for name, value in words if name == 'install'] == ['0', '0']
    status.active_at_last(done, python)
    early, installed, grown, shrunk = live_in(done)
    assert installed - early < 1000, 'before anything was made'
    assert grown - installed > 25000, 'after two times 8000 rows'
    assert shrunk < grown - 20000, 'after they were dropped'


@pytest.mark.parametrize('scope', ['global', 'local'])
def test_not_installed(python, scope):
    """libpython calls the library's names, and the host's allocator serves. 2.7 too."""
    embed(python, scope, plan(install=False, traced=python.numbers >= (3, 6)))


@pytest.mark.since(3, 6)
@pytest.mark.parametrize('scope', ['global', 'local'])
def test_preloaded_and_installed(python, scope):
    assert_installed(python, embed(python, scope, plan(install=True, traced=True)))


@pytest.mark.since(3, 6)
@pytest.mark.parametrize('scope', ['global', 'local'])
def test_linked_and_installed(python, scope):
    assert_installed(python, embed(python, scope, plan(install=True, traced=True), linked=True))


@pytest.mark.parametrize('setting', [{}, {'PYTHONMALLOC': 'malloc'}], ids=['', 'PYTHONMALLOC'])
@pytest.mark.parametrize('options', [[], ['-E']], ids=['', '-E'])
def test_options_of_the_program_are_not_pythons(python, options, setting):
    """-E of an embedding program does not make its interpreter ignore PYTHONMALLOC: the line
    must say what happens."""
    program = embedding.linked_with(python)
    done = child.run([program, *options, '-', 'global', 'init', 'run', ROUND, 'stats', 'finalize'],
                     child.preloaded(PYTHONHOME=python.prefix, OBMALLOC_VERBOSE='1', **setting),
                     status=0)
    active, aside = done.lines(status.ACTIVE), done.lines(status.ASIDE)
    assert len(active + aside) == 1
    live = live_in(done)[0]
    assert live > 10000 if active else live == 0
    if not setting:
        status.active(done, python)


def test_three_lives(python):
    """From 3.12 on a second Py_Initialize puts the host's own functions back into the table,
    while blocks of the first life are alive."""
    program = embedding.linked_with(python)
    lives = ['init', 'run', ROUND, 'stats', 'finalize'] * 3
    home = dict(PYTHONHOME=python.prefix)
    plain = child.run([program, '-', 'global'] + lives, child.clean_environment(**home))
    if plain.status != 0:
        pytest.skip('cannot live twice by itself: ' + plain.report)
    done = child.run([program, '-', 'global'] + lives, child.preloaded(**home), status=0)
    output = [line for line in done.out.splitlines() if not line.startswith('stats=')]
    assert output == plain.out.splitlines() and len(output) == 3
    assert done.err == plain.err
    assert live_in(done)[0] > 10000, 'blocks of the first life'
