"""The Python package: a wheel installs it into a virtual environment of each interpreter, it
works in every way that it offers, and is removed without a trace."""
import json
import os
import re
import shutil
import subprocess
import time
from types import SimpleNamespace

import pytest

from cli.prometheus import metrics
from support import build, child, status

pytestmark = [pytest.mark.since(3, 7), pytest.mark.one_python]
MIB = 1 << 20

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

# Every hundredth object stays, and keeps a page.
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

# The first call allocates what it keeps.
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


# ---- environments ----

def create(python, folder):
    """A virtual environment: a copy of one that stays in target/tools, which costs no ensurepip."""
    bare = build.virtual(f'bare-{python.name}', python=python.path).parent
    shutil.copytree(bare, folder, symlinks=True, dirs_exist_ok=True)
    return SimpleNamespace(folder=folder, python=folder / 'bin/python',
                           obmalloc=folder / 'bin/obmalloc')


def pip(venv, *words):
    child.run([venv.python, '-m', 'pip', '--disable-pip-version-check', '-q', *words],
              timeout=300, status=0)


@pytest.fixture(scope='session')
def venvs():
    return {}


@pytest.fixture
def venv(python, venvs, tmp_path_factory):
    """An environment of this interpreter with the wheel, for all tests of this worker."""
    if python.name not in venvs:
        made = create(python, tmp_path_factory.mktemp('venv'))
        pip(made, 'install', '--no-index', build.wheel())
        venvs[python.name] = made
    return venvs[python.name]


def program_files(folder):
    return {name for name in build.files(folder) if not name.endswith('.pyc')}


def test_uninstall_leaves_nothing(python, tmp_path):
    venv = create(python, tmp_path)
    before = program_files(tmp_path)
    pip(venv, 'install', '--no-index', build.wheel())
    child.run([venv.python, '-c', 'import obmalloc; obmalloc.is_active()'], status=0)
    pip(venv, 'uninstall', '-y', 'obmalloc')
    assert program_files(tmp_path) - before == set()
    child.run([venv.python, '-c', 'import obmalloc'], status=1)


# ---- the command, by its console script and by `python -m obmalloc` ----

def test_doctor(python, venv):
    said = json.loads(child.run([venv.obmalloc, 'doctor', '--json'], status=0).out)
    assert said['interpreter']['path'] == str(venv.python)
    assert said['active']
    assert '/site-packages/obmalloc/libobmalloc.so' in said['library']['path']
    said = json.loads(child.run([venv.python, '-m', 'obmalloc', 'doctor', '--json'], status=0).out)
    assert said['interpreter']['path'] == str(venv.python)


@pytest.fixture
def script(tmp_path):
    path = tmp_path / 'app.py'
    path.write_text('import obmalloc, sys\n'
                    'print(obmalloc.is_active(), sys.argv[1:])\n'
                    'sys.exit(7)\n')
    return path


def test_run(python, venv, script):
    module = [venv.python, '-m', 'obmalloc']
    for words in ([venv.obmalloc, 'run', '-v', '--pythons-only', '--', venv.python, script, '-x'],
                  [*module, 'run', '-v', script, '-x'],
                  [*module, 'run', '-v', '--decay', '50', '--', script, '-x']):
        done = child.run(words, status=7)
        assert done.out == "True ['-x']\n"
        status.active(done, python)
        assert 'not understood' not in done.err
    on_path = child.clean_environment(PATH=f'{venv.folder}/bin:{os.environ["PATH"]}')
    for way in [venv.obmalloc], module:
        for words in [script], ['--', venv.python, script], [venv.python, script]:
            assert child.run([*way, 'run', '-v', *words], on_path, status=7).out == 'True []\n'
    assert child.run([*module, 'run', '-v', '-c', 'print(1)'], status=0).out == '1\n'
    status.says(child.run([*module, 'run'], status=1), 'no program to run; name it.*')


def test_path(python, venv, script):
    for way in [venv.obmalloc], [venv.python, '-m', 'obmalloc']:
        library = child.run([*way, 'path'], status=0).out.strip()
        assert library.endswith('/site-packages/obmalloc/libobmalloc.so')
        done = child.run([venv.python, script], child.clean_environment(
            LD_PRELOAD=library, OBMALLOC_VERBOSE='1'), status=7)
        status.active(done, python)


# ---- calls ----

def test_calls(venv):
    said = child.run([venv.python, '-c', CALLS], status=0).said
    assert (said['before'], said['after']) == (False, True)
    assert said['version'] == build.version()
    assert said['live'] > 100000 * 56
    assert said['trimmed'] > MIB
    assert said['returned'] > MIB
    assert (said['hooks'], said['hooks after']) == (1, 0)
    assert said['before_fork']
    assert said['negative'] == 'refused'
    assert said['total'][0] == sum(said['total'][1:])


def test_install_is_refused(venv):
    code = ('import obmalloc\n'
            'try: obmalloc.install()\n'
            'except obmalloc.InstallError as error: print(error.code, error)\n'
            'print(obmalloc.is_active())')
    done = child.run([venv.python, '-c', code], child.clean_environment(PYTHONMALLOC='malloc'),
                     status=0)
    assert re.match(r'4 obmalloc: PYTHONMALLOC .*\nFalse\n$', done.out), done.report


