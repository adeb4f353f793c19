"""obmalloc: an allocator that takes the place of CPython's small-object allocator.

    python -m obmalloc run app.py        start a program with it
    python -m obmalloc doctor            is it active in this interpreter?

In a running process (also one that was started by `obmalloc run`):

    >>> import obmalloc
    >>> obmalloc.install()
    >>> obmalloc.is_active()
    True
    >>> obmalloc.stats()['resident']['total']

obmalloc.profile finds the lines that hold the memory; obmalloc.web serves pages about it.

The functions call, by ctypes, the libobmalloc.so in the process, else the one in this package.
Nothing is loaded before the first call that needs it.
"""
from obmalloc._calls import (InstallError, before_fork, install, is_active, on_gc, snapshot, stats,
                             trim, version)
from obmalloc._prometheus import prometheus

__all__ = ['InstallError', 'before_fork', 'install', 'is_active', 'on_gc', 'prometheus', 'snapshot',
           'stats', 'trim', 'version']


def __getattr__(name):
    """The larger modules are imported when they are used: obmalloc.profile.start()."""
    if name in ('profile', 'web'):
        from importlib import import_module
        return import_module('obmalloc.' + name)
    raise AttributeError("module 'obmalloc' has no attribute %r" % name)


def __dir__():
    return sorted(set(globals()) | {'profile', 'web'})
