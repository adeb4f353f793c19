"""OBMALLOC_*: what is set takes effect, what is wrong is said in one line, and the
program goes on with the default."""
import json
import os

import support

# Blocks of some size and their header, kept: how many more requests went below, how
# many more blocks are live, and the largest class that has live blocks.
KEEP = '''
import inside, json
lib = inside.library()
before = inside.stats(lib)
kept = [b"x" * (int(sys.argv[1]) - 1) + (b"%d" % (n % 10)) for n in range(int(sys.argv[2]))]
after = inside.stats(lib)
print(json.dumps([after["large"]["served_below_total"] - before["large"]["served_below_total"],
                  inside.live(after) - inside.live(before),
                  max(each["size"] for each in after["classes"] if each["blocks_live"])]))
'''


class Setting(support.PythonCase):

    def keep(self, size, count, **setting):
        """What KEEP says, and the run itself."""
        done = self.interpret(KEEP, str(size), str(count), env=support.preloaded(**setting))
        return support.said(done), done

    @support.since(3, 6)
    def test_small_max(self):
        """32K serves 600 bytes from pools; 512 leaves them to layer 0."""
        (below, live, largest), done = self.keep(600, 5000, OBMALLOC_SMALL_MAX='32K')
        self.assertLess(below, 500, done.report)
        self.assertGreaterEqual(live, 4900, done.report)
        self.assertGreater(largest, 600, done.report)
        (below, live, largest), done = self.keep(600, 5000, OBMALLOC_SMALL_MAX='512')
        self.assertGreaterEqual(below, 5000, done.report)
        self.assertLess(live, 2500, done.report)
        self.assertLessEqual(largest, 512, done.report)

    @support.since(3, 6)
    def test_default_rises_with_the_program(self):
        """A program's 6000 bytes are ours once it has 64 MiB in memory, its 600 once it has
        asked for 100 000 such; a large one's 10 000 are layer 0's, and a small one's 600.
        (Each item takes two requests.)"""
        (below, live, largest), done = self.keep(600, 30000)
        self.assertTrue(below >= 30000 and live < 3000, done.report)
        for size, count, asked in ((6000, 15000, 25000), (600, 75000, 105000)):
            (below, live, largest), done = self.keep(size, count)
            self.assertTrue(asked / 3 < below < asked and live > count / 5, done.report)
            self.assertTrue(size < largest <= 8192, done.report)
        (below, live, largest), done = self.keep(10000, 6000)
        self.assertTrue(below >= 6000 and live < 3000 and largest <= 8192, done.report)
        (below, live, largest), done = self.keep(400, 60000)
        self.assertTrue(below < 500 and live > 59000, done.report)

    @support.since(3, 6)
    def test_small_max_works_throughout(self):
        done = self.interpret('import inside; print(inside.workload(3))',
                              env=support.preloaded(OBMALLOC_SMALL_MAX='512'))
        stock = self.interpret('import inside; print(inside.workload(3))',
                               env=support.clean_environment())
        self.assertEqual((done.out, done.err), (stock.out, ''))

    def complain(self, **setting):
        """One line that names variable and value, and the default in force."""
        (name, value), = setting.items()
        with self.subTest(**setting):
            is_2 = self.python.numbers < (3,)
            done = self.interpret('print([0, 5000, 0])' if is_2 else KEEP, '400', '5000',
                                  env=support.preloaded(**setting))
            lines = done.err.splitlines()
            self.assertEqual(len(lines), 1, done.report)
            self.assertRegex(lines[0], '^obmalloc: ')
            self.assertIn(name, lines[0])
            self.assertIn(value, lines[0])
            below, live, largest = support.said(done)
            self.assertTrue(below < 500 and live >= 4900 and largest <= 512, done.report)

    def test_bad_value(self):
        for value in 'banana', '99999999', '-1', '512x', '99999999999999999999999999':
            self.complain(OBMALLOC_SMALL_MAX=value)

    def test_unknown_name(self):
        self.complain(OBMALLOC_NO_SUCH='1')

    def test_each_mistake_has_its_line(self):
        done = self.interpret('print(1)', env=support.preloaded(
            OBMALLOC_NO_SUCH='1', OBMALLOC_SMALL_MAX='banana', OBMALLOC_VERBOSE='1'))
        lines = done.err.splitlines()
        self.assertEqual(len(lines), 3, done.report)
        self.assertEqual(len([line for line in lines if 'OBMALLOC_NO_SUCH' in line]), 1)
        self.assertEqual(len([line for line in lines if 'banana' in line]), 1)
        self.assertUs(done)


