"""The wheel's pytest plugin: which tests fail, how often they run, and what is said where the
limits cannot be checked."""
import os
import re

import pytest

from support import build, child

pytestmark = [pytest.mark.since(3, 8), pytest.mark.one_python]

TESTS = '''
import os, pytest, sys
kept, cache, runs = [], [], []

def grow(size):
    kept.extend([n, str(n)] for n in range(size))

def fill():
    if not cache:
        cache.append([[n] for n in range(100000)])

def test_passes():
    peak = [[n] for n in range(100000)]

def test_fills_a_cache():
    fill()

def test_leaks():
    grow(30000)

def test_leaks_large_blocks():
    kept.append(bytearray(3 << 20))

def test_is_below_the_limit():
    kept.append([[n] for n in range(1000)])

@pytest.mark.obmalloc_limit("64 MiB")
def test_has_a_limit_of_its_own():
    grow(30000)

@pytest.mark.obmalloc_limit(None)
def test_has_no_limit():
    grow(30000)

@pytest.fixture
def held():
    return []

def test_fills_a_fixture(held):
    runs.append("fixture")
    held.extend([n] for n in range(100000))
    assert len(held) == 100000 and runs.count("fixture") == 1

def test_collects_cycles():
    for n in range(100000):
        cycle = [n]
        cycle.append(cycle)

def test_prints():
    print("x" * (4 << 20))

def test_fails_the_second_time():
    fill_once()

def fill_once():
    assert "once" not in runs
    runs.append("once")
    grow(30000)

@pytest.mark.xfail(reason="known", strict=True)
def test_is_expected_to_leak():
    grow(30000)

@pytest.mark.skip(reason="not now")
def test_is_skipped():
    grow(30000)

import unittest
class TestOld(unittest.TestCase):
    def test_leaks(self):
        grow(30000)
    def test_passes(self):
        pass
'''
OUTCOMES = {
    'test_passes': 'PASSED', 'test_fills_a_cache': 'PASSED', 'test_leaks': 'FAILED',
    'test_leaks_large_blocks': 'FAILED', 'test_is_below_the_limit': 'PASSED',
    'test_has_a_limit_of_its_own': 'PASSED', 'test_has_no_limit': 'PASSED',
    'test_fills_a_fixture': 'PASSED', 'test_collects_cycles': 'PASSED', 'test_prints': 'PASSED',
    'test_fails_the_second_time': 'FAILED', 'test_is_expected_to_leak': 'XFAIL',
    'test_is_skipped': 'SKIPPED', 'TestOld::test_leaks': 'FAILED', 'TestOld::test_passes': 'PASSED',
}


@pytest.fixture
def plugin(python, package, tmp_path):
    """Runs tests with the plugin, which pytest finds by its entry point."""
    programs = build.virtual(f'pytest-{python.name}', 'pytest', python=python.path)

    def run(*options, tests=TESTS, by_obmalloc=False, **env):
        (tmp_path / 'test_it.py').write_text(tests)
        path = f'{package}/bin:{os.environ["PATH"]}'
        start = ['-m', 'obmalloc', 'run'] if by_obmalloc else []
        return child.run([programs / 'python', *start, '-m', 'pytest', '-v', '-rA', '-p',
                          'no:cacheprovider', *options, tmp_path / 'test_it.py'],
                         child.clean_environment(PYTHONPATH=package, PATH=path,
                                                 PYTHONDONTWRITEBYTECODE=1, **env), cwd=tmp_path)
    return run


def outcomes(done):
    return dict(re.findall(r'(?m)^test_it\.py::(\S+) (\w+)', done.out))


def installs(python):
    """Whether the library can be switched on in a running process of it."""
    return python.shared


