"""docs/tutorial-leak.md: each command of the page is run, in its order, on a copy of the example.
The three leaks are in the first rows that it shows, and gone after the page's repair."""
import re
import shutil
import subprocess
import sys
from types import SimpleNamespace

import pytest

from support import build, child, running

PIDS = ('4711', '4720')         # the page's, of app.py as it was and after the repair
FOLDER = '/tmp/shop'            # the page's
LOAD = 60                       # seconds: the page's; the load ends with the program
GROWTH = 2                      # seconds, for the page's 5 and 10
LEAKS = ("self.seen = [{'item'", 'found = [(len(', '[Rule(item')


def page():
    return (build.ROOT / 'docs/tutorial-leak.md').read_text()


def commands():
    """The commands of the page; a line that ends with a backslash goes on in the next one."""
    blocks = re.findall(r'^```console\n(.*?)^```$', page(), re.M | re.S)
    return [command.replace('\\\n', '') for block in blocks
            for command in re.findall(r'(?m)^\$ ((?:.*\\\n)*.*)$', block)]


def leaks():
    """The lines of app.py that leak."""
    lines = (build.ROOT / 'examples/leaky_app/app.py').read_text().splitlines()
    return {next(at for at, line in enumerate(lines, 1) if word in line) for word in LEAKS}


@pytest.fixture
def session(tmp_path):
    """Runs the page: pairs of a command and what it has printed, and the folder of the program."""
    if not shutil.which('patch') or not shutil.which('bash'):
        pytest.skip('no patch, or no bash')
    programs = tmp_path / 'bin'
    programs.mkdir()
    (programs / 'obmalloc').symlink_to(build.COMMAND)
    (programs / 'python3').symlink_to(sys.executable)
    port = running.free_port()
    lines = ["set -u; trap 'kill $(jobs -p) 2> /dev/null' EXIT"]
    asked = commands()
    for number, command in enumerate(asked):
        here = command.replace(FOLDER, str(tmp_path / 'shop'))
        here = re.sub(r'\bapp\.py(?= &)', f'app.py {port}', here)
        here = re.sub(r'\bload\.py \d+', f'load.py {LOAD} {port}', here)
        here = re.sub(r'--growth \d+s', f'--growth {GROWTH}s', here)
        here = re.sub(r'\b(%s)\b' % '|'.join(PIDS), '$APP', here)
        lines += [f'echo "@ {number}"', here]
        if here.endswith(f'app.py {port} &'):
            # obmalloc becomes the program: the pid is its own.
            lines += [f'APP=$!; for _ in {{1..100}}; do (: < /dev/tcp/127.0.0.1/{port}) '
                      '2> /dev/null && break; sleep 0.1; done']
        elif here.endswith('&'):
            lines += ['sleep 5']        # 1000 visitors fill the caches
        else:
            lines += ['echo "@ status $?"']
            lines += ['wait $APP'] if here.startswith('kill') else []
    done = child.run(['bash', '-c', '\n'.join(lines)], child.clean_environment(
        PATH=f'{programs}:/usr/bin:/bin', OBMALLOC_LIBRARY=build.LIBRARY,
        PYTHONDONTWRITEBYTECODE=1), 120, build.ROOT, stderr=subprocess.STDOUT)
    parts = re.split(r'(?m)^@ (\d+)\n', done.out)[1:]
    said = [(asked[int(number)], text) for number, text in zip(parts[::2], parts[1::2])]
    assert [command for command, _ in said] == asked, done.report
    return SimpleNamespace(said=said, folder=tmp_path / 'shop')


def rows(text):
    """(bytes a minute, line of app.py or None) of the rows of a growth."""
    found = re.findall(r'(?m)^ *([+-]\d[\d.]*) ([KM]i)?B +[+-]\d.*?(?:/app\.py:(\d+) .*)?$', text)
    return [(float(number) * {'': 1, 'Ki': 1 << 10, 'Mi': 1 << 20}[unit],
             int(line) if line else None) for number, unit, line in found]


def test_commands(session):
    def printed(word):
        return [text for command, text in session.said if word in command]
    for command, text in session.said:
        if not command.endswith('&'):
            assert '@ status 0' in text, f'{command}: {text}'
    [ps] = printed('obmalloc ps')
    assert re.search(r'python3 app\.py \d+ +\d+\.\d MiB', ps), ps
    # Each leak by its line, in the first three rows.
    before, after = printed('--growth 10s')
    assert {line for _, line in rows(before)[:3]} == leaks(), before
    [types] = printed('obmalloc types')
    assert re.search(r'(?m)^Rule +\d', types), types
    for name in 'heap.html', 'growth.html':
        page = (session.folder / name).read_text()
        assert '<svg' in page and 'app.py:' in page
    # After the repair nothing is left but chance.
    grown, left = (sum(size for size, line in rows(text) if line) for text in (before, after))
    assert grown > 20 << 20, before
    assert abs(left) < grown / 5, after


def test_the_page_has_the_patch():
    [shown] = re.findall(r'^```diff\n(.*?)^```$', page(), re.M | re.S)
    assert shown == (build.ROOT / 'examples/leaky_app/fix.patch').read_text()


@pytest.mark.slow
def test_pictures(tmp_path):
    """The pictures are made by a command."""
    if not shutil.which('chromium'):
        pytest.skip('no chromium')
    child.run([sys.executable, '-B', build.ROOT / 'docs/pictures.py', '--seconds', '3', '--to',
               tmp_path], timeout=120, status=0)
    shown = re.findall(r'!\[.*\]\((\S+\.png)\)', page())
    assert {path.name for path in tmp_path.glob('*.png')} >= set(shown)
