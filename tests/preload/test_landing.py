"""A preloaded interpreter allocates from the library: the statistics follow the objects that a
program creates and drops, size by size."""
import re

import pytest

from support import child
from support.preload import interpret

pytestmark = pytest.mark.everywhere

# An expression, and the size of the request that it must make; 0: not exactly known.
SMALL = {
    'object()': 'sys.getsizeof(object())',
    '[]': 'sys.getsizeof([])',
    '(n,) * 30': 'sys.getsizeof((0,) * 30)',    # too long for the free lists
    '{n: n}': '0',
    'text[:n % 2 + 100]': 'sys.getsizeof(text[:101])',
    'Slots()': 'sys.getsizeof(Slots())',
}
LARGER = {
    '[None] * 20': '20 * 8',                    # the item vector: MEM, by calloc
    '[n] + [0] * 60': '61 * 8',
    'bytes(100)': 'sys.getsizeof(bytes(100))',  # calloc in OBJ
    'text[:600 + n % 2]': 'sys.getsizeof(text[:601])',
    'text[:5000 + n % 2]': 'sys.getsizeof(text[:5001])',
    'bytearray(3000)': '3001',
    '"x" * 700 + str(n % 10)': 'sys.getsizeof("x" * 701)',
}

GROWTH = '''
import gc, inside, json
text = b"x" * 9000
class Slots(object):
    __slots__ = tuple("slot%d" % n for n in range(20))
lib, count = inside.library(), {count}
def create():
    return [{expression} for n in range(count)]
create(); create()                        # fills the free lists of the types
gc.collect(); gc.disable()
before = inside.stats(lib)
kept = create()
during = inside.stats(lib)
del kept
after = inside.stats(lib)
size = {size}
print(json.dumps([inside.blocks_by_size(each) for each in (before, during, after)]
                 + [size and inside.class_for(during, size)]))
'''

GROW_AND_SHRINK = '''
def expected(step, chunks):
    return b"".join(bytes(bytearray([n % 251])) * step for n in range(chunks))
for step in (1, 7, 100, 5000):
    grown, chunks = bytearray(), 0
    while len(grown) < 40000:
        grown += bytearray([chunks % 251]) * step
        chunks += 1
        if chunks % 8000 == 0:
            assert grown == expected(step, chunks), (step, chunks)
    while chunks:
        assert grown == expected(step, chunks), (step, chunks)
        chunks -= (chunks + 1) // 2
        del grown[chunks * step:]
'''


def follow(python, expression, size, count):
    """Creates `count` objects and drops them: the class of their size goes up and down by
    `count`, within what the program does besides."""
    before, during, after, size = interpret(
        python, GROWTH.format(expression=expression, size=size, count=count),
        env=child.preloaded(OBMALLOC_POOL_MAX='32K')).said
    grown = {key: during[key] - before.get(key, 0) for key in during}
    key = str(size) if size else max(grown, key=grown.get)
    slack = 200 + count // 50
    assert count - slack <= grown[key] <= 2 * count + slack, f'class {key} of {grown}'
    assert after.get(key, 0) - before.get(key, 0) <= slack, f'class {key}'


@pytest.mark.parametrize('expression', SMALL)
def test_small_objects(python, expression):
    follow(python, expression, SMALL[expression], 20000)


@pytest.mark.since(3)
@pytest.mark.parametrize('expression', LARGER)
def test_vectors_and_larger_objects(python, expression):
    follow(python, expression, LARGER[expression], 4000)


def stats(python, before=''):
    """The library's statistics in a program, and the run."""
    done = interpret(python, f'import inside, json; {before}\n'
                             'print(json.dumps(inside.stats(inside.library())))')
    return done.said, done


def test_live_blocks_of_a_small_program(python):
    numbers, done = stats(python)
    assert sum(each['blocks_live'] for each in numbers['classes']) > 10000
    assert python.version in str(numbers['host'])
    assert numbers['pid'] == done.pid


def test_growing_and_shrinking_keeps_contents(python):
    """realloc in place, by moving, and between pools and the fallback allocator."""
    interpret(python, GROW_AND_SHRINK)


# obmalloc_stats_json() itself.
FIELDS = {
    'arenas': 'size in_use empty mapped_total unmapped_total highwater',
    'pools': 'size used full free',
    'bytes': 'from_os metadata live in_magazines free_in_pools',
    'large': 'served_below_total',
}
CLASS = 'class size pools blocks_live blocks_in_magazines blocks_free'


def test_keys_and_kinds(python):
    numbers, _ = stats(python)
    assert set('version schema pid host classes'.split()) <= set(numbers)
    assert re.match(r'\d+\.\d+', str(numbers['version']))
    for section, names in FIELDS.items():
        for name in names.split():
            value = numbers[section][name]
            assert isinstance(value, int) and value >= 0, (section, name)
    for each in numbers['classes']:
        for name in CLASS.split():
            assert isinstance(each[name], int) and each[name] >= 0, (name, each)
    sizes = [each['size'] for each in numbers['classes']]
    assert sizes == sorted(set(sizes)), 'sizes ascend'


def test_numbers_agree_with_each_other(python):
    numbers, _ = stats(python, 'inside.workload(1)')
    arenas, total = numbers['arenas'], numbers['bytes']
    assert arenas['mapped_total'] >= arenas['highwater'] >= arenas['in_use'] > 0
    assert total['from_os'] >= total['live'] > 0
    for each in numbers['classes']:
        blocks = sum(each['blocks_' + kind] for kind in ('live', 'in_magazines', 'free'))
        assert blocks * each['size'] <= each['pools'] * numbers['pools']['size']


def test_length_and_truncation_as_snprintf(python):
    """NULL gives the length; a short buffer is filled, terminated, and not overrun."""
    interpret(python, '''
import ctypes, inside; lib = inside.library()
whole = lib.obmalloc_stats_json(None, 0)
assert whole > 100, whole
buffer = ctypes.create_string_buffer(b"#" * 64)
length = lib.obmalloc_stats_json(buffer, 20)
assert abs(length - whole) < whole // 2, (length, whole)
assert buffer.raw[19:21] == b"\\0#" and buffer.raw[:1] == b"{", buffer.raw
assert b"\\0" not in buffer.raw[:19], buffer.raw
''')
