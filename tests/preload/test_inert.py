"""Every program that a preloaded Python starts inherits the preload. In one that is no Python
the library must have no effect: no output, no memory, no thread."""
import collections
import re
import shutil

import pytest

from support import build, child
from support.preload import HOSTS, build_host

LOUD = dict(OBMALLOC_VERBOSE='1', OBMALLOC_STATS='1', OBMALLOC_X='1', OBMALLOC_POOL_MAX='banana')

COMMANDS = {
    'sh': ['-c', 'echo one; (exit 3) || echo $?'],
    'bash': ['-c', 'for n in 1 2 3; do echo $n; done | sort -r'],
    'git': ['--version'],
    'gcc': ['--version'],
    'ls': ['/'],
    'cat': [__file__],
    'perl': ['-e', 'print join(",", map { $_ * 2 } 1 .. 1000)'],
}

# The loader's calls for a library, whose number depends on the file.
OF_THE_LOADER = {'mmap', 'mprotect', 'openat', 'read', 'pread64', 'fstat', 'newfstatat',
                 'close', 'execve'}


def anonymous(out):
    """Bytes of mappings without a file and a name."""
    found = re.findall(r'^([0-9a-f]+)-([0-9a-f]+) \S+ \S+ \S+ \d+ *$', out, re.M)
    return sum(int(end, 16) - int(start, 16) for start, end in found)


def zeroed_part(library):
    """Bytes that the loader maps without a file for the library's own .bss."""
    done = child.run(['readelf', '-lW', library])
    total = 0
    for words in map(str.split, done.out.splitlines()):
        if words[:1] == ['LOAD']:
            address, in_file, in_memory = (int(words[n], 16) for n in (2, 4, 5))
            total += (-(-(address + in_memory) // 4096) - -(-(address + in_file) // 4096)) * 4096
    return total


@pytest.mark.parametrize('name', COMMANDS)
def test_same_output_and_status(name):
    if not shutil.which(name):
        pytest.skip(f'no {name}')
    plain = child.run([name] + COMMANDS[name], status=0)
    ours = child.run([name] + COMMANDS[name], child.preloaded(**LOUD), status=0)
    assert (ours.out, ours.err) == (plain.out, plain.err)


def test_no_statistics_file(tmp_path):
    child.run(['sh', '-c', 'cat /dev/null; ls / >/dev/null'],
              child.preloaded(OBMALLOC_STATS=tmp_path / '%p.json'), status=0)
    assert not list(tmp_path.iterdir())


def test_compiling_a_program(tmp_path):
    """gcc, cc1, as, collect2 and ld start each other."""
    if not shutil.which('gcc'):
        pytest.skip('no gcc')
    done = child.run(['gcc', '-shared', '-fPIC', HOSTS / 'nothing.c',
                      '-o', tmp_path / 'nothing.so'],
                     child.preloaded(**LOUD), status=0)
    assert (done.out, done.err) == ('', '')


def test_no_mapping_and_no_thread():
    """Compared with an empty library, because the loader keeps a record of each library."""
    program = build_host('bystander', 'bystander.c')
    empty = build_host('nothing.so', 'nothing.c', '-shared', '-fPIC')
    plain = child.run([program], child.preloaded(LD_PRELOAD=empty), status=0)
    ours = child.run([program], child.preloaded(**LOUD), status=0)
    assert ours.err == ''
    assert build.LIBRARY.name in ours.out, 'it is preloaded at all'
    assert 'threads 1\n' in ours.out
    more = (anonymous(ours.out) - zeroed_part(build.LIBRARY)
            - anonymous(plain.out) + zeroed_part(empty))
    assert more <= 4096, 'bytes'


def system_calls(library, command, folder):
    """Calls by name without the loader's; anonymous mappings that the loader did not place; the
    files opened."""
    folder.mkdir()
    # A file for each process: one file for all would cut simultaneous calls in two.
    done = child.run(['strace', '-ff', '-o', folder / 'of', '-E', f'LD_PRELOAD={library}',
                      *command],
                     child.clean_environment(**LOUD))
    if 'ptrace' in done.err:
        pytest.skip('strace may not trace')
    assert done.status == 0
    lines = [line for path in folder.iterdir() for line in path.read_text().splitlines()]
    names = collections.Counter(line.split('(')[0] for line in lines if '(' in line)
    maps = [line for line in lines
            if line.startswith('mmap(') and 'MAP_ANONYMOUS' in line and 'MAP_FIXED' not in line]
    files = re.findall(r'open(?:at)?\([^"\n]*"([^"]*)"', '\n'.join(lines))
    return ({name: count for name, count in names.items() if name not in OF_THE_LOADER},
            len(maps), sorted(name for name in files if name != str(library)))


@pytest.mark.skipif(not shutil.which('strace'), reason='no strace')
@pytest.mark.parametrize('command', [['true'], ['sh', '-c', 'true; ls / >/dev/null; exit 0']],
                         ids=['true', 'sh'])
def test_same_system_calls_as_an_empty_library(command, tmp_path):
    """Only the loader's own work: no mapping, no thread, no file, no write."""
    empty = build_host('nothing.so', 'nothing.c', '-shared', '-fPIC')
    assert (system_calls(build.LIBRARY, command, tmp_path / 'ours')
            == system_calls(empty, command, tmp_path / 'empty'))
