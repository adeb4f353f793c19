"""Beside a library that takes malloc itself, preloaded before us or after: theirs is
layer 0, ours is what Python asks for small objects."""
import glob
import os

import support

NAMES = {'jemalloc': 'libjemalloc.so.2', 'mimalloc': 'libmimalloc.so.2',
         'tcmalloc': 'libtcmalloc_minimal.so.4'}

PROGRAM = '''
import ctypes, gc, inside, json, os, threading
other = sys.argv[1]
# Who has malloc: asked by a name that no program links to, where malloc's address would
# be a stub of the program's own.
malloc = ctypes.cast(ctypes.CDLL(None).malloc_usable_size, ctypes.c_void_p).value
with open('/proc/self/maps') as maps:
    owner = [line.split()[-1] for line in maps
             if int(line.split('-')[0], 16) <= malloc < int(line.split('-')[1].split()[0], 16)]
assert os.path.realpath(other) == os.path.realpath(owner[0]), owner
checksum = inside.workload(2)
inside.in_threads(6, lambda: inside.workload(1))
kept = [b'x' * (n % 20000) for n in range(5000)]        # from both, to and fro
for turn in range(20):
    grown = bytearray()
    while len(grown) < 100000:
        grown += b'y' * 97
    while grown:
        del grown[len(grown) // 2:]
        if len(grown) < 2: break
assert [len(each) for each in kept] == [n % 20000 for n in range(5000)]
for turn in range(3):
    pid = os.fork()
    if pid == 0:
        inside.in_threads(3, lambda: inside.workload(1))
        del kept[::2]
        os._exit(0 if inside.workload(2) == checksum else 3)
    assert os.waitpid(pid, 0)[1] == 0
with open(os.devnull) as nothing:                       # getline and printf use malloc
    nothing.read()
live = inside.live(inside.stats(inside.library()))
assert ctypes.CDLL(None).obmalloc_trim(ctypes.c_size_t(0)) >= 0
print(json.dumps([checksum, live]))
'''


def find(name):
    for folder in '/usr/lib/*/', '/usr/lib/', '/usr/lib64/', '/usr/local/lib/':
        for path in glob.glob(folder + name):
            return path
    return None


class OtherAllocators(support.PythonCase):

    def both_orders(self, kind):
        other = find(NAMES[kind])
        if not other:
            self.skipTest('no %s here' % NAMES[kind])
        stock = self.interpret('import inside; print(inside.workload(2))',
                               env=support.clean_environment(LD_PRELOAD=other))
        for order in (other, support.LIBRARY), (support.LIBRARY, other):
            with self.subTest(first=os.path.basename(order[0])):
                done = self.interpret(PROGRAM, other, env=support.clean_environment(
                    LD_PRELOAD=':'.join(order), OBMALLOC_VERBOSE='1', OBMALLOC_DECAY_MS='50'))
                checksum, live = support.said(done)
                self.assertEqual(checksum, int(stock.out), done.report)
                self.assertGreater(live, 5000, done.report)
                self.assertUs(done)

    def test_jemalloc(self):
        self.both_orders('jemalloc')

    def test_mimalloc(self):
        self.both_orders('mimalloc')

    def test_tcmalloc(self):
        self.both_orders('tcmalloc')
