"""How long a soak lasts, and with which interpreters."""
import pytest

VERSIONS = ('3.13', '3.11', 'static', '2.7')
SHORT = ('3.13', '2.7')         # in less than a minute


def pytest_addoption(parser):
    group = parser.getgroup('obmalloc')
    group.addoption('--seconds', type=float, default=20, help='of a soak (%(default)s)')
    group.addoption('--seed', type=int, default=1, help='of a soak (%(default)s)')


def is_chosen(python, config):
    """A version means its shared build."""
    words = VERSIONS if config.getoption('--seconds', 20) >= 60 else SHORT
    return bool(config.option.pythons) or python.kind in words or (
        python.shared and python.minor in words)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config, items):
    """Leaves out the other interpreters."""
    kept, left_out = [], []
    for item in items:
        unfit = (item.originalname == 'test_python'
                 and not is_chosen(item.callspec.params['python'], config))
        (left_out if unfit else kept).append(item)
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = kept


def pytest_generate_tests(metafunc):
    """A C program for each twelve minutes."""
    if 'life' in metafunc.fixturenames:
        metafunc.parametrize('life', range(max(1, round(
            metafunc.config.getoption('--seconds', 20) / 720))))


@pytest.fixture(scope='session')
def chosen(pytestconfig):
    """The interpreters that share the time."""
    return [python for python in pytestconfig.pythons
            if python.supported and is_chosen(python, pytestconfig)]
