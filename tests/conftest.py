"""Options, the fixture `python`, the short form, and reports of failed checks."""
import copy
from pathlib import Path

import pytest

pytest.register_assert_rewrite('support')

from support import build, child, failure, interpreters     # noqa: E402

pytest_plugins = ['support.long_runs']


def pytest_addoption(parser):
    group = parser.getgroup('obmalloc')
    group.addoption('--pythons', default='', metavar='WHICH,...',
                    help='only these interpreters: 3.11, 3.11.7, static, distribution, a path')
    group.addoption('--all-pythons', action='store_true',
                    help='every check with every interpreter, the slow ones too')
    group.addoption('--library', type=Path, metavar='FILE',
                    help=f'another libobmalloc.so than {build.LIBRARY}')


def pytest_configure(config):
    """The short form is `-m "not slow"`, unless -m or a single check is given."""
    if config.option.library:
        build.LIBRARY = config.option.library.resolve()
    config.pythons = interpreters.select(config.option.pythons)
    single = any('::' in str(argument) for argument in config.args)
    if not (config.option.markexpr or config.option.all_pythons or single):
        config.option.markexpr = 'not slow'


def pytest_report_header(config):
    lines = ['interpreters: ' + ', '.join(python.name for python in config.pythons)]
    if not config.option.pythons and interpreters.missing():
        lines.append('not here: ' + ', '.join(interpreters.missing()))
    return lines


def applies(python, mark):
    """Whether the marks of a check let it run with this interpreter."""
    since, before, only = map(mark, ('since', 'before', 'only'))
    return (python.supported
            and not (since and python.numbers < since.args)
            and not (before and python.numbers >= before.args)
            and not (only and python.minor not in only.args)
            and not (mark('shared') and not python.shared))


def pytest_generate_tests(metafunc):
    """A check that takes `python` is made for each interpreter that its marks let through.
    Those that the short form leaves out are marked slow."""
    if 'python' not in metafunc.fixturenames:
        return
    mark = metafunc.definition.get_closest_marker
    pythons = [python for python in metafunc.config.pythons if applies(python, mark)]
    short = [python for python in interpreters.sample(metafunc.config.pythons)
             if python in pythons] or pythons[-1:]
    if mark('one_python'):
        short = short[-1:]
    elif mark('everywhere'):
        short = pythons
    metafunc.parametrize('python', [
        pytest.param(python, id=python.name, marks=[] if python in short else [pytest.mark.slow])
        for python in pythons], indirect=True)


def pytest_collection_modifyitems(items):
    """Drops checks for which there is no interpreter here: they are neither passed nor skipped."""
    items[:] = [item for item in items if not hasattr(item, 'callspec') or isinstance(
        item.callspec.params.get('python'), (interpreters.Python, type(None)))]


@pytest.fixture
def python(request):
    """An interpreter (support.interpreters.Python); a check that takes it runs with each."""
    return request.param


@pytest.fixture(scope='session')
def library():
    """The built libobmalloc.so."""
    if not build.LIBRARY.exists():
        pytest.exit(f'{build.LIBRARY} does not exist: run make', 2)
    return build.LIBRARY


@pytest.fixture(scope='session')
def archive(library):
    """The built libobmalloc.a, with weak names."""
    return build.ARCHIVE


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
    child.runs.clear()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    if report.failed:
        report.sections += list(failure.sections(item, copy.copy(child.runs)))
    return report
