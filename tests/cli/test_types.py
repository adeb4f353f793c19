"""The types of a snapshot's blocks (src/inspect/objects.rs, python/obmalloc/_types.py)."""
import collections
import json
import re
import struct
import subprocess

import pytest

from cli import command
from support import build, child

pytestmark = pytest.mark.since(3, 7)
PACKAGE = build.ROOT / 'python' / 'obmalloc'

# Objects of many layouts: with and without the collector's head, with a dict or weak
# references that the interpreter manages, with second blocks.
OBJECTS = '''
import gc, json, obmalloc, struct, sys
class Plain(object):
    def __init__(self, n): self.n = n
class Slots(object):
    __slots__ = ("a",)
class Weak(object):
    __slots__ = ("__weakref__", "x")
class OfInt(int): pass
class OfTuple(tuple): pass
class OfList(list): pass
class Meta(type): pass
OfMeta = Meta("OfMeta", (object,), {})
def makes(n):
    return [Slots(), Weak(), n + 1000000, n + 0.25, "text %d" % n, b"bytes %d" % n, OfMeta(),
            (n, n), lambda: n, object(), complex(n, n), slice(n), range(n, n + 2), Plain(n),
            OfTuple((n,)), OfInt(n), OfList((n,)), [int, str, n], {"key %d" % n: n},
            set(range(n, n + 6)), frozenset(range(n, n + 6)), bytearray(b"some bytes" * 4)]
kept = [thing for n in range(400) for thing in makes(n)]
gone = [Slots() for n in range(400)]
gc.collect()
del gone                # their blocks are in a magazine
count = obmalloc.snapshot(sys.argv[1])
with open(sys.argv[1], "rb") as file:
    data = file.read()
offset, = struct.unpack_from("<Q", data, 56)
types, text, at, blocks = struct.unpack_from("<IIQQ", data, offset)
names = data[offset + 24 + 8 * types:].split(b"\\0")
found = {}
for n in range(blocks):
    address, size, number = struct.unpack_from("<QII", data, at + 16 * n)
    found[address] = size, names[number].decode()
head = sys.getsizeof([]) - [].__sizeof__()
def block_of(thing):
    # Bytes before an object: the collector's head, and two pointers of some types.
    flags, before = type(thing).__flags__, 0
    if flags & 1 << 14:
        pointers = 1 << 4 if sys.version_info >= (3, 11) else 0
        if sys.version_info >= (3, 12): pointers |= 1 << 3
        before = head + (16 if flags & pointers else 0)
    return id(thing) - before
def name_of(kind):
    return kind.__qualname__ if kind.__module__ == "builtins" else kind.__module__ + "." + kind.__qualname__
wrong = [(name_of(type(thing)), found.get(block_of(thing))) for thing in kept
         if found.get(block_of(thing), (0, ""))[1] != name_of(type(thing))]
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

# A program whose heap is read while it runs; its own snapshot of the same objects.
LIVE = '''
import gc, obmalloc, os, sys
class Session(object):
    __slots__ = ("a", "b")
    def __init__(self): self.a, self.b = [], {"key": 1.5}
class Shared(object):
    def __init__(self): self.x = self.y = 0     # until 3.10 their dicts share the keys
class Survivor(object):
    __slots__ = ("a", "b", "c")
made = [Survivor() for _ in range(100000)]
kept = [Session() for _ in range(20000)], [Shared() for _ in range(5000)], made[::250]
del made
gc.collect()
gc.disable()
obmalloc.snapshot(sys.argv[1])
os.write(1, b"ready\\n")
os.read(0, 1)
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


def entries(path):
    """(address, name) of each block of known type, by the documented format of a snapshot."""
    data = path.read_bytes()
    offset, length = struct.unpack_from('<QQ', data, 56)
    assert offset + length == len(data)
    count, text, at, blocks = struct.unpack_from('<IIQQ', data, offset)
    start = offset + 24 + 8 * count
    names = data[start:start + text].split(b'\0')[:count]
    for n in range(blocks):
        address, _, number = struct.unpack_from('<QII', data, at + 16 * n)
        yield address, names[number].decode()


