"""Programs that embed Python (hosts/embed.c): the code that they run, and how they are built."""
import json

import pytest

from support import build
from support.preload import build_host

# Imports only modules inside libpython: in a local scope no other can be loaded.
BUILD = '''
import gc, sys
class Node(object):
    def __init__(self, child): self.child, self.me = child, self
def build():
    rows = [{n: str(n) * (n % 50), str(n): [n] * (n % 90)} for n in range(8000)]
    chain = None
    for n in range(3000): chain = Node(chain)
    return rows, chain
def check(rows):
    for n, row in enumerate(rows):
        assert row == {n: str(n) * (n % 50), str(n): [n] * (n % 90)}, n
old, chain = build()
'''
MORE = '''
check(old)
for row in old: row.update((key, None) for key in range(-30, 0))
new, chain = build()
check(new)
gc.collect()
'''
LESS = 'del old, chain; gc.collect(); check(new); del new; gc.collect()'
TRACE = '''
import _tracemalloc as tracemalloc
tracemalloc.start(1)
before = tracemalloc.get_traced_memory()[0]
'''
GRABBED = '''
grown = tracemalloc.get_traced_memory()[0] - before
assert 500000 <= grown < 600000, ("blocks of PyObject_Malloc that tracemalloc saw", grown)
'''
DROPPED = '''
left = tracemalloc.get_traced_memory()[0] - before
assert left < 50000, ("blocks that tracemalloc did not see go", left)
kept = [object() for _ in range(5000)] + [bytearray(100) for _ in range(1000)]
made = tracemalloc.get_traced_memory()[0] - before - left
assert made > 5000 * 24 + 1000 * 100, ("objects that tracemalloc saw", made)
assert tracemalloc._get_object_traceback(kept[0]) is not None
tracemalloc.stop(); del kept
'''
TRACED = ['run', TRACE, 'grab', '1000', '500', 'run', GRABBED, 'drop', 'run', DROPPED]


# Imports what a program usually imports.
ROUND = '''
import sys, json, re, collections, functools, itertools, random, string, textwrap
class Point(collections.namedtuple("Point", "x y")):
    pass
rows = [Point(n, str(n)) for n in range(2000)]
text = json.dumps([dict(row._asdict()) for row in rows], sort_keys=True)
assert json.loads(text)[7] == {"x": 7, "y": "7"}
words = collections.Counter(re.findall("[a-z]+", textwrap.__doc__ or "text text"))
sys.stdout.write("%d %d %s\\n" % (len(text), sum(words.values()), sys.version.split()[0]))
sys.stdout.flush()
'''


def live_in(done):
    """Live blocks of the library at each step `stats`."""
    texts = [line.split('=', 1)[1] for line in done.out.splitlines() if line.startswith('stats=')]
    return [sum(each['blocks_live'] for each in json.loads(text)['classes']) for text in texts]


def late():
    """The program that opens a libpython when it runs."""
    return build_host('embed', 'embed.c', '-rdynamic', '-ldl')


def linked_with_library():
    """The same, linked with -lobmalloc."""
    folder = build.library_folder()
    return build_host('embed_linked', '-DLINKED', 'embed.c', '-rdynamic', f'-L{folder}',
                      '-lobmalloc', f'-Wl,-rpath,{folder}', '-ldl')


def linked_with(python):
    """The program linked against the libpython of `python`."""
    if not python.library:
        pytest.skip('no libpython to link')
    return build_host('embed_' + python.name, 'embed.c', '-rdynamic', '-Wl,--no-as-needed',
                      python.library, '-ldl', '-Wl,-rpath,' + python.libdir)
