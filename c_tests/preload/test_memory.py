"""What Python gives back to the kernel, when, and by whom: the helper thread, and
who may see it."""
import sys

import support

# Names for the programs below. Interpreters since 3.6 and 2.7 understand it.
TOOLS = '''
import ctypes, gc, os, random, threading, time
def rss():
    """MiB of the process that are in memory."""
    with open('/proc/self/statm') as file:
        return int(file.read().split()[1]) * os.sysconf('SC_PAGESIZE') / 1048576.0
def names():
    """The kernel's threads of the process: one name each."""
    found = []
    for each in os.listdir('/proc/self/task'):
        try:
            with open('/proc/self/task/%s/comm' % each) as file:
                found.append(file.read().strip())
        except (IOError, OSError):
            pass                    # it has just ended
    return found
def comes(condition, seconds=30):
    end = time.time() + seconds
    while not condition() and time.time() < end:
        time.sleep(0.01)
    return condition()
class Thing(object):
    __slots__ = ('a', 'b', 'c')
    def __init__(self, n):
        self.a, self.b, self.c = n, [n], str(n)
def build_and_drop(count=300000):
    """Of so many, one in a thousand is kept, at random. MiB before they go."""
    things = [Thing(n) for n in range(count)]
    peak = rss()
    random.seed(7)
    kept = random.sample(things, count // 1000)
    del things
    gc.collect()
    return peak, kept
def whole(kept):
    return all(each.b == [each.a] and each.c == str(each.a) for each in kept)
'''


