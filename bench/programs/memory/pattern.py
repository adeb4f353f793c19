"""Settings, idle time and figures of the process, for all programs of this folder.

A program does its work, calls `idle`, which sleeps for two seconds while everything that the
program keeps is alive, and ends with `report`, which prints one line of JSON. It checks its
result after `idle`, because the check allocates as well.

Settings are words such as `keep=0.01` on the command line; `scale=0.01` makes every
program small, `idle=0` skips the wait.
"""

import gc
import random
import resource
import sys
import time

SEED = 12345
PAGE = resource.getpagesize()

clock = time.perf_counter


class Settings:
    """The numbers of the command line, or the program's defaults."""

    def __init__(self, **defaults):
        self.scale, self.idle = 1.0, 2.0
        self.__dict__.update(defaults)
        for word in sys.argv[1:]:
            name, _, value = word.partition("=")
            if name not in self.__dict__:
                sys.exit("%s: no such setting; there are %s" % (name, ", ".join(self.__dict__)))
            setattr(self, name, type(self.__dict__[name])(value))

    def scaled(self, count):
        """The count times the scale, at least 1."""
        return max(1, int(count * self.scale))


def field(path, name):
    """A number of KiB from a file of lines such as `VmHWM:   9432 kB`."""
    with open(path) as stream:
        for line in stream:
            if line.startswith(name + ":"):
                return int(line.split()[1])
    return 0


def rss():
    """KiB of this process that are resident, counted page by page.

    statm and VmRSS are wrong by some hundred KiB where the kernel counts on each processor
    separately.
    """
    return field("/proc/self/smaps_rollup", "Rss") or field("/proc/self/status", "VmRSS")


def begin():
    """Returns the figures at the start."""
    random.seed(SEED)
    gc.collect()
    return {"base": rss(), "began": time.monotonic()}


def idle(figures, settings):
    """Sleeps, then takes the figures before anything else is allocated."""
    figures["worked"] = time.monotonic()
    time.sleep(settings.idle)
    figures["ended"] = time.monotonic()
    used = resource.getrusage(resource.RUSAGE_SELF)
    figures.update(idle=rss(), peak=field("/proc/self/status", "VmHWM"),
                   faults=used.ru_minflt, cpu=used.ru_utime + used.ru_stime)


def report(figures, right):
    """Prints the line that the driver reads; exits with a message if the result is wrong."""
    import json     # here, so that it is not in the figures
    print(json.dumps(figures))
    sys.stdout.flush()
    if not right:
        sys.exit("the result is not what it should be")


def built(count, make, figures):
    """[make(0), make(1), ...]; the resident memory afterwards becomes a figure.

    The list has its whole length from the start, because a growing list would be moved.
    """
    things = [None] * count
    for number in range(count):
        things[number] = make(number)
    figures["full"] = rss()
    return things


def touched(things):
    """KiB of the pages on which these objects begin: the least that any allocator needs."""
    return len({id(one) // PAGE for one in things}) * PAGE // 1024


class Record:
    """An object with slots, the smallest kind of instance."""
    __slots__ = ("number", "name", "next", "size", "flag")

    def __init__(self, number):
        self.number, self.name, self.next, self.size, self.flag = 0, "r", None, number % 200, True

    def __eq__(self, other):
        return self.size == other.size


def mixed(number):
    """An object of one of six kinds, sizes from 32 to about 240 bytes, about 100 on average."""
    kind = number % 6
    if kind == 0:
        return (1, 2, 3, number % 200)
    if kind == 1:
        return "%0*d" % (20 + number // 6 % 64, number)
    if kind == 2:
        return Record(number)
    if kind == 3:
        return b"%0*d" % (60 + number // 6 % 150, number)
    if kind == 4:
        return (1, 2, 3, 4, 5, 6, 7, 8, 9, number % 200)
    return number * 0.5
