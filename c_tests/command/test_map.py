"""`obmalloc map` and `pins`: pictures and tables of real heaps; hostile files; processes
that end while they are looked at."""
import json
import os
import re
import shutil
import struct
import subprocess
import sys

import command
import support

ROOT = os.path.join(support.HERE, '..', '..')
sys.path.insert(0, os.path.join(ROOT, 'python', 'obmalloc'))

# Lists of 50 000 numbers; of each 100 one stays: a peak and what it leaves.
PEAK = '''
import ctypes, gc, sys
library = ctypes.CDLL(None)
def snapshot(path):
    assert library.obmalloc_snapshot(path.encode()) == 0
many = [[n] for n in range(50000)]
snapshot(sys.argv[1])
kept = many[::100]
del many
gc.collect()
library.obmalloc_trim.argtypes = [ctypes.c_size_t]
library.obmalloc_trim(0)
snapshot(sys.argv[2])
'''

WAITS = '''
import sys
kept = [[n] for n in range(1000)]
print("ready", flush=True)
sys.stdin.readline()
'''


def peak():
    """Two snapshots of one program: at its peak, and after."""
    paths = [support.scratch('peak.map'), support.scratch('after.map')]
    os.makedirs(os.path.dirname(paths[0]), exist_ok=True)
    done = support.run([sys.executable, '-c', PEAK, *paths], support.preloaded())
    assert done.status == 0, done.report
    return paths


def pins(*words):
    return json.loads(command.run('pins', '--json', *words).out)


class Map(support.Case):

    def setUp(self):
        self.files = peak()

    def test_letters_without_a_terminal(self):
        """Each cell of an arena is a letter; pages that went back are dots."""
        done = command.run('map', self.files[1])
        self.assertRan(done)
        self.assertNotIn('\x1b', done.out)
        rows = re.findall(r'(?m)^[A-La-l. -]{32,80}$', done.out)
        self.assertGreaterEqual(len(rows), 16)
        self.assertTrue(any('.' in row for row in rows))
        self.assertRegex(done.out, r'pages in memory (is|are) nearly empty')

    def test_colours(self):
        for said, codes in ('truecolor', '38;2;'), ('', '38;5;'):
            env = support.clean_environment(COLORTERM=said, TERM='xterm-256color')
            done = command.run('map', '--color', '--width', '80', self.files[0], env=env)
            self.assertRan(done)
            self.assertIn('\u2580', done.out)
            self.assertIn(codes, done.out)
            plain = re.sub('\x1b\\[[0-9;]*m', '', done.out)
            self.assertNotIn('\x1b', plain)
            picture = [line for line in plain.splitlines() if '\u2580' in line]
            self.assertLessEqual(max(map(len, picture)), 80)

    def test_a_picture_of_few_lines(self):
        done = command.run('map', '--max-rows', '3', self.files[0])
        self.assertRan(done)
        self.assertRegex(done.out, r'a cell is \d+ pages')
        self.assertLess(len(re.findall(r'(?m)^[0-9a-f]{12} .*[A-L]', done.out)), 4)

    def test_pages_of_html_are_whole(self):
        """Both snapshots are in it, and nothing is fetched from anywhere."""
        page = support.scratch('map.html')
        done = command.run('map', *self.files, '--html', page)
        self.assertRan(done)
        self.assertEqual(done.out + done.err, '')
        with open(page) as file:
            text = file.read()
        self.assertFalse(re.search(r'https?:|\bsrc=|@import|url\(', text))
        data = re.search(r'id="data">(.*?)</script>', text, re.S).group(1)
        shown = json.loads(data)['snapshots']
        self.assertEqual([each['name'] for each in shown], ['peak', 'after'])
        in_memory = [each['parts']['taken'] + each['parts']['pinned'] for each in shown]
        self.assertGreater(in_memory[0], in_memory[1])
        for each, path in zip(shown, self.files):
            live = sum(row['blocks'] for row in pins(path)['classes'])
            self.assertEqual(sum(row['blocks'] for row in each['classes']), live)

    def test_a_browser_shows_the_page(self):
        """Its script runs to the end: a bar for each snapshot, a row for each class."""
        browser = shutil.which('chromium') or shutil.which('google-chrome')
        if browser is None:
            self.skipTest('no chromium here')
        page = support.scratch('shown.html')
        self.assertRan(command.run('map', *self.files, '--html', page))
        done = support.run([browser, '--headless', '--no-sandbox', '--disable-gpu',
                            '--virtual-time-budget=4000', '--dump-dom', 'file://' + page],
                           timeout=120)
        self.assertRan(done)
        bars = re.search(r'<div id="bars".*?<input', done.out, re.S).group(0)
        self.assertEqual(bars.count('class="bar"'), 2)
        self.assertRegex(done.out, r'<canvas width="[1-9]\d+" height="[1-9]\d+"')
        rows = re.search(r'<tbody>.*</tbody>', done.out, re.S).group(0).count('<tr>')
        self.assertEqual(rows, len(pins(self.files[1])['classes']))

    def test_pins_of_a_peak(self):
        """Of 50 000 lists 500 stay: they keep pages that hold nothing else."""
        before, after = (pins(path)['total'] for path in self.files)
        self.assertGreater(after['survivors'], before['survivors'] + 500)
        self.assertGreater(after['bytes_would_come_back'], 500 << 10)
        self.assertLessEqual(after['bytes_would_come_back'], after['bytes_nearly_empty'])
        done = command.run('pins', self.files[1])
        self.assertRan(done)
        self.assertRegex(done.out, r'(?m)^ *all sizes( +\d.*){3}')
        self.assertEqual(pins('--below', '0', self.files[1])['total']['survivors'], 0)


