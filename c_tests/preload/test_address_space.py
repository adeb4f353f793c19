"""Addresses that the library takes: they count under `ulimit -v`, are charged to the process where
memory is not overcommitted, and are locked by mlockall."""
import os
import resource
import shutil
import unittest

import support

KIB, MIB = 1 << 10, 1 << 20
# What a process pays that only inherits the library, and what one pays beyond its blocks.
INERT, ACTIVE = 300 * KIB, 2 * MIB

STATUS = '''
import os, sys
def status(name):
    fd = os.open('/proc/self/status', os.O_RDONLY)
    text = os.read(fd, 8192).decode()
    os.close(fd)
    return int(text.split(name + ':')[1].split()[0]) * 1024
'''

# Sets the limit that it is told, then goes on as another program.
LIMITED = '''
import os, resource, sys
limit = int(sys.argv[1])
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
os.execve(sys.argv[2], sys.argv[2:], dict(os.environ, LD_PRELOAD=os.environ.get('THEN_PRELOAD', '')))
'''

LOCK = STATUS + '''
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
if libc.mlockall(3):
    print('no %d' % ctypes.get_errno())
    sys.exit()
things = [[n, str(n)] for n in range(1000)]
print(status('VmLck'))
'''


def loaded(library):
    """Bytes of the library's file that the loader maps to be read, and to be written; whole pages."""
    totals = [0, 0]
    for words in map(str.split, support.run(['readelf', '-lW', library]).out.splitlines()):
        if words[:1] == ['LOAD']:
            start, size = int(words[2], 16), int(words[5], 16)
            is_writable = 'W' in ''.join(words[6:-1])
            totals[is_writable] += -(-(start + size) // 4096) * 4096 - start // 4096 * 4096
    return totals


def limited(limit, argv, preload):
    """Runs argv with so many bytes of addresses."""
    python = shutil.which('python3')
    return support.run([python, '-S', '-c', LIMITED, str(limit)] + argv,
                       support.clean_environment(THEN_PRELOAD=support.LIBRARY if preload else ''))


@unittest.skipUnless(shutil.which('readelf'), 'no readelf here')
class Inert(support.Case):

    def test_what_the_file_has_to_be_written(self):
        self.assertLessEqual(loaded(support.LIBRARY)[1], INERT)

    def test_programs_run_under_a_limit(self):
        for name, arguments in ('sh', ['-c', 'true']), ('git', ['--version']), ('ls', ['/']):
            with self.subTest(command=name):
                path = shutil.which(name)
                if not path:
                    self.skipTest('no %s here' % name)
                # The least that it needs without us, by halves of a MiB.
                need = next((need for need in range(2 * MIB, 200 * MIB, MIB // 2)
                             if limited(need, [path] + arguments, False).status == 0), None)
                if need is None:
                    self.skipTest('%s runs under no limit' % name)
                more = loaded(support.LIBRARY)[0] + INERT + MIB // 2
                done = limited(need + more, [path] + arguments, True)
                self.assertRan(done)
                self.assertEqual(done.err, '', 'the loader says so where it has no room')


@unittest.skipUnless(shutil.which('readelf'), 'no readelf here')
class Active(support.PythonCase):

    def arguments(self, code):
        return [self.python.path, '-B', '-S', '-c', code]

    def test_python_runs_under_a_limit(self):
        peak = support.run(self.arguments(STATUS + "print(status('VmPeak'))"))
        self.assertRan(peak)
        limit = int(peak.out) + loaded(support.LIBRARY)[0] + INERT + ACTIVE
        done = limited(limit, self.arguments("print('%d' % sum(range(1000)))"), True)
        self.assertRan(done)
        self.assertEqual((done.out, done.err), ('499500\n', ''))

    def test_locked_memory(self):
        soft = resource.getrlimit(resource.RLIMIT_MEMLOCK)[0]
        if os.geteuid() != 0 and soft != resource.RLIM_INFINITY:
            self.skipTest('no process may lock all of its memory here')
        locked = []
        for env in support.clean_environment(), support.preloaded():
            done = support.run(self.arguments(LOCK), env)
            if done.status == 0 and done.out.startswith('no'):
                self.skipTest('mlockall: ' + done.out)
            self.assertRan(done)
            locked.append(int(done.out))
        self.report('locked %.1f MiB, without us %.1f' % (locked[1] / MIB, locked[0] / MIB))
        # Beside what is ours an arena, which is locked whole, may hardly have blocks yet.
        most = loaded(support.LIBRARY)[0] + INERT + ACTIVE + 3 * MIB
        self.assertLessEqual(locked[1] - locked[0], most)

    def report(self, text):
        if os.environ.get('OBMALLOC_TEST_FIGURES'):
            print('%s: %s' % (self.python.version, text), flush=True)
