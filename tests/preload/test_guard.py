"""OBMALLOC_GUARD_SAMPLE_RATE: memory errors of an extension module are found at the faulty access;
the report has their kind, their place, and the frames that allocated and freed the block."""
import re
import signal

import pytest

from support import build, child
from support.preload import PROGRAMS, interpret, run_program
from support.status import silent

HEAD = re.compile(r'^obmalloc: ([a-z ]+): (.*) \(pid (\d+)\)$', re.M)

# Calls one function of the extension until the block is a guarded one; blocks without a guard
# survive the mistake. Reports show the function's name and line.
REPEAT = '''
import os, sys
sys.path.insert(0, %r)
import mistakes
def again(name, *numbers):
    for _ in range(%d):
        getattr(mistakes, name)(*numbers)
'''
# The line of the call in the program; interpret() adds one.
LINE = 8


def extension(python):
    """The folder of mistakes.so for this interpreter."""
    if not python.headers:
        pytest.skip('no Python.h')
    return build.program(f'mistakes-{python.name}/mistakes.so', 'mistakes.c', '-O1', '-shared',
                         '-fPIC', '-isystem', python.include, folder=PROGRAMS).parent


class Report:
    """One report. A part has a word, a thread, native frames, and lines of Python."""

    def __init__(self, done):
        self.done = done
        self.heads = HEAD.findall(done.err)
        assert len(self.heads) == 1
        self.what, self.where, self.pid = self.heads[0]
        self.parts = {}
        for line in done.err.splitlines():
            found = re.match(r'obmalloc:   (\w+) by thread (\d+):$', line)
            if found:
                part = self.parts[found.group(1)] = (int(found.group(2)), [], [])
            frame = re.match(r'obmalloc:     #\d+ (.+)$', line)
            if frame:
                part[1].append(frame.group(1))
            python = re.match(r'obmalloc:     (File .+)$', line)
            if python:
                part[2].append(python.group(1))


def make(python, name, *numbers, before='', call=None, options=(), times=3000,
         status=-signal.SIGSEGV, **settings):
    """The report of a program that makes this mistake until it is found."""
    call = call or 'again(%s)\n' % ', '.join(map(repr, (name,) + numbers))
    code = REPEAT % (str(extension(python)), times) + before + '\n' + call
    # Without site, whose modules take most of the slots for good.
    return Report(interpret(python, code, options=('-S', *options), status=status,
                            env=child.preloaded(**{'OBMALLOC_GUARD_SAMPLE_RATE': '1'} | settings)))


def has_native(frames, function):
    """Whether one of these frames is in a function of the extension. musl has no backtrace: there
    a fault has one frame, and nothing else has any."""
    found = [f'({function}+0x' in frame and 'mistakes.so+0x' in frame for frame in frames]
    return found in ([], [True]) if build.FOR_MUSL else any(found)


def assert_part(python, report, word, function):
    """This part names the extension's function and the Python line."""
    assert word in report.parts
    thread, frames, lines = report.parts[word]
    assert thread > 0
    assert has_native(frames[:3], function)
    assert lines[0] == 'File "<string>", line %d, in again' % LINE
    assert re.search(r'^File "<string>", line \d+, in <module>$', lines[1])


