"""What the environments share: packages in virtual environments, both sides of a comparison."""
import os
import re
import shutil
from pathlib import Path

import pytest

from support import build, child
from support.status import ACTIVE

HERE = Path(__file__).parent
PROGRAMS = HERE / 'programs'
INSIDE = HERE.parent / 'preload/programs'
FOLDER = build.TARGET / 'compat'
SHARED = ('3.12', '3.13')      # the environments run with these and with a static build


def usual(python):
    """Whether the environments run with this interpreter; --pythons chooses others."""
    return not python.shared or python.minor in SHARED


def last_line(text):
    return (text.strip().splitlines() or ['no output'])[-1]


def need(program):
    if not shutil.which(program):
        pytest.skip(f'no {program}')


def virtual(python, *packages):
    """The programs of a virtual environment of this interpreter that has these packages."""
    return build.virtual(f'python-{python.name}', *packages, python=python.path)


def sides(**settings):
    """The environments with the library and without it, in this order."""
    common = dict(PYTHONPATH=f'{PROGRAMS}{os.pathsep}{INSIDE}', PYTHONDONTWRITEBYTECODE='1')
    plain = {key: value for key, value in settings.items() if not key.startswith('OBMALLOC_')}
    return child.preloaded(**common, **settings), child.clean_environment(**common, **plain)


def run_both(argv, timeout=60, status=0, **settings):
    """Runs the command on both sides: (with, without)."""
    return [child.run(argv, env, timeout, status=status) for env in sides(**settings)]


def assert_active(done, python):
    """The status line reports the library active in the process itself."""
    assert any(int(line[1]) == done.pid and line[2] == python.version
               for line in done.lines(ACTIVE)), 'not active\n' + done.report


def kinds_of_lines(text):
    """The sorted set of lines of other programs, without numbers."""
    return sorted({re.sub(r'0x[0-9a-f]+|\d+', 'N', line).strip() for line in text.splitlines()
                   if line.strip() and not line.startswith('obmalloc: ')})
