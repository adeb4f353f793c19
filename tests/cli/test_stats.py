"""`obmalloc stats` and `obmalloc top`: a running process, files, and processes without numbers."""
import fcntl
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from contextlib import contextmanager

import pytest

from cli import command
from cli.prometheus import client, metrics
from support import build, child, privileges, status

KEEP = '''
import sys, time
kept = [[n] for n in range(200000)]
sys.stdout.write("ready\\n")
sys.stdout.flush()
sys.stdin.readline()
'''
OURS = 'live', 'in_magazines', 'free_in_pools', 'empty_pools', 'metadata'
PARTS = 'ours', 'libc_in_use', 'libc_kept', 'files', 'other'

# Two workers wait for the end of stdin; then the master sleeps.
MASTER = '''
import os, sys, time
kept = [[n] for n in range(100000)]
def worker():
    pid = os.fork()
    if pid == 0:
        mine = [[n] for n in range(100000)]
        os.read(0, 1)
        os._exit(0)
    return pid
line = "ready\\n%d %d\\n" % (worker(), worker())
os.write(1, line.encode())
time.sleep(60)
'''

root = pytest.mark.skipif(os.geteuid() != 0, reason='only root can be another user')


@contextmanager
def started(path=sys.executable, code=KEEP, user=None, **settings):
    """A preloaded program that has printed `ready`. It is killed at the end."""
    settings.setdefault('OBMALLOC_STATS_PAGE', '1')
    other = {}
    if user:
        settings['LD_PRELOAD'] = str(privileges.library_for_all())
        other = {'user': user, 'group': user, 'extra_groups': []}
    with subprocess.Popen([path, '-c', code], env=child.preloaded(**settings), text=True,
                          stdin=subprocess.PIPE, stdout=subprocess.PIPE, **other) as program:
        try:
            assert program.stdout.readline() == 'ready\n'
            yield program
        finally:
            program.kill()


def test_json_adds_up_and_is_true(python):
    with started(python.path) as program:
        said = json.loads(command.run('stats', program.pid, '--json').out)
        with open(f'/proc/{program.pid}/status') as file:
            rss = int(re.search(r'VmRSS:\s+(\d+)', file.read())[1]) * 1024
    assert (said['schema'], said['pid'], said['host']) == (1, program.pid, python.version)
    resident, parts = said['resident'], said['process']
    assert sum(resident[part] for part in OURS) == resident['total']
    assert sum(parts[part] for part in PARTS) == parts['total']
    assert parts['ours'] == resident['total']
    assert sum(each['size'] * each['blocks_live'] for each in said['classes']) == resident['live']
    assert (sum(each['resident'] for each in said['classes'])
            == sum(resident[part] for part in OURS[:3]))
    assert max(each['blocks_live'] for each in said['classes']) > 199000
    assert abs(parts['total'] - rss) < 1 << 20


def test_text():
    with started() as program:
        text = command.run('stats', program.pid).out
    for part in 'process (RSS)', 'live blocks', 'C library, kept', 'arenas: size 2.0 MiB':
        assert part in text


# ---- metrics ----

LABELLED = ['--label', 'app=a "b" \\ c']


def test_metrics():
    with started() as program:
        found = metrics(command.run('stats', program.pid, '--prometheus', *LABELLED).out)
    for name, values in found.items():
        for labels in values:
            assert labels[0] == ('app', 'a \\"b\\" \\\\ c'), name
    parts = {labels[1][1]: value for labels, value in
             found['obmalloc_process_resident_bytes'].items()}
    assert sorted(parts) == sorted(PARTS)
    ours = {labels[1][1]: value for labels, value in found['obmalloc_resident_bytes'].items()}
    assert sum(ours.values()) == parts['ours']
    assert ours['live'] == sum(
        int(labels[1][1]) * value for labels, value in found['obmalloc_class_blocks'].items()
        if labels[2][1] == 'live')


@pytest.mark.network
@pytest.mark.parametrize('labels', [[], [LABELLED[0], LABELLED[1] + '\n\u00e9']],
                         ids=['plain', 'labelled'])
def test_prometheus_reads_the_metrics(tmp_path, labels):
    """Both parsers of its client, which are stricter than ours, find the same samples."""
    with started() as program:
        text = command.run('stats', program.pid, '--prometheus', *labels).out
    (tmp_path / 'metrics').write_text(text, encoding='utf-8')
    done = client('found = list(openmetrics(text))\n'
                  'assert all(each.type in ("gauge", "counter") and each.documentation '
                  'and each.samples for each in found), found\n'
                  'assert samples(found) == samples(classic(text))\n'
                  'print(len(found), sum(len(each.samples) for each in found))',
                  tmp_path / 'metrics')
    families, samples = map(int, done.out.split())
    assert families == text.count('# TYPE')
    assert samples == sum(line[0] != '#' for line in text.splitlines())


