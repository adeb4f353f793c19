"""The modules and interpreters with which CPython's own suites are compared."""
from pathlib import Path

import pytest
from cpython.modules import MEMORY, SLICE, USUAL

from support import child

ROWS = {'test_preloaded': USUAL, 'test_packed': SLICE, 'test_profiled': SLICE,
        'test_relinked': MEMORY}

# Lists the modules that this version's regrtest runs when it is given none.
LIST = '''
import sys
if sys.version_info[0] == 2:
    from test import regrtest
    print("\\n".join(regrtest.findtests()))
else:
    from test.libregrtest.main import main
    sys.argv = ["regrtest.py", "--list-tests"]
    main()
'''


def pytest_addoption(parser):
    parser.getgroup('obmalloc').addoption(
        '--modules', default='', metavar='NAME,...',
        help="CPython's test modules instead of the usual ones; all: every one of regrtest's")
    parser.getgroup('obmalloc').addoption(
        '--keep-runs', type=Path, metavar='FOLDER',
        help="keep the runs of CPython's test modules in this folder; a later comparison takes"
             ' those of the same interpreter and library from there')


def every_module(pythons):
    """All modules of the interpreters' suites, in the order of the first that has each."""
    lines = [line.strip() for python in pythons
             for line in child.run([python.path, '-c', LIST], timeout=120).out.splitlines()]
    return dict.fromkeys(line for line in lines if line.startswith('test'))


def pytest_generate_tests(metafunc):
    """`row` is a module, or alternatives; outside of SLICE it is slow unless it was named."""
    if 'row' not in metafunc.fixturenames:
        return
    wanted = metafunc.config.getoption('--modules', '')
    rows = ROWS[metafunc.function.__name__]
    if wanted:
        rows = every_module(metafunc.config.pythons) if wanted == 'all' else wanted.split(',')
    metafunc.parametrize('row', [
        pytest.param(row, id=row.split('|')[0],
                     marks=[] if wanted or row in SLICE else [pytest.mark.slow])
        for row in rows])


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config, items):
    """The short form: 2.7, the newest shared build, and preloaded the distribution's own."""
    if config.option.pythons:
        return
    newest = [python for python in config.pythons if python.supported and python.shared][-1:]
    for item in items:
        if item.path.parent == Path(__file__).parent and 'row' in item.fixturenames:
            python = item.callspec.params['python']
            if not (python.minor == '2.7' or python in newest
                    or python.distribution and item.originalname == 'test_preloaded'):
                item.add_marker(pytest.mark.slow)
