"""The wheel: in a fresh virtual environment of each interpreter from 3.7 on it installs,
works in every way that it offers, and leaves nothing behind."""
import email
import functools
import glob
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
import zipfile

import command
import support
import test_stats

ROOT = os.path.join(support.HERE, '..', '..')
_once = threading.Lock()


@functools.lru_cache(maxsize=None)
def _built():
    """The newest wheel of `make wheel`; else one of what the tree has built."""
    made = sorted(glob.glob(os.path.join(support.TARGET, 'wheels', '*.whl')), key=os.path.getmtime)
    built = [command.path(), support.LIBRARY]
    if made and os.path.getmtime(made[-1]) > max(map(os.path.getmtime, built)):
        return made[-1]
    done = support.run([sys.executable, '-B', os.path.join(ROOT, 'python', 'build_wheel.py'),
                        '--from', os.path.dirname(support.LIBRARY), '--to', support.scratch('wheels')])
    if done.status != 0:
        raise AssertionError(done.report)
    return done.out.splitlines()[-1]


def wheel():
    with _once:
        return _built()


CALLS = '''
import gc, json, obmalloc, sys
said = {'before': obmalloc.is_active()}
obmalloc.install()
obmalloc.install()
said['after'] = obmalloc.is_active()
said['version'] = obmalloc.version()
kept = [(n, str(n)) for n in range(100000)]
stats = obmalloc.stats()
said['live'] = stats['bytes']['live']
del kept
said['trimmed'] = obmalloc.trim()
obmalloc.on_gc(keep=0)
obmalloc.on_gc(keep=0)
said['hooks'] = len(gc.callbacks)
kept = [(n, str(n)) for n in range(100000)]
del kept
before = obmalloc.stats()['resident']['returned_total']
gc.collect()
said['returned'] = obmalloc.stats()['resident']['returned_total'] - before
obmalloc.on_gc(False)
said['hooks after'] = len(gc.callbacks)
said['before_fork'] = obmalloc.before_fork() >= 0
try:
    obmalloc.trim(-1)
except ValueError:
    said['negative'] = 'refused'
said['total'] = [stats['resident'][part] for part in
                 ('total', 'live', 'in_magazines', 'free_in_pools', 'empty_pools', 'metadata')]
print(json.dumps(said))
'''

# One object of a hundred stays, and with each a page.
SNAPSHOT = '''
import json, obmalloc
class Survivor:
    __slots__ = ("a", "b")
    def __init__(self): self.a = self.b = None
made = [Survivor() for _ in range(200000)]
kept = made[::100]
del made
said = {"known": obmalloc.snapshot("typed.map"), "plain": obmalloc.snapshot("plain.map", types=False)}
try:
    obmalloc.snapshot("/no such folder/heap.map")
except OSError as error:
    said["refused"] = error.errno
print(json.dumps(said))
'''

# The first text is for what a first call makes and keeps.
METRICS = '''
import obmalloc, sys
kept = [(n, str(n)) for n in range(100000)]
obmalloc.prometheus()
with open(sys.argv[1], "w") as file:
    file.write(obmalloc.prometheus())
sys.stdout.write("ready\\n")
sys.stdout.flush()
sys.stdin.readline()
'''

ON_GC = '''
import gc, json, obmalloc
gc.disable()
said = {}
def returned(collect):
    before = obmalloc.stats()["resident"]["returned_total"]
    collect()
    return obmalloc.stats()["resident"]["returned_total"] - before
def peak():
    kept = [(n, str(n)) for n in range(150000)]
peak()
said["without"] = returned(gc.collect)
obmalloc.on_gc(keep=8 << 20)
said["young"] = returned(lambda: gc.collect(0))
said["kept 8 MiB"] = returned(gc.collect)
obmalloc.on_gc(keep=0)
said["the rest"] = returned(gc.collect)
peak()
obmalloc.on_gc(keep=0, generation=0)
said["each"] = returned(lambda: gc.collect(0))
def cycles():
    gc.enable()
    for n in range(200):
        peak = [[] for _ in range(1000)]
        for each in peak:
            each.append(each)
    gc.disable()
said["by itself"] = returned(cycles)
obmalloc.on_gc(False)
peak()
said["ended"] = returned(gc.collect)
print(json.dumps(said))
'''


