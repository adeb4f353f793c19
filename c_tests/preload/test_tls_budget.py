"""Opened late where others have used up the static thread-local storage that the C
library keeps for that: with room for one word we come in; without, the loader says so,
and the program goes on as if we had not been asked."""
import support

# Other libraries first, the largest that still fit, until not even 8 bytes do. Then
# one of them less, or not.
EAT = '''
import ctypes, json, threading
import inside
sizes, room = sys.argv[3:], sys.argv[2] == 'room'
ended, meet = [], threading.Barrier(5)
def early():
    meet.wait(); meet.wait()
    ended.append(inside.workload(1))
threads = [threading.Thread(target=early) for _ in range(4)]
for each in threads:
    each.daemon = True          # so that a failure here is no hang
    each.start()
meet.wait()
eaten, last = 0, None
for path in sizes:
    size = int(path.split('-')[-1].split('.')[0])
    try:
        library = ctypes.CDLL(path)
    except OSError as error:
        assert 'static TLS' in str(error), error
        continue
    eaten, last = eaten + size, library
    assert library.eat() == 1
if room:                        # the smallest that fitted goes again: 8 bytes, mostly
    import _ctypes
    _ctypes.dlclose(last._handle)
try:
    code, said = inside.library(sys.argv[1]).obmalloc_install(), None
except OSError as error:
    code, said = None, str(error)
meet.wait()
for each in threads: each.join()
assert len(set(ended + [inside.workload(1)])) == 1 and len(ended) == 4
kept = [[object()] for _ in range(10000)]
live = inside.live(inside.stats(inside.library(sys.argv[1]))) if code == 0 else 0
print(json.dumps([eaten, code, said, live]))
'''
COPIES = {1024: 8, 256: 4, 64: 4, 8: 40}


class TlsBudget(support.PythonCase):

    def eat(self, room, **env):
        # Libraries of one file are one library: each needs a file of its own.
        paths = [support.build('tls_eater-%d-%d.so' % (n, size), '-DSIZE=%d' % size,
                               'tls_eater.c', '-shared', '-fPIC')
                 for size, count in COPIES.items() for n in range(count)]
        done = self.interpret(EAT, support.LIBRARY, 'room' if room else 'none', *paths,
                              env=support.clean_environment(OBMALLOC_VERBOSE='1', **env))
        return done, support.said(done)

    @support.only('3.6', '3.11', '3.13', '3.14')
    def test_room_for_one_word(self):
        done, (eaten, code, said, live) = self.eat(room=True)
        self.assertGreater(eaten, 1000, 'the budget of the C library')
        self.assertEqual((code, said), (0, None), done.report)
        self.assertGreater(live, 15000, done.report)
        self.assertActiveAtLast(done, self.python.version)

    @support.only('3.6', '3.11', '3.13', '3.14')
    @support.takes_long
    def test_no_room(self):
        done, (eaten, code, said, _) = self.eat(room=False)
        self.assertGreater(eaten, 1000, 'the budget of the C library')
        self.assertEqual(code, None, done.report)
        self.assertIn('cannot allocate memory in static TLS block', said)
        self.assertSaysNothing(support.Run(done.argv, done.pid, done.status, '', done.err))

    @support.only('3.11', '3.13', '3.14')
    def test_the_loaders_budget_is_larger_when_asked(self):
        """What the README of any such library says: the tunable of glibc."""
        less, more = (self.eat(room=True, GLIBC_TUNABLES='glibc.rtld.optional_static_tls=%d' % n)[1]
                      for n in (512, 4096))
        self.assertEqual((less[1], more[1]), (0, 0))
        self.assertGreater(more[0], less[0] + 2000)
