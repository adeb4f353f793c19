"""The Python package's reader and writer of heap profiles, in this process: rows, differences, and
hostile files."""
import gzip
import random
import shutil
import sys
import tracemalloc

import pytest

from support import build, child, pprof

sys.path.insert(0, str(build.ROOT / 'python'))
from obmalloc import _pprof, profile      # noqa: E402

LINE = ('build', '/srv/app.py', 7)
OTHER = ('load', '/srv/lib.py', 30)
MAIN = ('<module>', '/srv/app.py', 20)
NATIVE = ('PyDict_New', '', 0)


def live(size, objects=1, alloc=None):
    """The values of a live block."""
    return [0, 0, objects, size * objects, 0] if alloc is None else [*alloc, 0, 0, 0]


@pytest.fixture
def heap(tmp_path):
    made = pprof.Writer()
    made.add([NATIVE, LINE, MAIN], live(100, 30), type='dict', bytes=(100, 'bytes'),
             thread='worker', domain='obj', age=(5, 'milliseconds'))
    made.add([LINE, MAIN], live(50, 20), type='app.Session', bytes=(50, 'bytes'), thread='worker')
    made.add([OTHER, MAIN], live(500, 10), type='dict', bytes=(500, 'bytes'), thread='main',
             packed=False)
    made.add([], live(64, 2), domain='raw', bytes=(64, 'bytes'))
    made.add([LINE, MAIN], [900, 90000, 0, 0, 0])
    made.add([OTHER, MAIN], [1, 10, 0, 0, 4096])
    return made.write(tmp_path / 'heap.pb.gz')


def test_rows(heap):
    """Each row has the sums of its key, and the other fields of its largest part."""
    assert profile.top(path=heap) == [
        (5000, 10, 'load', '/srv/lib.py', 30, 'dict', 'main', 500),
        (4000, 50, 'build', '/srv/app.py', 7, 'dict', 'worker', 100),
        (128, 2, pprof.constant('NO_PYTHON'), '', 0, '', '', 64)]
    assert profile.top(1, path=heap) == profile.top(path=heap)[:1]
    assert [(row.type, row.bytes, row.line) for row in profile.top(by='type', path=heap)] == [
        ('dict', 8000, 30), ('app.Session', 1000, 7), ('', 128, 0)]
    assert [row.thread for row in profile.top(by='thread', path=heap)] == ['main', 'worker', '']
    assert [row.size for row in profile.top(by='size', path=heap)] == [500, 100, 50, 64]
    assert [row.file for row in profile.top(by='file', path=heap)] == [
        '/srv/lib.py', '/srv/app.py', '']
    assert [row.function for row in profile.top(by='function', path=heap)][:2] == ['load', 'build']


def test_known_types_come_first(tmp_path):
    """A dict's table, which has no type, is larger than the dict."""
    made = pprof.Writer().add([LINE], live(232, 9)).add([LINE], live(64, 3), type='dict')
    made.add([LINE], live(28), type='int').write(tmp_path / 'heap')
    [row] = profile.top(path=tmp_path / 'heap')
    assert (row.bytes, row.objects, row.type) == (232 * 9 + 64 * 3 + 28, 13, 'dict')


def test_values(heap):
    """Rows are ranked by the value; of allocations, they have the allocations."""
    assert [row.line for row in profile.top(value='inuse_objects', path=heap)] == [7, 30, 0]
    assert [row[:2] for row in profile.top(value='alloc_space', path=heap)] == [
        (90000, 900), (10, 1)]
    assert [row[:2] for row in profile.top(value='alloc_objects', path=heap)] == [
        (90000, 900), (10, 1)]
    [pinned] = profile.top(value='pinned_space', path=heap)
    assert (pinned.bytes, pinned.line) == (4096, 30)


def test_arguments(heap):
    for wrong in {'by': 'age'}, {'value': 'inuse'}, {'n': 0}:
        with pytest.raises(ValueError, match=next(iter(wrong)) + ' must'):
            profile.top(path=heap, **wrong)
    with pytest.raises(FileNotFoundError):
        profile.top(path=heap.parent / 'none')


