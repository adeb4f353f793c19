"""`obmalloc profile`: heap profiles of running processes, by the real library."""
import contextlib
import http.client
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import pytest

from cli import command
from support import build, child, status

# Keeps dicts by one line, and more of them with each line that it reads.
KEEPS = '''
import os, sys, time
kept = []
def keep(n):
    kept.extend({"n": k, "name": "x%d" % k} for k in range(n))
def still(n):
    return [[k] for k in range(n)]
before = still(20000)
keep(20000)
if len(sys.argv) > 1 and os.fork() == 0:
    keep(20000)
print("ready", flush=True)
if len(sys.argv) > 1:   # both answer requests while they allocate
    while True:
        time.sleep(0.02)
        still(5000)
for line in sys.stdin:
    keep(int(line))
    print("kept", flush=True)
'''
LINE = '<string>:5 <genexpr>'
STILL = '<string>:7 <listcomp>'


@contextlib.contextmanager
def keeping(*words, **settings):
    """A process that runs KEEPS, with each 4 KiB sampled unless settings say otherwise."""
    settings = settings or {'OBMALLOC_PROFILE': '4K'}
    process = subprocess.Popen([sys.executable, '-c', KEEPS, *words], env=child.preloaded(**settings),
                               stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                               start_new_session=True)
    try:
        for _ in range(1 + len(words)):
            assert process.stdout.readline() == 'ready\n'
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def more(process, count):
    process.stdin.write(f'{count}\n')
    process.stdin.flush()
    assert process.stdout.readline() == 'kept\n'


def rows(*words):
    said = json.loads(command.run('profile', *words, '--json').out)
    return {row['what']: row for row in said['rows']}


def test_lines_and_types_of_a_process():
    """Each line has about the bytes that it holds: 20 000 dicts with a key of their own."""
    with keeping() as process:
        found = rows(process.pid)
        assert LINE in list(found)[:2]
        held = found[LINE]['values']
        assert 5e6 < held['inuse_space'] < 10e6
        assert 50e3 < held['inuse_objects'] < 90e3
        types = rows(process.pid, '--by', 'type')
        assert 15e3 < types['dict']['values']['inuse_objects'] < 25e3
        text = command.run('profile', process.pid, '-n', '3').out
        assert text.startswith(f'process {process.pid} now: CPython ')
        assert re.search(rf'(?m)^ *[\d.]+ MiB .* {re.escape(LINE)}$', text)


def test_a_file(tmp_path):
    path = tmp_path / 'heap.pb.gz'
    with keeping() as process:
        assert command.run('profile', process.pid, '-o', path).out == ''
        more(process, 30000)
        later = tmp_path / 'later.pb.gz'
        done = command.run('profile', process.pid, '-o', later, '--top', '-n', '1')
        assert done.out.startswith(f'process {process.pid} now')
    said = json.loads(command.run('diff', path, later, '--json').out)
    assert said['rows'][0]['what'] == LINE
    change = said['rows'][0]['change']['inuse_objects']
    assert 70e3 < change < 130e3
    if shutil.which('go'):
        done = child.run(['go', 'tool', 'pprof', '-symbolize=none', '-top', path],
                         dict(child.clean_environment(), HOME=str(tmp_path)), status=0)
        assert re.search(r'Type: inuse_space', done.out) and '<genexpr>' in done.out, done.report


def test_growth_names_the_line_that_leaks(tmp_path):
    path = tmp_path / 'growth.pb.gz'
    with keeping() as process:
        words = [build.COMMAND, 'profile', str(process.pid), '--growth', '2s', '--json', '-o', path]
        looking = subprocess.Popen(words, stdout=subprocess.PIPE, env=child.clean_environment())
        time.sleep(0.7)
        more(process, 30000)
        said = json.loads(looking.communicate(timeout=60)[0])
        first = said['rows'][0]
        assert first['what'] == LINE
        assert first['mostly_type']['what'] in ('dict', 'str', 'int')
        minutes = said['minutes']
        assert 2 / 60 <= minutes < 1
        per_minute = first['per_minute']['inuse_objects']
        assert abs(per_minute * minutes - first['change']['inuse_objects']) < 2
        assert 70e3 < first['change']['inuse_objects'] < 130e3
        assert STILL not in [row['what'] for row in said['rows']]
        grown = json.loads(command.run('report', path, '--json').out)['rows'][0]
        assert (grown['what'], grown['values']) == (LINE, first['change'])
        text = command.run('profile', process.pid, '--growth', '0.1').out
        assert re.search(r'(?m)^Nothing has grown.|^ *bytes/min  objects/min', text)


def test_a_profiler_that_is_off_is_switched_on_and_off():
    with keeping(OBMALLOC_STATS_PAGE='1') as process:
        done = command.run('profile', process.pid, status=1)
        status.says(done, f'the profiler of process {process.pid} is off; '
                    f'switch it on with `obmalloc profile {process.pid} --start`')
        done = command.run('profile', process.pid, '--start=1')
        assert done.out == f'process {process.pid}: the profiler is on\n'
        more(process, 1000)
        found = rows(process.pid)
        assert 900 <= found[LINE]['values']['inuse_objects'] < 10000
        assert STILL not in found
        done = command.run('profile', process.pid, '--stop')
        assert done.out == f'process {process.pid}: the profiler is off\n'
        more(process, 20000)
        later = rows(process.pid) if found else {}
        assert later[LINE]['values']['inuse_objects'] < 10000


