"""The wheel: in a fresh virtual environment of each interpreter from 3.7 on it installs,
works in every way that it offers, and leaves nothing behind."""
import functools
import glob
import json
import os
import re
import shutil
import subprocess
import sys
import threading

import command
import support

ROOT = os.path.join(support.HERE, '..', '..')
_once = threading.Lock()


@functools.lru_cache(maxsize=None)
def _built():
    """The newest wheel of `make wheel`; else one of what the tree has built."""
    made = sorted(glob.glob(os.path.join(ROOT, 'target', 'wheels', '*.whl')), key=os.path.getmtime)
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
text = obmalloc.prometheus()
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
said['prometheus'] = text
said['total'] = [stats['resident'][part] for part in
                 ('total', 'live', 'in_magazines', 'free_in_pools', 'empty_pools', 'metadata')]
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
    def test_install_use_and_uninstall(self):
        folder = self.environment()
        python, program = folder + '/bin/python', folder + '/bin/obmalloc'
        with self.subTest('doctor'):
            done = support.run([program, 'doctor', '--json', python])
            self.assertRan(done)
            said = json.loads(done.out)
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
            self.metrics(said['prometheus'], said['total'])
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

    def metrics(self, text, total):
        """Each line is of the exposition's form, and the parts add up."""
        values = {}
        for line in text.splitlines():
            if not line.startswith('#'):
                found = re.fullmatch(r'(obmalloc_\w+(?:\{\w+="\w+"\})?) (\d+)', line)
                self.assertTrue(found, line)
                values[found.group(1)] = int(found.group(2))
        parts = [value for name, value in values.items() if name.startswith('obmalloc_resident_bytes')]
        self.assertEqual(len(parts), 5)
        # Another moment than the dictionary's, in a program that does nothing between.
        self.assertAlmostEqual(sum(parts), total[0], delta=total[0] / 50)


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

    def test_auditwheel_agrees(self):
        tool = shutil.which('auditwheel')
        if not tool:
            self.skipTest('no auditwheel here (it is on PyPI)')
        done = support.run([tool, 'show', wheel()], dict(os.environ))
        self.assertRan(done)
        tag = re.search(r'manylinux_\d+_\d+_x86_64', os.path.basename(wheel())).group()
        self.assertIn(tag, done.out.replace('\n', ' '), done.report)
