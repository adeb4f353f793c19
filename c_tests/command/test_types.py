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
reached = _types.gather()
assert ctypes.CDLL(None).obmalloc_snapshot(path.encode()) == 0
count = _types.add_types(path, reached)
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

# What a program may have: classes that lie, and metaclasses that raise at each touch. All
# touches are counted.
HOSTILE = r'''
import json, obmalloc, sys, weakref
touched = []
def touch(name):
    def method(*arguments, **options):
        touched.append(name)
        raise RuntimeError("touched: " + name)
    return method
NAMES = ("__eq__ __ne__ __hash__ __getattribute__ __instancecheck__ __subclasscheck__ __bool__ "
         "__str__ __repr__ __len__ __iter__ __contains__ __sizeof__ __radd__ __add__").split()
Meta = type("Meta", (type,), dict({name: touch(name) for name in NAMES}, __hash__=None))
Raising = Meta("Raising", (object,), {})
class Lazy(object):
    __class__ = property(touch("__class__"))
    __getattribute__ = touch("__getattribute__")
class Referent(object): pass
class Text(str):
    __radd__ = __add__ = __hash__ = __ne__ = __eq__ = __str__ = encode = touch("Text")
class Named(object): pass
def named(qualified, module):
    kind = type("x", (Named,), {})
    type.__dict__["__qualname__"].__set__(kind, qualified)
    kind.__module__ = module
    return kind
referents = [Referent() for _ in range(50)]
kept = [weakref.proxy(each) for each in referents]
del referents
kept += [type.__call__(Raising) for _ in range(50)] + [Lazy() for _ in range(50)]
kinds = [named("plain", 7), named("\udc80 surrogate", "m"), named("nul \0 inside", "m"),
         named("long " * 100000, "m"), named("", ""), named(Text("derived"), Text("text")),
         named("property", property(touch("module"))), named("none", None)]
kept += [kind() for kind in kinds for _ in range(50)]
count = obmalloc.snapshot(sys.argv[1])
print(json.dumps([count, touched]))
'''

# One object of each hundred stays; and a thread makes others all the time.
SURVIVORS = '''
import obmalloc, sys, threading
class Survivor(object):
    __slots__ = ("a", "b")
made = [Survivor() for _ in range(100000)]
kept = made[::250]
del made
end = False
shared = {}
def busy():
    while not end:
        shared[len(shared) % 5000] = Survivor(), [Survivor()]
threads = [threading.Thread(target=busy) for _ in range(int(sys.argv[2]))]
for thread in threads: thread.start()
print(obmalloc.snapshot(sys.argv[1]))
end = True
'''

