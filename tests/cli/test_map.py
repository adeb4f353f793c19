"""`obmalloc map` and `pins`: pictures and tables of real heaps; files that are no snapshots;
processes that end while they are watched."""
import json
import os
import re
import shutil
import struct
import subprocess
import sys

import pytest

from cli import command
from support import build, child, status

# Lists of 50 000 numbers, of which every hundredth stays: a peak and its survivors.
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


@pytest.fixture(scope='module')
def files(tmp_path_factory):
    """Two snapshots of one program: at its peak, and after."""
    folder = tmp_path_factory.mktemp('snapshots')
    paths = [folder / 'peak.map', folder / 'after.map']
    child.run([sys.executable, '-c', PEAK, *paths], child.preloaded(), status=0)
    return paths


def pins(*words):
    return json.loads(command.run('pins', '--json', *words).out)


def test_letters_without_a_terminal(files):
    """A letter for each cell of an arena; dots for pages that were returned."""
    text = command.run('map', files[1]).out
    assert '\x1b' not in text
    rows = re.findall(r'(?m)^[A-La-l. -]{32,80}$', text)
    assert len(rows) >= 16
    assert any('.' in row for row in rows)
    assert re.search(r'pages in memory (is|are) nearly empty', text)


@pytest.mark.parametrize('colorterm, codes', [('truecolor', '38;2;'), ('', '38;5;')])
def test_colours(files, colorterm, codes):
    env = child.clean_environment(COLORTERM=colorterm, TERM='xterm-256color')
    text = command.run('map', '--color', '--width', '80', files[0], env=env).out
    assert '\u2580' in text
    assert codes in text
    plain = re.sub('\x1b\\[[0-9;]*m', '', text)
    assert '\x1b' not in plain
    assert max(len(line) for line in plain.splitlines() if '\u2580' in line) <= 80


def test_a_picture_of_few_lines(files):
    text = command.run('map', '--max-rows', '3', files[0]).out
    assert re.search(r'a cell is \d+ pages', text)
    assert len(re.findall(r'(?m)^[0-9a-f]{12} .*[A-L]', text)) < 4


def test_html(files, tmp_path):
    """Both snapshots are in the page, and it fetches nothing."""
    done = command.run('map', *files, '--html', tmp_path / 'map.html')
    assert done.out + done.err == ''
    text = (tmp_path / 'map.html').read_text()
    assert not re.search(r'https?:|\bsrc=|@import|url\(', text)
    shown = json.loads(re.search(r'id="data">(.*?)</script>', text, re.S).group(1))['snapshots']
    assert [each['name'] for each in shown] == ['peak', 'after']
    peak, after = (each['parts']['taken'] + each['parts']['pinned'] for each in shown)
    assert peak > after
    for each, path in zip(shown, files):
        assert (sum(row['blocks'] for row in each['classes'])
                == sum(row['blocks'] for row in pins(path)['classes']))


def test_a_browser_runs_the_page(files, tmp_path):
    """A bar for each snapshot, a row for each class."""
    browser = shutil.which('chromium') or shutil.which('google-chrome')
    if browser is None:
        pytest.skip('no chromium')
    command.run('map', *files, '--html', tmp_path / 'map.html')
    text = child.run([browser, '--headless', '--no-sandbox', '--disable-gpu',
                      '--virtual-time-budget=4000', '--dump-dom', f'file://{tmp_path}/map.html'],
                     timeout=120, status=0).out
    bars = re.search(r'<div id="bars".*?<input', text, re.S).group(0)
    assert bars.count('class="bar"') == 2
    assert re.search(r'<canvas width="[1-9]\d+" height="[1-9]\d+"', text)
    rows = re.search(r'<tbody>.*</tbody>', text, re.S).group(0).count('<tr>')
    assert rows == len(pins(files[1])['classes'])


def test_pins_of_a_peak(files):
    """Of 50 000 lists 500 survive, each in a page that holds little else."""
    before, after = (pins(path)['total'] for path in files)
    assert after['survivors'] > before['survivors'] + 500
    assert 500 << 10 < after['bytes_would_come_back'] <= after['bytes_nearly_empty']
    assert re.search(r'(?m)^ *all sizes( +\d.*){3}', command.run('pins', files[1]).out)
    assert pins('--below', '0', files[1])['total']['survivors'] == 0


# ---- hostile files, and processes ----

def refused(*words, number=1):
    done = command.run(*words, status=number)
    assert done.out == ''
    status.says(done, '.+; .+')


@pytest.mark.parametrize('word', ['map', 'pins'])
def test_files_that_are_no_snapshots(files, tmp_path, word):
    data = files[0].read_bytes()
    for content in (b'', b'some text\n', data[:100], data[:len(data) // 2],
                    data[:24] + struct.pack('<Q', 1 << 60) + data[32:]):
        (tmp_path / 'broken.map').write_bytes(content)
        refused(word, tmp_path / 'broken.map')


@pytest.mark.parametrize('path', ['/nowhere/heap.map', '/dev/null', '/', '/proc/self/exe'])
def test_other_files(path):
    refused('map', path)


def test_wrong_options(files):
    refused('map', files[0], '--html', '/nowhere/map.html')
    refused('map', files[0], '--every', '1', number=2)


def test_processes_that_are_none():
    for pid in 4194305, os.getpid():
        refused('map', pid)


def test_a_process_that_ends_while_it_is_watched(tmp_path):
    process = subprocess.Popen([sys.executable, '-c', WAITS], text=True,
                               env=child.preloaded(OBMALLOC_STATS_PAGE='1'),
                               stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout.readline() == 'ready\n'
    pid, page = str(process.pid), tmp_path / 'live.html'
    assert f'process {pid}, CPython 3' in command.run('map', pid).out
    assert pins(pid)['total']['blocks'] > 5000
    watcher = subprocess.Popen([build.COMMAND, 'map', pid, '--every', '1', '--html', page],
                               stderr=subprocess.PIPE, text=True)
    try:
        watcher.wait(2.5)
    except subprocess.TimeoutExpired:
        pass
    process.communicate('\n')
    _, said = watcher.communicate(timeout=60)
    assert watcher.returncode == 0, said
    assert re.fullmatch(fr'obmalloc: there is no process {pid}; .*\n', said)
    assert 'after 1 s' in page.read_text()
