"""OBMALLOC_DEBUG=1: CPython's own debug hooks above the library, in a stock interpreter."""
import re

import pytest

from preload import embedding
from support import build, child, interpreters, status
from support.preload import PRELUDE, interpret

# Makes one mistake, with the functions that an extension module calls.
MISTAKE = '''
import ctypes
def function(name, result, *arguments):
    found = getattr(ctypes.pythonapi, name)
    found.restype, found.argtypes = result, arguments
    return found
domain, mistake = sys.argv[1:3]
other = {"PyObject": "PyMem", "PyMem": "PyObject"}[domain]
malloc = function(domain + "_Malloc", ctypes.c_void_p, ctypes.c_size_t)
free = function(domain + "_Free", None, ctypes.c_void_p)
others_free = function(other + "_Free", None, ctypes.c_void_p)
size = int(sys.argv[3]) if len(sys.argv) > 3 else 40
block = malloc(size)
if mistake == "overflow": ctypes.memset(block + size, 1, 1)
if mistake == "underflow": ctypes.memset(block - 1, 1, 1)
(others_free if mistake == "domain" else free)(block)
print("survived")
'''


@pytest.mark.since(3, 6)
def test_status_line_says_so(python):
    done = interpret(python, 'pass', env=child.preloaded(OBMALLOC_VERBOSE='1', OBMALLOC_DEBUG='1'))
    status.active(done, python)
    assert ', under the debug hooks' in done.err
    done = interpret(python, 'pass', env=child.preloaded(OBMALLOC_VERBOSE='1', OBMALLOC_DEBUG='0'))
    assert 'hooks' not in done.err


@pytest.mark.since(3, 6)
def test_program_runs_on_the_library(python):
    code = ('import inside, json; print(inside.workload(3))\n'
            'print(json.dumps(inside.live(inside.stats(inside.library()))))')
    done = interpret(python, code, env=child.preloaded(OBMALLOC_DEBUG='1'))
    stock = interpret(python, 'import inside; print(inside.workload(3))',
                      env=child.clean_environment())
    assert done.out.splitlines()[:-1] == stock.out.splitlines()
    assert done.err == ''
    assert done.said > 10000


@pytest.mark.since(3, 6)
@pytest.mark.parametrize('domain', ['PyObject', 'PyMem'])
@pytest.mark.parametrize('mistake, words', [('overflow', 'at tail+0: 0x01'),
                                            ('underflow', 'at p-1: 0x01'), ('domain', 'bad ID')])
def test_mistakes_are_found(python, domain, mistake, words):
    """In both domains, with the hooks' own report."""
    done = child.run([python.path, '-B', '-c', 'import sys\n' + MISTAKE, domain, mistake],
                     child.preloaded(OBMALLOC_DEBUG='1'), status=-6)
    assert 'Fatal Python error' in done.err and words in done.err
    assert 'survived' not in done.out


@pytest.mark.only('2.7')
def test_nothing_to_put_over_in_2_7(python):
    done = interpret(python, 'pass', env=child.preloaded(OBMALLOC_VERBOSE='1', OBMALLOC_DEBUG='1'))
    status.active(done, python)
    assert 'hooks' not in done.err


@pytest.mark.since(3, 6)
def test_installing_again_leaves_the_hooks(python):
    """Entries of the library above the hooks would get the hooks' blocks as its own."""
    done = interpret(python, '''
import inside, ctypes
library = ctypes.PyDLL(inside.library()._name)
made = [bytearray(n % 300) for n in range(3000)]
assert library.obmalloc_install() == 0
del made
made = [bytearray(n % 300) for n in range(3000)]
''' + MISTAKE, 'PyObject', 'overflow', env=child.preloaded(OBMALLOC_DEBUG='1'), status=-6)
    assert 'at tail+0: 0x01' in done.err


@pytest.mark.since(3, 6)
def test_life_after_life(python):
    """From 3.12 on a second Py_Initialize puts the host's own functions back into the table,
    without the hooks, while blocks of the first life are alive."""
    program = embedding.linked_with(python)
    lives = ['init', 'run', embedding.ROUND, 'stats', 'finalize'] * 3
    home = dict(PYTHONHOME=python.prefix)
    plain = child.run([program, '-', 'global'] + lives,
                      child.clean_environment(PYTHONMALLOC='debug', **home))
    if plain.status != 0:
        pytest.skip('cannot live twice by itself: ' + plain.report)
    done = child.run([program, '-', 'global'] + lives,
                     child.preloaded(OBMALLOC_DEBUG='1', **home), status=0)
    output, expected = ([line for line in each.out.splitlines() if not line.startswith('stats=')]
                        for each in (done, plain))
    assert output == expected
    assert done.err == plain.err