FREED = dict(allocated='mistakes_allocate', freed='mistakes_free')
READ, ALLOCATED = dict(read='mistakes_access'), dict(allocated='mistakes_allocate')
ABORT = dict(status=-signal.SIGABRT)
# The function of the extension and its arguments; the kind and the place of the report, and its
# parts; settings.
MISTAKES = {
    'read of a freed block': (
        ('read_freed', 40, 8), 'use after free',
        r'^read of 0x\w+, 8 bytes into the freed block of 40 bytes at 0x\w+$', READ | FREED, {}),
    'write of a freed block': (
        ('write_freed', 400, 399), 'use after free',
        r'^write of 0x\w+, 399 bytes into the freed block of 400 bytes',
        dict(write='mistakes_write') | FREED, {}),
    'one in ten': (
        ('read_freed', 64, 0), 'use after free',
        r'^read of 0x\w+, 0 bytes into the freed block of 64 bytes', READ | FREED,
        dict(OBMALLOC_GUARD_SAMPLE_RATE='10')),
    # In the bytes that alignment leaves over: found when the block is freed.
    'overflow by one': (
        ('write_at', 41, 41), 'overflow',
        r'^written 0 bytes after the block of 41 bytes at 0x\w+, seen when',
        dict(free='mistakes_free') | ALLOCATED, ABORT),
    # A block at the right end of its slot faults, at the left end a write is found later: reads,
    # which only fault, are repeated.
    'overflow by sixteen': (
        ('read_at', 48, 64), 'overflow',
        r'^read of 0x\w+, 16 bytes after the block of 48 bytes', READ | ALLOCATED, {}),
    'overflow of a large block': (
        ('read_at', 20000, 20000), 'overflow',
        r'^read of 0x\w+, 0 bytes after the block of 20000 bytes', READ | ALLOCATED, {}),
    'underflow': (
        ('read_at', 100, -1), 'underflow',
        r'^read of 0x\w+, 1 bytes before the block of 100 bytes', READ | ALLOCATED, {}),
    'double free': (
        ('free_twice', 40), 'double free',
        r'^free of 0x\w+, 0 bytes into the freed block of 40 bytes',
        dict(free='mistakes_free') | FREED, ABORT | dict(times=1)),
    'free of an inner address': (
        ('free_at', 40, 8), 'no block', r'^free of 0x\w+, 8 bytes into the block of 40 bytes',
        dict(free='mistakes_free') | ALLOCATED, ABORT | dict(times=1)),
    'without the GIL': (
        ('read_freed_without_gil', 40, 8), 'use after free', r'^read of', READ | FREED, {}),
}


@pytest.mark.parametrize('mistake', MISTAKES)
def test_report(python, mistake):
    call, what, where, parts, settings = MISTAKES[mistake]
    report = make(python, *call, **settings)
    assert report.what == what
    assert re.search(where, report.where)
    assert sorted(report.parts) == sorted(parts)
    for word, function in parts.items():
        assert_part(python, report, word, function)


def test_realloc_of_a_freed_block(python):
    report = make(python, 'resize_freed', 40, times=1, status=-signal.SIGABRT)
    assert report.what == 'use after free'
    assert re.search(r'^realloc of 0x\w+, 0 bytes into the freed block of 40', report.where)
    assert_part(python, report, 'freed', 'mistakes_free')


def test_a_reference_too_few(python):
    """The commonest mistake: the object is freed while a list still has it."""
    report = make(python, '', call='''
class Thing(object):
    __slots__ = ("a", "b")
held = [Thing() for _ in range(3)]
def lose():
    mistakes.drop(held[1])
lose()
print(held[1].a)
''')
    assert report.what == 'use after free'
    assert re.search('^(read|write) of 0x.* into the freed block of ', report.where)
    for word, name in (('allocated', '<(listcomp|module)>'), ('freed', 'lose')):
        assert bool(report.parts[word][1]) != build.FOR_MUSL
        assert re.search(rf'^File "<string>", line \d+, in {name}', report.parts[word][2][0])


# faulthandler: 2.7 has none.
def assert_both(python, report):
    """The library's report and faulthandler's; the signal ends the process."""
    assert report.what == 'use after free'
    assert_part(python, report, 'freed', 'mistakes_free')
    assert report.done.err.count('Fatal Python error: Segmentation fault') == 1
    assert re.search(r'File "<string>", line %d in again' % LINE, report.done.err)


@pytest.mark.since(3, 6)
def test_faulthandler_before(python):
    report = make(python, 'read_freed', 40, 8, options=('-X', 'faulthandler'))
    assert_both(python, report)
    # Before 3.8 the interpreter enables faulthandler after its first guarded blocks.
    if python.numbers >= (3, 8):
        assert report.done.err.index('use after free') < report.done.err.index('Fatal Python error')


@pytest.mark.since(3, 6)
def test_faulthandler_after(python):
    report = make(python, 'read_freed', 40, 8, before='import faulthandler; faulthandler.enable()')
    assert_both(python, report)
    assert has_native(report.parts['read'][1], 'mistakes_access')


@pytest.mark.since(3, 6)
def test_faulthandler_enabled_and_disabled(python):
    report = make(python, 'read_freed', 40, 8, before='import faulthandler; '
                  'faulthandler.enable(); faulthandler.disable()')
    assert_part(python, report, 'read', 'mistakes_access')
    assert 'Fatal Python error' not in report.done.err


def plain(python, code, status):
    """A program that makes no mistake with a guarded block: no report."""
    env = child.preloaded(OBMALLOC_GUARD_SAMPLE_RATE='1')
    done = interpret(python, REPEAT % (str(extension(python)), 200) + code, env=env, status=status)
    silent(done)
    return done


