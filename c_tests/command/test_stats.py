"""`obmalloc stats` and `obmalloc top`: a running process, files, and what cannot be shown."""
import fcntl
import json
import os
import pty
import re
import select
import shutil
import signal
import struct
import subprocess
import sys
import termios
import threading
import time
import unittest

import command
import support
import test_privileges as privileges

KEEP = '''
import sys, time
kept = [[n] for n in range(int(sys.argv[1]))]
sys.stdout.write("ready\\n")
sys.stdout.flush()
sys.stdin.readline()
'''
_once = threading.Lock()
OURS = 'live', 'in_magazines', 'free_in_pools', 'empty_pools', 'metadata'
PARTS = 'ours', 'libc_in_use', 'libc_kept', 'files', 'other'


def python():
    return sys.executable


# Two workers, who wait for the end of stdin; then the master sleeps.
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


def as_user(user, argv):
    """argv as another user, in no folder of anybody's."""
    if user in (os.geteuid(), 0):
        return support.run(argv)
    return privileges.as_nobody(argv, support.clean_environment())


def reachable():
    """A copy of the command where other users reach it."""
    path = os.path.join(privileges.open_folder('for-stats'), 'obmalloc')
    if not os.path.exists(path):
        shutil.copy(command.path(), path)
    return path


class Started:
    """A program to be looked at."""

    def __init__(self, path, *words, code=None, user=None, **settings):
        env = support.preloaded(**settings)
        other = {}
        if user and user != os.geteuid():
            env['LD_PRELOAD'] = privileges.library_for_all()
            other = {'user': user, 'group': user, 'extra_groups': []}
        self.process = subprocess.Popen(
            [path, '-c', code or KEEP, *(words or ['200000'])], env=env, **other,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, universal_newlines=True)
        assert self.process.stdout.readline() == 'ready\n'
        self.pid = str(self.process.pid)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.communicate()

    def end(self):
        self.process.communicate('\n')


def metrics(text, classic=False):
    """{name: {labels: value}} of a text that keeps to the grammar: each family with its HELP
    and TYPE before it and in one piece, the end at the end. OpenMetrics' families, where that
    of a counter is called as its samples without _total; or the classic ones."""
    lines = text.split('\n')
    assert lines[-2:] == ['# EOF', ''], lines[-3:]
    found, family, kind, seen = {}, None, None, set()
    for line in lines[:-2]:
        head = re.fullmatch(r'# (HELP|TYPE) ([a-z_]+) (.+)', line)
        if head and head[1] == 'HELP':
            assert kind != 'new' and head[2] not in seen, line
            family, kind = head[2], 'new'
            seen.add(family)
        elif head:
            assert (kind, family) == ('new', head[2]) and head[3] in ('gauge', 'counter'), line
            kind = head[3]
        else:
            name, labels, value = re.fullmatch(r'([a-z_]+)(?:\{(.+)\})? (\d+(?:\.\d+)?)', line).groups()
            ending = '_total' if kind == 'counter' and not classic else ''
            assert name == family + ending and name.endswith('_total') == (kind == 'counter'), line
            label = r'([a-z_]+)="((?:[^"\\\n]|\\["\\n])*)"'
            assert not labels or re.fullmatch('%s(,%s)*' % (label, label), labels), line
            pairs = tuple(re.findall(label, labels or ''))
            assert len(dict(pairs)) == len(pairs) and pairs not in found.setdefault(name, {}), line
            found[name][pairs] = float(value)
    return found


def prometheus_client(code, *arguments):
    """A Python with the package of that name from PyPI runs it; None where that cannot be
    reached."""
    place = support.scratch('prometheus')
    with _once:
        if not os.path.exists(place):
            done = support.run([python(), '-m', 'pip', 'install', '--quiet', '--no-input',
                                '--disable-pip-version-check', '--target', place + '-new',
                                'prometheus_client'], dict(os.environ), 120)
            if done.status != 0:
                raise unittest.SkipTest('prometheus_client cannot be installed: %s' % done.err[-200:])
            os.rename(place + '-new', place)
    env = support.clean_environment(PYTHONPATH=place)
    return support.run([python(), '-c', BOTH_PARSERS + code, *arguments], env)


BOTH_PARSERS = '''
import json, sys
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families as classic
def samples(families):
    return [[each.name, sorted(each.labels.items()), each.value] for family in families
            for each in family.samples]
with open(sys.argv[1], encoding="utf-8") as file:
    text = file.read()
'''


