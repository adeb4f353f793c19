"""OBMALLOC_*: a valid setting takes effect; an invalid one gives one line, and the program
continues with the default. Statistics at exit."""
import json
import os
import re

import pytest

from support import child, status
from support.preload import interpret

# Keeps argv[2] blocks of argv[1] bytes and a header: the number of requests that the fallback
# allocator served for them, of blocks that became live, and the largest class with live blocks.
KEEP = '''
import inside, json
lib = inside.library()
before = inside.stats(lib)
kept = [b"x" * (int(sys.argv[1]) - 1) + (b"%d" % (n % 10)) for n in range(int(sys.argv[2]))]
after = inside.stats(lib)
print(json.dumps([after["large"]["served_below_total"] - before["large"]["served_below_total"],
                  inside.live(after) - inside.live(before),
                  max(each["size"] for each in after["classes"] if each["blocks_live"])]))
'''


def keep(python, size, count, **setting):
    """The numbers that KEEP prints."""
    return interpret(python, KEEP, str(size), str(count), env=child.preloaded(**setting)).said


@pytest.mark.since(3, 6)
def test_pool_max(python):
    """32K serves 600 bytes from pools; 512 leaves them to the fallback allocator."""
    below, live, largest = keep(python, 600, 5000, OBMALLOC_POOL_MAX='32K')
    assert below < 500 and live >= 4900 and largest > 600
    below, live, largest = keep(python, 600, 5000, OBMALLOC_POOL_MAX='512')
    assert below >= 5000 and live < 2500 and largest <= 512


@pytest.mark.since(3, 6)
def test_default_rises_with_the_program(python):
    """Pools serve 6000 bytes once the program has 64 MiB in memory, and 600 bytes once it has
    made 100 000 requests above 512; 10 000 bytes stay with the fallback allocator in a large
    program, 600 in a small one. (Each item takes two requests.)"""
    below, live, largest = keep(python, 600, 30000)
    assert below >= 30000 and live < 3000
    for size, count, asked in ((6000, 15000, 25000), (600, 75000, 105000)):
        below, live, largest = keep(python, size, count)
        assert asked / 3 < below < asked and live > count / 5
        assert size < largest <= 8192
    below, live, largest = keep(python, 10000, 6000)
    assert below >= 6000 and live < 3000 and largest <= 8192
    below, live, largest = keep(python, 400, 60000)
    assert below < 500 and live > 59000


@pytest.mark.since(3, 6)
def test_pool_max_works_throughout(python):
    done = interpret(python, 'import inside; print(inside.workload(3))',
                     env=child.preloaded(OBMALLOC_POOL_MAX='512'))
    stock = interpret(python, 'import inside; print(inside.workload(3))',
                      env=child.clean_environment())
    assert (done.out, done.err) == (stock.out, '')


def warned(python, name, value):
    """One line names the variable and the value, and the default is in force."""
    done = interpret(python, 'print([0, 5000, 0])' if python.numbers < (3,) else KEEP,
                     '400', '5000', env=child.preloaded(**{name: value}))
    line, = done.err.splitlines()
    assert line.startswith('obmalloc: ') and name in line and value in line
    below, live, largest = done.said
    assert below < 500 and live >= 4900 and largest <= 512


DEPRECATED = [
    ('SMALL_MAX', 'POOL_MAX', '8K'), ('THREAD', 'BACKGROUND_THREAD', '0'),
    ('LIMIT', 'SOFT_LIMIT', '4G'), ('LIMIT_HARD', 'HARD_LIMIT', '4G'), ('LIVE', 'STATS_PAGE', '1'),
    ('GUARD', 'GUARD_SAMPLE_RATE', '1000'), ('FORK', 'FORK_COW', 'seal'),
    ('TOOLS', 'TOOL_ANNOTATIONS', '0')]


@pytest.mark.one_python
@pytest.mark.parametrize('old, new, value', DEPRECATED, ids=[row[0] for row in DEPRECATED])
def test_deprecated_name(python, old, new, value):
    """It is understood, in silence. A wrong value has a line, unless the present name is set."""
    def warnings(**settings):
        env = child.preloaded(**{f'OBMALLOC_{name}': value for name, value in settings.items()})
        return interpret(python, 'pass', env=env).err
    assert warnings(**{old: value}) == ''
    ignored = 'obmalloc: OBMALLOC_%s=banana: not understood, ignored\n'
    assert warnings(**{old: 'banana'}) == ignored % old
    assert warnings(**{old: 'banana', new: value}) == ''
    assert warnings(**{old: value, new: 'banana'}) == ignored % new


@pytest.mark.one_python
def test_deprecated_name_has_its_effect(python):
    """Alone; where both names are set, the present one counts."""
    below, live, largest = keep(python, 600, 5000, OBMALLOC_SMALL_MAX='32K')
    assert below < 500 and live >= 4900 and largest > 600
    for old, new in ('32K', '512'), ('32K', ''), ('32K', 'banana'):
        below, live, largest = keep(python, 600, 5000, OBMALLOC_SMALL_MAX=old,
                                    OBMALLOC_POOL_MAX=new)
        assert below >= 5000 and live < 2500 and largest <= 512


