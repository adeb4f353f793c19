"""obmalloc: an allocator that takes the place of CPython's small-object allocator.

    python -m obmalloc run app.py        start a program with it
    python -m obmalloc doctor            is it active in this interpreter?

In a running process (also one that was started by `obmalloc run`):

    >>> import obmalloc
    >>> obmalloc.install()
    >>> obmalloc.is_active()
    True
    >>> obmalloc.stats()['resident']['total']

The functions call, by ctypes, the libobmalloc.so in the process, else the one in this package.
Nothing is loaded before the first call that needs it.
"""
from obmalloc._calls import (InstallError, before_fork, install, is_active, on_gc, snapshot, stats,
                             trim, version)
from obmalloc._prometheus import prometheus

__all__ = ['InstallError', 'before_fork', 'install', 'is_active', 'on_gc', 'prometheus', 'snapshot',
           'stats', 'trim', 'version']
