"""forks.py quiet|busy COUNT: forks COUNT times; each child uses all that it inherits. busy:
threads allocate meanwhile, so that fork meets held locks and magazines during a refill. Prints
only failures."""
from __future__ import print_function

import gc
import os
import sys
import threading

import inside

MODE, COUNT = sys.argv[1], int(sys.argv[2])
MODEL = [[n] * (n % 100) for n in range(3000)]
DICTS = [{n: str(n)} for n in range(3000)]


def child(number):
    """In a child: inherited objects are whole, can grow, and can be freed by its only thread; new
    threads work."""
    for n, each in enumerate(MODEL):
        assert each == [n] * (n % 100), n
        each.append(n)
    assert DICTS[17] == {17: '17'}
    del MODEL[::2], DICTS[:]
    gc.collect()
    made = [bytearray([n % 256]) * n for n in range(0, 5000, 7)]
    assert all(each == bytearray([len(each) % 256]) * len(each) for each in made)
    # In this order: a joined thread may not have ended yet at a fork, and Python would warn.
    if number % 3 == 0:
        assert ended_well(fork_and(lambda: inside.workload(1))), 'a grandchild'
    if number % 4 == 0:
        inside.in_threads(2, lambda: inside.workload(1))


def fork_and(function):
    """The pid of a child that runs function and ends with 0, or with 1."""
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        function()
        status = 0
    except BaseException:
        import traceback
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)


def ended_well(pid):
    return os.waitpid(pid, 0)[1] == 0


def main():
    stop = []
    if hasattr(sys, 'setswitchinterval'):
        sys.setswitchinterval(0.0005)       # more switches, and more forks a second

    def churn():
        while not stop:
            rows = [{n: 'x' * (n * 40 % 3000)} for n in range(100)]
            assert len(rows) == 100
    threads = [threading.Thread(target=churn) for _ in range(3 if MODE == 'busy' else 0)]
    for thread in threads:
        thread.start()
    failed = [n for n in range(COUNT) if not ended_well(fork_and(lambda: child(n)))]
    stop.append(True)
    for thread in threads:
        thread.join()
    assert not failed, failed
    child(1)                    # the parent's objects are whole, too


main()
