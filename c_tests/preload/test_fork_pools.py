"""A library with a pool of threads, whose fork handler waits for their end, beside ours:
registered before obmalloc_install() and after it, or when the interpreter starts. The
threads need locks of ours before they end; the fork holds them if our handler comes first."""
import support

PROGRAM = '''
import ctypes, faulthandler, os, sys
faulthandler.dump_traceback_later(40, exit=True)
order, pool, ours = sys.argv[1:]
def install():
    assert ctypes.PyDLL(ours).obmalloc_install() == 0
if order == 'after':
    install()
pool = ctypes.CDLL(pool)
if order != 'at start':
    pool.pool_register()
if order == 'before':
    install()
for turn in range(3):
    assert pool.pool_start() == 0
    kept = [(n, str(n)) for n in range(20000)]
    pid = os.fork()
    if pid == 0:
        good = all(n == int(text) for n, text in kept)
        more = [[n] for n in range(20000)]
        del more, kept
        os._exit(0 if good else 3)
    assert os.waitpid(pid, 0)[1] == 0, turn
'''


class ForkPools(support.PythonCase):

    def pool(self, *flags):
        return support.build('thread_pool%d.so' % len(flags), *flags, '-shared', '-fPIC',
                             'thread_pool.c', '-lpthread')

    @support.since(3, 6)
    def test_installed_late(self):
        for order in 'before', 'after':
            with self.subTest(order):
                self.interpret(PROGRAM, order, self.pool(), support.LIBRARY,
                               options=('-W', 'ignore'), env=support.clean_environment())

    @support.since(3, 6)
    def test_preloaded(self):
        self.interpret(PROGRAM, 'preloaded', self.pool(), support.LIBRARY,
                       options=('-W', 'ignore'))

    @support.since(3, 6)
    def test_preloaded_beside_a_pool_that_registers_at_start(self):
        pool = self.pool('-DAT_START')
        for libraries in (support.LIBRARY, pool), (pool, support.LIBRARY):
            with self.subTest(libraries):
                env = support.preloaded()
                env['LD_PRELOAD'] = ':'.join(libraries)
                self.interpret(PROGRAM, 'at start', pool, support.LIBRARY,
                               options=('-W', 'ignore'), env=env)