class InEachPython(support.PythonCase):

    def environment(self):
        """A fresh virtual environment with the wheel; its folder."""
        folder = support.scratch('venv-' + self.python.label.replace(' ', '-'))
        if os.path.exists(folder):
            return folder
        made = support.run([self.python.path, '-m', 'venv', folder], timeout=300)
        if made.status != 0:
            shutil.rmtree(folder, ignore_errors=True)
            self.skipTest('no virtual environments here: ' + made.err.strip()[-200:])
        self.before = self.files(folder)
        self.assertRan(self.pip(folder, 'install', '--no-index', wheel()))
        return folder

    def pip(self, folder, *words):
        return support.run([folder + '/bin/python', '-m', 'pip', '--disable-pip-version-check',
                            '-q', *words], timeout=300)

    def files(self, folder):
        return sorted(os.path.relpath(os.path.join(place, name), folder)
                      for place, _, names in os.walk(folder) for name in names
                      if not name.endswith('.pyc'))

    @support.since(3, 7)
    @support.takes_long
    def test_install_use_and_uninstall(self):
        folder = self.environment()
        python, program = folder + '/bin/python', folder + '/bin/obmalloc'
        with self.subTest('doctor'):
            done = support.run([program, 'doctor', '--json'])
            self.assertRan(done)
            said = json.loads(done.out)
            self.assertEqual(said['interpreter']['path'], python)
            self.assertTrue(said['active'])
            self.assertIn('/site-packages/obmalloc/libobmalloc.so', said['library']['path'])
            done = support.run([python, '-m', 'obmalloc', 'doctor', '--json'])
            self.assertRan(done)
            self.assertEqual(json.loads(done.out)['interpreter']['path'], python)
        with self.subTest('run'):
            script = support.scratch('app.py')
            with open(script, 'w') as file:
                file.write('import obmalloc, sys; print(obmalloc.is_active(), sys.argv[1:])\n'
                           'sys.exit(7)\n')
            for words in ([program, 'run', '-v', '--pythons-only', '--', python, script, '-x'],
                          [python, '-m', 'obmalloc', 'run', '-v', script, '-x'],
                          [python, '-m', 'obmalloc', 'run', '-v', '--decay', '50', '--', script, '-x']):
                done = support.run(words)
                self.assertRan(done, 7)
                self.assertEqual(done.out, "True ['-x']\n")
                self.assertUs(done)
                self.assertNotIn('not understood', done.err)
            for words in [program], [python, '-m', 'obmalloc']:
                done = support.run(words + ['path'])
                self.assertRan(done)
                self.assertRegex(done.out, r'/site-packages/obmalloc/libobmalloc\.so\n\Z')
                library = done.out.strip()
                done = support.run([python, script], support.clean_environment(
                    LD_PRELOAD=library, OBMALLOC_VERBOSE='1'))
                self.assertRan(done, 7)
                self.assertUs(done)
                for command_of in [script], ['--', python, script], [python, script]:
                    done = support.run(words + ['run', '-v'] + command_of, support.clean_environment(
                        PATH='%s/bin:%s' % (folder, os.environ['PATH'])))
                    self.assertRan(done, 7)
                    self.assertEqual(done.out, "True []\n")
            done = support.run([python, '-m', 'obmalloc', 'run', '-v', '-c', 'print(1)'])
            self.assertEqual((done.status, done.out), (0, '1\n'), done.report)
            done = support.run([python, '-m', 'obmalloc', 'run'])
            self.assertRan(done, 1)
            self.assertRegex(done.err, '^obmalloc: no program to run; name it')
        with self.subTest('calls'):
            done = support.run([python, '-c', CALLS])
            self.assertRan(done)
            said = support.said(done)
            self.assertEqual((said['before'], said['after']), (False, True))
            self.assertGreater(said['live'], 100000 * 56)
            self.assertGreater(said['trimmed'], 1 << 20)
            self.assertGreater(said['returned'], 1 << 20)
            self.assertEqual((said['hooks'], said['hooks after']), (1, 0))
            self.assertEqual(said['negative'], 'refused')
            self.assertEqual(said['total'][0], sum(said['total'][1:]))
        with self.subTest('snapshot'):
            self.snapshot(python, program)
        with self.subTest('metrics'):
            self.metrics(python, program)
        with self.subTest('on_gc'):
            self.on_gc(python, program)
        with self.subTest('refused'):
            done = support.run([python, '-c', 'import obmalloc\n'
                                'try: obmalloc.install()\n'
                                'except obmalloc.InstallError as error: print(error.code, error)\n'
                                'print(obmalloc.is_active())'],
                               support.clean_environment(PYTHONMALLOC='malloc'))
            self.assertRan(done)
            self.assertRegex(done.out, r'^4 obmalloc: PYTHONMALLOC .*\nFalse\n$')
        self.assertRan(self.pip(folder, 'uninstall', '-y', 'obmalloc'))
        left = set(self.files(folder)) - set(self.before)
        self.assertEqual(left, set())
        self.assertRan(support.run([python, '-c', 'import obmalloc']), 1)

    def snapshot(self, python, program):
        """pins names the types of objects that lie alone; without types it says so."""
        folder = support.scratch('snapshots-' + self.python.label.replace(' ', '-'))
        os.makedirs(folder, exist_ok=True)
        done = support.run([program, 'run', '--', python, '-c', SNAPSHOT], cwd=folder)
        self.assertRan(done)
        said = support.said(done)
        self.assertGreater(said['known'], 4 * 2000)
        self.assertEqual((said['plain'], said['refused']), (0, 2))
        done = support.run([program, 'pins', '--json', os.path.join(folder, 'typed.map')])
        self.assertRan(done)
        pinned = json.loads(done.out)
        self.assertEqual(pinned['objects']['blocks_known'], said['known'])
        survivors = {each['type']: each['survivors'] for each in pinned['objects']['types']}
        self.assertGreater(survivors['__main__.Survivor'], 500, survivors)
        done = support.run([program, 'pins', os.path.join(folder, 'typed.map')])
        self.assertRan(done)
        self.assertRegex(done.out, r'(?m)^__main__\.Survivor +\d')
        done = support.run([program, 'pins', os.path.join(folder, 'plain.map')])
        self.assertRan(done)
        self.assertNotIn('Survivor', done.out)

    def metrics(self, python, program):
        """The same names, texts and labels as the command's of the same process, and the
        same numbers, but for what making the first text takes."""
        file = support.scratch('python-%s.prom' % self.python.label.replace(' ', '-'))
        started = subprocess.Popen([program, 'run', '--live', '--decay', '-1', '--',
                                    python, '-c', METRICS, file], stdin=subprocess.PIPE,
                                   stdout=subprocess.PIPE, env=support.clean_environment())
        try:
            self.assertEqual(started.stdout.readline(), b'ready\n')
            with open(file) as opened:
                text = opened.read()
            ours = test_stats.metrics(text)
            # The page's numbers of the C library may be of some seconds ago.
            for _ in range(10):
                done = support.run([program, 'stats', str(started.pid), '--prometheus'])
                self.assertRan(done)
                commands = test_stats.metrics(done.out)
                differ = self.differing(ours, commands)
                if not differ:
                    break
                time.sleep(0.5)
        finally:
            started.communicate()
        self.assertEqual(started.returncode, 0)
        self.assertEqual(differ, [])
        self.assertEqual(re.findall('# .*', text), re.findall('# .*', done.out))
        total = sum(ours['obmalloc_resident_bytes'].values())
        self.assertGreater(total, 100000 * 56)
        process = sum(ours['obmalloc_process_resident_bytes'].values())
        self.assertEqual(total, ours['obmalloc_process_resident_bytes'][('part', 'ours'),])
        live = sum(int(labels[0][1]) * value for labels, value in
                   ours['obmalloc_class_blocks'].items() if labels[1][1] == 'live')
        self.assertEqual(live, ours['obmalloc_resident_bytes'][('part', 'live'),])
        self.assertGreater(process, total)

    def differing(self, ours, commands):
        """What of two sets of metrics is not the same, or not nearly where it moves."""
        found = []
        for name in set(ours) | set(commands):
            one, other = ours.get(name, {}), commands.get(name, {})
            per_class = name.startswith('obmalloc_class_')
            slack = 1 << 19 if 'bytes' in name else 8000 if per_class else 400
            for labels in set(one) | set(other):
                # A size may have got its first block since.
                if labels not in other or labels not in one and not per_class:
                    found.append((name, labels, 'is only in one'))
                elif name != 'obmalloc_page_age_seconds':
                    if abs(one.get(labels, 0) - other[labels]) > slack:
                        found.append((name, labels, one.get(labels), other[labels]))
        return found

    def on_gc(self, python, program):
        """With nobody else who returns pages, they go when a collection ends."""
        done = support.run([program, 'run', '--no-thread', '--decay', '-1', '--', python, '-c',
                            ON_GC])
        self.assertRan(done)
        said = support.said(done)
        mib = 1 << 20
        # An arena that is empty may go at any time.
        for nothing in 'without', 'young', 'ended':
            self.assertLessEqual(said[nothing], 4 * mib, nothing)
        self.assertGreater(said['kept 8 MiB'], 2 * mib)
        self.assertGreater(said['the rest'], 6 * mib)
        self.assertGreater(said['each'], 8 * mib)
        self.assertGreater(said['by itself'], 6 * mib)


