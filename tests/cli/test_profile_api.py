"""obmalloc.profile of the Python package, with the library: in processes that it serves from the
start, that switch it on, and that it does not serve."""
import errno

import pytest

from support import child

pytestmark = [pytest.mark.since(3, 7), pytest.mark.one_python]

HEAD = '''
import json, obmalloc, os, sys
profile = obmalloc.profile
def refused(function, *arguments):
    try:
        function(*arguments)
    except Exception as error:
        return [type(error).__name__, getattr(error, "errno", None), str(error)]
def rows(**options):
    return [row._asdict() for row in profile.top(**options)]
said = {}
'''
# 20000 lists with a slot and 20000 instances: 20000 * (56 + 8 + 48) bytes or more.
KEEP = '''
class Kept:
    __slots__ = ("a", "b")
def keep():
    return [[Kept()] for _ in range(20000)]     # the line
'''


@pytest.fixture
def run(python, package, tmp_path):
    """Runs code under `python -m obmalloc run`, or by the interpreter alone."""
    def run(code, *options, alone=False, **env):
        (tmp_path / 'app.py').write_text(HEAD + code + '\nprint(json.dumps(said))\n')
        start = [] if alone else ['-m', 'obmalloc', 'run', *options]
        return child.run([python.path, *start, tmp_path / 'app.py'], child.clean_environment(
            PYTHONPATH=package, PYTHONDONTWRITEBYTECODE=1, PATH=f'{package}/bin:/usr/bin:/bin',
            **env), cwd=tmp_path, status=0).said
    return run


def line_of(word):
    """The line of the program that has the word."""
    return (HEAD + KEEP).splitlines().index(next(
        line for line in KEEP.splitlines() if word in line)) + 1


def test_top(run, tmp_path):
    """The line, its bytes and the types of its objects; the estimate is of some 500 samples."""
    said = run(KEEP + '''
before = obmalloc.stats()["bytes"]["live"]
profile.start(4096)
kept = keep()
said["live"] = obmalloc.stats()["bytes"]["live"] - before
said["line"], said["type"] = rows(), rows(by="type")
profile.dump("heap.pb.gz")
said["file"] = rows(path="heap.pb.gz")
profile.stop()
profile.dump("stopped.pb.gz")
del kept
''')
    first = said['line'][0]
    assert first['file'] == str(tmp_path / 'app.py')
    assert (first['function'], first['line']) in {('keep', line_of('the line')),
                                                  ('<listcomp>', line_of('the line'))}
    assert 0.8 < sum(row['bytes'] for row in said['line']) / said['live'] < 1.2
    types = {row['type']: row for row in said['type']}
    assert {'list', 'Kept'} <= {name.rpartition('.')[2] for name in types}
    [kept] = [row for name, row in types.items() if name.endswith('Kept')]
    assert 14000 < kept['objects'] < 26000
    assert abs(said['file'][0]['bytes'] - first['bytes']) < first['bytes'] / 10
    for name in 'heap', 'stopped':
        assert (tmp_path / f'{name}.pb.gz').read_bytes()[:2] == b'\x1f\x8b'


def test_states(run):
    """Off, on, off; `running` within a profiler that runs leaves it on; so does an exception."""
    said = run('''
states = said["states"] = [profile.is_running()]
said["nothing"] = refused(profile.dump, "heap.pb.gz")
said["written"] = os.path.exists("heap.pb.gz")
with profile.running(1 << 20):
    states.append(profile.is_running())
    with profile.running():
        states.append(profile.is_running())
    states.append(profile.is_running())
states.append(profile.is_running())
try:
    with profile.running():
        raise KeyError
except KeyError:
    states.append(profile.is_running())
profile.start()
states.append(profile.is_running())
said["again"] = refused(profile.start)
said["interval"] = profile.interval()
profile.stop()
states.append(profile.is_running())
profile.start()
said["no folder"] = refused(profile.dump, "/no such folder/heap.pb.gz")
for name in "größe.pb.gz", b"bytes.pb.gz":
    profile.dump(name)
said["listed"] = sorted(os.listdir("."))
said["arguments"] = [refused(profile.start, 0), refused(profile.start, -5),
                     refused(profile.start, "1K"), refused(profile.top, 0)]
''')
    assert said['states'] == [False, True, True, True, False, False, True, False]
    assert said['again'] == ['RuntimeError', None, 'obmalloc: the profiler runs already']
    assert said['interval'] == 512 << 10
    assert said['nothing'][:2] == ['OSError', errno.ENODATA]
    assert 'obmalloc.profile.start()' in said['nothing'][2]
    assert not said['written']
    assert said['no folder'][:2] == ['FileNotFoundError', errno.ENOENT]
    assert {'größe.pb.gz', 'bytes.pb.gz'} <= set(said['listed'])
    assert [kind for kind, *_ in said['arguments']] == ['ValueError', 'ValueError', 'TypeError',
                                                        'ValueError']


def test_by_the_environment(run):
    said = run(KEEP + '''
said["running"] = profile.is_running()
kept = keep()
said["rows"] = rows()
''', OBMALLOC_PROFILE='4K')
    assert said['running']
    assert line_of('the line') in [row['line'] for row in said['rows'][:3]]


def test_each_allocation(run):
    """With interval 1 each new block is a sample while the tables have room."""
    said = run(KEEP + '''
class Own:
    __slots__ = ("value",)
profile.start(1)
kept = [Own() for _ in range(500)]
said["rows"] = [row for row in rows(n=1000, by="type") if row["type"].endswith("Own")]
said["active"] = obmalloc.is_active()
profile.stop()
''', OBMALLOC_PROFILE_MEMORY='64M')
    [row] = said['rows']
    # Without those in places that blocks from before the start have left.
    assert 485 <= row['objects'] <= 500
    assert row['bytes'] == row['objects'] * row['size']
    assert said['active']


def test_switched_on_later(python, run):
    if not python.shared:
        pytest.skip('static: served from the start only')
    said = run(KEEP + '''
said["before"] = refused(profile.start)
obmalloc.install()
with profile.running(4096):
    kept = keep()
    said["rows"] = rows()
''', alone=True)
    assert said['before'][0] == 'RuntimeError'
    assert 'not served' in said['before'][2]
    assert said['rows'][0]['line'] == line_of('the line')


def test_not_served(run, tmp_path):
    said = run('said["start"] = refused(profile.start)\n'
               'said["dump"] = refused(profile.dump, "heap.pb.gz")', alone=True,
               PYTHONMALLOC='malloc')
    assert said['start'][0] == 'RuntimeError'
    assert said['dump'][:2] == ['OSError', errno.ENODATA]
    assert not (tmp_path / 'heap.pb.gz').exists()


def test_the_import_is_small(python, package):
    """What only a profile needs is not imported before."""
    code = ('import sys; before = set(sys.modules); import obmalloc\n'
            'print(*set(sys.modules) - before, sep="\\n")')
    done = child.run([python.path, '-B', '-c', code], child.clean_environment(PYTHONPATH=package),
                     status=0)
    loaded = set(done.out.split())
    assert {'obmalloc', 'obmalloc._calls'} <= loaded
    assert not loaded & {'obmalloc.profile', 'obmalloc.web', 'tempfile', 'gzip', 'subprocess'}
