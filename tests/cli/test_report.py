"""`obmalloc report` and `diff`: outputs of profiles in files; files that are none."""
import gzip
import json
import random
import re
import shutil
import subprocess

import pytest

from cli import command, profiles
from support import build, child, status

PPROF = shutil.which('go')


@pytest.fixture(scope='module')
def heap(tmp_path_factory):
    path = tmp_path_factory.mktemp('profile') / 'heap.pb.gz'
    path.write_bytes(profiles.example().file())
    return path


@pytest.fixture(scope='module')
def later(heap):
    """The same program when its sessions have grown, and its parser's lists have shrunk."""
    path = heap.with_name('later.pb.gz')
    path.write_bytes(profiles.example(sessions=5000, parsed=100).file())
    return path


def rows(*words):
    return {row['what']: row for row in json.loads(command.run(*words, '--json').out)['rows']}


def pprof(*words):
    """The rows of `go tool pprof -top` by their last word: (flat, in bytes), and its output."""
    done = child.run(['go', 'tool', 'pprof', '-symbolize=none', '-top', '-unit=B', *words],
                     dict(child.clean_environment(), HOME='/nonexistent', GOCACHE='off'), status=0)
    found = re.findall(r'(?m)^\s*(-?[\d.]+)B .* (\S+)$', done.out)
    return {name: float(flat) for flat, name in found}, done


def test_the_table(heap):
    lines = command.run('report', heap).out.splitlines()
    assert lines[0] == 'heap.pb.gz: process 4711, CPython 3.13.5, obmalloc 0.1.0'
    assert lines[1].startswith('inuse_space: 85.9 KiB, 1 500 objects;')
    assert lines[3].split() == ['bytes', 'share', 'objects', 'mostly', 'line']
    assert lines[4].split() == ['62.5', 'KiB', '73', '%', '1', '000', 'dict',
                                '/srv/app/sessions.py:41', 'remember']
    assert len(lines) == 6
    assert command.run('report', heap, '--top').out.splitlines() == lines


def test_stdin(heap):
    with heap.open('rb') as file:
        done = child.run([build.COMMAND, 'report', '-', '--json'], stdin=file, status=0)
    assert json.loads(done.out)['total']['inuse_space'] == 88000


@pytest.mark.parametrize('by, expected', [
    ('line', {'/srv/app/sessions.py:41 remember': 64000,
              '/usr/lib/python3.13/json/decoder.py:350 parse': 24000}),
    ('function', {'/srv/app/sessions.py remember': 64000,
                  '/usr/lib/python3.13/json/decoder.py parse': 24000}),
    ('module', {'/srv/app/sessions.py': 64000, 'json.decoder': 24000}),
    ('type', {'dict': 64000, 'list': 24000}),
    ('size', {'up to 64 B': 64000, 'up to 48 B': 24000}),
    ('thread', {'worker (7)': 64000, 'main (4711)': 24000}),
    ('age', {'1 to 10 min': 64000, 'under 1 s': 24000}),
    ('domain', {'obj': 88000}),
    ('process', {'process 4711': 88000})])
def test_groups(heap, by, expected):
    found = rows('report', heap, '--by', by)
    assert {what: row['values']['inuse_space'] for what, row in found.items()} == expected


@pytest.mark.parametrize('value, expected', [
    ('inuse_objects', [1000, 500]), ('pinned_space', [8000]), ('alloc_space', [90000]),
    ('alloc_objects', [500])])
def test_values(heap, value, expected):
    found = rows('report', heap, '--value', value)
    assert [row['values'][value] for row in found.values()] == expected


def test_fewer_rows(heap):
    assert len(rows('report', heap, '-n', '1')) == 1
    assert command.run('report', heap, '-n', '1').out.endswith('\nand 1 more (-n)\n')


def test_collapsed(heap, later):
    lines = command.run('report', heap, '--collapsed').out.splitlines()
    assert '<module> (/srv/app/main.py:3);remember (/srv/app/sessions.py:41);[dict] 64000' in lines
    lines = command.run('diff', heap, later, '--collapsed').out.splitlines()
    assert any(line.endswith(';remember (/srv/app/sessions.py:41) 64000 320000') for line in lines)


def test_speedscope(heap, tmp_path):
    out = tmp_path / 'heap.json'
    assert command.run('report', heap, '--speedscope', out).out == ''
    said = json.loads(out.read_text())
    assert said['$schema'] == 'https://www.speedscope.app/file-format-schema.json'
    [profile] = said['profiles']
    assert sum(profile['weights']) == profile['endValue'] == 88000
    names = [frame['name'] for frame in said['shared']['frames']]
    assert [[names[n] for n in stack] for stack in profile['samples']][-1] == [
        '<module> (/srv/app/main.py:3)', 'remember (/srv/app/sessions.py:41)', '[dict]']
    assert json.loads(command.run('report', heap, '--speedscope', '-').out) == said