def types(path):
    """{name: number of its blocks}"""
    return collections.Counter(name for _, name in entries(path))


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
    known = collections.Counter(address // 4096 for address in {each for each, _ in entries(path)})
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


def test_each_object_has_its_type(python, path):
    """The entry at the address of an object's block has the object's type; no object that is gone
    is among them."""
    count, wrong, all_wrong, kept = package(python, OBJECTS, path).said
    assert (all_wrong, wrong) == (0, []), f'of {kept}'
    assert count > 8000
    names = types(path)
    assert sum(names.values()) == count
    assert names['__main__.Slots'] == 400
    for name in 'list items', 'dict keys', 'set table', 'bytearray buffer':
        assert names[name] >= 400, name
    said = json.loads(command.run('pins', '--json', '--below', '100', path).out)
    assert said['objects']['blocks_known'] <= count
    assert said['objects']['survivors_known'] <= said['total']['survivors']
    assert said['objects']['blocks_known'] * 2 > said['total']['blocks']


def test_names_are_written_to_whole_snapshots_only(python, path):
    package(python, OBJECTS, path)
    code = 'import obmalloc._types, sys\n' \
           'try: print(obmalloc._types.name_types(sys.argv[1]))\n' \
           'except ValueError as error: print(error)'
    count = package(python, code, path).said
    assert count == sum(types(path).values())
    command.run('pins', path)
    # 20 bytes: as /dev/null, which takes a snapshot and has none.
    with path.open('r+b') as file:
        file.truncate(20)
    assert 'not a snapshot' in package(python, code, path).out


def test_without_types(python, path):
    code = 'import obmalloc, sys; print(obmalloc.snapshot(sys.argv[1], types=False))'
    assert package(python, code, path).said == 0
    said = json.loads(command.run('pins', '--json', path).out)
    assert not said.get('objects')


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


@pytest.fixture
def live(python, path, tmp_path):
    """The pid of a program of `python` that sleeps, after its own snapshot to `path`."""
    env = dict(child.preloaded(OBMALLOC_STATS_PAGE='1'), PYTHONPATH=str(PACKAGE.parent))
    with subprocess.Popen([python.path, '-B', '-c', LIVE, path], env=env, stdin=subprocess.PIPE,
                          stdout=subprocess.PIPE) as program:
        assert program.stdout.readline() == b'ready\n'
        yield program.pid
        program.kill()


def rows(word, of, key):
    """{type: its row} by a command's JSON, without the modules, which only Python knows."""
    said = json.loads(command.run(word, '--json', of).out)
    found = said['objects']['types'] if word == 'pins' else said['types']
    return said, {each['type'].split('.')[-1]: each[key] for each in found}


def test_a_live_process_has_the_types_of_its_snapshot(python, live, path):
    said, now = rows('types', live, 'blocks')
    # Of `Shared`; from 3.13 on inside the instances.
    assert now.get('dict values', 0) >= 4990 or python.numbers >= (3, 13)
    # A freed block may look like an object, rarely.
    assert now['Session'] == pytest.approx(20000, abs=10)
    assert now['Shared'] == pytest.approx(5000, abs=10)
    assert said['known']['blocks'] == sum(each['blocks'] for each in said['types'])
    assert said['known']['blocks'] <= said['taken']['blocks']
    assert said['known']['blocks'] > 0.9 * said['taken']['blocks']
    sizes = {each['type']: each['bytes'] / each['blocks'] for each in said['types']}
    assert round(sizes['Session']) in (32, 48, 64), 'bytes are those of blocks'
    # The program's own snapshot, block by block: with fewer objects of the package's.
    filed, before = rows('types', path, 'blocks')
    for name in 'Session', 'Shared', 'Survivor', 'dict keys', 'list', 'float':
        assert before.get(name, 0) == pytest.approx(now.get(name, 0), rel=0.02, abs=200), name
    parts = {each['type'] for each in said['types'] if not each['is_object']}
    assert 'dict keys' in parts and parts <= {'list items', 'dict keys', 'dict values', 'set table',
                                              'bytearray buffer'}
    text = command.run('types', '--top', '1', live).out
    assert re.search(r'\d+ other types \(--top\)', text) and '(unknown or free)' in text


def test_pins_of_a_live_process_name_types(live, path):
    said, now = rows('pins', live, 'survivors')
    _, before = rows('pins', path, 'survivors')
    assert said['objects']['survivors_known'] <= said['total']['survivors']
    assert now['Survivor'] == pytest.approx(before['Survivor'], abs=20) and now['Survivor'] > 300
    _, pages = rows('pins', live, 'pages')
    assert pages['Survivor'] == pytest.approx(rows('pins', path, 'pages')[1]['Survivor'], abs=20)


@pytest.mark.one_python
def test_a_snapshot_without_types_has_none_to_show(python, path):
    code = 'import obmalloc, sys; obmalloc.snapshot(sys.argv[1], types=False)'
    package(python, code, path)
    said = command.run('types', path, status=1).err
    assert 'has no types of objects' in said and said.count('\n') == 1


@pytest.mark.one_python
@pytest.mark.parametrize('rate', ['', '1', '2', '10'])
def test_is_active_with_guarded_blocks(python, rate):
    done = package(python, 'import obmalloc; print(obmalloc.is_active())',
                   OBMALLOC_GUARD_SAMPLE_RATE=rate)
    assert done.out == 'True\n'