class InEachPython(support.PythonCase):

    def test_json_adds_up_and_is_true(self):
        with Started(self.python.path, OBMALLOC_LIVE='1') as program:
            done = command.run('stats', program.pid, '--json')
            self.assertRan(done)
            said = json.loads(done.out)
            self.assertEqual((said['schema'], said['pid'], said['host']),
                             (1, int(program.pid), self.python.version))
            resident, parts = said['resident'], said['process']
            self.assertEqual(sum(resident[part] for part in OURS), resident['total'])
            self.assertEqual(sum(parts[part] for part in PARTS), parts['total'])
            self.assertEqual(parts['ours'], resident['total'])
            live = sum(each['size'] * each['blocks_live'] for each in said['classes'])
            self.assertEqual(live, resident['live'])
            self.assertEqual(sum(each['resident'] for each in said['classes']),
                             sum(resident[part] for part in OURS[:3]))
            self.assertGreater(max(each['blocks_live'] for each in said['classes']), 199000)
            with open('/proc/%s/status' % program.pid) as file:
                rss = int(re.search(r'VmRSS:\s+(\d+)', file.read())[1]) * 1024
            self.assertLess(abs(parts['total'] - rss), 1 << 20)


class Stats(support.Case):

    def test_people_see_the_same(self):
        with Started(python(), OBMALLOC_LIVE='1') as program:
            done = command.run('stats', program.pid)
            self.assertRan(done)
            for text in 'process (RSS)', 'live blocks', 'C library, kept', 'arenas of 2.0 MiB':
                self.assertIn(text, done.out)

    def test_metrics(self):
        with Started(python(), OBMALLOC_LIVE='1') as program:
            done = command.run('stats', program.pid, '--prometheus', '--label', 'app=a "b" \\ c')
            self.assertRan(done)
        found = metrics(done.out)
        for name, values in found.items():
            for labels in values:
                self.assertEqual(labels[0], ('app', 'a \\"b\\" \\\\ c'), name)
        parts = {labels[1][1]: value for labels, value in
                 found['obmalloc_process_resident_bytes'].items()}
        self.assertEqual(sorted(parts), sorted(PARTS))
        self.assertEqual(sum(found['obmalloc_resident_bytes'].values()), parts['ours'])
        live = sum(int(labels[1][1]) * value for labels, value in
                   found['obmalloc_class_blocks'].items() if labels[2][1] == 'live')
        ours = {labels[1][1]: value for labels, value in found['obmalloc_resident_bytes'].items()}
        self.assertEqual(live, ours['live'])

    def test_metrics_are_read_by_prometheus_own_client(self):
        """By both of its parsers, which are stricter than ours, with the same samples."""
        file, folder = support.scratch('metrics.prom'), support.scratch('for-node-exporter')
        os.makedirs(folder, exist_ok=True)
        with Started(python(), OBMALLOC_LIVE='1') as program:
            for labels in [], ['--label', 'app=a "b" \\ c\n\u00e9']:
                text = command.run('stats', program.pid, '--prometheus', *labels).out
                with open(file, 'w', encoding='utf-8') as to:
                    to.write(text)
                done = prometheus_client(
                    'found = list(openmetrics(text))\n'
                    'assert all(each.type in ("gauge", "counter") and each.documentation '
                    'and each.samples for each in found), found\n'
                    'assert samples(found) == samples(classic(text))\n'
                    'print(len(found), sum(len(each.samples) for each in found))', file)
                self.assertRan(done)
                families, samples = map(int, done.out.split())
                self.assertEqual(families, text.count('# TYPE'))
                self.assertEqual(samples, sum(1 for line in text.splitlines() if line[0] != '#'))
            # node_exporter's is the classic one, and knows the types.
            self.assertRan(command.run('stats', program.pid, '--textfile', folder))
            done = prometheus_client(
                'found = list(classic(text))\n'
                'print(sorted(each.name for each in found if each.type == "counter"))\n'
                'print([each for each in found if each.type == "unknown" or not each.samples])',
                os.path.join(folder, 'obmalloc-%s.prom' % program.pid))
            self.assertRan(done)
            counters, others = done.out.splitlines()
            self.assertEqual(others, '[]')
            self.assertIn("'obmalloc_returned_bytes'", counters)

    def test_textfile_is_whole_or_the_old_one(self):
        folder = support.scratch('textfiles')
        os.makedirs(folder, exist_ok=True)
        with Started(python(), OBMALLOC_LIVE='1') as program:
            self.assertRan(command.run('stats', program.pid, '--textfile', folder))
            name = os.path.join(folder, 'obmalloc-%s.prom' % program.pid)
            with open(name) as file:
                found = metrics(file.read(), classic=True)
            self.assertTrue(all(('pid', program.pid) in labels for values in found.values()
                                for labels in values))
            self.assertEqual(os.listdir(folder), [os.path.basename(name)])
            done = command.run('stats', program.pid, '--textfile', '/no such folder/x.prom')
            self.assertEqual((done.status, done.err.count('\n')), (1, 1), done.report)

    def test_json_of_a_process_that_ended(self):
        file = support.scratch('at-exit.json')
        with Started(python(), OBMALLOC_STATS=file) as program:
            program.end()
        done = command.run('stats', file, '--json')
        self.assertRan(done)
        said = json.loads(done.out)
        with open(file) as before:
            before = json.load(before)
        for key, value in before.items():
            self.assertEqual(said[key], value, key)
        self.assertIsNone(said['process'])
        metrics(command.run('stats', file, '--prometheus').out)

    def test_one_clear_line(self):
        truncated, foreign, other = map(support.scratch, ('cut.map', 'foreign', 'other.json'))
        with open(truncated, 'wb') as file:
            file.write(b'OBMALMAP' + b'\x01\0\0\0')
        with open(foreign, 'wb') as file:
            file.write(os.urandom(20000))
        with open(other, 'w') as file:
            file.write('{"schema": 1, "pid": 5}')
        with Started(python()) as silent:
            for word, says in [
                    ('4194303', 'there is no process'), (silent.pid, 'obmalloc run --live'),
                    (truncated, 'cut short'), (foreign, 'neither a snapshot nor JSON'),
                    (other, 'no number'), ('/', 'cannot read'), ('/nowhere', 'cannot read')]:
                done = command.run('stats', word)
                self.assertEqual((done.status, done.out, done.err.count('\n')), (1, '', 1), done.report)
                self.assertIn(says, done.err, done.report)
            for word, status in ('4194303', 1), (silent.pid, 1), ('name', 2):
                done = command.run('top', word, '-n', '1')
                self.assertEqual((done.status, done.out, done.err.count('\n')), (status, '', 1),
                                 done.report)

    def test_another_users_process(self):
        if os.geteuid() != 0:
            self.skipTest('only root can be another user')
        with Started(python(), OBMALLOC_LIVE='1') as program:
            # Who may not enter this folder's parents cannot run the command there.
            copy = '/tmp/obmalloc-command-%d' % os.getpid()
            subprocess.run(['cp', command.path(), copy], check=True)
            try:
                done = subprocess.run([copy, 'stats', program.pid], user=65534, group=65534,
                                      extra_groups=[], capture_output=True, text=True)
            finally:
                os.unlink(copy)
            self.assertEqual((done.returncode, done.stderr.count('\n')), (1, 1), done.stderr)
            self.assertIn('is not yours', done.stderr)

    def test_a_stopped_process_is_told_by_its_age(self):
        with Started(python(), OBMALLOC_LIVE='1') as program:
            time.sleep(0.5)
            program.process.send_signal(signal.SIGSTOP)
            time.sleep(2.5)
            done = command.run('stats', program.pid)
            program.process.send_signal(signal.SIGCONT)
            self.assertRan(done)
            self.assertIn('seconds ago', done.out)

    def test_a_master_that_sleeps_names_its_children(self):
        """Its numbers are from before the fork, and it says so in one line."""
        with Started(python(), OBMALLOC_LIVE='1', code=MASTER) as program:
            children = [int(pid) for pid in program.process.stdout.readline().split()]
            time.sleep(2.5)
            done = command.run('stats', program.pid)
            self.assertRan(done)
            self.assertRegex(done.out, r'(?m)^these parts are [2-9] s old: the process has not run '
                             r'since its fork; its children: %d \([\d.]+ MiB\), %d \([\d.]+ MiB\)$'
                             % tuple(sorted(children)))
            done = command.run('stats', program.pid, '--json')
            self.assertRan(done)
            stale = json.loads(done.out)['stale']
            self.assertEqual(stale['reason'], 'fork')
            self.assertEqual([each['pid'] for each in stale['children']], sorted(children))
            for each in stale['children']:
                self.assertGreater(each['rss'], 1 << 20)
            done = command.run('stats', program.pid, '--prometheus')
            self.assertGreater(metrics(done.out)['obmalloc_page_age_seconds'][()], 2)

    def test_without_the_thread_it_is_another_reason(self):
        with Started(python(), OBMALLOC_LIVE='1', OBMALLOC_THREAD='0') as program:
            time.sleep(2.5)
            done = command.run('stats', program.pid)
            self.assertRan(done)
            self.assertRegex(done.out, '(?m)^as of [2-9] seconds ago: without the helper thread')

    def test_what_cannot_publish(self):
        """It is not advised what was done already."""
        with Started('/bin/sh', OBMALLOC_LIVE='1', code='echo ready; exec sleep 60') as program:
            done = command.run('stats', program.pid)
            self.assertRan(done, 1)
            self.assertRegex(done.err, r'\Aobmalloc: process \d+ publishes nothing, though .*; .*\n\Z')
        child = os.fork()
        if not child:
            os._exit(0)
        os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
        done = command.run('stats', str(child))
        os.waitpid(child, 0)
        self.assertRan(done, 1)
        self.assertRegex(done.err, r'\Aobmalloc: process \d+ has ended, .*; .*\n\Z')

    def test_a_daemon_that_has_closed_everything(self):
        """Not that it publishes nothing: its page is mapped still, and root can open it."""
        code = ('import os, sys, time\n'
                'kept = [[n] for n in range(50000)]\n'
                'os.write(1, b"ready\\n")\n'
                'sys.stdin.readline()\n'
                'os.closerange(0, 65536)\n'
                'time.sleep(60)\n')
        says = 'closed the descriptor of its page'
        for says, user in [(says, 65534), (None, 0)] if os.geteuid() == 0 else [(says, os.geteuid())]:
            with self.subTest(user=user):
                with Started('/usr/bin/python3' if user == 65534 else python(), OBMALLOC_LIVE='1',
                             code=code, user=user) as program:
                    program.process.stdin.write('\n')
                    program.process.stdin.flush()
                    time.sleep(0.5)
                    done = as_user(user, [reachable(), 'stats', program.pid])
                    if says or 'has closed' in done.err:
                        self.assertRan(done, 1)
                        self.assertRegex(done.err, r'\Aobmalloc: process %s has closed the descriptor '
                                         r'of its page.*; .*\n\Z' % program.pid)
                        self.assertNotIn('OBMALLOC_LIVE', done.err)
                    else:
                        self.assertRan(done)
                        self.assertIn('live blocks', done.out)