def test_a_flame_graph_is_one_file(heap, later, tmp_path):
    out = tmp_path / 'heap.html'
    command.run('report', heap, '--flame', out)
    page = out.read_text(encoding='utf-8')
    assert '<title>heap.pb.gz</title>' in page
    assert 'inuse_space: 85.9 KiB' in page
    assert 'remember (/srv/app/sessions.py:41) (64,000 bytes, 72.73%)' in page
    assert not re.search(r'src=|@import|<link|xlink:href=|url\(http', page)
    command.run('diff', heap, later, '--flame', out)
    page = out.read_text(encoding='utf-8')

    def colour(name):
        found = re.search(fr'<title>{re.escape(name)} \(.*?fill="rgb\((\d+),(\d+),(\d+)\)', page)
        return [int(part) for part in found.groups()]

    red, _, blue = colour('remember (/srv/app/sessions.py:41)')
    assert red == 255 and blue < 200
    red, _, blue = colour('parse (/usr/lib/python3.13/json/decoder.py:350)')
    assert blue == 255 and red < 250


def test_the_difference(heap, later):
    lines = command.run('diff', heap, later).out.splitlines()
    assert lines[0].startswith('heap.pb.gz to later.pb.gz: process 4711')
    assert lines[1].startswith('inuse_space: 85.9 KiB before, 317 KiB after, +231 KiB')
    assert lines[4].split()[:4] == ['+250', 'KiB', '+4', '000']
    assert lines[5].split()[:3] == ['-18.8', 'KiB', '-400']
    found = rows('diff', heap, later, '--by', 'type')
    assert found['dict']['change']['inuse_space'] == 256000
    assert found['list']['change']['inuse_objects'] == -400
    assert rows('diff', heap, heap) == {}
    assert command.run('diff', heap, heap).out.endswith('\nNothing has changed.\n')


@pytest.mark.skipif(not PPROF, reason='no go here (golang-go installs it)')
def test_pprof_reads_what_is_written(heap, later, tmp_path):
    flat, _ = pprof(heap)
    assert flat == {'remember': 64000, 'parse': 24000}
    out = tmp_path / 'diff.pb.gz'
    assert command.run('diff', heap, later, '-o', out).out == ''
    flat, done = pprof(out)
    assert flat == {'remember': 256000, 'parse': -19200}, done.report
    flat, _ = pprof('-sample_index=inuse_objects', '-unit=auto', out)
    assert 'Type: inuse_space' in done.out
    # It is a profile for this command, too.
    found = rows('report', out)
    assert [row['values']['inuse_space'] for row in found.values()] == [256000, -19200]


@pytest.mark.skipif(not PPROF, reason='no go here (golang-go installs it)')
def test_a_profile_of_go_is_read(tmp_path):
    (tmp_path / 'main.go').write_text('''
package main
import ("os"; "runtime"; "runtime/pprof")
var kept [][]byte
func grow() { for i := 0; i < 64; i++ { kept = append(kept, make([]byte, 1 << 20)) } }
func main() { grow(); runtime.GC(); pprof.WriteHeapProfile(os.Stdout) }
''')
    env = dict(child.clean_environment(), HOME=str(tmp_path), GOCACHE=str(tmp_path / 'cache'))
    done = subprocess.run(['go', 'run', 'main.go'], cwd=tmp_path, env=env, stdout=subprocess.PIPE,
                          check=True, timeout=300)
    path = tmp_path / 'go.pb.gz'
    path.write_bytes(done.stdout)
    found = rows('report', path, '--by', 'function')
    [grown] = [row for what, row in found.items() if what.endswith('main.grow')]
    assert 50 << 20 < grown['values']['inuse_space'] < 80 << 20
    done = command.run('report', path, '--value', 'pinned_space', status=1)
    status.says(done, 'go.pb.gz has no pinned_space; choose another --value: alloc_objects, .*')