def test_the_names_are_the_format_s():
    """What the reader looks for is what format/src/profile.rs has."""
    text = (build.ROOT / 'format/src/profile.rs').read_text()
    for name, unit in pprof.TYPES:
        assert f'("{name}", "{unit}")' in text
    for name in 'TYPE', 'BYTES', 'THREAD', 'AGE':
        assert pprof.constant('LABEL_' + name) == name.lower()
    assert profile._NO_PYTHON == pprof.constant('NO_PYTHON')


# ---- differences ----

def two(tmp_path):
    before, after = pprof.Writer(time=10**9), pprof.Writer(time=4 * 10**9)
    for each in before, after:
        each.add([OTHER, MAIN], live(500), type='dict', age=(len(each.body), 'milliseconds'))
    before.add([MAIN], live(10), type='str')
    after.add([NATIVE, LINE, MAIN], live(40, 3), type='app.Ünit', thread='w')
    after.add([NATIVE, LINE, MAIN], live(40, 2), type='app.Ünit', thread='w', age=(3, 's'))
    return (_pprof.Profile(before.write(tmp_path / 'before')),
            _pprof.Profile(after.write(tmp_path / 'after')))


def test_growth(tmp_path):
    """What is in both is left out, whatever its age; what is gone is negative."""
    made = tmp_path / 'growth.pb.gz'
    made.write_bytes(_pprof.growth(*two(tmp_path)))
    found = _pprof.Profile(made)
    assert (found.time, found.duration, found.period) == (4 * 10**9, 3 * 10**9, 4096)
    assert (found.default, found.period_type) == ('inuse_space', ('space', 'bytes'))
    assert sorted((each.values[3], each.stack[0].function, each.labels)
                  for each in found.samples()) == [
        (-10, '<module>', {'type': 'str'}),
        (200, 'PyDict_New', {'type': 'app.Ünit', 'thread': 'w'})]
    [row] = profile.top(1, path=made)
    assert row == (200, 5, 'build', '/srv/app.py', 7, 'app.Ünit', 'w', 0)


def test_go_reads_a_growth(tmp_path):
    if not shutil.which('go'):
        pytest.skip('no go')
    made = tmp_path / 'growth.pb.gz'
    made.write_bytes(_pprof.growth(*two(tmp_path)))
    done = child.run(['go', 'tool', 'pprof', '-top', made],
                     child.clean_environment(PPROF_TMPDIR=tmp_path), status=0)
    assert '200B' in done.out and 'PyDict_New' in done.out, done.report
    done = child.run(['go', 'tool', 'pprof', '-top', '-lines', '-cum', made],
                     child.clean_environment(PPROF_TMPDIR=tmp_path), status=0)
    assert '/srv/app.py:7' in done.out, done.report


def test_other_sample_types_have_no_difference(tmp_path):
    one = pprof.Writer().write(tmp_path / 'one')
    other = pprof.Writer(pprof.TYPES[:2]).write(tmp_path / 'other')
    with pytest.raises(profile.ProfileError, match='other sample types'):
        _pprof.growth(_pprof.Profile(one), _pprof.Profile(other))


# ---- hostile files ----

def read(path):
    """Everything of a file; None if it is refused."""
    try:
        found = _pprof.Profile(path)
        return list(found.samples())
    except profile.ProfileError as error:
        assert str(error)
        return None


def test_truncated(heap, tmp_path):
    """Of each length: compressed, and cut before it was compressed."""
    whole, raw = heap.read_bytes(), gzip.decompress(heap.read_bytes())
    cut = tmp_path / 'cut'
    for length in range(len(whole)):
        cut.write_bytes(whole[:length])
        assert read(cut) is None
    complete = len(read(heap))
    for length in range(len(raw)):
        cut.write_bytes(gzip.compress(raw[:length], 1))
        # Cut between two messages it may be a profile, if no table is gone.
        found = read(cut)
        assert found is None or len(found) <= complete