class Hostile(support.Case):

    def assertOneLine(self, done, status=1):
        self.assertRan(done, status)
        self.assertEqual(done.out, '')
        self.assertRegex(done.err, r'^obmalloc: [^\n]+; [^\n]+\n$')

    def test_files_that_are_none(self):
        whole = peak()[0]
        with open(whole, 'rb') as file:
            data = file.read()
        broken = support.scratch('broken.map')
        for content in (b'', b'some text\n', data[:100], data[:len(data) // 2],
                        data[:24] + struct.pack('<Q', 1 << 60) + data[32:]):
            with open(broken, 'wb') as file:
                file.write(content)
            for word in 'map', 'pins':
                self.assertOneLine(command.run(word, broken))
        for path in '/nowhere/heap.map', '/dev/null', '/', '/proc/self/exe':
            self.assertOneLine(command.run('map', path))
        self.assertOneLine(command.run('map', whole, '--html', '/nowhere/map.html'))
        self.assertOneLine(command.run('map', whole, '--every', '1'), 2)

    def test_processes_that_are_none(self):
        self.assertOneLine(command.run('map', '4194305'))
        self.assertOneLine(command.run('map', str(os.getpid())))


class Process(support.Case):

    def waiting_program(self):
        env = support.preloaded(OBMALLOC_LIVE='1')
        process = subprocess.Popen([sys.executable, '-c', WAITS], env=env, text=True,
                                   stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.assertEqual(process.stdout.readline(), 'ready\n')
        return process

    def test_a_process_that_ends_while_it_is_watched(self):
        process = self.waiting_program()
        pid = str(process.pid)
        done = command.run('map', pid)
        self.assertRan(done)
        self.assertIn('process %s, CPython 3' % pid, done.out)
        self.assertGreater(pins(pid)['total']['blocks'], 5000)
        page = support.scratch('live.html')
        watcher = subprocess.Popen([command.path(), 'map', pid, '--every', '1', '--html', page],
                                   stderr=subprocess.PIPE, text=True)
        try:
            watcher.wait(2.5)
        except subprocess.TimeoutExpired:
            pass
        process.communicate('\n')
        _, said = watcher.communicate(timeout=60)
        self.assertEqual(watcher.returncode, 0, said)
        self.assertRegex(said, r'^obmalloc: there is no process %s; .*\n$' % pid)
        with open(page) as file:
            self.assertIn('after 1 s', file.read())