@pytest.mark.network
def test_prometheus_reads_the_textfile(tmp_path):
    """node_exporter's format is the classic one; the types are known."""
    with started() as program:
        command.run('stats', program.pid, '--textfile', tmp_path)
    done = client('found = list(classic(text))\n'
                  'print(sorted(each.name for each in found if each.type == "counter"))\n'
                  'print([each for each in found if each.type == "unknown" or not each.samples])',
                  tmp_path / f'obmalloc-{program.pid}.prom')
    counters, others = done.out.splitlines()
    assert others == '[]'
    assert "'obmalloc_returned_bytes'" in counters


def test_textfile_is_written_whole(tmp_path):
    with started() as program:
        command.run('stats', program.pid, '--textfile', tmp_path)
        [file] = tmp_path.iterdir()
        assert file.name == f'obmalloc-{program.pid}.prom'
        found = metrics(file.read_text(), classic=True)
        assert all(('pid', str(program.pid)) in labels
                   for values in found.values() for labels in values)
        done = command.run('stats', program.pid, '--textfile', '/no such folder/x.prom', status=1)
        status.says(done, '.*')


# ---- what cannot be shown, and what is old ----

def test_json_of_a_process_that_ended(tmp_path):
    file = tmp_path / 'at-exit.json'
    with started(OBMALLOC_STATS=str(file)) as program:
        program.communicate('\n')
    said = json.loads(command.run('stats', file, '--json').out)
    written = json.loads(file.read_text())
    assert said.items() >= written.items()
    assert said['process'] is None
    metrics(command.run('stats', file, '--prometheus').out)


def one_line(done, says):
    assert done.out == ''
    status.says(done, says)


def test_files_that_are_none(tmp_path):
    for name, content, says in (
            ('cut.map', b'OBMALMAP' + b'\x01\0\0\0', '.*cut short.*'),
            ('foreign', os.urandom(20000), '.*neither a snapshot nor JSON.*'),
            ('other.json', b'{"schema": 1, "pid": 5}', '.*no number.*')):
        (tmp_path / name).write_bytes(content)
        one_line(command.run('stats', tmp_path / name, status=1), says)
    for path in '/', '/nowhere':
        one_line(command.run('stats', path, status=1), '.*cannot read.*')


def test_processes_without_a_page():
    with started(OBMALLOC_STATS_PAGE='0') as silent:
        for word, says in (('4194303', '.*there is no process.*'),
                           (silent.pid, '.*obmalloc run --stats-page.*')):
            one_line(command.run('stats', word, status=1), says)
        for word, number in ('4194303', 1), (silent.pid, 1), ('name', 2):
            one_line(command.run('top', word, '-n', '1', status=number), '.*')


@root
def test_another_users_process():
    with started() as program:
        done = privileges.as_nobody([privileges.copy(build.COMMAND), 'stats', program.pid],
                                    child.clean_environment(), status=1)
    status.says(done, '.*is not yours.*')


def test_a_stopped_process_has_old_numbers():
    with started() as program:
        time.sleep(0.5)
        program.send_signal(signal.SIGSTOP)
        time.sleep(2.5)
        done = command.run('stats', program.pid)
        program.send_signal(signal.SIGCONT)
    assert 'seconds ago' in done.out


def test_a_sleeping_master_names_its_children():
    """Its numbers are from before the fork, and one line says so."""
    with started(code=MASTER) as program:
        children = sorted(int(pid) for pid in program.stdout.readline().split())
        time.sleep(2.5)
        text, page, prometheus = (command.run('stats', program.pid, *form).out
                                  for form in ([], ['--json'], ['--prometheus']))
    assert re.search(r'(?m)^these parts are [2-9] s old: the process has not run since its fork; '
                     r'its children: %d \([\d.]+ MiB\), %d \([\d.]+ MiB\)$' % tuple(children), text)
    stale = json.loads(page)['stale']
    assert stale['reason'] == 'fork'
    assert [each['pid'] for each in stale['children']] == children
    assert min(each['rss'] for each in stale['children']) > 1 << 20
    assert metrics(prometheus)['obmalloc_page_age_seconds'][()] > 2


