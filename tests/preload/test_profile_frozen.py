"""Objects that gc.freeze has moved out of the collector's sight are marked in a heap profile."""
import pytest

from support import child, pprof
from support.preload import interpret

# Objects with the collector's head alone, with pointers before it from 3.11 on, in a block of the C
# library, and some that the collector does not track.
PROGRAM = '''
import gc, sys
import profiling

class Session(object):
    def __init__(self):
        self.kept = [1]

class Slotted(object):
    __slots__ = 'a', 'b'

class Large(object):
    __slots__ = tuple('s%d' % i for i in range(100))

def before():
    return [(Session(), Slotted(), Large(), {1: []}, [i], 'text %d' % i) for i in range(20)]

def after():
    return [(Session(), Slotted(), Large(), {1: []}, [i], 'text %d' % i) for i in range(20)]

path = sys.argv[1]
gc.collect()
old = before()
profiling.dump(path + '-none')
gc.freeze()
new = after()
profiling.dump(path + '-frozen')
del old[:10]
gc.collect()
profiling.dump(path + '-freed')
gc.unfreeze()
profiling.dump(path + '-unfrozen')
'''
TRACKED = 'Session', 'Slotted', 'Large', 'dict', 'list'


@pytest.fixture
def frozen(python, tmp_path):
    """Runs the program. Returns what gives the numbers of frozen and other live objects of a profile,
    by function and type."""
    if python.numbers < (3, 7):
        pytest.skip('no gc.freeze before 3.7')
    path = tmp_path / 'heap'
    done = interpret(python, PROGRAM, str(path), env=child.preloaded(
        OBMALLOC_PROFILE='1', OBMALLOC_PROFILE_MEMORY='64M'))
    assert done.err == ''

    def of(name):
        found = {}
        for sample in pprof.Profile(f'{path}-{name}').samples():
            if 'bytes' in sample.labels and 'type' in sample.labels:
                functions = {frame.function for frame in sample.stack}
                where = [name for name in ('before', 'after') if name in functions]
                numbers = found.setdefault((*where, sample.labels['type']), [0, 0])
                numbers[sample.labels.get('frozen') != 'yes'] += 1
        return found
    return of


def test_objects_made_before_the_freeze_are_marked(frozen):
    found = frozen('frozen')
    for name in TRACKED:
        is_frozen, others = found['before', name]
        assert is_frozen >= 20 and others == 0, (name, found)
        is_frozen, others = found['after', name]
        assert is_frozen == 0 and others >= 20, (name, found)
    assert found['before', 'str'][0] == 0, 'the collector has no strings'


def test_objects_that_were_freed_are_gone_from_the_list(frozen):
    found = frozen('freed')
    for name in 'Session', 'Slotted', 'Large':
        assert found['before', name] == [10, 0]
        assert found['after', name] == [0, 20]


def test_nothing_is_marked_before_and_after(frozen):
    for when in 'none', 'unfrozen':
        # 3.12 itself freezes some objects at its start.
        found = {group: numbers for group, numbers in frozen(when).items() if len(group) > 1}
        assert not any(is_frozen for is_frozen, _ in found.values()), (when, found)
        assert sum(others for _, others in found.values()) >= 80
