"""Extension modules of others, on an interpreter linked with the archive and one without.

Their wheels are built against CPython's headers: memory that they allocate and free, and
functions of the executable that they look up by name, must work as before. The original
interpreter installs the wheels into a virtual environment; both relinked interpreters take
that as PYTHONPATH and run the same tests. The outcomes must be equal.

numpy and psutil have their suites in the wheel; the others' tests are in extensions/.
"""
import os

import pytest
from compat.projects import EXTENSIONS
from compat.suites import Suite

from support import outcomes, relinked, verdict

pytestmark = pytest.mark.network


def usual(python):
    return python.shared and python.minor in ('3.8', '3.11', '3.13')


@pytest.mark.since(3, 7)
@pytest.mark.parametrize('project', EXTENSIONS, ids=lambda project: project.name)
def test_extensions(python, project, record_property, evidence):
    pair = relinked.pair(python)
    suite = Suite(project, python)
    path = f'{suite.places["PACKAGES"]}{os.pathsep}{outcomes.INSIDE}'
    sides = [(python, {'PYTHONPATH': path}) for python in pair]
    stock = suite.run(sides[0])
    judged, ours = suite.compare(sides[0], stock, sides[1])
    judged.differences += verdict.check_allocators([stock], ours[:1],
                                                   lambda run: run.linked == 'yes')
    verdict.report(judged, ours, record_property)
    evidence(f'{project.name}, relinked', 'Packages', {'outcomes compared': judged.tests},
             f'CPython {python.version}')