class Contents(support.Case):

    def test_names_and_tag(self):
        """The tag's glibc is that of the newest symbol that must be there, read here again
        by another tool than the build's."""
        name = os.path.basename(wheel())
        found = re.fullmatch(r'obmalloc-[\d.]+-py3-none-manylinux_(\d+)_(\d+)_x86_64\.whl', name)
        self.assertTrue(found, name)
        folder = support.scratch('unpacked')
        subprocess.run([sys.executable, '-m', 'zipfile', '-e', wheel(), folder], check=True)
        newest = (2, 17)
        for path in ([folder + '/obmalloc/libobmalloc.so', folder + '/obmalloc/libobmalloc_pythons.so']
                     + glob.glob(folder + '/*.data/scripts/obmalloc')):
            out = subprocess.check_output(['objdump', '-T', path]).decode()
            # A weak symbol that is missing is no fault: its flag is `w`.
            for line in out.splitlines():
                version = re.search(r'GLIBC_(\d+)\.(\d+)', line)
                if version and '*UND*' in line and ' w ' not in line[17:27]:
                    newest = max(newest, tuple(map(int, version.groups())))
        self.assertEqual(tuple(map(int, found.groups())), newest)

    def test_licences(self):
        """The metadata names the licence and its files (PEP 639), and the wheel has them as
        the tree has them."""
        with zipfile.ZipFile(wheel()) as opened:
            [name] = [name for name in opened.namelist() if name.endswith('.dist-info/METADATA')]
            folder = os.path.dirname(name)
            fields = email.message_from_bytes(opened.read(name))
            self.assertEqual(fields['Metadata-Version'], '2.4')
            self.assertEqual(fields['License-Expression'], 'MIT OR Apache-2.0')
            self.assertIsNone(fields['License'])
            files = fields.get_all('License-File')
            self.assertEqual(sorted(files), ['LICENSE-APACHE', 'LICENSE-MIT', 'THIRD-PARTY.txt'])
            others = opened.read(folder + '/licenses/THIRD-PARTY.txt').decode()
            for crate in 'libc', 'clap', 'ratatui', 'serde_json':
                self.assertRegex(others, r'(?m)^%s \d+\.\d.*MIT' % crate)
            self.assertGreater(others.count('Permission is hereby granted'), 40)
            for file in files[:2]:
                with open(os.path.join(ROOT, file), 'rb') as ours:
                    self.assertEqual(opened.read('%s/licenses/%s' % (folder, file)), ours.read())

    def test_auditwheel_agrees(self):
        tool = shutil.which('auditwheel')
        if not tool:
            self.skipTest('no auditwheel here (it is on PyPI)')
        done = support.run([tool, 'show', wheel()], dict(os.environ))
        self.assertRan(done)
        tag = re.search(r'manylinux_\d+_\d+_x86_64', os.path.basename(wheel())).group()
        self.assertIn(tag, done.out.replace('\n', ' '), done.report)