@pytest.mark.parametrize('by_obmalloc', [False, True])
def test_outcomes(python, plugin, by_obmalloc):
    """In a process that the option switches the library on in, or that it serves from the start."""
    if not (by_obmalloc or installs(python)):
        pytest.skip('static: served from the start only')
    done = plugin('--obmalloc-limit=1M', by_obmalloc=by_obmalloc)
    assert outcomes(done) == OUTCOMES, done.report
    assert done.status == 1
    found = re.findall(r'Memory grew by (\S+) (\S+), and by (\S+) (\S+) when the test ran again; '
                       r'the limit is 1\.0 MiB\.', done.out)
    assert len(found) >= 3
    for first, unit, second, other in found:
        assert unit == other == 'MiB'
        assert 2 < float(first) < 8
        assert abs(float(first) - float(second)) < 1
    # The lines, of which the first holds most.
    line = next(at for at, words in enumerate(TESTS.splitlines(), 1) if 'str(n)' in words)
    tables = re.findall(r'The lines that hold it, by samples:\n(.*)', done.out)
    assert len(tables) == len(found)
    assert re.search(rf' (list|str) +\S+/test_it\.py:{line} \((<genexpr>|grow)\)', tables[0])
    assert any(re.match(r' +3\.0 MiB +1 .*\(test_leaks_large_blocks\)', table) for table in tables)
    assert 'obmalloc: tests may grow by 1.0 MiB' in done.out
    assert re.search(r'The first one passed, and grew by \d\.\d MiB\.', done.out)


def test_marks_without_the_option(plugin):
    """Checked where the library serves the process; else one warning, and no test is hurt."""
    marked = ('import pytest\nkept = []\n'
              '@pytest.mark.obmalloc_limit("512K")\n'
              'def test_leaks():\n    kept.extend([n] for n in range(30000))\n'
              'def test_has_none():\n    kept.extend([n] for n in range(30000))\n')
    done = plugin(tests=marked, by_obmalloc=True)
    assert outcomes(done) == {'test_leaks': 'FAILED', 'test_has_none': 'PASSED'}
    done = plugin(tests=marked)
    assert outcomes(done) == {'test_leaks': 'PASSED', 'test_has_none': 'PASSED'}
    assert done.status == 0
    assert done.out.count('the memory limits of 1 tests are not checked') == 1
    assert 'start pytest by: python -m obmalloc run -m pytest' in done.out
    done = plugin(tests='def test_it(): pass\n')
    assert 'memory limits' not in done.out


def test_it_cannot_be_served(plugin):
    """The option demands the check: a usage error that names the way."""
    done = plugin('--obmalloc-limit=1M', PYTHONMALLOC='malloc')
    assert done.status == 4
    assert 'PYTHONMALLOC' in done.err
    assert 'start pytest by: python -m obmalloc run -m pytest' in done.err


@pytest.mark.parametrize('size', ['', '1X', '-1', 'M', '1 2'])
def test_wrong_sizes(plugin, size):
    done = plugin(f'--obmalloc-limit={size}')
    assert (done.status, 'is no size; write it as 512 KiB or 1M' in done.err) == (4, True)
    done = plugin(tests='import pytest\n'
                  f'@pytest.mark.obmalloc_limit({size!r})\ndef test_it(): pass\n')
    assert (done.status, 'test_it.py::test_it: the mark' in done.err) == (4, True), done.report


def test_sizes(plugin):
    """Units are powers of 1024."""
    lines = '\n'.join(f'    assert pytest_plugin._size({text!r}) == {size}' for text, size in {
        '0': 0, '10': 10, '10B': 10, '1k': 1024, '1 KB': 1024, '1.5 MiB': 3 << 19, '2G': 2 << 30,
        '1T': 1 << 40}.items())
    done = plugin(tests='from obmalloc import pytest_plugin\ndef test_it():\n' + lines)
    assert done.status == 0


def test_it_runs_beside_xdist(python, plugin):
    if not installs(python):
        pytest.skip('static: served from the start only')
    build.virtual(f'pytest-{python.name}', 'pytest-xdist', python=python.path)
    done = plugin('--obmalloc-limit=1M', '-n', '2', '-p', 'xdist')
    assert 'FAILED test_it.py::test_leaks ' in done.out, done.report
    assert 'PASSED test_it.py::test_fills_a_cache' in done.out


def test_the_plugin_alone_loads_no_library(plugin):
    done = plugin(tests='def test_it():\n'
                  '    assert "libobmalloc" not in open("/proc/self/maps").read()\n')
    assert done.status == 0
