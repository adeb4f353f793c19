"""The library: the copy in the process, else the one in this package."""
import ctypes
import os

FOLDER = os.path.dirname(os.path.abspath(__file__))
PATH = os.path.join(FOLDER, 'libobmalloc.so')

_found = None


def loaded():
    """The library in the process (preloaded, linked, or installed before), or None."""
    global _found
    if _found is None:
        if hasattr(ctypes.PyDLL(None), 'obmalloc_version'):
            _found = _typed(None)
    return _found


def library():
    """The library, loaded from this package if it is not in the process."""
    global _found
    if loaded() is None:
        if not os.path.exists(PATH):
            raise ImportError('libobmalloc.so is not in %s; reinstall the package, or start '
                              'the program by `obmalloc run`' % FOLDER)
        try:
            _found = _typed(PATH)
        except OSError as error:
            raise ImportError('libobmalloc.so cannot be loaded: %s. Start the program by `obmalloc '
                              'run`, or install the wheel for this C library' % error) from error
    return _found


def _typed(path):
    process = ctypes.PyDLL(path)        # obmalloc_install requires the GIL
    process.obmalloc_version.restype = ctypes.c_char_p
    process.obmalloc_stats_json.restype = ctypes.c_size_t
    process.obmalloc_stats_json.argtypes = [ctypes.c_char_p, ctypes.c_size_t]
    # Calls that may take long release the GIL.
    others = ctypes.CDLL(path)
    for name in 'obmalloc_trim', 'obmalloc_before_fork':
        function = getattr(others, name)
        function.restype = ctypes.c_size_t
        setattr(process, name, function)
    process.obmalloc_trim.argtypes = [ctypes.c_size_t]
    return process
