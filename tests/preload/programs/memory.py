"""For programs that watch their memory: `from memory import *`. Valid on 2.7 and 3.6 on."""
import ctypes
import gc
import json
import os
import random
import threading
import time


def rss():
    """Resident MiB of the process."""
    with open('/proc/self/statm') as file:
        return int(file.read().split()[1]) * os.sysconf('SC_PAGESIZE') / 1048576.0


def names():
    """The names of the kernel's threads of the process, without the one that qemu has of its own
    where it emulates the process."""
    found = []
    for each in os.listdir('/proc/self/task'):
        try:
            with open('/proc/self/task/%s/comm' % each) as file:
                found.append(file.read().strip())
        except (IOError, OSError):
            pass                    # it has just ended
    return [name for name in found if name != 'call_rcu']


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
    """MiB with `count` things, and those that are kept: one in a thousand, at random."""
    things = [Thing(n) for n in range(count)]
    peak = rss()
    random.seed(7)
    kept = random.sample(things, count // 1000)
    del things
    gc.collect()
    return peak, kept


def whole(kept):
    return all(each.b == [each.a] and each.c == str(each.a) for each in kept)


def status(name):
    """MiB of a line of /proc/self/status."""
    fd = os.open('/proc/self/status', os.O_RDONLY)
    text = os.read(fd, 8192).decode()
    os.close(fd)
    return int(text.split(name + ':')[1].split()[0]) / 1024.0


def holes(count=900000, share=0.002):
    """Things of which a random share is kept, and resident MiB with all of them."""
    things = [(n,) for n in range(count)]
    full = status('VmRSS')
    random.seed(5)
    for n in range(count):
        if random.random() > share:
            things[n] = None
    return things, full
