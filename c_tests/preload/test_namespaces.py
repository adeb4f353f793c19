"""What the kernel allows to processes of one thread only: with OBMALLOC_THREAD=0 the library
makes no second one, and all of it goes as without us."""
import json

import support

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
del kept                    # where a thread may be started, there is one now
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


class Namespaces(support.PythonCase):

    def way(self, way):
        def said(env):
            return support.said(self.interpret(PROGRAM, way, env=env))
        without = said(support.clean_environment())
        if without[0] == 'refused' or any(without):
            self.skipTest('the kernel refuses %s here: %s' % (way, json.dumps(without)))
        self.assertEqual(said(support.preloaded(OBMALLOC_THREAD='0')), without)

    @support.since(3, 6)
    def test_unshare(self):
        self.way('unshare')

    @support.since(3, 6)
    def test_setns_user(self):
        self.way('user')

    @support.since(3, 6)
    def test_setns_mnt(self):
        self.way('mnt')

    @support.since(3, 6)
    def test_setns_time(self):
        self.way('time')