def test_other_faults_are_passed_on(python):
    plain(python, 'import ctypes; ctypes.string_at(8)', -signal.SIGSEGV)


def test_signals_that_are_sent_are_passed_on(python):
    plain(python, 'import signal; os.kill(os.getpid(), signal.SIGSEGV); 1 + 1', -signal.SIGSEGV)


def test_a_handler_of_the_program_is_called(python):
    """It replaces the library's."""
    done = plain(python, 'import signal; signal.signal(signal.SIGSEGV, lambda *_: sys.exit(5))\n'
                 'os.kill(os.getpid(), signal.SIGSEGV)\nimport time; time.sleep(9)\n', 5)
    assert done.out == ''


@pytest.mark.since(3, 6)
def test_faulthandler_of_another_fault(python):
    done = plain(python, 'import ctypes, faulthandler; faulthandler.enable(); ctypes.string_at(8)',
                 -signal.SIGSEGV)
    assert 'Fatal Python error: Segmentation fault' in done.err


def test_in_a_thread(python):
    report = make(python, '', before='import threading', OBMALLOC_GUARD_SAMPLE_RATE='4',
                  call='thread = threading.Thread(target=again, '
                  'args=("read_freed", 40, 8)); thread.start(); thread.join()\n')
    assert report.what == 'use after free'
    read, allocated = report.parts['read'][0], report.parts['allocated'][0]
    assert read == allocated
    assert read != int(report.pid)


def test_several_threads_at_once(python):
    """One reports, the others wait; the process ends."""
    report = make(python, '', before='import threading', OBMALLOC_GUARD_SAMPLE_RATE='4', call='''
threads = [threading.Thread(target=again, args=("read_freed_without_gil", 40, 8)) for _ in range(4)]
for thread in threads: thread.start()
for thread in threads: thread.join()
''')
    assert report.what == 'use after free'


def test_in_a_forked_child(python):
    report = make(python, '', status=0, call='''
pid = os.fork()
if pid == 0:
    again('read_freed', 40, 8)
    os._exit(1)
status = os.waitpid(pid, 0)[1]
assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == 11, status
kept = [[n] for n in range(100)]
''')
    assert report.what == 'use after free'
    assert int(report.pid) != report.done.pid


@pytest.mark.one_python
def test_fork_while_threads_are_guarded(python):
    interpret(python, '''
import os, threading
stop = []
def work():
    while not stop:
        [[n] for n in range(100)]
threads = [threading.Thread(target=work) for _ in range(3)]
for thread in threads: thread.start()
for n in range(15):
    pid = os.fork()
    if pid == 0:
        kept = [[n] for n in range(1000)]
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
stop.append(1)
for thread in threads: thread.join()
''', env=child.preloaded(OBMALLOC_GUARD_SAMPLE_RATE='2'), options=('-W', 'ignore'))


@pytest.mark.one_python
@pytest.mark.parametrize('rate', ['20', '1000'])
def test_ordinary_programs_run_as_ever(python, rate):
    done = run_program(python, 'forks.py', 'quiet', '3',
                       env=child.preloaded(OBMALLOC_GUARD_SAMPLE_RATE=rate))
    assert (done.out, done.err) == ('', '')


def test_off_there_is_no_handler(python):
    """With guards on there is none before the first guarded block."""
    code = ('text = [line for line in open("/proc/self/status") if "SigCgt" in line][0]\n'
            'print(int(text.split()[1], 16) >> 10 & 1)\n')
    for rate, expected in (('0', '0'), ('1', '1'), ('1000000000', '0')):
        done = interpret(python, code, env=child.preloaded(OBMALLOC_GUARD_SAMPLE_RATE=rate))
        assert done.out.strip() == expected, rate


@pytest.mark.one_python
@pytest.mark.parametrize('module', ['test_json', 'test_dict', 'test_gc', 'test_faulthandler'])
def test_cpythons_own_tests(python, module, tmp_path):
    """A module that passes without the library passes with it."""
    if module == 'test_faulthandler' and python.numbers < (3,):
        pytest.skip('2.7 has no faulthandler')
    runner = 'test' if python.numbers >= (3,) else 'test.regrtest'
    argv = [python.path, '-B', '-m', runner, module]
    if child.run(argv, timeout=280, cwd=tmp_path).status != 0:
        pytest.skip('fails without the library, or is not installed')
    child.run(argv, child.preloaded(OBMALLOC_GUARD_SAMPLE_RATE='100'), 280, cwd=tmp_path, status=0)
