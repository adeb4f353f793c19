"""The types of a snapshot's blocks (python/obmalloc/_types.py), with every interpreter."""
import collections
import json
import os
import struct

import command
import support

ROOT = os.path.abspath(os.path.join(support.HERE, '..', '..'))

# Objects of many layouts: with the collector's head and without, with a dict or weak
# references that the interpreter manages, with second blocks.
OBJECTS = '''
import ctypes, gc, json, sys
sys.path.insert(0, sys.argv[1])
import _types
class Plain(object):
    def __init__(self, n): self.n = n
class Slots(object):
    __slots__ = ("a",)
class Weak(object):
    __slots__ = ("__weakref__", "x")
class OfInt(int): pass
class OfTuple(tuple): pass
def makes(n):
    return [Slots(), Weak(), n + 1000000, n + 0.25, "text %d" % n, b"bytes %d" % n,
            (n, n), lambda: n, object(), complex(n, n), slice(n), range(n, n + 2)]
kept = [thing for n in range(400) for thing in makes(n)]
# Of types made from these, one item more is asked for.
others = [(OfTuple((n,)), OfInt(n)) for n in range(400)]
plain = [Plain(n) for n in range(400)]
listed = [[n] * 5 for n in range(400)]
mapped = [{"key %d" % n: n} for n in range(400)]
setted = [set(range(n, n + 6)) for n in range(400)]
gc.collect()
path = sys.argv[2]
assert ctypes.CDLL(None).obmalloc_snapshot(path.encode()) == 0
count = _types.add_types(path)
with open(path, "rb") as file:
    walk = _types._Walk(_types._Pools(file.read()))
wrong = []
for thing in kept:
    before = walk.layout(type(thing))[0]
    pool = walk.pools.by_base.get((id(thing) - before) // 65536)
    # getsizeof() says what the object's block holds, head and all; there is 1 such size.
    block = -(-sys.getsizeof(thing) // 16) * 16
    if pool is None or (id(thing) - before - pool[0]) % pool[1] or pool[1] != block:
        wrong.append((type(thing).__name__, before, pool and pool[1], sys.getsizeof(thing)))
print(json.dumps([count, wrong[:5], len(wrong), len(kept)]))
'''


def types(path):
    """How many blocks of each type a snapshot names; as the form is documented."""
    with open(path, 'rb') as file:
        data = file.read()
    offset, length = struct.unpack_from('<QQ', data, 56)
    assert offset + length == len(data)
    count, text, entries = struct.unpack_from('<IIQ', data, offset)
    names = data[offset + 16:offset + 16 + text].split(b'\0')[:count]
    found = collections.Counter()
    for n in range(entries):
        _, _, name = struct.unpack_from('<QII', data, offset + 16 + text + 16 * n)
        found[names[name].decode()] += 1
    return found


class Types(support.PythonCase):

    def snapshot(self):
        path = support.scratch('types-%s.map' % self.python.version)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        done = self.interpret(OBJECTS, os.path.join(ROOT, 'python', 'obmalloc'), path)
        return path, json.loads(done.out.splitlines()[-1])

    @support.since(3, 7)
    def test_blocks_begin_where_objects_say(self):
        """Of objects whose size tells their block's, every block is of that size; so what
        lies before an object is counted right."""
        path, (count, wrong, all_wrong, kept) = self.snapshot()
        self.assertEqual((all_wrong, wrong), (0, []), 'of %d' % kept)
        self.assertGreater(count, 8000)
        names = types(path)
        self.assertEqual(sum(names.values()), count)
        for name in 'Plain', 'Slots', 'Weak', 'OfInt', 'OfTuple':
            self.assertGreaterEqual(names['__main__.' + name], 400)
        for name in 'str', 'int', 'float', 'list', 'list items', 'dict keys', 'set table':
            self.assertGreaterEqual(names[name], 400, name)
        done = command.run('pins', '--json', '--below', '100', path)
        self.assertRan(done)
        said = json.loads(done.out)
        self.assertEqual(said['objects']['blocks_known'], count)
        self.assertLessEqual(said['objects']['survivors_known'], said['total']['survivors'])
        self.assertGreater(said['objects']['blocks_known'] * 2, said['total']['blocks'])

    @support.since(3, 7)
    def test_types_are_replaced_when_added_again(self):
        path, _ = self.snapshot()
        size = os.path.getsize(path)
        code = 'import sys; sys.path.insert(0, sys.argv[1]); import _types\n' \
               'try: print(_types.add_types(sys.argv[2]))\n' \
               'except ValueError as error: print(error)'
        folder = os.path.join(ROOT, 'python', 'obmalloc')
        # Another process has nothing there: its types are few, or none.
        self.interpret(code, folder, path)
        self.assertLess(os.path.getsize(path), size)
        self.assertRan(command.run('pins', path))
        with open(path, 'r+b') as file:
            file.truncate(200)
        done = self.interpret(code, folder, path)
        self.assertRegex(done.out, 'cut off|not a snapshot|unpack')
