"""Settings of Python that choose an allocator make the library stand aside, and it says so.

Every case is checked twice, by the status line and by the blocks: a process in which the
library is active holds thousands of its blocks, one in which it stands aside holds none.
Python's own reading of its command line and environment decides which settings count; the cases
are those that a superficial reading gets wrong.
"""
import pytest

from support import child, status
from support.preload import PRELUDE, interpret

REPORT = '''
import inside, json
inside.workload(1)
print(json.dumps([inside.live(inside.stats(inside.library())),
                  getattr(sys.flags, "dev_mode", False)]))
'''


def verdict(python, expected, options=(), arguments=(), **env):
    """Runs with these settings; `expected` is None for active, else a pattern of the reason."""
    done = interpret(python, REPORT, *arguments, options=options,
                     env=child.preloaded(OBMALLOC_VERBOSE='1', **env))
    live, dev_mode = done.said
    if expected is None:
        status.active(done, python)
        assert live > 10000
        assert not dev_mode, 'the check itself is wrong'
    else:
        status.aside(done, expected)
        assert live == 0


def names(python):
    names = 'malloc malloc_debug pymalloc pymalloc_debug debug'.split()
    if python.numbers >= (3, 7):
        names.append('default')
    if python.numbers >= (3, 13):
        names += ['mimalloc', 'mimalloc_debug']
    return names


@pytest.mark.since(3, 6)
def test_each_value_of_PYTHONMALLOC(python, subtests):
    for name in names(python):
        with subtests.test(PYTHONMALLOC=name):
            verdict(python, 'PYTHONMALLOC', PYTHONMALLOC=name)


def test_empty_PYTHONMALLOC_is_none(python):
    verdict(python, None, PYTHONMALLOC='')


@pytest.mark.only('2.7')
def test_PYTHONMALLOC_means_nothing_to_it(python):
    verdict(python, None, PYTHONMALLOC='malloc')
    verdict(python, None, PYTHONDEVMODE='1')


def test_ignored_environment(python, subtests):
    """-E and -I, alone, in a cluster, or after an option with a value."""
    cases = [('-E',), ('-sE',), ('-W', 'ignore', '-E'), ('-Wignore', '-E')]
    if python.numbers >= (3,):
        cases += [('-X', 'faulthandler', '-E')]
    if python.numbers >= (3, 7):
        cases += [('-I',), ('-bI',)]
    for options in cases:
        with subtests.test(options=options):
            verdict(python, None, options, PYTHONMALLOC='malloc', PYTHONDEVMODE='1')


@pytest.mark.only('3.6')
def test_isolated_mode_comes_too_late(python):
    """3.6 looks for -E before it reads PYTHONMALLOC, and for -I after that."""
    verdict(python, '', options=['-I'], PYTHONMALLOC='malloc')


@pytest.mark.since(3, 6)
def test_options_of_the_program_do_not_ignore_the_environment(python):
    verdict(python, 'PYTHONMALLOC', arguments=['-E', '-I'], PYTHONMALLOC='malloc')
    verdict(python, 'PYTHONMALLOC', options=['-W', 'ignore::E-I'], PYTHONMALLOC='malloc')


@pytest.mark.since(3, 7)
def test_dev_mode(python, subtests):
    """All spellings that Python takes for -X dev."""
    for options in (('-X', 'dev'), ('-Xdev',), ('-sX', 'dev'), ('-sXdev',),
                    ('-E', '-X', 'dev'), ('-W', 'ignore', '-X', 'dev'),
                    ('-X', 'faulthandler', '-Xdev')):
        with subtests.test(options=options):
            verdict(python, r'-X ?dev', options)
    for value in ('1', 'yes'):
        with subtests.test(PYTHONDEVMODE=value):
            verdict(python, 'PYTHONDEVMODE', PYTHONDEVMODE=value)


@pytest.mark.since(3, 7)
@pytest.mark.parametrize('setting', ['-Xdev=1', '-Xdevelopment', '-Xde', '0', ''])
def test_dev_mode_as_python_reads_odd_spellings(python, setting):
    """-X dev=1 and PYTHONDEVMODE=0: versions differ; the line and the blocks follow each."""
    is_option = setting.startswith('-X')
    options, env = ([setting], {}) if is_option else ([], {'PYTHONDEVMODE': setting})
    stock = interpret(python, REPORT.replace('inside.live(inside.stats(inside.library()))', '0'),
                      options=options, env=child.clean_environment(**env))
    dev_mode = stock.said[1]
    verdict(python, 'dev' if dev_mode else None, options, **env)


def test_no_dev_mode(python, subtests):
    """The words belong to the program, or to another option."""
    words = ['-X', 'dev', '-Xdev', '-E']
    verdict(python, None, arguments=words)
    cases = [('-W', 'ignore::-Xdev'), ('-W', '-Xdev')]
    if python.minor == '3.6':
        cases += [('-X', 'dev')]
    for options in cases:
        with subtests.test(options=options):
            verdict(python, None, options)


def test_no_dev_mode_from_scripts_and_modules(python, subtests, tmp_path):
    """python FILE -X dev, python -m MODULE -X dev, python -cCODE -X dev,
    python -- FILE -X dev"""
    code, path = PRELUDE + REPORT, tmp_path / 'report_dev.py'
    path.write_text(code)
    for options in ((path,), ('-m', path.stem), ('-c' + code,), ('-sc', code), ('--', path)):
        with subtests.test(options=str(options[0])[:20]):
            done = child.run([python.path, '-B', *options, '-X', 'dev'], cwd=tmp_path, status=0,
                             env=child.preloaded(OBMALLOC_VERBOSE='1', PYTHONPATH=tmp_path))
            status.active(done, python)
            assert done.said[0] > 10000


@pytest.mark.since(3, 6)
def test_unknown_value_stays_pythons_error(python):
    """Fatal in stock; the message is Python's."""
    done = child.run([python.path, '-c', 'pass'], child.preloaded(PYTHONMALLOC='banana'))
    assert done.status != 0
    assert 'PYTHONMALLOC' in done.err
    status.silent(done)


@pytest.mark.since(3, 6)
def test_silent_when_aside_and_not_asked(python):
    done = interpret(python, 'print(6)', env=child.preloaded(PYTHONMALLOC='debug'))
    assert (done.out, done.err) == ('6\n', '')
