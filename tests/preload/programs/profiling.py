"""The heap profiler's functions, for programs inside the interpreter under test."""
import ctypes
import sys

library = ctypes.PyDLL(None)
library.obmalloc_profile_start.argtypes = [ctypes.c_size_t]
library.obmalloc_profile_interval.restype = ctypes.c_size_t


def start(interval=1):
    assert library.obmalloc_profile_start(interval) == 0


def stop():
    assert library.obmalloc_profile_stop() == 0


def dump(path=None):
    """Writes the profile to a file, by default the one that the first argument names."""
    error = library.obmalloc_profile_dump((path or sys.argv[1]).encode())
    assert error == 0, error


def name_thread(name):
    """Gives the calling thread a name of bytes, which the kernel has."""
    assert ctypes.CDLL(None).prctl(15, ctypes.c_char_p(name), 0, 0, 0) == 0
