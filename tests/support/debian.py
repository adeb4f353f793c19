"""The packages of `make deb`."""
import os
import shutil
import uuid

import pytest

from support import build

MAINTAINER = 'Some Body <somebody@debian.org>'
DEBS = build.PROGRAMS / 'debs'
_RUN = os.environ.get('PYTEST_XDIST_TESTRUNUID') or uuid.uuid4().hex


def make():
    """Builds the packages; their files."""
    folder = build.TARGET / 'debs'
    for old in folder.glob('*.deb'):
        old.unlink()
    build.make('deb', f'MAINTAINER={MAINTAINER}')
    return sorted(folder.glob('*.deb'))


def packages():
    """Copies of the packages, built once in a test run."""
    for tool in 'dpkg-deb', 'dpkg-gensymbols', 'dpkg-shlibdeps', 'strip':
        if not shutil.which(tool):
            pytest.skip(f'no {tool}')
    with build.locked('debs'):
        mark = DEBS / 'run'
        if not mark.exists() or mark.read_text() != _RUN:
            made = make()
            shutil.rmtree(DEBS, ignore_errors=True)
            DEBS.mkdir(parents=True)
            for path in made:
                shutil.copy(path, DEBS)
            mark.write_text(_RUN)
    return sorted(DEBS.glob('*.deb'))