def test_descendants():
    """A child's own memory and its parent's, in one profile with both."""
    with keeping('fork') as process:
        alone = rows(process.pid)[LINE]['values']['inuse_objects']
        by = rows(process.pid, '--children', '--by', 'process')
        assert len(by) == 2 and f'process {process.pid}' in by
        both = rows(process.pid, '--children')[LINE]['values']['inuse_objects']
        assert both > 2.2 * alone
        [descendant] = [what.split()[1] for what in by if what != f'process {process.pid}']
        os.kill(int(descendant), signal.SIGKILL)


def test_a_process_without_a_page_among_descendants():
    """It is a line on stderr, and the others are shown."""
    code = KEEPS.replace('print("ready"', 'import subprocess; started = subprocess.Popen('
                         '["env", "-i", "sleep", "100"]); print("ready"', 1)
    process = subprocess.Popen([sys.executable, '-c', code], stdin=subprocess.PIPE,
                               env=child.preloaded(OBMALLOC_PROFILE='4K'), stdout=subprocess.PIPE,
                               text=True, start_new_session=True)
    try:
        assert process.stdout.readline() == 'ready\n'
        done = command.run('profile', process.pid, '--children')
        assert re.fullmatch(r'obmalloc: process \d+ publishes nothing; .*\n', done.err), done.report
        assert LINE in done.out
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@contextlib.contextmanager
def serving(process, *words):
    """`obmalloc profile --http` and its port."""
    server = subprocess.Popen([build.COMMAND, 'profile', str(process.pid), '--http', *words],
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                              env=child.clean_environment())
    try:
        url = server.stdout.readline()
        found = re.fullmatch(r'http://127\.0\.0\.1:(\d+)/\n', url)
        assert found, url + server.stderr.read()
        yield server, int(found.group(1))
    finally:
        server.kill()
        server.communicate()


def get(port, path='/', method='GET', **headers):
    connection = http.client.HTTPConnection('127.0.0.1', port, timeout=30)
    connection.request(method, path, headers=headers)
    answer = connection.getresponse()
    return answer, answer.read()


def width(page):
    """Bytes of the line that keeps dicts, below all of its callers."""
    found = re.findall(r'genexpr&gt; \(&lt;string&gt;:5\) \(([\d,]+) bytes', page)
    return sum(int(number.replace(',', '')) for number in found)


def test_a_page_for_browsers(tmp_path):
    with keeping() as process, serving(process) as (server, port):
        answer, page = get(port)
        assert answer.status == 200
        assert answer.headers['Content-Type'] == 'text/html; charset=utf-8'
        assert "default-src 'none'" in answer.headers['Content-Security-Policy']
        page = page.decode()
        assert f'<title>process {process.pid}</title>' in page and '&lt;genexpr&gt; (' in page
        before = width(page)
        more(process, 30000)
        page = get(port, '/?by=line&value=inuse_space&still=1')[1].decode()
        assert width(page) > 1.5 * before
        _, data = get(port, '/heap.pb.gz')
        path = tmp_path / 'heap.pb.gz'
        path.write_bytes(data)
        assert LINE in command.run('report', path).out
        assert get(port, '/other')[0].status == 404
        assert get(port, method='POST')[0].status == 405
        assert get(port, Host='evil.example')[0].status == 421
        assert get(port, Host='localhost')[0].status == 200
        process.kill()
        process.wait()
        with contextlib.suppress(http.client.HTTPException, OSError):
            get(port)
        assert server.wait(timeout=30) == 1
        assert re.fullmatch(r'obmalloc: process \d+ has ended; .*\n', server.stderr.read())


def test_an_address_that_is_taken():
    with keeping() as process, serving(process) as (_, port):
        done = command.run('profile', process.pid, '--http', f'127.0.0.1:{port}', status=1)
        status.says(done, f'cannot listen on 127.0.0.1:{port}: .*; name another address or port.*')


@pytest.mark.parametrize('words, code, expected', [
    (('4194304',), 1, 'there is no process 4194304; .*'),
    (('x.pb.gz',), 2, 'x.pb.gz is not the number of a process; .*'),
    (('1', '--http', 'nowhere.invalid:1'), 1, '.*')])
def test_processes_that_are_none(words, code, expected):
    status.says(command.run('profile', *words, status=code), expected)


def test_a_process_that_publishes_nothing():
    done = command.run('profile', os.getpid(), status=1)
    status.says(done, f'process {os.getpid()} publishes nothing; start it with OBMALLOC_.*')


@pytest.mark.parametrize('words', [('--start', '--stop'), ('--growth', '0'), ('--start=x',),
                                   ('--http', '--json'), ('--growth', '1d')])
def test_wrong_words(words):
    command.run('profile', '1', *words, status=2)