class Memory(support.PythonCase):

    def ask(self, code, options=(), plain=False, **settings):
        """What a program with these tools said, as JSON."""
        env = support.clean_environment(**settings) if plain else support.preloaded(**settings)
        return support.said(self.interpret(TOOLS + 'import json\n' + code, env=env,
                                           options=options))

    def say(self, text):
        # One write, as other checks print at the same time.
        sys.stdout.write('      %-14s memory: %s\n' % (self.python.label, text))

    # Sleeps, as an idle program does; a thousand objects may fall anyhow.
    IDLE = '''
peak, kept = build_and_drop()
dropped = rss()
helper = comes(lambda: 'obmalloc' in names(), 0.5)
fell = comes(lambda: rss() < peak - 20, float(sys.argv[1]))
gone = comes(lambda: len(names()) == 1) and threading.active_count() == 1
print(json.dumps([peak, dropped, rss(), helper, fell, gone, whole(kept)]))
'''

    def idle(self, seconds, **settings):
        code = self.IDLE.replace('sys.argv[1]', repr(seconds))
        return self.ask(code, **settings)

    def test_an_idle_program_gets_smaller(self):
        peak, dropped, later, helper, fell, gone, whole = self.idle('30', OBMALLOC_DECAY_MS='300')
        stock = self.idle('2', plain=True)
        self.say('MiB at the peak %.1f, dropped %.1f, later %.1f; stock %.1f, %.1f, %.1f'
                 % (peak, dropped, later, *stock[:3]))
        self.assertEqual((helper, fell, gone, whole), (True, True, True, True),
                         (peak, dropped, later))

    @support.takes_long
    def test_by_default_too(self):
        peak, dropped, later, helper, fell, gone, whole = self.idle('30')
        self.assertEqual((helper, fell, gone, whole), (True, True, True, True),
                         (peak, dropped, later))

    def test_never(self):
        """By the time only: trim does it still."""
        peak, later, helper, trimmed, least = self.ask(
            'peak, kept = build_and_drop()\n'
            'time.sleep(0.5)\n'
            'helper, later = len(names()) > 1, rss()\n'
            'trim = ctypes.CDLL(None).obmalloc_trim\n'
            'trim.restype, trim.argtypes = ctypes.c_size_t, [ctypes.c_size_t]\n'
            'trimmed = trim(0) / 1048576.0\n'
            'assert whole(kept)\n'
            'print(json.dumps([peak, later, helper, trimmed, rss()]))\n', OBMALLOC_DECAY_MS='-1')
        self.assertFalse(helper)
        self.assertGreater(trimmed, 5, 'MiB')
        self.assertLess(least, later - trimmed / 2)

    HUGE = '''
def huge():
    with open('/proc/self/smaps') as file:
        return sum(int(line.split()[1]) for line in file if line.startswith('AnonHuge')) / 1024.0
things = [Thing(n) for n in range(300000)]
most, full = huge(), rss()
random.seed(7)
kept = random.sample(things, 300)
del things
fell = comes(lambda: rss() < full - 20 and huge() < most / 4)
print(json.dumps([most, huge(), fell, whole(kept)]))
'''

    @support.takes_long
    def test_huge_pages_when_asked_for(self):
        """They come, and the return of pages splits them for good."""
        try:
            with open('/sys/kernel/mm/transparent_hugepage/enabled') as setting:
                allowed = '[never]' not in setting.read()
        except OSError:
            allowed = False
        if not allowed:
            raise support.unittest.SkipTest('this system has no huge pages for programs')
        most, later, fell, whole = self.ask(self.HUGE, OBMALLOC_THP='always',
                                            OBMALLOC_DECAY_MS='100')
        self.assertGreater(most, 20)
        self.assertEqual((fell, whole), (True, True), later)
        self.assertEqual(self.ask(self.HUGE, OBMALLOC_DECAY_MS='100')[0], 0)

    def test_at_once(self):
        peak, later, threads = self.ask(
            'peak, kept = build_and_drop()\n'
            'assert whole(kept)\n'
            'print(json.dumps([peak, rss(), len(names())]))\n', OBMALLOC_DECAY_MS='0')
        self.assertLess(later, peak - 20)
        self.assertEqual(threads, 1)

    def test_without_a_thread(self):
        """Then a program that goes on gets smaller."""
        peak, least, threads = self.ask(
            'peak, kept = build_and_drop()\n'
            'threads = 1\n'
            'end = time.time() + 30\n'
            'while rss() > peak - 20 and time.time() < end:\n'
            '    work = [Thing(n) for n in range(3000)]; del work\n'
            '    threads = max(threads, len(names()))\n'
            'assert whole(kept)\n'
            'print(json.dumps([peak, rss(), threads]))\n',
            OBMALLOC_DECAY_MS='100', OBMALLOC_THREAD='0')
        self.assertLess(least, peak - 20)
        self.assertEqual(threads, 1)

    def test_trim_while_threads_work(self):
        self.ask(
            'trim = ctypes.CDLL(None).obmalloc_trim\n'
            'trim.restype, trim.argtypes = ctypes.c_size_t, [ctypes.c_size_t]\n'
            'bad = []\n'
            'def work():\n'
            '    for n in range(15):\n'
            '        if not whole(build_and_drop(4000)[1]): bad.append(n)\n'
            'threads = [threading.Thread(target=work) for n in range(3)]\n'
            'for each in threads: each.start()\n'
            'while any(each.is_alive() for each in threads):\n'
            '    trim(0)\n'
            'assert not bad, bad\n'
            'print("null")\n')

    def test_a_small_program_has_one_thread(self):
        counts = self.ask(
            'counts = set()\n'
            'for n in range(60):\n'
            '    work = [Thing(n) for n in range(3000)]; del work\n'
            '    counts.add((len(names()), threading.active_count()))\n'
            '    time.sleep(0.005)\n'
            'print(json.dumps(sorted(counts)))\n', OBMALLOC_DECAY_MS='20')
        self.assertEqual(counts, [[1, 1]])

    def test_python_does_not_see_the_thread(self):
        seen = self.ask(
            'peak, kept = build_and_drop()\n'
            'assert comes(lambda: "obmalloc" in names())\n'
            'print(json.dumps([threading.active_count(), len(threading.enumerate()),\n'
            '                  len(sys._current_frames())]))\n')
        self.assertEqual(seen, [1, 1, 1])

    def test_a_child_gets_smaller_too(self):
        """A child has no thread of its parent's; it may have its own, later."""
        results = self.ask(
            'peak, kept = build_and_drop(100000)\n'
            'pid = os.fork()\n'
            'if pid == 0:\n'
            '    time.sleep(0.4)\n'
            '    peak, more = build_and_drop()\n'
            '    helper = comes(lambda: "obmalloc" in names(), 2)\n'
            '    fell = comes(lambda: rss() < peak - 20)\n'
            '    os._exit(helper * 1 + fell * 2 + (whole(kept) and whole(more)) * 4)\n'
            'print(json.dumps(os.waitpid(pid, 0)[1] >> 8))\n', OBMALLOC_DECAY_MS='200')
        self.assertEqual(results, 7)
