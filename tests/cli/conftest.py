import zipfile

import pytest

from support import build


@pytest.fixture(scope='session', autouse=True)
def built():
    """The tests need the library and the command."""
    missing = [path for path in (build.LIBRARY, build.COMMAND) if not path.exists()]
    assert not missing, f'run make command: no {missing[0]}'


@pytest.fixture(scope='session')
def package(tmp_path_factory):
    """A folder with the wheel's contents, as pip makes it; the command is in package/bin."""
    folder = tmp_path_factory.mktemp('package')
    with zipfile.ZipFile(build.wheel()) as wheel:
        wheel.extractall(folder)
    [scripts] = folder.glob('*.data/scripts')
    (scripts / 'obmalloc').chmod(0o755)
    (folder / 'bin').symlink_to(scripts)
    return folder