def test_random_damage(heap, tmp_path):
    """Nothing but ProfileError, whatever bytes are changed."""
    chance = random.Random(7)
    raw = gzip.decompress(heap.read_bytes())
    refused, path = 0, tmp_path / 'damaged'
    for _ in range(1000):
        damaged = bytearray(raw)
        for _ in range(chance.choice([1, 2, 8])):
            damaged[chance.randrange(len(damaged))] = chance.randrange(256)
        path.write_bytes(gzip.compress(bytes(damaged), 1))
        refused += read(path) is None
        try:
            profile.top(path=path)
        except ValueError:
            pass
    assert refused > 200
    for length in 2, 10, 1000:
        path.write_bytes(b'\x1f\x8b' + chance.randbytes(length))
        assert read(path) is None


@pytest.mark.parametrize('body, words', [
    (b'', 'first text'),
    (pprof.field(6, b'x'), 'first text'),
    (pprof.field(6, b''), '0 sample types'),
    (b'\x80' * 12, 'more than 64 bits'),
    (b'\x0b', 'wire type 3'),
    (b'\x0d1234', 'wire type 5'),
    (pprof.varint(2 * 8 + 2) + pprof.varint(1 << 40), '1099511627776 bytes'),
    (pprof.varint(2 * 8 + 2) + pprof.varint(1000) + b'short', 'cut off'),
    (pprof.field(6, b'') + pprof.field(1, pprof.field(1, 9)), 'no text 9'),
    (pprof.field(6, b'') + pprof.field(1, b'') + pprof.field(4, pprof.field(1, 0)), 'is 0'),
    (pprof.field(6, b'') + pprof.field(1, b'') + pprof.field(5, pprof.field(1, 3)) * 2, 'its own'),
    (pprof.field(6, b'') + pprof.field(1, b'')
     + pprof.field(4, pprof.message((1, 1), (4, pprof.field(1, 5)))), 'no function 5'),
    (pprof.field(6, b'') + pprof.field(1, b'') + pprof.field(2, pprof.message((1, 4), (2, 1))),
     'no location 4'),
    (pprof.field(6, b'') + pprof.field(1, b'') + pprof.field(2, pprof.field(1, b'')), '0 values'),
    (pprof.field(6, b'') + pprof.field(1, b'') + pprof.field(2, 5), 'no message'),
    (pprof.field(6, b'') + pprof.field(1, b'') + pprof.field(12, b''), 'another type'),
    (pprof.field(13, bytes(2000)), '1000 comments'),
])
def test_refusals(tmp_path, body, words):
    path = tmp_path / 'hostile'
    path.write_bytes(gzip.compress(body))
    with pytest.raises(profile.ProfileError, match=words):
        list(_pprof.Profile(path).samples())


def test_no_gzip(tmp_path):
    path = tmp_path / 'plain'
    for body in b'', b'\x1f', pprof.Writer().raw():
        path.write_bytes(body)
        with pytest.raises(profile.ProfileError, match='not compressed'):
            _pprof.Profile(path)


@pytest.mark.parametrize('what', ['texts', 'one text', 'samples', 'zeros'])
def test_memory_is_bounded(tmp_path, monkeypatch, what):
    """A small file that becomes a large one: refused, at a fraction of its size."""
    monkeypatch.setattr(_pprof, '_MOST_BYTES', 1 << 19)
    monkeypatch.setattr(_pprof, '_MOST_TABLES', 1 << 18)
    monkeypatch.setattr(_pprof, '_MOST_KEYS', 1 << 11)
    head = pprof.field(6, b'') + pprof.field(1, b'')
    body = {
        'texts': lambda: head + pprof.field(6, b'a') * 50000,
        'one text': lambda: pprof.varint(6 * 8 + 2) + pprof.varint(8 << 20) + bytes(8 << 20),
        'samples': lambda: head + b''.join(
            pprof.field(2, pprof.message((2, 1), (3, pprof.message((1, 0), (3, n)))))
            for n in range(5000)),
        'zeros': lambda: head + pprof.field(2, pprof.field(2, 0)) * 150000,
    }[what]()
    path = tmp_path / 'bomb'
    path.write_bytes(gzip.compress(body, 1))
    del body
    tracemalloc.start()
    try:
        with pytest.raises(profile.ProfileError):
            found = _pprof.Profile(path)
            _pprof.growth(found, found)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 6 << 20