def damaged():
    whole = profiles.example()
    message = whole.message()
    missing = profiles.example()
    missing.samples.append(profiles.field(1, [99]) + profiles.field(2, [0] * 5))
    few = profiles.example()
    few.samples.append(profiles.field(2, [1]))
    return {
        'nothing': (b'', 'not gzipped'),
        'not gzipped': (message, 'not gzipped'),
        'truncated': (whole.file()[:-30], 'cut off'),
        'random': (gzip.compress(random.Random(7).randbytes(4096)), 'no profile'),
        'empty': (gzip.compress(b''), 'no profile'),
        'half a message': (gzip.compress(message[:len(message) // 2]), 'it is '),
        'a location is missing': (missing.file(), 'it has no location 99'),
        'few values': (few.file(), 'a sample has 1 of 5 values'),
        'a bomb': (gzip.compress(bytes(300 << 20), 9), 'it has more than 256 MiB'),
    }


@pytest.mark.parametrize('name', damaged.__call__())
def test_files_that_are_no_profiles(tmp_path, heap, name):
    """One line with the error and the next step."""
    data, expected = damaged()[name]
    path = tmp_path / 'bad.pb.gz'
    path.write_bytes(data)
    for words in ('report', path), ('diff', path, heap), ('diff', heap, path):
        done = command.run(*words, status=1)
        status.says(done, f'cannot use .*bad.pb.gz: .*{expected}.*; name a file with a heap profile.*')
        assert done.out == ''


@pytest.mark.parametrize('words, code, expected', [
    (('report', '/nowhere/at/all'), 1, 'cannot read /nowhere/at/all'),
    (('report', '/dev/zero'), 1, 'cannot use /dev/zero'),
    (('report', 'HEAP', '--flame', '/nowhere/x.html'), 1, 'cannot write /nowhere/x.html'),
    (('diff', 'HEAP', 'HEAP', '-o', '/nowhere/x'), 1, 'cannot write /nowhere/x')])
def test_files_that_cannot_be_used(heap, words, code, expected):
    words = [str(heap) if word == 'HEAP' else word for word in words]
    status.says(command.run(*words, status=code), f'{expected}.*; .*')


@pytest.mark.parametrize('words', [('--by', 'colour'), ('--value', 'x'), ('--top', '--json'),
                                   ('--flame', 'a', '--speedscope', 'b'), ('-n', '-1')])
def test_wrong_words(heap, words):
    command.run('report', heap, *words, status=2)


def mutated(data, dice):
    data = bytearray(data)
    for _ in range(dice.choice([1, 1, 1, 4])):
        at = dice.randrange(len(data))
        way = dice.choice([0, 0, 1, 1, 2, 3, 4])
        if way == 0:
            data[at] ^= 1 << dice.randrange(8)
        elif way == 1:
            data[at] = dice.randrange(256)
        elif way == 2:
            del data[at:at + dice.randint(1, 9)]
        elif way == 3:
            data[at:at] = data[at:at + dice.randint(1, 40)]
        else:
            data[at:at + 2] = b'\xff\xff'
        data = data or bytearray(b'x')
    return bytes(data)


OUTPUTS = [(), ('--flame', '-'), ('--speedscope', '-'), ('--collapsed',), ('--json',),
           ('--by', 'type'), ('--by', 'size', '--value', 'inuse_objects'), ('--by', 'age')]


@pytest.mark.parametrize('seed', range(4))
def test_mutated_files_end_in_a_line_or_in_output(tmp_path, heap, seed):
    """Of each file a message of the format, or the gzip around it, is changed."""
    dice = random.Random(seed)
    message, packed = profiles.example().message(), profiles.example().file()
    path = tmp_path / 'mutated.pb.gz'
    ends = {0: 0, 1: 0}
    for n in range(60):
        inside = n % 4
        path.write_bytes(gzip.compress(mutated(message, dice)) if inside else mutated(packed, dice))
        words = ('diff', heap, path) if n % 5 == 0 else ('report', path)
        done = command.run(*words, *dice.choice(OUTPUTS), status=None)
        assert done.status in ends, f'seed {seed}, file {n}: {done.report}'
        ends[done.status] += 1
        if done.status:
            assert len(done.err.splitlines()) == 1, done.report
    assert min(ends.values()) > 5


def test_texts_are_no_control_characters_and_no_markup(tmp_path):
    path = tmp_path / 'hostile.pb.gz'
    path.write_bytes(profiles.Profile(python='\x1b[31m').sample(
        [(b'\xff\x1b]0;x\x07<script>', b'</title>\n"&.py', 1)], [0, 0, 1, 64, 0],
        type='</svg>').file())
    for words in ('--top',), ('--collapsed',), ('--by', 'type'):
        assert '\x1b' not in command.run('report', path, *words).out
    page = command.run('report', path, '--flame', '-').out
    assert page.count('<script') == 1
    assert page.count('</title>') == page.count('<title>')


def test_a_million_samples(tmp_path):
    """Their time is bounded by the limit of each run of the command."""
    profile = profiles.example()
    sample = profile.samples[0]
    profile.samples = [sample] * 10**6
    path = tmp_path / 'large.pb.gz'
    path.write_bytes(profile.file())
    found = rows('report', path)
    assert found['/srv/app/sessions.py:41 remember']['values']['inuse_space'] == 64000 * 10**6
