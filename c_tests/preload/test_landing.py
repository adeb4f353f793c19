"""Proof that a preloaded interpreter allocates from us: the statistics follow
what the program creates and drops, size by size."""
import re

import support

# (what to create, the size of the request it must make; 0: not exactly known)
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
create(); create()                        # free lists of the types are filled
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


class Landing(support.PythonCase):

    def follow(self, expression, size, count):
        """Create count objects, drop them: the class of their size goes up by
        count and down by count, but for what the program does besides."""
        done = self.interpret(GROWTH.format(expression=expression, size=size, count=count),
                              env=support.preloaded(OBMALLOC_SMALL_MAX='32K'))
        before, during, after, size = support.said(done)
        grown = {key: during[key] - before.get(key, 0) for key in during}
        key = str(size) if size else max(grown, key=grown.get)
        slack = 200 + count // 50
        self.assertIn(key, during, done.report)
        self.assertTrue(count - slack <= grown[key] <= 2 * count + slack,
                        'class %s grew by %d for %d objects; all: %s\n%s'
                        % (key, grown[key], count, grown, done.report))
        left = after.get(key, 0) - before.get(key, 0)
        self.assertLessEqual(left, slack, 'class %s keeps %d blocks' % (key, left))

    def test_small_objects(self):
        for expression, size in SMALL.items():
            with self.subTest(create=expression):
                self.follow(expression, size, 20000)

    @support.since(3)
    def test_vectors_and_larger_objects(self):
        for expression, size in LARGER.items():
            with self.subTest(create=expression):
                self.follow(expression, size, 4000)

    def test_live_blocks_of_a_small_program(self):
        done = self.interpret('import inside, json; print(json.dumps(inside.stats(inside.library())))')
        numbers = support.said(done)
        self.assertGreater(sum(each['blocks_live'] for each in numbers['classes']), 10000)
        self.assertIn(self.python.version, str(numbers['host']))
        self.assertEqual(numbers['pid'], done.pid)

    def test_growing_and_shrinking_keeps_contents(self):
        """realloc in place, by moving, and across the border to layer 0."""
        self.interpret(GROW_AND_SHRINK)


class Report(support.PythonCase):
    """obmalloc_stats_json() itself."""
    FIELDS = {
        'arenas': 'size in_use empty mapped_total unmapped_total highwater',
        'pools': 'size used full free',
        'bytes': 'from_os metadata live in_magazines free_in_pools',
        'large': 'served_below_total',
    }
    CLASS = 'class size pools blocks_live blocks_in_magazines blocks_free'

    def test_keys_and_kinds(self):
        done = self.interpret('import inside, json\n'
                              'print(json.dumps(inside.stats(inside.library())))')
        numbers = support.said(done)
        for key in 'version schema pid host classes'.split():
            self.assertIn(key, numbers)
        self.assertRegex(str(numbers['version']), re.compile(r'^\d+\.\d+'))
        for section, names in self.FIELDS.items():
            for name in names.split():
                value = numbers[section][name]
                self.assertTrue(isinstance(value, int) and value >= 0, (section, name, value))
        for each in numbers['classes']:
            for name in self.CLASS.split():
                self.assertTrue(isinstance(each[name], int) and each[name] >= 0, (name, each))
        sizes = [each['size'] for each in numbers['classes']]
        self.assertEqual(sizes, sorted(set(sizes)), 'sizes ascend')

    def test_numbers_agree_with_each_other(self):
        done = self.interpret('import inside, json; inside.workload(1)\n'
                              'print(json.dumps(inside.stats(inside.library())))')
        numbers = support.said(done)
        arenas, total = numbers['arenas'], numbers['bytes']
        self.assertGreater(arenas['in_use'], 0)
        self.assertGreaterEqual(arenas['highwater'], arenas['in_use'])
        self.assertGreaterEqual(arenas['mapped_total'], arenas['highwater'])
        self.assertGreater(total['live'], 0)
        self.assertGreaterEqual(total['from_os'], total['live'])
        for each in numbers['classes']:
            blocks = sum(each['blocks_' + kind] for kind in ('live', 'in_magazines', 'free'))
            self.assertLessEqual(blocks * each['size'], each['pools'] * numbers['pools']['size'])

    def test_length_and_truncation_as_snprintf(self):
        """A length for no buffer at all; a short buffer is filled, ended, not overrun."""
        self.interpret(
            'import ctypes, inside; lib = inside.library()\n'
            'whole = lib.obmalloc_stats_json(None, 0)\n'
            'assert whole > 100, whole\n'
            'buffer = ctypes.create_string_buffer(b"#" * 64)\n'
            'length = lib.obmalloc_stats_json(buffer, 20)\n'
            'assert abs(length - whole) < whole // 2, (length, whole)\n'
            'assert buffer.raw[19:21] == b"\\0#" and buffer.raw[:1] == b"{", buffer.raw\n'
            'assert b"\\0" not in buffer.raw[:19], buffer.raw\n')
