"""The two interpreters of a comparison: the same objects linked with CPython's own obmalloc.o
and with libobmalloc.a."""
import functools

import pytest

from support import build, interpreters


@functools.lru_cache(maxsize=None)
def pair(python):
    """(path with CPython's own, path with obmalloc); skips if the interpreter cannot be
    linked again."""
    with build.locked('relink'):        # workers link one after the other
        try:
            stock = interpreters.relink(python, stock=True)
        except RuntimeError as refusal:
            pytest.skip(str(refusal).splitlines()[0])
        return stock.path, interpreters.relink(python).path
