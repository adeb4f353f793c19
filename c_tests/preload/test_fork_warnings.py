"""Since 3.12 CPython counts the kernel's threads after a fork, and warns if there is
more than one. The helper thread is there before each of these forks, and there is
never a warning. (It has to be looked for: with -W error, CPython drops this one
without a word.)"""
import support
import test_memory

# Body of each round: a helper there, working, asleep, leaving or just gone.
LOOP = '''
def prepare(count, wait):
    """What is kept, of so many things; and there is a helper, for now."""
    time.sleep(INTERVAL * 1.2)      # after a fork there is none for a while
    end = time.time() + 30
    while True:                     # it starts at a look, some times in each interval
        kept = build_and_drop(count)[1]
        if comes(lambda: "obmalloc" in names(), 0.2) or time.time() > end:
            break
    assert "obmalloc" in names(), names()
    time.sleep(wait * INTERVAL)
    return kept
if __name__ == "__main__":
    for n, wait in enumerate(WAITS):
        kept = prepare(500000 if n == 0 else 60000, wait)
        assert n or rss.most > 100, rss.most
        forks(kept)
        assert whole(kept)
'''
PEAK = '''
once = rss
def rss():
    rss.most = max(rss.most, once())
    return rss.most
rss.most = 0
'''


class ForkWarnings(support.PythonCase):

    def rounds(self, code, interval, waits, **settings):
        body = ''.join('    %s\n' % line for line in code.splitlines())
        program = (test_memory.TOOLS + PEAK + 'def forks(kept):\n' + body +
                   'INTERVAL, WAITS = %r, %r\n' % (interval, waits) + LOOP)
        done = self.interpret(program, options=('-W', 'always'), timeout=150,
                              env=support.preloaded(**settings))
        self.assertEqual((done.out, done.err), ('', ''), done.report)

    def forks(self, code):
        """code as the body of a function of what is kept, with a helper there each
        time that it is called."""
        self.rounds(code, 0.02, [0, 0, 0.5, 0.9, 1, 1.1, 1.9, 2, 2.1, 3, 3.1, 4],
                    OBMALLOC_DECAY_MS='20')

    @support.since(3, 12)
    def test_fork(self):
        self.forks('pid = os.fork()\n'
                   'if pid == 0:\n'
                   '    good = threading.active_count() == len(names()) == 1 and whole(kept)\n'
                   '    build_and_drop(3000)\n'
                   '    os._exit(0 if good else 3)\n'
                   'assert len(names()) == 1, names()\n'
                   'assert os.waitpid(pid, 0)[1] == 0')

    @support.since(3, 12)
    def test_many_forks_in_a_row(self):
        self.forks('for each in range(15):\n'
                   '    pid = os.fork()\n'
                   '    if pid == 0:\n'
                   '        os._exit(0)\n'
                   '    assert os.waitpid(pid, 0)[1] == 0\n'
                   '    things = [Thing(n) for n in range(3000)]; del things')

    @support.since(3, 12)
    def test_fork_with_the_usual_interval(self):
        self.rounds('import subprocess\n'
                    'subprocess.run(["true"], preexec_fn=os.getpid, check=True)\n'
                    'pid = os.fork()\n'
                    'if pid == 0:\n'
                    '    os._exit(0)\n'
                    'assert os.waitpid(pid, 0)[1] == 0', 1.0, [0, 0.5, 1])

    @support.since(3, 12)
    def test_forkpty(self):
        self.forks('pid, fd = os.forkpty()\n'
                   'if pid == 0:\n'
                   '    os._exit(0)\n'
                   'assert os.waitpid(pid, 0)[1] == 0\n'
                   'os.close(fd)')

    @support.since(3, 12)
    def test_multiprocessing_process(self):
        self.forks('import multiprocessing\n'
                   'child = multiprocessing.get_context("fork").Process(\n'
                   '    target=build_and_drop, args=(3000,))\n'
                   'child.start()\n'
                   'child.join()\n'
                   'assert child.exitcode == 0')

    @support.since(3, 12)
    def test_multiprocessing_pool(self):
        self.forks('import multiprocessing\n'
                   'with multiprocessing.get_context("fork").Pool(2) as pool:\n'
                   '    assert pool.map(len, [kept] * 8) == [len(kept)] * 8\n'
                   '    pool.close()\n'
                   '    pool.join()')

    @support.since(3, 12)
    def test_process_pool_executor(self):
        self.forks('import concurrent.futures, multiprocessing\n'
                   'context = multiprocessing.get_context("fork")\n'
                   'with concurrent.futures.ProcessPoolExecutor(2, context) as pool:\n'
                   '    assert list(pool.map(len, [kept] * 8)) == [len(kept)] * 8')

    @support.since(3, 12)
    def test_subprocess(self):
        self.forks('import subprocess\n'
                   'subprocess.run(["true"], check=True)\n'
                   'subprocess.run(["true"], preexec_fn=os.getpid, check=True)')
