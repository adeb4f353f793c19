"""`obmalloc ps`: the processes that publish statistics; others, and processes that end meanwhile."""
import json
import os
import re
import signal
import subprocess
import time

import pytest

from cli import command
from cli.test_stats import KEEP, started
from support import build, child, privileges

GROWS = '''
import sys, time
sys.stdout.write("ready\\n")
sys.stdout.flush()
kept = []
while True:
    kept.append([object() for n in range(5000)])
    time.sleep(0.02)
'''


def listed(*words):
    """The whole list, and {pid: its process}."""
    said = json.loads(command.run('ps', '--json', *words).out)
    return said, {each['pid']: each for each in said['processes']}


def test_processes_are_listed_with_their_memory(python):
    with started(python.path) as sleeps, started(python.path, GROWS) as grows:
        said, found = listed('--for', '500ms')
        stats = json.loads(command.run('stats', '--json', sleeps.pid).out)
        text = command.run('ps', '--for', '0.1').out
    assert (said['schema'], said['seconds']) == (1, 0.5)
    row = found[sleeps.pid]
    assert KEEP.split()[-1] in row['command'] and row['command'].startswith(str(python.path))
    assert row['live'] == pytest.approx(stats['resident']['live'], rel=0.05)
    assert row['pinned'] == pytest.approx(stats['resident']['free_in_pools'], rel=0.2, abs=65536)
    assert row['rss'] == pytest.approx(stats['process']['total'], rel=0.1)
    assert row['age_ms'] < 2000
    assert found[grows.pid]['rss_growth_per_minute'] > 1 << 20
    assert found[grows.pid]['live_growth_per_minute'] > 1 << 20
    assert abs(row['live_growth_per_minute']) < 1 << 20
    assert [each['rss'] for each in said['processes']] == sorted(
        (each['rss'] for each in said['processes']), reverse=True)
    assert text.splitlines()[0].split() == ['pid', 'command', 'RSS', 'live', 'pinned', 'growth/min']
    assert re.search(rf'(?m)^{grows.pid} .* MiB +[\d.]+ .iB +[\d.]+ .?i?B +\+[\d.]+ [MG]iB$', text)


def test_processes_without_a_page_are_named():
    with started(OBMALLOC_STATS_PAGE='0') as program:
        said, found = listed('--for', '10ms')
        text = command.run('ps', '--for', '10ms').out
    assert program.pid in said['without_page'] and program.pid not in found
    assert 'started without --stats-page' in text


def test_old_statistics_are_marked():
    with started() as program:
        program.send_signal(signal.SIGSTOP)
        time.sleep(2.5)
        _, found = listed('--for', '10ms')
        text = command.run('ps', '--for', '10ms').out
        program.send_signal(signal.SIGCONT)
    assert found[program.pid]['age_ms'] > 2000
    assert found[program.pid]['live_growth_per_minute'] is None
    assert re.search(rf'(?m)^{program.pid} .*B\* ', text) and '\n*: ' in text


def test_a_process_that_ends_meanwhile_is_left_out():
    with started() as program:
        listing = subprocess.Popen([build.COMMAND, 'ps', '--json', '--for', '2s'], text=True,
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        time.sleep(1)
        program.kill()
        program.wait()
        out, err = listing.communicate(timeout=30)
    assert (listing.returncode, err) == (0, '')
    assert program.pid not in [each['pid'] for each in json.loads(out)['processes']]


@pytest.mark.skipif(os.geteuid() != 0, reason='only root can be another user')
def test_processes_of_others_are_counted():
    with started() as program:
        done = privileges.as_nobody([privileges.copy(build.COMMAND), 'ps', '--for', '10ms'],
                                    child.clean_environment())
    assert not re.search(rf'(?m)^{program.pid} ', done.out)
    assert re.search(r'(?m)^Not shown: \d+ process(es that belong| that belongs) to others\.$',
                     done.out)


@pytest.mark.parametrize('time_', ['0', '-1s', '5x', '1e9', ''])
def test_other_times_are_refused(time_):
    done = command.run('ps', f'--for={time_}', status=2)
    assert '500ms' in done.err or 'from 1ms' in done.err
