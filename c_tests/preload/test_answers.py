"""What the host says about its allocator while ours is in its tables: its name,
its count of blocks, its table of statistics. A shared build looks these
functions up by name and finds ours; a static one has its own in place."""
import re

import support

NAME = '''
try:
    from _testinternalcapi import pymem_getallocatorsname as name
except ImportError:
    from _testcapi import pymem_getallocatorsname as name
'''
# test modules are not installed everywhere
NAME_OR_NOTHING = 'try:\n' + NAME.replace('\n', '\n    ') + \
    '\nexcept ImportError:\n    name = lambda: "unknown"\n'

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


def by_name(*first, before=(9,)):
    """For checks of what versions from the first on ask by name: a static host
    asks its own functions directly, as does each version for some of them."""
    def mark(method):
        method.applies = lambda python: python.shared and first <= python.numbers < before
        return method
    return mark


class Answers(support.PythonCase):

    def said_table(self, **env):
        done = self.interpret('import sys; kept = [object() for n in range(50000)]\n'
                              'sys._debugmallocstats()', env=support.preloaded(**env))
        return done, table(done.err)

    @by_name(3)
    def test_table_is_ours_and_adds_up(self):
        done, (values, rows) = self.said_table()
        self.assertRegex(done.err, r'^Small block threshold = \d+, in \d+ size classes\.\n\n'
                                   r'class   size   num pools   blocks in use  avail blocks\n'
                                   r'-----   ----   ---------   -------------  ------------\n')
        self.assertGreaterEqual(rows[16][3], 50000, done.report)
        arenas = values['# arenas allocated current']
        self.assertEqual(values['Total'], arenas * 2097152, done.report)
        parts = [value for label, value in values.items()
                 if label.startswith('# bytes') or 'unused pools' in label]
        self.assertEqual(sum(parts), values['Total'], done.report)
        live = sum(size * row[3] for size, row in rows.items())
        self.assertEqual(live, values['# bytes in allocated blocks'])

    @by_name(3)
    def test_table_at_the_end(self):
        done = self.interpret('pass', env=support.preloaded(PYTHONMALLOCSTATS='1'))
        values, _ = table(done.err)
        self.assertEqual(values.get('Total', 0) % 2097152, 0, done.report)
        self.assertGreater(values.get('# bytes in allocated blocks', 0), 0, done.report)

    @by_name(3, 7)
    def test_name_is_pymalloc(self):
        done = self.interpret(NAME_OR_NOTHING + 'print(name())')
        if done.out.strip() == 'unknown':
            self.skipTest('CPython\'s test modules are not installed')
        self.assertEqual(done.out.strip(), 'pymalloc', done.report)

    @by_name(3, 7)
    def test_name_is_not_claimed_under_hooks(self):
        """tracemalloc's tables have no name, here as without us."""
        code = NAME_OR_NOTHING + '''
import tracemalloc
tracemalloc.start()
try: print(name())
except RuntimeError as error: print(error)
'''
        stock = self.interpret(code, env=support.clean_environment())
        done = self.interpret(code)
        self.assertEqual(done.out, stock.out, done.report)

    @by_name(3, before=(3, 12))
    def test_blocks_are_counted(self):
        done = self.interpret('''
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
        for during, after in support.said(done):
            self.assertTrue(20000 <= during <= 20200, done.report)
            self.assertTrue(-50 <= after <= 50, done.report)
