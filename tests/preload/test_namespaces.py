"""System calls that the kernel allows to single-threaded processes only: they succeed with
OBMALLOC_BACKGROUND_THREAD=0, with which the library starts no thread."""
import pytest

from support import child
from support.preload import interpret

PROGRAM = '''
import ctypes, os, sys
way = sys.argv[1]
libc = ctypes.CDLL(None, use_errno=True)
NEWTIME, NEWNS, NEWUSER = 0x80, 0x20000, 0x10000000
def outcome(result):
    return 0 if result == 0 else ctypes.get_errno()
def child_with_namespaces():
    """A child with namespaces of its own, or what was refused."""
    kind = {'user': NEWUSER, 'mnt': NEWUSER | NEWNS, 'time': NEWUSER | NEWTIME}[way]
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        refused = outcome(libc.unshare(kind))
        os.write(write, b'%d\\n' % refused)
        os.read(os.pipe()[0], 1)    # until it is killed
    return pid, int(os.read(read, 20))
pid = refused = 0
if way != 'unshare':
    pid, refused = child_with_namespaces()
kept = [[n] for n in range(400000)]
del kept                    # starts the helper thread where it may start
import time; time.sleep(0.05)
if refused:
    said = ['refused', refused]
elif way == 'unshare':
    said = [outcome(libc.unshare(NEWUSER))]
else:
    joined = {'user': [('user', NEWUSER)], 'mnt': [('user', NEWUSER), ('mnt', NEWNS)],
              'time': [('user', NEWUSER), ('time_for_children', NEWTIME)]}[way]
    fds = [(os.open('/proc/%d/ns/%s' % (pid, name), os.O_RDONLY), kind) for name, kind in joined]
    said = [outcome(libc.setns(*each)) for each in fds]
if pid:
    os.kill(pid, 9)
import json; print(json.dumps(said))
'''


@pytest.mark.since(3, 6)
@pytest.mark.parametrize('way', ['unshare', 'user', 'mnt', 'time'])
def test_unshare_and_setns(python, way):
    stock = interpret(python, PROGRAM, way, env=child.clean_environment()).said
    if stock[0] == 'refused' or any(stock):
        pytest.skip(f'the kernel refuses {way}: {stock}')
    assert stock == interpret(python, PROGRAM, way,
                              env=child.preloaded(OBMALLOC_BACKGROUND_THREAD='0')).said