UNSERVED = '''
import obmalloc, os, sys
for path in sys.argv[1:]:
    for types in True, False:
        try:
            print("wrote", obmalloc.snapshot(path, types=types))
        except RuntimeError as error:
            print(error)
        print(os.path.exists(path))
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


def beyond_what_was_taken(path):
    """Of how many blocks a snapshot names the type though their page has no such block: by
    page, more begin there than the page had taken."""
    with open(path, 'rb') as file:
        data = file.read()
    header, = struct.unpack_from('<I', data, 12)
    arenas, pools = struct.unpack_from('<QQ', data, 24)
    taken, at = {}, header + 32 * arenas
    first_page = at + 40 * pools
    for _ in range(pools):
        address, page, _, count = struct.unpack_from('<QQHH', data, at)
        for n in range(count):
            _, blocks = struct.unpack_from('<HH', data, first_page + 8 * (page + n))
            taken[address // 4096 + n] = blocks
        at += 40
    offset, = struct.unpack_from('<Q', data, 56)
    _, text, entries = struct.unpack_from('<IIQ', data, offset)
    known = collections.Counter(
        struct.unpack_from('<Q', data, offset + 16 + text + 16 * n)[0] // 4096
        for n in range(entries))
    return sum(max(0, count - taken[page]) for page, count in known.items())


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
               'try: print(_types.add_types(sys.argv[2], _types.gather()))\n' \
               'except ValueError as error: print(error)'
        folder = os.path.join(ROOT, 'python', 'obmalloc')
        # Another process has nothing there: its types are few, or none.
        self.interpret(code, folder, path)
        self.assertLess(os.path.getsize(path), size)
        self.assertRan(command.run('pins', path))
        with open(path, 'r+b') as file:
            file.truncate(200)
        done = self.interpret(code, folder, path)
        self.assertRegex(done.out, 'cut off|not a snapshot')
        # As /dev/null is, which takes a snapshot and has none.
        with open(path, 'r+b') as file:
            file.truncate(20)
        done = self.interpret(code, folder, path)
        self.assertIn('not a snapshot', done.out)


class Package(support.PythonCase):
    """obmalloc.snapshot() of the package."""

    def of_package(self, code, *arguments, env=None, **settings):
        env = support.preloaded(**settings) if env is None else env
        env['PYTHONPATH'] = os.path.join(ROOT, 'python')
        return self.interpret(code, *arguments, env=env)

    def path(self, name):
        path = support.scratch('%s-%s.map' % (name, self.python.label.replace(' ', '-')))
        os.makedirs(os.path.dirname(path), exist_ok=True)
        return path

    @support.since(3, 7)
    def test_no_code_of_the_programs_runs(self):
        path = self.path('hostile')
        count, touched = support.said(self.of_package(HOSTILE, path))
        self.assertEqual(touched, [])
        found = types(path)
        self.assertEqual(sum(found.values()), count)
        proxies = {'weakref.ProxyType', 'weakproxy'} & set(found)
        for name in (*proxies,
                     '__main__.Raising', '__main__.Lazy', 'plain', 'm.? surrogate',
                     'm.nul ? inside', '?', 'text.derived', 'property', 'none'):
            self.assertGreaterEqual(found[name], 50, name)
        [long] = [name for name in found if name.startswith('m.long')]
        self.assertLessEqual(len(long), 200)
        self.assertRan(command.run('pins', path))

    @support.since(3, 7)
    def test_of_no_more_survivors_than_there_are(self):
        for threads in 0, 2:
            path = self.path('survivors-%d' % threads)
            self.of_package(SURVIVORS, path, str(threads))
            self.assertEqual(beyond_what_was_taken(path), 0)
            done = command.run('pins', '--json', path)
            self.assertRan(done)
            said = json.loads(done.out)
            known, all_of_them = said['objects']['survivors_known'], said['total']['survivors']
            self.assertLessEqual(known, all_of_them)
            rows = {each['type']: each['survivors'] for each in said['objects']['types']}
            if not threads:
                self.assertGreater(rows['__main__.Survivor'], 100, rows)

    @support.since(3, 7)
    def test_a_process_that_is_not_served(self):
        """It is said at once why, and no file is left."""
        plain = support.clean_environment()
        for env, why in ((plain, 'libobmalloc.so is not in it'),
                         (support.preloaded(PYTHONMALLOC='malloc'), 'PYTHONMALLOC=malloc'),
                         (support.preloaded(PYTHONDEVMODE='1'), 'development mode')):
            done = self.of_package(UNSERVED, self.path('unserved'), env=env)
            lines = done.out.splitlines()
            self.assertEqual(lines[1::2], ['False', 'False'], done.report)
            for line in lines[::2]:
                self.assertRegex(line, '^obmalloc: no snapshot of a process that is not served: .*'
                                 + why)

    @support.since(3, 7)
    @support.takes_long
    def test_is_active_with_guarded_blocks(self):
        for rate in '', '1', '2', '10':
            done = self.of_package('import obmalloc; print(obmalloc.is_active())',
                                   OBMALLOC_GUARD=rate)
            self.assertEqual(done.out, 'True\n', 'rate %r\n%s' % (rate, done.report))
