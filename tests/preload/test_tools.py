"""Valgrind's memcheck and AddressSanitizer see the library's blocks, when the process runs with one
of them; Valgrind's other tools, and OBMALLOC_TOOL_ANNOTATIONS=0, change nothing."""
import re
import shutil

import pytest

from support import build, child
from support.preload import build_host

# The mistake, memcheck's words, and those of AddressSanitizer or of the library itself.
MISTAKES = {
    'write behind': ('0 bytes after a block of size 50', 'use-after-poison'),
    'read before': ('1 bytes before a block of size 50', 'use-after-poison'),
    'read after free': ('3 bytes inside a block of size 50 free', 'use-after-poison'),
    'read after realloc': ('3 bytes inside a block of size 50 free', 'use-after-poison'),
    'free twice': ('Invalid free', 'freed twice'),
    'free within': ('16 bytes inside a block of size 50', 'no block begins there'),
    'use without contents': ('uninitialised', None),
}
WORKLOAD = '''
import json, gc
rows = [{n: str(n) * (n % 50), str(n): [n] * (n % 90)} for n in range(1500)]
text = json.dumps([sorted(map(str, row)) for row in rows])
del rows; gc.collect()
print(len(text))
'''


def mistakes(*flags, name='mistakes'):
    folder = build.library_folder()
    return build_host(name, 'mistakes.c', '-O0', *flags, f'-L{folder}', '-lobmalloc',
                      f'-Wl,-rpath,{folder}')


def valgrind(*options):
    return [shutil.which('valgrind') or pytest.skip('no valgrind'), '-q', *options]


def memcheck(*options):
    return valgrind('--error-exitcode=9', *options)


@pytest.fixture
def sanitized():
    """The program with AddressSanitizer."""
    if '/' not in child.run(['gcc', '-print-file-name=libasan.so']).out:
        pytest.skip('no AddressSanitizer')
    return mistakes('-fsanitize=address', name='mistakes_asan')


@pytest.mark.parametrize('mistake', MISTAKES)
def test_memcheck_reports(mistake):
    assert MISTAKES[mistake][0] in child.run([*memcheck(), mistakes(), mistake]).err


def test_memcheck_is_silent_without_a_mistake():
    done = child.run([*memcheck('--leak-check=full'), mistakes(), 'none'], status=0)
    assert (done.out, done.err) == ('done\n', '')


def test_memcheck_switched_off():
    child.run([*memcheck(), mistakes(), 'write behind'],
              child.clean_environment(OBMALLOC_TOOL_ANNOTATIONS='0'), status=0)


def test_other_tools_count_the_same_blocks():
    """Only memcheck gets padding and annotations."""
    argv, env = [mistakes(), 'write behind'], child.clean_environment(OBMALLOC_STATS='1')
    runs = [child.run([*valgrind('--tool=none'), *argv], env, status=0), child.run(argv, env)]
    tool, alone = [re.findall(r'^obmalloc: +\d+ +\d+ .*', done.err, re.M) for done in runs]
    assert tool == alone != []


@pytest.mark.only('3.11', '3.13')
def test_memcheck_on_python(python):
    """(CPython reads a digit that it has not written: not reported here.)"""
    done = child.run([*memcheck('--undef-value-errors=no'), python.path, '-S', '-c', WORKLOAD],
                     child.preloaded(PYTHONHASHSEED='0'), timeout=200, status=0)
    assert done.err == ''
    assert done.out == child.run([python.path, '-S', '-c', WORKLOAD]).out


@pytest.mark.parametrize('mistake', [mistake for mistake, words in MISTAKES.items() if words[1]])
def test_sanitizer_reports(sanitized, mistake):
    done = child.run([sanitized, mistake])
    assert done.status != 0
    assert MISTAKES[mistake][1] in done.err


def test_sanitizer_is_silent_without_a_mistake(sanitized):
    done = child.run([sanitized, 'none'], status=0)
    assert (done.out, done.err) == ('done\n', '')
