"""Memory that is returned to the kernel: when, by which thread, and where that thread is seen."""
from pathlib import Path

import pytest

from support import child
from support.preload import interpret


def ask(python, code, options=(), **settings):
    """The JSON that a program with programs/memory.py prints."""
    return interpret(python, 'from memory import *\n' + code, options=options,
                     env=child.preloaded(**settings)).said


# Sleeps, as an idle program does.
IDLE = '''
peak, kept = build_and_drop()
dropped = rss()
helper = comes(lambda: 'obmalloc' in names(), 0.5)
fell = comes(lambda: rss() < peak - 20)
gone = comes(lambda: len(names()) == 1) and threading.active_count() == 1
print(json.dumps([peak, dropped, rss(), helper, fell, gone, whole(kept)]))
'''


def gets_smaller(python, **settings):
    peak, dropped, later, helper, fell, gone, whole = ask(python, IDLE, **settings)
    assert (helper, fell, gone, whole) == (True, True, True, True), (peak, dropped, later)


def test_an_idle_program_gets_smaller(python):
    gets_smaller(python, OBMALLOC_DECAY_MS='300')


@pytest.mark.one_python
def test_by_default_too(python):
    gets_smaller(python)


def test_never(python):
    """Without decay obmalloc_trim still returns memory."""
    peak, later, helper, trimmed, least = ask(python, '''
peak, kept = build_and_drop()
time.sleep(0.5)
helper, later = len(names()) > 1, rss()
trim = ctypes.CDLL(None).obmalloc_trim
trim.restype, trim.argtypes = ctypes.c_size_t, [ctypes.c_size_t]
trimmed = trim(0) / 1048576.0
assert whole(kept)
print(json.dumps([peak, later, helper, trimmed, rss()]))
''', OBMALLOC_DECAY_MS='-1')
    assert not helper
    assert trimmed > 5, 'MiB'
    assert least < later - trimmed / 2


HUGE = '''
def huge():
    with open('/proc/self/smaps') as file:
        return sum(int(line.split()[1]) for line in file if line.startswith('AnonHuge')) / 1024.0
junk = [bytes(n % 500) for n in range(100000)]
del junk
comes(lambda: 'obmalloc' in names(), 0.5)
things = [Thing(n) for n in range(300000)]
time.sleep(0.3)
most, full = huge(), rss()
random.seed(7)
kept = random.sample(things, 300)
del things
fell = comes(lambda: rss() < full - 20 and huge() <= most / 4)
print(json.dumps([most, huge(), fell, whole(kept)]))
'''


@pytest.mark.one_python
def test_huge_pages_when_asked_for(python):
    """The kernel provides them, and the return of pages splits them for good."""
    setting = Path('/sys/kernel/mm/transparent_hugepage/enabled')
    if not setting.exists() or '[never]' in setting.read_text():
        pytest.skip('no huge pages for programs')
    most, later, fell, whole = ask(python, HUGE, OBMALLOC_THP='always',
                                   OBMALLOC_DECAY_MS='100')
    assert most > 20
    assert (fell, whole) == (True, True), later
    assert ask(python, HUGE, OBMALLOC_DECAY_MS='100')[0] == 0


def test_at_once(python):
    peak, later, threads = ask(python, '''
peak, kept = build_and_drop()
assert whole(kept)
print(json.dumps([peak, rss(), len(names())]))
''', OBMALLOC_DECAY_MS='0')
    assert later < peak - 20
    assert threads == 1


def test_without_a_thread(python):
    """A program that allocates returns its pages itself."""
    peak, least, threads = ask(python, '''
peak, kept = build_and_drop()
threads = 1
end = time.time() + 30
while rss() > peak - 20 and time.time() < end:
    work = [Thing(n) for n in range(3000)]; del work
    threads = max(threads, len(names()))
assert whole(kept)
print(json.dumps([peak, rss(), threads]))
''', OBMALLOC_DECAY_MS='100', OBMALLOC_BACKGROUND_THREAD='0')
    assert least < peak - 20
    assert threads == 1


def test_trim_while_threads_work(python):
    ask(python, '''
trim = ctypes.CDLL(None).obmalloc_trim
trim.restype, trim.argtypes = ctypes.c_size_t, [ctypes.c_size_t]
bad = []
def work():
    for n in range(15):
        if not whole(build_and_drop(4000)[1]): bad.append(n)
threads = [threading.Thread(target=work) for n in range(3)]
for each in threads: each.start()
while any(each.is_alive() for each in threads):
    trim(0)
assert not bad, bad
print("null")
''')


def test_a_small_program_has_one_thread(python):
    counts = ask(python, '''
counts = set()
for n in range(60):
    work = [Thing(n) for n in range(3000)]; del work
    counts.add((len(names()), threading.active_count()))
    time.sleep(0.005)
print(json.dumps(sorted(counts)))
''', OBMALLOC_DECAY_MS='20')
    assert counts == [[1, 1]]


def test_python_does_not_see_the_thread(python):
    seen = ask(python, '''
peak, kept = build_and_drop()
assert comes(lambda: "obmalloc" in names())
print(json.dumps([threading.active_count(), len(threading.enumerate()),
                  len(sys._current_frames())]))
''')
    assert seen == [1, 1, 1]


def test_a_child_gets_smaller_too(python):
    """A forked child has no helper; it can start its own later."""
    results = ask(python, '''
peak, kept = build_and_drop(100000)
pid = os.fork()
if pid == 0:
    time.sleep(0.4)
    peak, more = build_and_drop()
    helper = comes(lambda: "obmalloc" in names(), 2)
    fell = comes(lambda: rss() < peak - 20)
    os._exit(helper * 1 + fell * 2 + (whole(kept) and whole(more)) * 4)
print(json.dumps(os.waitpid(pid, 0)[1] >> 8))
''', OBMALLOC_DECAY_MS='200')
    assert results == 7
