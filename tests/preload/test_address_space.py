"""Address space that the library takes: it counts under `ulimit -v`, is charged to the process
where memory is not overcommitted, and is locked by mlockall."""
import os
import resource
import shutil

import pytest

from support import build, child

pytestmark = pytest.mark.skipif(not shutil.which('readelf'), reason='no readelf')

KIB, MIB = 1 << 10, 1 << 20
# The cost for a process that only inherits the library, and for an active one beside its blocks.
INERT, IN_USE = 300 * KIB, 2 * MIB

STATUS = '''
import os, sys
def status(name):
    fd = os.open('/proc/self/status', os.O_RDONLY)
    text = os.read(fd, 8192).decode()
    os.close(fd)
    return int(text.split(name + ':')[1].split()[0]) * 1024
'''

# Sets the limit of its first argument, then executes the other arguments.
LIMITED = '''
import os, resource, sys
limit = int(sys.argv[1])
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
os.execve(sys.argv[2], sys.argv[2:],
          dict(os.environ, LD_PRELOAD=os.environ.get('THEN_PRELOAD', '')))
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
    """Bytes of the library's file that the loader maps, read-only and writable, in whole pages."""
    totals = [0, 0]
    for words in map(str.split, child.run(['readelf', '-lW', library]).out.splitlines()):
        if words[:1] == ['LOAD']:
            start, size = int(words[2], 16), int(words[5], 16)
            is_writable = 'W' in ''.join(words[6:-1])
            totals[is_writable] += -(-(start + size) // 4096) * 4096 - start // 4096 * 4096
    return totals


def limited(limit, argv, preload):
    """Runs argv with `limit` bytes of address space."""
    python = shutil.which('python3')
    return child.run([python, '-S', '-c', LIMITED, str(limit)] + argv,
                     child.clean_environment(THEN_PRELOAD=build.LIBRARY if preload else ''))


def test_writable_part_of_the_file():
    assert loaded(build.LIBRARY)[1] <= INERT


@pytest.mark.parametrize('command', ['sh -c true', 'git --version', 'ls /'])
def test_programs_run_under_a_limit(command):
    argv = command.split()
    argv[0] = shutil.which(argv[0]) or pytest.skip(f'no {argv[0]}')
    # The least that it needs without the library, by halves of a MiB.
    need = next((need for need in range(2 * MIB, 200 * MIB, MIB // 2)
                 if limited(need, argv, False).status == 0), None)
    if need is None:
        pytest.skip('runs under no limit')
    more = loaded(build.LIBRARY)[0] + INERT + MIB // 2
    done = limited(need + more, argv, True)
    assert done.status == 0
    assert done.err == '', 'the loader says so where it has no room'


def arguments(python, code):
    return [python.path, '-B', '-S', '-c', code]


def test_python_runs_under_a_limit(python):
    peak = child.run(arguments(python, STATUS + "print(status('VmPeak'))"), status=0)
    limit = int(peak.out) + loaded(build.LIBRARY)[0] + INERT + IN_USE
    done = limited(limit, arguments(python, "print('%d' % sum(range(1000)))"), True)
    assert done.status == 0
    assert (done.out, done.err) == ('499500\n', '')


def test_locked_memory(python):
    soft = resource.getrlimit(resource.RLIMIT_MEMLOCK)[0]
    if os.geteuid() != 0 and soft != resource.RLIM_INFINITY:
        pytest.skip('no process may lock all of its memory')
    locked = []
    for env in child.clean_environment(), child.preloaded():
        done = child.run(arguments(python, LOCK), env)
        if done.status == 0 and done.out.startswith('no'):
            pytest.skip('mlockall: ' + done.out)
        assert done.status == 0
        locked.append(int(done.out))
    # An arena is locked whole and may have few blocks yet.
    most = loaded(build.LIBRARY)[0] + INERT + IN_USE + 3 * MIB
    assert locked[1] - locked[0] <= most
