import pytest

from support import build


@pytest.fixture(scope='session', autouse=True)
def built():
    """The tests need the library and the command."""
    missing = [path for path in (build.LIBRARY, build.COMMAND) if not path.exists()]
    assert not missing, f'run make command: no {missing[0]}'
