"""Other people's packages and environments: all of it takes long."""
from pathlib import Path

import pytest
from compat.environment import usual


def pytest_addoption(parser):
    parser.getgroup('obmalloc').addoption(
        '--whole-suites', action='store_true',
        help="of the newer Debian's CPythons every module of their own tests: hours")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config, items):
    """Marks comparisons as slow. Without --pythons leaves out interpreters that are not usual
    here, by the module's `usual` if it has one."""
    kept, left_out = [], []
    for item in items:
        here = item.path.parent == Path(__file__).parent and 'evidence' in item.fixturenames
        if here:
            item.add_marker(pytest.mark.slow)
        python = getattr(item, 'callspec', None) and item.callspec.params.get('python')
        unusual = (here and python and not config.option.pythons
                   and not getattr(item.module, 'usual', usual)(python))
        (left_out if unusual else kept).append(item)
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = kept


@pytest.fixture
def found(request, evidence):
    """Reports what an environment showed, as a row of docs/evidence.md."""
    def report(words, name=None, **more):
        python = request.node.funcargs.get('python')
        name = name or request.function.__name__.removeprefix('test_').replace('_', '-')
        print(words)
        evidence(name, 'Environments', words,
                 versions=f'{python.version} {python.kind}' if python else '', **more)
    return report
