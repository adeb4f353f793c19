"""The functions of the package."""
import ctypes
import gc
import json
import os
import sys
import sysconfig

from obmalloc import _library

# obmalloc_install's answers, as obmalloc.h has them.
_REFUSALS = {
    1: 'there is no CPython that it could serve',
    2: 'this version of CPython is not served (2.7, and 3.6 and later are)',
    3: 'this CPython is built without a GIL, and needs its own allocator',
    4: 'PYTHONMALLOC or the development mode has chosen another allocator',
    5: 'another allocator is installed already',
    6: 'tracemalloc is tracing; stop it first',
    7: 'this CPython can be served from the start only: python -m obmalloc run app.py',
    8: 'the GIL is not held',
    9: 'another CPython of this process is served',
}


class InstallError(RuntimeError):
    """The library cannot serve this process; nothing has changed. `code` is the number in
    obmalloc.h."""

    def __init__(self, code):
        super().__init__('obmalloc: ' + _REFUSALS.get(code, 'refused with number %d' % code))
        self.code = code


def version():
    """The library's version."""
    return _library.library().obmalloc_version().decode()


def install():
    """Switches the library on in this process, for all later allocations. CPython's allocator
    frees the blocks that it has allocated. May be called again. Raises InstallError if the
    library cannot serve this process."""
    code = _library.library().obmalloc_install()
    if code:
        raise InstallError(code)


def is_active():
    """Whether the library serves this process now: allocates objects and compares the library's
    count of live blocks before and after."""
    if _library.loaded() is None:
        return False
    names = 'OBMALLOC_GUARD_SAMPLE_RATE', 'OBMALLOC_GUARD'      # the second is deprecated
    if not any(os.environ.get(name) for name in names):
        return _counts(2000, 1500)
    # Guarded blocks are in no size class: half of all, or with rate 1 up to 16384.
    return _counts(2000, 500) or _counts(18000, 500)


def _counts(objects, least):
    before = _blocks()
    kept = [object() for _ in range(objects)]
    during = _blocks()
    del kept
    return during - before > least


def _blocks():
    return sum(each['blocks_live'] for each in stats()['classes'])


def _why_not():
    """Why the library does not serve this process, by its environment and flags."""
    if _library.loaded() is None:
        return ('libobmalloc.so is not in it; start it by `python -m obmalloc run`, or call '
                'obmalloc.install() first')
    if sys.flags.dev_mode:
        return 'the development mode has chosen another allocator'
    chosen = None if sys.flags.ignore_environment else os.environ.get('PYTHONMALLOC')
    if chosen:
        return 'PYTHONMALLOC=%s has chosen another allocator' % chosen
    if sysconfig.get_config_var('Py_GIL_DISABLED'):
        return _REFUSALS[3]
    return ('libobmalloc.so is in it, but does not count its blocks; OBMALLOC_VERBOSE=1 in its '
            'environment, or obmalloc.install(), says why')


def stats():
    """The statistics as a dictionary (docs/metrics.md has its keys)."""
    library = _library.library()
    size = 1 << 16
    while True:
        buffer = ctypes.create_string_buffer(size)
        length = library.obmalloc_stats_json(buffer, size)
        if length < size:
            return json.loads(buffer.value.decode())
        size = length + 1024


def trim(keep=0):
    """Returns free memory beyond `keep` bytes to the system at once; returns the number of
    bytes."""
    if keep < 0:
        raise ValueError('keep must not be negative')
    return _library.library().obmalloc_trim(keep)


def before_fork():
    """For a server before it forks, so that parent and children share as many pages as possible.
    Returns the number of bytes that were returned to the system."""
    return _library.library().obmalloc_before_fork()


_hook = None


def on_gc(wanted=True, keep=4 << 20, generation=2):
    """Trims to `keep` free bytes after each later collection of `generation` (2: a full one) or
    an older one; on_gc(False) ends it. May be called again."""
    global _hook
    if _hook in gc.callbacks:
        gc.callbacks.remove(_hook)
    _hook = None
    if wanted:
        trim_to = _library.library().obmalloc_trim

        def _hook(phase, info):
            if phase == 'stop' and info['generation'] >= generation:
                trim_to(keep)

        gc.callbacks.append(_hook)


def snapshot(path, types=True):
    """Writes a snapshot of the heap to a file, for `obmalloc map`, `pins` and `types`; with the types
    of the blocks' objects. Returns the number of blocks whose type is known. Raises RuntimeError, and
    writes nothing, where the library does not serve this process."""
    if not is_active():
        raise RuntimeError('obmalloc: no snapshot of a process that is not served: ' + _why_not())
    try:
        write = _library.library().obmalloc_snapshot_with
    except AttributeError:
        raise NotImplementedError('this libobmalloc.so is older than the package') from None
    write.argtypes = [ctypes.c_char_p, ctypes.c_uint]
    # With the GIL: no object is created or freed until the snapshot is written.
    error = write(os.fsencode(path), 1 if types else 0)
    if error:
        raise OSError(error, os.strerror(error), path)
    if not types:
        return 0
    from obmalloc import _types
    return _types.name_types(path)