def test_without_the_helper_thread_numbers_are_old():
    with started(OBMALLOC_BACKGROUND_THREAD='0') as program:
        time.sleep(2.5)
        done = command.run('stats', program.pid)
    assert re.search('(?m)^as of [2-9] seconds ago: without the helper thread', done.out)


def test_a_program_that_cannot_publish():
    """The advice is not to set the variable that is set."""
    with started('/bin/sh', 'echo ready; exec sleep 60') as program:
        done = command.run('stats', program.pid, status=1)
    status.says(done, r'process \d+ publishes nothing, though .*; .*')


def test_a_process_that_has_ended():
    zombie = os.fork()
    if not zombie:
        os._exit(0)
    os.waitid(os.P_PID, zombie, os.WEXITED | os.WNOWAIT)
    done = command.run('stats', zombie, status=None)
    os.waitpid(zombie, 0)
    assert done.status == 1
    status.says(done, r'process \d+ has ended, .*; .*')


DAEMON = '''
import os, sys, time
kept = [[n] for n in range(50000)]
os.write(1, b"ready\\n")
sys.stdin.readline()
os.closerange(0, 65536)
time.sleep(60)
'''


@contextmanager
def daemon(path=sys.executable, user=None):
    """A process that has closed all descriptors, its page's too; the page is mapped still."""
    with started(path, DAEMON, user) as program:
        program.stdin.write('\n')
        program.stdin.flush()
        time.sleep(0.5)
        yield program


def has_closed(done, program):
    assert done.status == 1, done.report
    status.says(done, f'process {program.pid} has closed the descriptor of its page.*; .*')
    assert 'OBMALLOC_STATS_PAGE' not in done.err


def test_a_daemon_for_its_user():
    if os.geteuid() != 0:
        with daemon() as program:
            has_closed(command.run('stats', program.pid, status=None), program)
    else:
        with daemon('/usr/bin/python3', privileges.NOBODY) as program:
            has_closed(privileges.as_nobody([privileges.copy(build.COMMAND), 'stats', program.pid],
                                            child.clean_environment()), program)


@root
def test_a_daemon_for_root():
    """Root can open the page by the mapping, where the kernel lets it."""
    with daemon() as program:
        done = command.run('stats', program.pid, status=None)
        if 'has closed' in done.err:
            has_closed(done, program)
        else:
            assert done.status == 0 and 'live blocks' in done.out, done.report


# ---- top ----

def test_top_prints_lines():
    with started() as program:
        done = command.run('top', program.pid, '--interval', '0.1', '--count', '5')
    lines = done.out.splitlines()
    assert (len(lines), done.err) == (6, '')
    assert 'returned/s' in lines[0]


@pytest.mark.parametrize('how', [signal.SIGTERM, signal.SIGKILL])
def test_top_ends_with_the_program(how):
    with started() as program:
        top = subprocess.Popen([build.COMMAND, 'top', str(program.pid), '--interval', '0.1'],
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        top.stdout.readline()
        program.send_signal(how)
        _, said = top.communicate(timeout=20)
    assert (top.returncode, said.count('\n')) == (1, 1), said
    assert f'process {program.pid} has ended' in said


def on_a_terminal(program, act):
    """The drawn text and the exit status of a top; act(terminal) is called at its first screen."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.environ['TERM'] = 'xterm'
        fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack('4H', 40, 120, 0, 0))
        os.execv(build.COMMAND, ['obmalloc', 'top', str(program.pid), '--interval', '0.2'])
    drawn, acted, end = b'', False, time.time() + 20
    while time.time() < end:
        if select.select([terminal], [], [], 0.1)[0]:
            try:
                more = os.read(terminal, 65536)
            except OSError:
                break
            if not more:
                break
            drawn += more
        if not acted and b'classes' in drawn:    # a screen's spaces are not sent
            acted = True
            act(terminal)
    os.close(terminal)      # which ends a top that still runs
    return drawn.decode(errors='replace'), os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@pytest.mark.parametrize('keys', [b'q', b'\x03', b'sq'])
def test_keys_end_the_screen(keys):
    with started() as program:
        drawn, number = on_a_terminal(program, lambda terminal: os.write(terminal, keys))
    assert number == 0, drawn[-300:]
    assert 'live' in drawn
    assert '\x1b[?1049l' in drawn, 'the old screen is not restored'


def test_the_screen_ends_with_the_program():
    with started() as program:
        drawn, number = on_a_terminal(program, lambda _: program.kill())
    assert number == 1
    assert 'has ended' in drawn.split('\x1b[?1049l')[-1]
