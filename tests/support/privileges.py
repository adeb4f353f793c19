"""Programs of another user, and files that this user can read."""
import atexit
import functools
import os
import resource
import shutil
import tempfile
from pathlib import Path

import pytest

from support import build, child

NOBODY = 65534


def needs_root():
    if os.geteuid() != 0:
        pytest.skip('only root can run programs of other users')


@functools.lru_cache(maxsize=None)
def _root():
    root = Path(tempfile.mkdtemp(prefix='obmalloc-for-all-'))
    atexit.register(shutil.rmtree, root, ignore_errors=True)
    root.chmod(0o755)
    return root


def open_folder(name):
    """A folder that another user can reach; pytest's are their owner's alone."""
    folder = _root() / name
    folder.mkdir(exist_ok=True)
    folder.chmod(0o755)
    return folder


def copy(path, mode=0o755):
    """A copy of a built file where another user can read it, beside the other copies."""
    to = open_folder('for-all') / path.name
    if not to.exists():
        shutil.copyfile(path, to)
        to.chmod(mode)
    return to


def library_for_all():
    return copy(build.LIBRARY)


def as_nobody(argv, env, limits=(), user=NOBODY, status=None):
    """Runs argv as another user, in `/`, with limits (resource, value)."""
    def become():
        for which, value in limits:
            resource.setrlimit(which, (value, value))
        os.setgroups([])
        os.setgid(user)
        os.setuid(user)
    return child.run(argv, env, 100, '/', status, preexec_fn=become)