def test_snapshot(venv, tmp_path):
    """pins names the types of isolated objects; a snapshot without types has none."""
    def pins(*words):
        return child.run([venv.obmalloc, 'pins', *words], status=0).out
    said = child.run([venv.obmalloc, 'run', '--', venv.python, '-c', SNAPSHOT], cwd=tmp_path,
                     status=0).said
    assert said['known'] > 4 * 2000
    assert (said['plain'], said['refused']) == (0, 2)
    objects = json.loads(pins('--json', tmp_path / 'typed.map'))['objects']
    assert objects['blocks_known'] == said['known']
    survivors = {each['type']: each['survivors'] for each in objects['types']}
    assert survivors['__main__.Survivor'] > 500
    assert re.search(r'(?m)^__main__\.Survivor +\d', pins(tmp_path / 'typed.map'))
    assert 'Survivor' not in pins(tmp_path / 'plain.map')


def differences(ours, commands):
    """Samples that are in one set of metrics only, or differ by more than they move."""
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


def test_metrics(venv, tmp_path):
    """prometheus() has the names, texts and labels of `obmalloc stats` for the same process, and
    the same numbers, but for the memory of the first text."""
    file = tmp_path / 'python.prom'
    program = subprocess.Popen([venv.obmalloc, 'run', '--stats-page', '--decay', '-1', '--',
                                venv.python,
                                '-c', METRICS, file], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                               env=child.clean_environment())
    try:
        assert program.stdout.readline() == b'ready\n'
        text = file.read_text()
        ours = metrics(text)
        # The page's numbers of the C library may be some seconds old.
        for _ in range(10):
            said = child.run([venv.obmalloc, 'stats', program.pid, '--prometheus'], status=0).out
            differ = differences(ours, metrics(said))
            if not differ:
                break
            time.sleep(0.5)
    finally:
        program.communicate()
    assert program.returncode == 0
    assert differ == []
    assert re.findall('# .*', text) == re.findall('# .*', said)
    resident, process = ours['obmalloc_resident_bytes'], ours['obmalloc_process_resident_bytes']
    total = sum(resident.values())
    assert 100000 * 56 < total == process[('part', 'ours'),] < sum(process.values())
    assert resident[('part', 'live'),] == sum(
        int(labels[0][1]) * value for labels, value in ours['obmalloc_class_blocks'].items()
        if labels[1][1] == 'live')


TYPED = '''
import obmalloc
import obmalloc.profile
from obmalloc.web import asgi, wsgi
from typing import Any

obmalloc.install()
freed: int = obmalloc.trim() + obmalloc.before_fork()
obmalloc.on_gc(keep=0)
with obmalloc.profile.running(interval=4096):
    rows = obmalloc.profile.top(3, by="type")
place: tuple[str, int] = rows[0].file, rows[0].line
obmalloc.profile.dump("heap.pb.gz")
text: str = obmalloc.prometheus()

def application(environ: Any, start_response: Any) -> list[bytes]:
    return []

pages = wsgi(application, allow_start=True), asgi()
'''
WRONG = {
    'obmalloc.profile.top(by=3)': 'arg-type',
    'obmalloc.profile.start("512K")': 'arg-type',
    'obmalloc.trim("all")': 'arg-type',
    'obmalloc.web.wsgi(3)': 'arg-type',
    'obmalloc.profile.top()[0].module': 'attr-defined',
}


@pytest.mark.since(3, 10)
def test_types(venv, tmp_path):
    """A checker finds the package's types (PEP 561), which are those of the code."""
    mypy = build.tool('mypy', 'mypy')
    words = [mypy, '--strict', '--python-executable', venv.python, '--cache-dir', tmp_path]
    (tmp_path / 'right.py').write_text(TYPED)
    child.run([*words, tmp_path / 'right.py'], timeout=200, status=0)
    (tmp_path / 'wrong.py').write_text('import obmalloc\n' + '\n'.join(WRONG) + '\n')
    done = child.run([*words, tmp_path / 'wrong.py'], timeout=200, status=1)
    found = re.findall(r'(?m)^.*wrong\.py:(\d+): error: .*\[(\S+)\]$', done.out)
    assert found == [(str(at), code) for at, code in enumerate(WRONG.values(), 2)], done.report
    child.run([mypy, '--follow-imports', 'silent', '--cache-dir', tmp_path,
               *(build.ROOT / 'python/obmalloc' / name for name in ('profile.py', 'web.py'))],
              timeout=200, status=0)


def test_on_gc(venv):
    """Where nothing else returns pages, the end of a collection does."""
    said = child.run([venv.obmalloc, 'run', '--no-background-thread', '--decay', '-1', '--',
                      venv.python, '-c',
                      ON_GC], status=0).said
    # An arena that is empty may be returned at any time.
    for nothing in 'without', 'young', 'ended':
        assert said[nothing] <= 4 * MIB, nothing
    for name, least in ('kept 8 MiB', 2), ('the rest', 6), ('each', 8), ('by itself', 6):
        assert said[name] > least * MIB, name