@pytest.mark.since(3, 6)
@pytest.mark.parametrize('size', ['40', '4000', '100000'])
@pytest.mark.parametrize('mistake, words', [('overflow', 'at tail+0: 0x01'), ('foreign', 'bad ID')])
def test_hooks_before_the_installation_find_mistakes(python, size, mistake, words):
    """A program puts the host's hooks into its tables and installs the library later: the hooks
    stay above it."""
    if not python.library:
        pytest.skip('no libpython to open')
    program = embedding.late()
    steps = ['hooks', 'init', 'run', embedding.BUILD, 'install', 'run',
             embedding.MORE, 'install', 'run', embedding.LESS]
    done = child.run([program, python.library, 'global', *steps, mistake, size],
                     child.preloaded(PYTHONHOME=python.prefix, OBMALLOC_VERBOSE='1'), status=-6)
    assert done.out.split() == ['install=0'] * 2
    assert words in done.err and ', under the debug hooks' in done.err
    status.active_at_last(done, python)


# Interpreters built --with-pydebug: their hooks are in their tables from the start, and stay
# above the library.
@pytest.fixture(params=[{}, {'OBMALLOC_DEBUG': '1'}], ids=['', 'OBMALLOC_DEBUG=1'])
def setting(request):
    return request.param


@pytest.fixture(params=interpreters.debug_builds() or [None], ids=str)
def debug_build(request):
    return request.param or pytest.skip('no debug build, such as python3.11-dbg')


def test_debug_build_finds_the_same_mistakes(debug_build, setting, subtests):
    fatal = re.compile('(Fatal Python error: .*|.*at tail.0: 0x01.*)')
    for size in '40', '4000', '100000':
        for mistake in 'overflow', 'underflow', 'domain', 'none':
            with subtests.test(size=size, mistake=mistake):
                argv = [debug_build, '-B', '-c', 'import sys\n' + MISTAKE, 'PyMem', mistake, size]
                plain = child.run(argv)
                done = child.run(argv, child.preloaded(**setting), status=plain.status)
                ours, stock = ([line.group(1) for line in each.lines(fatal)]
                               for each in (done, plain))
                assert ours == stock
                assert bool(stock) == (mistake != 'none')


def test_debug_build_runs_on_the_library(debug_build, setting):
    code = PRELUDE + 'import inside; print(inside.workload(3))\n'
    more = 'import json; print(json.dumps(inside.live(inside.stats(inside.library()))))'
    plain = child.run([debug_build, '-B', '-c', code])
    done = child.run([debug_build, '-B', '-c', code + more],
                     child.preloaded(OBMALLOC_VERBOSE='1', **setting), status=0)
    assert done.out.splitlines()[:-1] == plain.out.splitlines()
    assert ', under the debug hooks' in done.err
    assert done.said > 10000


def test_debug_build_installed_late(debug_build, setting):
    code = f'''
import sys, ctypes
library = ctypes.PyDLL({str(build.LIBRARY)!r})
made = [bytearray(n % 900) for n in range(3000)]
assert library.obmalloc_install() == 0
made += [bytearray(n % 900) for n in range(3000)]
del made[::2]
made += [bytearray(n % 900) for n in range(3000)]
assert library.obmalloc_install() == 0
'''
    argv, env = [debug_build, '-B', '-c', code + MISTAKE], child.clean_environment(**setting)
    child.run([*argv, 'PyMem', 'none'], env, status=0)
    done = child.run([*argv, 'PyMem', 'overflow'], env, status=-6)
    assert 'at tail+0: 0x01' in done.err


@pytest.mark.parametrize('value', ['debug', 'malloc', 'pymalloc'])
def test_debug_build_heeds_PYTHONMALLOC(debug_build, setting, value):
    done = child.run([debug_build, '-c', 'pass'], child.preloaded(
        PYTHONMALLOC=value, OBMALLOC_VERBOSE='1', **setting), status=0)
    status.aside(done, 'PYTHONMALLOC')
