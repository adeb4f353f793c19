"""CPython's own reports on its allocator while the library serves it: the allocator's name, the
count of blocks, the table of statistics. A shared build looks these functions up by name and
gets the library's; a static one calls its own directly, as every version does for some."""
import re

import pytest

from support import child
from support.preload import interpret

pytestmark = pytest.mark.shared

# The test modules are not installed everywhere.
NAME = '''
try:
    try:
        from _testinternalcapi import pymem_getallocatorsname as name
    except ImportError:
        from _testcapi import pymem_getallocatorsname as name
except ImportError:
    name = lambda: "unknown"
'''

LINE = re.compile(r'^(.{35})=([ ,\d]{20}\d)$')
ROW = re.compile(r'^ *(\d+) +(\d+) +(\d+) +(\d+) +(\d+)$')


def table(text):
    """({label: value} of the lines before the arena map, rows by size)."""
    values, rows = {}, {}
    for line in text.partition('arena map counts')[0].splitlines():
        found, row = LINE.match(line), ROW.match(line)
        if found:
            values[found.group(1).strip()] = int(found.group(2).replace(',', ''))
        elif row:
            rows[int(row.group(2))] = [int(word) for word in row.groups()]
    return values, rows


def said_table(python, **env):
    done = interpret(python, 'import sys; kept = [object() for n in range(50000)]\n'
                     'sys._debugmallocstats()', env=child.preloaded(**env))
    return done, table(done.err)


@pytest.mark.since(3)
def test_table_is_ours_and_adds_up(python):
    done, (values, rows) = said_table(python)
    assert re.search(r'^Small block threshold = \d+, in \d+ size classes\.\n\n'
                     r'class   size   num pools   blocks in use  avail blocks\n'
                     r'-----   ----   ---------   -------------  ------------\n', done.err)
    assert rows[16][3] >= 50000
    arenas = values['# arenas allocated current']
    assert values['Total'] == arenas * 2097152
    parts = [value for label, value in values.items()
             if label.startswith('# bytes') or 'unused pools' in label]
    assert sum(parts) == values['Total']
    live = sum(size * row[3] for size, row in rows.items())
    assert live == values['# bytes in allocated blocks']


@pytest.mark.since(3)
def test_table_at_the_end(python):
    done = interpret(python, 'pass', env=child.preloaded(PYTHONMALLOCSTATS='1'))
    values, _ = table(done.err)
    assert values.get('Total', 0) % 2097152 == 0
    assert values.get('# bytes in allocated blocks', 0) > 0


@pytest.mark.since(3, 7)
def test_name_is_pymalloc(python):
    done = interpret(python, NAME + 'print(name())')
    if done.out.strip() == 'unknown':
        pytest.skip('CPython\'s test modules are not installed')
    assert done.out.strip() == 'pymalloc'


@pytest.mark.since(3, 7)
def test_name_is_not_claimed_under_hooks(python):
    """tracemalloc's tables have no name, as without the library."""
    code = NAME + '''
import tracemalloc
tracemalloc.start()
try: print(name())
except RuntimeError as error: print(error)
'''
    stock = interpret(python, code, env=child.clean_environment())
    done = interpret(python, code)
    assert done.out == stock.out


@pytest.mark.since(3)
@pytest.mark.before(3, 12)
def test_blocks_are_counted(python):
    done = interpret(python, '''
import sys, json
def grown(make):
    before = sys.getallocatedblocks()
    kept = [make(n) for n in range(20000)]
    during = sys.getallocatedblocks()
    del kept
    return [during - before, sys.getallocatedblocks() - before]
grown(float)
print(json.dumps([grown(lambda n: object()), grown(lambda n: bytes(700)),
                  grown(lambda n: bytes(40000))]))
''')
    for during, after in done.said:
        assert 20000 <= during <= 20200
        assert -50 <= after <= 50
