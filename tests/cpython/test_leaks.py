"""CPython's own leak hunt, regrtest -R, with its own obmalloc.o and with libobmalloc.a.

Every module is repeated 3 + 3 times in the two relinked interpreters of a version, and the
kinds of leaks that regrtest reports must be equal. A module of our own, with one test that
leaks nothing and two that leak, shows that the hunt finds leaks: both sides must report the
same numbers.

On a release build regrtest -R judges sys.getallocatedblocks() and the open files; total
references exist only in debug builds (see hunt_leaks.py).
"""
import re
from pathlib import Path

import pytest

from support import child, relinked

HUNT = Path(__file__).parent / 'hunt_leaks.py'
LEAKED = re.compile(r'^\S+ leaked (\[.*?\]) (.*?), sum=', re.MULTILINE)
REPEATED = re.compile(r'^123:?456$', re.MULTILINE)     # the hunt numbers its repetitions

BLOCKS = 10
LEAKING = '''
import ctypes, unittest

def lose(count, size):
    malloc = ctypes.pythonapi.PyObject_Malloc
    malloc.restype, malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
    for _ in range(count):
        malloc(size)

def forget(count):
    for _ in range(count):
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(object()))

class LeakTests(unittest.TestCase):
    def test_nothing(self):
        self.assertEqual([object() for _ in range(%(blocks)d)][3:2], [])
    def test_references(self):
        forget(%(blocks)d)
    def test_blocks(self):
        lose(%(blocks)d, 64)
''' % {'blocks': BLOCKS}

# 2.7 has no sys.getallocatedblocks().
pytestmark = [pytest.mark.slow, pytest.mark.only('3.8', '3.11', '3.12')]


def hunt(path, folder, arguments):
    """The set of (numbers, kind) that regrtest reports."""
    done = child.run([path, HUNT, '-R', '3:3', *arguments], cwd=folder, timeout=600,
                     env=child.clean_environment(TMPDIR=str(folder)))
    found = set(LEAKED.findall(done.out + done.err))
    assert REPEATED.search(done.out + done.err) and (done.status == 0 or found), done.report
    return found


def hunt_both(python, folder, *arguments):
    return [hunt(path, folder, arguments) for path in relinked.pair(python)]


@pytest.mark.parametrize('name, kinds', [('test_nothing', set()),
                                         ('test_references', {'memory blocks'}),
                                         ('test_blocks', {'memory blocks'})])
def test_leaks_on_purpose_are_found(python, name, kinds, tmp_path):
    (tmp_path / 'test_on_purpose.py').write_text(LEAKING)
    for found in hunt_both(python, tmp_path, '--testdir', str(tmp_path), '-m', name,
                           'test_on_purpose'):
        assert {kind for _, kind in found} == kinds
        # Some versions report one or two blocks of their own.
        assert all(BLOCKS <= int(number) <= BLOCKS + 2
                   for numbers, _ in found for number in re.findall(r'-?\d+', numbers)), found


@pytest.mark.parametrize('module', ['test_list', 'test_dict', 'test_json', 'test_set',
                                    'test_tuple', 'test_weakref'])
def test_modules_leak_as_with_stock(python, module, tmp_path):
    stock, ours = hunt_both(python, tmp_path, module)
    # The numbers vary in a real suite.
    assert {kind for _, kind in ours} == {kind for _, kind in stock}