class Top(support.Case):

    def test_lines(self):
        with Started(python(), OBMALLOC_LIVE='1') as program:
            done = command.run('top', program.pid, '--interval', '0.1', '--count', '5')
            self.assertRan(done)
            lines = done.out.splitlines()
            self.assertEqual((len(lines), done.err), (6, ''), done.report)
            self.assertIn('returned/s', lines[0])

    def test_a_program_that_ends_while_it_is_watched(self):
        for how in signal.SIGTERM, signal.SIGKILL:
            with Started(python(), OBMALLOC_LIVE='1') as program:
                top = subprocess.Popen([command.path(), 'top', program.pid, '--interval', '0.1'],
                                       stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
                top.stdout.readline()
                program.process.send_signal(how)
                _, said = top.communicate(timeout=20)
                self.assertEqual((top.returncode, said.count('\n')), (1, 1), said)
                self.assertIn('process %s has ended' % program.pid, said)

    def on_a_terminal(self, program, keys):
        """What is drawn, and the status, of a top that gets these keys."""
        pid, terminal = pty.fork()
        if pid == 0:
            os.environ['TERM'] = 'xterm'
            fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack('4H', 40, 120, 0, 0))
            os.execv(command.path(), ['obmalloc', 'top', program.pid, '--interval', '0.2'])
        drawn, sent, end = b'', False, time.time() + 20
        while time.time() < end:
            if select.select([terminal], [], [], 0.1)[0]:
                try:
                    more = os.read(terminal, 65536)
                except OSError:
                    break
                if not more:
                    break
                drawn += more
            if not sent and b'classes' in drawn:    # a screen's spaces are not sent
                sent = True
                keys(terminal)
        os.close(terminal)      # if it still runs, it ends by that
        _, status = os.waitpid(pid, 0)
        return drawn.decode(errors='replace'), os.waitstatus_to_exitcode(status)

    def test_screen(self):
        with Started(python(), OBMALLOC_LIVE='1') as program:
            for key in b'q', b'\x03', b'sq':
                drawn, status = self.on_a_terminal(program, lambda terminal: os.write(terminal, key))
                self.assertEqual(status, 0, drawn[-300:])
                self.assertIn('live', drawn)
                self.assertIn('\x1b[?1049l', drawn, 'the old screen is back')
            drawn, status = self.on_a_terminal(program, lambda _: program.process.kill())
            self.assertEqual(status, 1)
            self.assertIn('has ended', drawn.split('\x1b[?1049l')[-1])