class StatisticsAtExit(support.PythonCase):

    def file(self, name):
        return support.scratch('%s-%s' % (self.python.label.replace(' ', '-'), name))

    def test_text_on_stderr(self):
        done = self.interpret('print(1)', env=support.preloaded(OBMALLOC_STATS='1'))
        self.assertEqual(done.out, '1\n')
        self.assertRegex(done.err, '^obmalloc: ', done.report)
        self.assertGreater(len(done.err.splitlines()), 3, done.report)

    def test_nothing_before_exit(self):
        """The program's own words come first."""
        done = self.interpret('sys.stderr.write("mine\\n"); sys.exit(4)', status=4,
                              env=support.preloaded(OBMALLOC_STATS='1'))
        self.assertRegex(done.err, '^mine\nobmalloc: ', done.report)

    def test_file_with_the_pid(self):
        path = self.file('%p.json')
        done = self.interpret('import inside; inside.workload(1)',
                              env=support.preloaded(OBMALLOC_STATS=path))
        self.assertEqual((done.out, done.err), ('', ''))
        with open(path.replace('%p', str(done.pid))) as file:
            numbers = json.load(file)
        self.assertEqual(numbers['pid'], done.pid)
        self.assertIn(self.python.version, str(numbers['host']))
        self.assertGreater(numbers['bytes']['from_os'], 0)

    def test_file_of_a_fixed_name_is_replaced(self):
        path = self.file('fixed.json')
        for _ in range(2):
            done = self.interpret('pass', env=support.preloaded(OBMALLOC_STATS=path))
        with open(path) as file:
            self.assertEqual(json.load(file)['pid'], done.pid)

    def test_forked_child_writes_its_own(self):
        path = self.file('fork-%p.json')
        done = self.interpret('import os\n'
                              'pid = os.fork()\n'
                              'if pid == 0: sys.exit(0)\n'
                              'assert os.waitpid(pid, 0)[1] == 0\n'
                              'print(pid)', env=support.preloaded(OBMALLOC_STATS=path))
        for pid in done.pid, support.said(done):
            with open(path.replace('%p', str(pid))) as file:
                self.assertEqual(json.load(file)['pid'], pid)

    def test_file_that_cannot_be_written(self):
        """No reason to fail a program that has done its work."""
        done = self.interpret('print(1)', env=support.preloaded(
            OBMALLOC_STATS='/no/such/folder/%p.json'))
        self.assertEqual(done.out, '1\n')
        self.assertLessEqual(len(done.err.splitlines()), 1, done.report)
        for line in done.err.splitlines():
            self.assertRegex(line, '^obmalloc: ')

    def test_closed_stderr(self):
        """What the program opened as descriptor 2 is not ours to write to."""
        path = self.file('as-two')
        self.interpret('import os\n'
                       'os.close(2)\n'
                       'assert os.open(sys.argv[1], os.O_CREAT | os.O_WRONLY) == 2\n'
                       'os.close(2)\n', path, env=support.preloaded(OBMALLOC_STATS='1'))
        self.assertEqual(os.path.getsize(path), 0)

    @support.since(3, 7)
    def test_standing_aside(self):
        """Still valid: whoever collects the files finds that nothing was served."""
        path = self.file('aside-%p.json')
        done = self.interpret('pass', env=support.preloaded(OBMALLOC_STATS=path,
                                                            PYTHONMALLOC='malloc'))
        self.assertEqual((done.out, done.err), ('', ''))
        name = path.replace('%p', str(done.pid))
        if os.path.exists(name):
            with open(name) as file:
                numbers = json.load(file)
            self.assertEqual(sum(each['blocks_live'] for each in numbers['classes']), 0)
