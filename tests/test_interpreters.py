"""The interpreters that the tests run with."""
import sys

import pytest

from support import child, interpreters


@pytest.mark.parametrize('minor', interpreters.EXPECTED_SHARED)
def test_a_shared_build_is_installed(minor):
    if f'no shared build of {minor}' in interpreters.missing():
        pytest.skip(f'no shared build of {minor}')


def test_a_static_build_is_installed():
    if 'no static build' in interpreters.missing():
        pytest.skip('no static build')


@pytest.mark.everywhere
def test_probe_says_what_the_interpreter_is(python):
    done = child.run([python.path, '-c', 'import sys; print(sys.version.split()[0])'], status=0)
    assert done.out.strip() == python.version


def test_list_of_interpreters():
    python = interpreters.find()[-1]
    done = child.run([sys.executable, interpreters.__file__, python.name], status=0)
    assert done.out.split() == [python.name, python.kind, python.path]