@pytest.mark.one_python
@pytest.mark.parametrize('settings, published', [
    ({}, False), ({'LIVE': '1'}, True), ({'STATS_PAGE': '1'}, True),
    ({'LIVE': '1', 'STATS_PAGE': '0'}, False), ({'LIVE': '0', 'STATS_PAGE': '1'}, True)])
def test_deprecated_name_of_the_page(python, settings, published):
    env = child.preloaded(**{f'OBMALLOC_{name}': value for name, value in settings.items()})
    done = interpret(python, '''
import os
to = []
for each in os.listdir("/proc/self/fd"):
    try:
        to.append(os.readlink("/proc/self/fd/" + each))
    except OSError:
        pass
print(any("obmalloc-live" in path for path in to))
''', env=env)
    assert done.out == f'{published}\n'


@pytest.mark.parametrize('value', ['banana', '99999999', '-1', '512x', '9' * 26])
def test_bad_value(python, value):
    warned(python, 'OBMALLOC_POOL_MAX', value)


def test_unknown_name(python):
    warned(python, 'OBMALLOC_NO_SUCH', '1')


def test_each_mistake_has_its_line(python):
    done = interpret(python, 'print(1)', env=child.preloaded(
        OBMALLOC_NO_SUCH='1', OBMALLOC_POOL_MAX='banana', OBMALLOC_VERBOSE='1'))
    lines = done.err.splitlines()
    assert len(lines) == 3
    assert len([line for line in lines if 'OBMALLOC_NO_SUCH' in line]) == 1
    assert len([line for line in lines if 'banana' in line]) == 1
    status.active(done, python)


def statistics(path, pid):
    """The JSON in the file for this process."""
    with open(str(path).replace('%p', str(pid))) as file:
        return json.load(file)


def test_text_on_stderr(python):
    done = interpret(python, 'print(1)', env=child.preloaded(OBMALLOC_STATS='1'))
    assert done.out == '1\n'
    assert re.search('^obmalloc: ', done.err)
    assert len(done.err.splitlines()) > 3


def test_nothing_before_exit(python):
    """The program's own output comes first."""
    done = interpret(python, 'sys.stderr.write("mine\\n"); sys.exit(4)', status=4,
                     env=child.preloaded(OBMALLOC_STATS='1'))
    assert re.search('^mine\nobmalloc: ', done.err)


def test_file_with_the_pid(python, tmp_path):
    path = tmp_path / '%p.json'
    done = interpret(python, 'import inside; inside.workload(1)',
                     env=child.preloaded(OBMALLOC_STATS=path))
    assert (done.out, done.err) == ('', '')
    numbers = statistics(path, done.pid)
    assert numbers['pid'] == done.pid
    assert python.version in str(numbers['host'])
    assert numbers['bytes']['from_os'] > 0


def test_file_of_a_fixed_name_is_replaced(python, tmp_path):
    path = tmp_path / 'fixed.json'
    for _ in range(2):
        done = interpret(python, 'pass', env=child.preloaded(OBMALLOC_STATS=path))
    assert statistics(path, done.pid)['pid'] == done.pid


def test_forked_child_writes_its_own(python, tmp_path):
    path = tmp_path / '%p.json'
    done = interpret(python, '''
import os
pid = os.fork()
if pid == 0: sys.exit(0)
assert os.waitpid(pid, 0)[1] == 0
print(pid)
''', env=child.preloaded(OBMALLOC_STATS=path))
    for pid in done.pid, done.said:
        assert statistics(path, pid)['pid'] == pid


def test_file_that_cannot_be_written(python):
    """The program has done its work and does not fail."""
    done = interpret(python, 'print(1)', env=child.preloaded(
        OBMALLOC_STATS='/no/such/folder/%p.json'))
    assert done.out == '1\n'
    assert re.fullmatch('(obmalloc: .*\n)?', done.err)


def test_closed_stderr(python, tmp_path):
    """The library does not write to a file that the program opened as descriptor 2."""
    path = tmp_path / 'as-two'
    interpret(python, '''
import os
os.close(2)
assert os.open(sys.argv[1], os.O_CREAT | os.O_WRONLY) == 2
os.close(2)
''', path, env=child.preloaded(OBMALLOC_STATS='1'))
    assert os.path.getsize(path) == 0


@pytest.mark.since(3, 7)
def test_standing_aside(python, tmp_path):
    """A file, if there is one, is valid and has no live blocks."""
    path = tmp_path / '%p.json'
    done = interpret(python, 'pass', env=child.preloaded(OBMALLOC_STATS=path,
                                                         PYTHONMALLOC='malloc'))
    assert (done.out, done.err) == ('', '')
    if list(tmp_path.iterdir()):
        numbers = statistics(path, done.pid)
        assert sum(each['blocks_live'] for each in numbers['classes']) == 0
