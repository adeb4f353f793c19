"""obmalloc: an allocator that takes the place of CPython's small-object allocator.

    python -m obmalloc run app.py        start a program with it
    python -m obmalloc doctor            is it active in this interpreter?

In a process that runs already (or one that was started by `obmalloc run`):

    >>> import obmalloc
    >>> obmalloc.install()
    >>> obmalloc.is_active()
    True
    >>> obmalloc.stats()['resident']['total']

Everything goes by ctypes to the libobmalloc.so that is in the process already, else to
the one in this package. Nothing is loaded before the first call that needs it.
"""
from obmalloc._calls import (InstallError, before_fork, install, is_active, on_gc, snapshot, stats,
                             trim, version)
from obmalloc._prometheus import prometheus

__all__ = ['InstallError', 'before_fork', 'install', 'is_active', 'on_gc', 'prometheus', 'snapshot',
           'stats', 'trim', 'version']
