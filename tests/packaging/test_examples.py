"""The examples of docs/c.md, docs/python.md and CONTRIBUTING.md, as they are on the pages."""
import re
import shutil
import sys
import zipfile

import pytest

from support import build, child, pprof

pytestmark = pytest.mark.slow


def page(name):
    return (build.ROOT / name).read_text()


def example(name, language, word):
    """The one block of a page in this language that contains the word."""
    blocks = re.findall(r'^```%s\n(.*?)^```$' % language, page(name), re.M | re.S)
    [found] = [block for block in blocks if word in block]
    return found


def needs(*programs):
    for program in programs:
        if not shutil.which(program):
            pytest.skip(f'no {program}')


@pytest.mark.parametrize('way', ['shared', 'archive'])
def test_program_for_c(tmp_path, way):
    """Linked with the library by pkg-config, and with the archive, from an installed tree."""
    needs('pkg-config', 'cc')
    prefix = tmp_path / 'prefix'
    build.make('install', f'PREFIX={prefix}')
    (tmp_path / 'words.c').write_text(example('docs/c.md', 'c', '/* words.c'))
    _, compiling, running = example('docs/c.md', 'sh', 'words.c').splitlines()[:3]
    if way == 'archive':
        compiling = f'cc -o words words.c -I {prefix}/include {prefix}/lib/libobmalloc.a'
    env = child.clean_environment(PKG_CONFIG_PATH=f'{prefix}/lib/pkgconfig',
                                  LD_LIBRARY_PATH=f'{prefix}/lib')
    lines = compiling.replace('cc ', 'cc -Wall -Wextra -Werror ') + '\n' + running
    done = child.run(['sh', '-ec', lines], env, cwd=tmp_path, status=0)
    [printed] = re.findall('`(100000 different words, .*?)`', page('docs/c.md'))
    assert done.out == printed + '\nfree pages returned\n'


def test_profile_for_c(tmp_path):
    """The profile of the page's program has its 50 MB, by the function that allocates them."""
    needs('cc')
    (tmp_path / 'held.c').write_text(example('docs/c.md', 'c', '/* held.c'))
    compiling, running, _ = example('docs/c.md', 'sh', 'held.c').splitlines()
    flags = f'-I {build.ROOT}/include {build.LIBRARY} -Wl,-rpath,{tmp_path}'
    (tmp_path / 'libobmalloc.so.0').symlink_to(build.LIBRARY)
    compiling = re.sub(r'\$\(pkg-config .*\)', flags, compiling)
    lines = compiling.replace('cc ', 'cc -Wall -Wextra -Werror ') + '\n' + running
    done = child.run(['sh', '-ec', lines], cwd=tmp_path, status=0)
    assert done.out == 'written\n'
    profile = pprof.Profile(tmp_path / 'held.pb.gz')
    at = [name for name, _ in profile.types].index('inuse_space')
    held = sum(sample.values[at] for sample in profile.samples()
               if 'hold' in [frame.function for frame in sample.stack])
    # Some 800 samples: a standard error of 4 %.
    assert 40e6 < held < 64e6


def test_program_for_python(tmp_path):
    with zipfile.ZipFile(build.wheel()) as wheel:
        wheel.extractall(tmp_path)
    (tmp_path / 'app.py').write_text(example('docs/python.md', 'python', 'obmalloc.trim()'))
    done = child.run([sys.executable, '-B', tmp_path / 'app.py'],
                     child.clean_environment(PYTHONPATH=str(tmp_path)), status=0)
    numbers = re.fullmatch(r'held (\d+) MiB, left (\d+) MiB, returned (\d+) MiB\n', done.out)
    held, left, returned = map(int, numbers.groups())
    assert held > 40
    assert left < 5
    assert returned > 40


def test_profile_for_python(tmp_path):
    """The rows of docs/python.md's profile are those of its one line that keeps memory."""
    with zipfile.ZipFile(build.wheel()) as wheel:
        wheel.extractall(tmp_path)
    text = example('docs/python.md', 'python', 'obmalloc.profile.top(3)')
    (tmp_path / 'app.py').write_text(text)
    done = child.run([sys.executable, '-B', tmp_path / 'app.py'], child.clean_environment(
        PYTHONPATH=str(tmp_path), LD_PRELOAD=build.LIBRARY), cwd=tmp_path, status=0)
    line = next(at for at, words in enumerate(text.splitlines(), 1) if words.startswith('rows'))
    first = re.match(rf' *(\d+\.\d) MiB +\d+ (?:dict|str) +\S+app\.py:{line}\n', done.out)
    assert first, done.report
    assert 40 < float(first[1]) < 100
    assert (tmp_path / 'heap.pb.gz').read_bytes()[:2] == b'\x1f\x8b'


def test_first_c_test(tmp_path):
    """CONTRIBUTING.md's case passes in each way that it names, in a copy of c_tests."""
    needs('cc', 'make')
    text = example('CONTRIBUTING.md', 'c', 'CASES(')
    ways = re.match(r'/\* ways: (.*)', text)[1].split()
    [case] = re.findall(r'CASES\({"(.*?)",', text)
    shutil.copytree(build.ROOT / 'c_tests', tmp_path / 'c_tests')
    (tmp_path / 'c_tests/block/grown.c').write_text(text)
    done = child.run(['make', '-C', tmp_path / 'c_tests', f'CASE=block/{case}',
                      f'WAYS={" ".join(ways)}', f'ROOT={build.ROOT}', f'BUILD={tmp_path}/build', f'LIBRARY={build.RELEASE}'],
                     child.clean_environment(MAKEFLAGS=''), 300, status=0)
    passed = re.findall(rf'(?m)^block/{case} +(\w+) +ok', done.out)
    assert sorted(passed) == sorted(ways), done.report


def test_first_preload_check(tmp_path):
    """CONTRIBUTING.md's check of a preloaded interpreter passes with those of the short form."""
    (tmp_path / 'test_first.py').write_text(example('CONTRIBUTING.md', 'python', 'def test_'))
    done = child.run([sys.executable, '-B', '-m', 'pytest', '-c', build.ROOT / 'pytest.ini', '-p',
                      'conftest', '-q', '--rootdir', tmp_path, '--library', build.LIBRARY,
                      tmp_path / 'test_first.py'],
                     child.clean_environment(PYTHONPATH=str(build.ROOT / 'tests')), 100, status=0)
    assert re.search(r'(?m)^[1-9]\d* passed', done.out), done.report
