"""The types of a snapshot's blocks (python/obmalloc/_types.py)."""
import collections
import json
import re
import struct

import pytest

from cli import command
from support import build, child

pytestmark = pytest.mark.since(3, 7)
PACKAGE = build.ROOT / 'python' / 'obmalloc'

# Objects of many layouts: with and without the collector's head, with a dict or weak
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
# Types made from these request one item more.
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
    # getsizeof() is the size of the object's block, head and all.
    block = -(-sys.getsizeof(thing) // 16) * 16
    if pool is None or (id(thing) - before - pool[0]) % pool[1] or pool[1] != block:
        wrong.append((type(thing).__name__, before, pool and pool[1], sys.getsizeof(thing)))
print(json.dumps([count, wrong[:5], len(wrong), len(kept)]))
'''

# Classes with a false __class__, metaclasses that raise at each touch. All touches are counted.
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

# One object of 250 stays, while threads make others.
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
    """{name: number of its blocks} by the documented format of a snapshot."""
    data = path.read_bytes()
    offset, length = struct.unpack_from('<QQ', data, 56)
    assert offset + length == len(data)
    count, text, entries = struct.unpack_from('<IIQ', data, offset)
    names = data[offset + 16:offset + 16 + text].split(b'\0')[:count]
    found = collections.Counter()
    for n in range(entries):
        _, _, name = struct.unpack_from('<QII', data, offset + 16 + text + 16 * n)
        found[names[name].decode()] += 1
    return found


def untaken(path):
    """The number of blocks with a type beyond the blocks that their page had taken."""
    data = path.read_bytes()
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


def interpret(python, code, *arguments, env=None):
    return child.run([python.path, '-B', '-c', code, *arguments], env or child.preloaded(),
                     status=0)


def package(python, code, *arguments, env=None, **settings):
    """Runs code that can import the package."""
    env = env or child.preloaded(**settings)
    return interpret(python, code, *arguments, env=dict(env, PYTHONPATH=str(PACKAGE.parent)))


@pytest.fixture
def path(tmp_path):
    return tmp_path / 'heap.map'


def test_blocks_begin_where_the_objects_are(python, path):
    """Where an object's size tells the size of its block, each block has that size; so the
    bytes before an object are counted right."""
    count, wrong, all_wrong, kept = interpret(python, OBJECTS, PACKAGE, path).said
    assert (all_wrong, wrong) == (0, []), f'of {kept}'
    assert count > 8000
    names = types(path)
    assert sum(names.values()) == count
    for name in 'Plain', 'Slots', 'Weak', 'OfInt', 'OfTuple':
        assert names['__main__.' + name] >= 400, name
    for name in 'str', 'int', 'float', 'list', 'list items', 'dict keys', 'set table':
        assert names[name] >= 400, name
    said = json.loads(command.run('pins', '--json', '--below', '100', path).out)
    assert said['objects']['blocks_known'] == count
    assert said['objects']['survivors_known'] <= said['total']['survivors']
    assert said['objects']['blocks_known'] * 2 > said['total']['blocks']


def test_types_are_replaced_when_added_again(python, path):
    interpret(python, OBJECTS, PACKAGE, path)
    size = path.stat().st_size
    code = 'import sys; sys.path.insert(0, sys.argv[1]); import _types\n' \
           'try: print(_types.add_types(sys.argv[2], _types.gather()))\n' \
           'except ValueError as error: print(error)'
    # Another process has few blocks at these addresses, or none.
    interpret(python, code, PACKAGE, path)
    assert path.stat().st_size < size
    command.run('pins', path)
    # 20 bytes: as /dev/null, which takes a snapshot and has none.
    for length, says in (200, 'cut off|not a snapshot'), (20, 'not a snapshot'):
        with path.open('r+b') as file:
            file.truncate(length)
        assert re.search(says, interpret(python, code, PACKAGE, path).out)


def test_no_code_of_the_program_runs(python, path):
    count, touched = package(python, HOSTILE, path).said
    assert touched == []
    found = types(path)
    assert sum(found.values()) == count
    proxies = {'weakref.ProxyType', 'weakproxy'} & set(found)
    for name in (*proxies, '__main__.Raising', '__main__.Lazy', 'plain', 'm.? surrogate',
                 'm.nul ? inside', '?', 'text.derived', 'property', 'none'):
        assert found[name] >= 50, name
    [long] = [name for name in found if name.startswith('m.long')]
    assert len(long) <= 200
    command.run('pins', path)


@pytest.mark.parametrize('threads', [0, 2])
def test_no_more_survivors_than_there_are(python, path, threads):
    package(python, SURVIVORS, path, str(threads))
    assert untaken(path) == 0
    said = json.loads(command.run('pins', '--json', path).out)
    assert said['objects']['survivors_known'] <= said['total']['survivors']
    if not threads:
        rows = {each['type']: each['survivors'] for each in said['objects']['types']}
        assert rows['__main__.Survivor'] > 100


@pytest.mark.parametrize('settings, why', [
    ({'LD_PRELOAD': ''}, 'libobmalloc.so is not in it'),
    ({'PYTHONMALLOC': 'malloc'}, 'PYTHONMALLOC=malloc'),
    ({'PYTHONDEVMODE': '1'}, 'development mode')], ids=['not preloaded', 'malloc', 'dev mode'])
def test_a_process_that_is_not_served(python, path, settings, why):
    """The error says why, and no file is left."""
    lines = package(python, UNSERVED, path, **settings).out.splitlines()
    assert lines[1::2] == ['False', 'False']
    for line in lines[::2]:
        assert re.match(f'obmalloc: no snapshot of a process that is not served: .*{why}', line)


@pytest.mark.one_python
@pytest.mark.parametrize('rate', ['', '1', '2', '10'])
def test_is_active_with_guarded_blocks(python, rate):
    done = package(python, 'import obmalloc; print(obmalloc.is_active())',
                   OBMALLOC_GUARD_SAMPLE_RATE=rate)
    assert done.out == 'True\n'
