"""`obmalloc bench`: both sides run the command, in pairs, and the numbers are theirs."""
import json
import os
import pty
import re
import statistics
import subprocess
import sys

import pytest

from cli import command
from support import build, child, status

PEAKS = '''
for turn in range(6):
    kept = [(n,) for n in range(100000)]
    del kept
'''


def bench(*words, number=0, env=None):
    return command.run('bench', *words, env=env, timeout=200, status=number)


def quantities(*words):
    return json.loads(bench('--json', *words).out)['quantities']


def test_numbers():
    """Medians and ratios follow from the single runs; a program that faults its arenas in again
    and again has fewer faults with the library."""
    done = bench('-n', '3', '--json', '--', sys.executable, '-c', PEAKS)
    said = json.loads(done.out)
    assert (said['rounds'], said['command'][-1]) == (3, PEAKS)
    assert set(said['quantities']) == {'time', 'cpu', 'peak_rss', 'rss_time', 'page_faults'}
    for name, each in said['quantities'].items():
        sides = each['without'], each['with']
        assert [len(side) for side in sides] == [3, 3], name
        assert each['medians'] == pytest.approx([statistics.median(side) for side in sides]), name
        ratios = [ours / stock for stock, ours in zip(*sides)]
        assert each['ratio'] == pytest.approx(statistics.median(ratios)), name
        assert each['spread'] == pytest.approx([min(ratios), max(ratios)]), name
        assert each['outcome'] == ('less' if max(ratios) < 1 else 'more' if min(ratios) > 1
                                   else 'no difference beyond the spread'), name
    assert said['quantities']['page_faults']['outcome'] == 'less'


def test_memory_over_time():
    """200 MiB for 0.6 s: the integral is at most time by peak, and well above half of it."""
    code = 'import time; block = bytearray(200 << 20); time.sleep(0.6)'
    said = quantities('-n', '1', '--warm-up', '0', '--', sys.executable, '-c', code)
    for side in 'without', 'with':
        time, peak, area = (said[name][side][0] for name in ('time', 'peak_rss', 'rss_time'))
        assert 200 < peak < 240
        assert 0.55 * 200 < area <= time * peak
    assert said['time']['outcome'] == 'one pair: spread unknown'


def test_children_count():
    code = ('import subprocess, sys; subprocess.check_call([sys.executable, "-c", '
            '"import time; block = bytearray(200 << 20); time.sleep(0.5)"])')
    said = quantities('-n', '1', '--warm-up', '0', '--', sys.executable, '-c', code)
    assert said['rss_time']['without'][0] > 0.4 * 200
    assert said['peak_rss']['without'][0] > 200


def test_pairs_are_interleaved(tmp_path):
    """And one side only has the library."""
    code = ('import os; us = any("libobmalloc" in line for line in open("/proc/self/maps")); '
            f'open({str(tmp_path / "log")!r}, "a").write('
            '"%d %s\\n" % (us, os.environ.get("OBMALLOC_DECAY_MS")))')
    bench('-n', '3', '--warm-up', '2', '--decay', '5', '--', sys.executable, '-c', code,
          env=child.preloaded())
    stock, ours = '0 None', '1 5'
    assert (tmp_path / 'log').read_text().splitlines() == (
        [stock] * 2 + [stock, ours, ours, stock, stock, ours])


def test_text():
    done = bench('-n', '2', '--', sys.executable, '-c', 'pass')
    lines = done.out.splitlines()
    assert len(lines) == 7
    for line, name in zip(lines[1:], ('time, s', 'CPU, s', 'peak RSS, MiB', 'RSS x time, MiB s',
                                      'page faults')):
        assert re.match(f'{name} ' r'+[\d.]+ +[\d.]+ +[\d.]+   [\d.]+ to [\d.]+  '
                        '(less|more|no difference beyond the spread)$', line)
    assert lines[-1] == f'2 pairs of: {sys.executable} -c pass'
    assert done.err == '', 'progress, though there is no terminal'


def test_progress_on_a_terminal():
    """The line is cleared at the end."""
    reader, terminal = pty.openpty()
    running = subprocess.Popen([build.COMMAND, 'bench', '-n', '1', '--', sys.executable, '-c',
                                'import time; time.sleep(0.7)'], stderr=terminal,
                               stdout=subprocess.PIPE, env=child.clean_environment())
    os.close(terminal)
    shown = b''
    try:
        while True:
            shown += os.read(reader, 4096)
    except OSError:             # the terminal's other end is closed
        os.close(reader)
    assert b'one pair' in running.communicate(timeout=60)[0]
    assert running.returncode == 0
    for text in b'warm-up 1', b'pair 1 of 1, without the library', b'with the library: 0.':
        assert text in shown
    assert shown.endswith(b'\r\x1b[K')


def test_a_command_that_fails():
    done = bench('--', sys.executable, '-c',
                 'import sys; print("why", file=sys.stderr); sys.exit(5)', number=1)
    status.says(done, r'the command failed \(warm-up 1\): it ended with status 5, its last line: '
                      r'why; make it succeed first.*')
    assert done.out == ''
    done = bench('-n', '1', '--', sys.executable, '-c', 'import os; os.kill(os.getpid(), 9)', number=1)
    assert 'signal 9 ended it' in done.err


def test_a_command_that_fails_with_the_library():
    code = ('import os, sys; '
            'sys.exit(any("libobmalloc" in line for line in open("/proc/self/maps")))')
    done = bench('-n', '1', '--', sys.executable, '-c', code, number=1)
    assert re.match(r'obmalloc: the command failed \(pair 1 of 1, with the library\)'
                    r'.*obmalloc run --verbose', done.err), done.report


def test_a_side_without_the_library_is_no_comparison():
    done = bench('--', sys.executable, '-c', 'pass', number=1,
                 env=child.clean_environment(PYTHONMALLOC='malloc'))
    assert re.match(r'obmalloc: no process .* active in it; ask `obmalloc doctor`', done.err)
    assert 'obmalloc doctor' in bench('--', 'true', number=1).err


@pytest.mark.parametrize('words, number, says', [
    ((), 2, 'no command to measure; write it behind'),
    (('--', 'obmalloc-no-such-program'), 127, 'cannot start'), (('-n', '0', 'true'), 2, '')])
def test_wrong_use(words, number, says):
    assert says in bench(*words, number=number).err


def test_without_a_library(tmp_path):
    """Nothing is left to measure, so it fails."""
    done = child.run([command.layout(tmp_path, library=None), 'bench', '--', 'true'], status=1)
    assert re.match('obmalloc: no libobmalloc.so near', done.err)
