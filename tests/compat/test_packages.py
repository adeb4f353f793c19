"""Other people's packages: their own tests, without the library and with it preloaded.

pip installs the wheel of each project of projects.py into an environment of its own, and the
project's tests run by pytest, in one process, in the same order, with the same seeds: without
the library, with it in LD_PRELOAD, and for some projects packed (OBMALLOC_ALIGN=8). Each test
must end in the same way. If one does not, its file runs three more times on each side, which
separates flaky tests from differences; support/verdict.py decides.

The process that ran the tests proves that the library was active: it is mapped there, and its
statistics at exit name this process and this CPython, and pools in use.
"""
import functools

import pytest
from compat.projects import INTERPRETERS, PROJECTS
from compat.suites import Suite, why_inactive

from support import verdict

# Differences that are expected: (project, end of the test's id, reason).
KNOWN = ()
SIDES = {'preloaded': {}, 'packed': {'OBMALLOC_ALIGN': '8'}}

pytestmark = pytest.mark.network


def usual(python):
    return (python.minor if python.shared else None, python.kind) in INTERPRETERS


@functools.lru_cache(maxsize=None)
def without(project, python):
    """The suite, and its run without the library."""
    suite = Suite(project, python)
    return suite, suite.run((suite.inside, {}))


@pytest.mark.since(3, 11)
@pytest.mark.parametrize('project, side', [
    pytest.param(project, side, id=f'{project.label}-{side}')
    for project in PROJECTS for side in SIDES if side == 'preloaded' or project.packed])
def test_packages(python, project, side, library, record_property, evidence):
    suite, stock = without(project, python)
    settings = {'LD_PRELOAD': str(library), **SIDES[side]}
    judged, ours = suite.compare((suite.inside, {}), stock, (suite.inside, settings), KNOWN)
    assert not why_inactive(ours[0], python.version), 'the library was not active'
    verdict.report(judged, ours, record_property)
    assert judged.tests, 'no test ran'
    name = project.label.rsplit('-', 1)[0]
    evidence(name, 'Packages', {'outcomes compared': judged.tests},
             f'{project.name} {project.version}; CPython {python.version} {python.kind}',
             command=f'tests/run tests/compat/test_packages.py --all-pythons --record -k {name}')
