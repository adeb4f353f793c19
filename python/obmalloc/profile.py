"""The heap profiler: which lines hold the memory.

    obmalloc.profile.start()            also from the start: OBMALLOC_PROFILE=512K
    obmalloc.profile.dump('heap.pb.gz') for `obmalloc report`, `go tool pprof` and others
    for row in obmalloc.profile.top():
        print(row.bytes, row.file, row.line, row.type)
    obmalloc.profile.stop()

Or for a part of a program:

    with obmalloc.profile.running(interval=4096):
        ...

The profiler takes samples: one in `interval` bytes on average, so the values are estimates.
"""
import contextlib
import ctypes
import errno
import os
import shutil
import tempfile
from typing import Any, Iterator, List, NamedTuple, Optional, Tuple, Union

from obmalloc import _calls, _library, _pprof
from obmalloc._pprof import ProfileError

__all__ = ['ProfileError', 'Row', 'dump', 'interval', 'is_running', 'running', 'start', 'stop', 'top']

_Path = Union[str, bytes, 'os.PathLike[str]', 'os.PathLike[bytes]']


class Row(NamedTuple):
    """The blocks of a line (or of a function, a file, a type, a thread, a size): their estimated
    bytes and number. The other fields are those of the largest part of the blocks, by bytes; of the
    blocks with a known type if there are any, as tables and arrays of an object have none."""
    bytes: int
    objects: int
    function: str       # '(no Python frames)' if the stack is empty
    file: str
    line: int
    type: str           # of the objects; '' if it is not known
    thread: str
    size: int           # of a block; 0 if it is not known


# The fields by which rows can be formed.
_KEYS = {
    'line': ('function', 'file', 'line'),
    'function': ('function', 'file'),
    'file': ('file',),
    'type': ('type',),
    'thread': ('thread',),
    'size': ('size',),
}
_NO_PYTHON = '(no Python frames)'


def start(interval: Optional[int] = None) -> None:
    """Starts the profiler, with one sample in `interval` bytes on average: 1 takes each
    allocation, None the default of 512 KiB. Raises RuntimeError in a process that the library
    does not serve, and if the profiler runs already."""
    if interval is not None and interval < 1:
        raise ValueError('interval must be at least 1')
    if not _calls.is_active():
        raise RuntimeError('obmalloc: no profile of a process that is not served: '
                           + _calls._why_not())
    error = _function('start', ctypes.c_size_t)(interval or 0)
    if error == errno.EALREADY:
        raise RuntimeError('obmalloc: the profiler runs already')
    _check(error)


def stop() -> None:
    """Stops the profiler. What it has recorded can still be dumped."""
    _check(_function('stop')())


def dump(path: _Path) -> None:
    """Writes the profile to a file: gzipped profile.proto, the format of pprof. Raises OSError
    with ENODATA if the profiler has not run."""
    # With the GIL: no object is freed while its type is read.
    _check(_function('dump', ctypes.c_char_p)(os.fsencode(path)), path)


def is_running() -> bool:
    """Whether the profiler takes samples now."""
    return interval() != 0


def interval() -> int:
    """The mean bytes between two samples; 0 if the profiler does not run. It doubles when the
    profiler's memory is full."""
    if _library.loaded() is None:
        return 0
    function = _function('interval')
    function.restype = ctypes.c_size_t
    return int(function())


@contextlib.contextmanager
def running(interval: Optional[int] = None) -> Iterator[None]:
    """Has the profiler run within a `with` block. A profiler that runs already goes on, with its
    own interval."""
    if is_running():
        yield
        return
    start(interval)
    try:
        yield
    finally:
        stop()


def top(n: int = 10, by: str = 'line', value: str = 'inuse_space',
        path: Optional[_Path] = None) -> List[Row]:
    """The `n` largest rows of the profile by a value (inuse_space, inuse_objects, alloc_space,
    alloc_objects or pinned_space), one for each line, function, file, type, thread or size. Of
    this process, or of a file that was dumped before."""
    if by not in _KEYS:
        raise ValueError('by must be one of ' + ', '.join(_KEYS))
    if n < 1:
        raise ValueError('n must be at least 1')
    if path is not None:
        return _top(path, n, by, value)
    with _folder() as folder:
        own = os.path.join(folder, 'heap.pb.gz')
        dump(own)
        return _top(own, n, by, value)


def _top(path: _Path, n: int, by: str, value: str) -> List[Row]:
    profile = _pprof.Profile(path)
    names = [name for name, _ in profile.types]
    if value not in names:
        raise ValueError('value must be one of ' + ', '.join(names))
    kind = value.rpartition('_')[0]
    columns = [names.index(name) if name in names else None for name in (
        value, kind + '_space', 'inuse_objects' if kind == 'pinned' else kind + '_objects')]
    sums = _pprof.Sums()
    for sample in profile.samples():
        values = [0 if at is None else sample.values[at] for at in columns]
        if any(values):
            sums.add(_fields(sample), values)
    # Of each key its sums, and the largest part with its fields, which break ties: the same
    # profile gives the same rows.
    places = [Row._fields.index(name) - 2 for name in _KEYS[by]]
    rows = {}   # type: Any
    for fields, values in sums.items():
        key = tuple(fields[at] for at in places)
        row = rows.setdefault(key, [[0, 0, 0], (False, -1, None)])
        row[0] = [one + other for one, other in zip(row[0], values)]
        # A type that is known says more than that of tables and arrays, which have none.
        row[1] = max(row[1], (bool(fields[3]), abs(values[0]), fields))
    ordered = sorted(rows.items(), key=lambda item: (-item[1][0][0], item[0]))
    return [Row(space, objects, *fields)
            for _, ((ranked, space, objects), (_, _, fields)) in ordered[:n] if ranked]


def _fields(sample: Any) -> Tuple[str, str, int, str, str, int]:
    """The fields of a row after its values."""
    frame = next((frame for frame in sample.stack if not frame.native),
                 sample.stack[0] if sample.stack else None)
    place = frame[:3] if frame else (_NO_PYTHON, '', 0)
    size = sample.labels.get('bytes', (0, ''))
    return (*place, _text(sample, 'type'), _text(sample, 'thread'),
            0 if isinstance(size, str) else size[0])


def _text(sample: Any, label: str) -> str:
    found = sample.labels.get(label, '')
    return found if isinstance(found, str) else str(found[0])


# ---- the library's functions ----

def _function(name: str, *types: Any) -> Any:
    """A function of the library, which is called with the GIL: the profiler hooks the interpreter's
    tables, and reads objects."""
    try:
        function = getattr(_library.library(), 'obmalloc_profile_' + name)
    except AttributeError:
        raise NotImplementedError('this libobmalloc.so has no profiler') from None
    function.argtypes = types
    return function


def _check(error: int, path: Optional[_Path] = None) -> None:
    if error == errno.ENODATA:
        raise OSError(error, 'the profiler has not run; obmalloc.profile.start(), or '
                      'OBMALLOC_PROFILE=512K in the environment, starts it')
    if error:
        raise OSError(error, os.strerror(error), path)


@contextlib.contextmanager
def _folder() -> Iterator[str]:
    """A folder for files that are read at once. /dev/shm is there where no disk can be written."""
    try:
        folder = tempfile.mkdtemp(prefix='obmalloc-')
    except OSError:
        folder = tempfile.mkdtemp(prefix='obmalloc-', dir='/dev/shm')
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
