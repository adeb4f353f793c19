"""The pytest plugin: a test fails if more memory is in use after it than before.

    pytest --obmalloc-limit=1M              the limit of each test
    @pytest.mark.obmalloc_limit("4 MiB")    of one test; None: no limit

A test that grows by more than its limit runs a second time, with fixtures of its own and the
profiler on, because the first time fills caches and imports modules. It fails if it grows by more
than the limit again; the message has the lines that hold the memory.

What is compared is the memory of live blocks, of this library and of the C library's malloc, before
the test's setup and after its teardown, each time after a collection.
"""
import gc
import os
import re
import sys

import pytest
from _pytest.runner import CallInfo, runtestprotocol

from obmalloc import _calls, _pprof, profile

_MARK = 'obmalloc_limit'
_ADVICE = 'start pytest by: python -m obmalloc run -m pytest'
_LINES = 5
_SAMPLES = 1000     # of the growth: the profiler's interval is the first run's growth through it


def _size(text):
    """The bytes of a text such as 1M, 512 KiB, 1.5 MB: units are powers of 1024."""
    found = re.match(r'(\d+(?:\.\d+)?)\s*([kmgt]?)(?:i?b)?$', str(text).strip(), re.I)
    if not found:
        raise ValueError('%r is no size; write it as 512 KiB or 1M' % (text,))
    return int(float(found.group(1)) * 1024 ** ' kmgt'.index(found.group(2).lower() or ' '))


def _shown(size):
    for unit in 'bytes', 'KiB', 'MiB':
        if abs(size) < 1024:
            break
        size /= 1024.0
    else:
        unit = 'GiB'
    return '%.*f %s' % (0 if unit == 'bytes' else 1, size, unit)


def pytest_addoption(parser):
    parser.getgroup('obmalloc').addoption(
        '--obmalloc-limit', metavar='SIZE',
        help='a test fails if it runs twice and each time leaves more than SIZE (1M, 512 KiB) '
             'of memory in use; obmalloc is switched on in this process')


def pytest_configure(config):
    config.addinivalue_line('markers', _MARK + '(size): the test fails if it runs twice and each '
                            'time leaves more memory in use (obmalloc); None: no limit')
    if config.option.obmalloc_limit is None:
        return
    try:
        _size(config.option.obmalloc_limit)
    except ValueError as error:
        raise pytest.UsageError('--obmalloc-limit: %s' % error)
    try:
        if not _calls.is_active():
            _calls.install()
        if not _calls.is_active():
            raise ImportError(_calls._why_not())
    except (ImportError, _calls.InstallError) as error:
        raise pytest.UsageError('--obmalloc-limit: obmalloc does not serve this process: %s; %s'
                                % (error, _ADVICE))


def _limit(item):
    """The bytes by which the test may grow; None without a limit."""
    mark = item.get_closest_marker(_MARK)
    if mark is None:
        text = item.config.option.obmalloc_limit
    elif len(mark.args) == 1 and not mark.kwargs:
        text = mark.args[0]
    else:
        raise ValueError('takes one argument')
    return None if text is None else _size(text)


def pytest_collection_modifyitems(config, items):
    """A wrong size is an error of the collection. One warning if limits cannot be checked."""
    limited = 0
    for item in items:
        try:
            limited += _limit(item) is not None
        except ValueError as error:
            raise pytest.UsageError('%s: the mark %s: %s' % (item.nodeid, _MARK, error))
    config._obmalloc_active = bool(limited) and _calls.is_active()
    if limited and not config._obmalloc_active:
        config.issue_config_time_warning(pytest.PytestWarning(
            'the memory limits of %d tests are not checked: %s; %s, or use --obmalloc-limit'
            % (limited, _calls._why_not(), _ADVICE)), 2)


def pytest_report_header(config):
    limit = config.option.obmalloc_limit
    return limit and ['obmalloc: tests may grow by %s' % _shown(_size(limit))]


def _live(reports=()):
    """The bytes of live blocks, without the output that pytest keeps of the test."""
    for _ in range(2):          # objects with finalizers go in the second one
        gc.collect()
    kept = {id(text): sys.getsizeof(text) for report in reports for _, text in report.sections}
    stats = _calls.stats()
    return stats['bytes']['live'] + ((stats['libc'] or {}).get('in_use') or 0) - sum(kept.values())


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item, nextitem):
    limit = _limit(item) if getattr(item.config, '_obmalloc_active', False) else None
    if limit is None:
        return None
    item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    _live()         # makes what the first call keeps
    before = _live()
    reports = runtestprotocol(item, log=False, nextitem=nextitem)
    grown = _live(reports) - before
    if grown > limit and _passed(reports):
        reports = _again(item, nextitem, limit, grown)
    for report in reports:
        item.ihook.pytest_runtest_logreport(report=report)
    item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
    return True


def _passed(reports):
    """Whether nothing but an expected failure is missing, which a leak may be."""
    return len(reports) == 3 and all(
        report.passed or str(report.longrepr).startswith('[XPASS(strict)]') for report in reports)


def _again(item, nextitem, limit, first):
    """The reports of a second run, in which the call fails if it grows, too."""
    before = _live()
    with _Lines(max(1, first // _SAMPLES)) as lines:
        reports = runtestprotocol(item, log=False, nextitem=nextitem)
        grown = _live(reports) - before
        if grown > limit and _passed(reports):
            shown = lines.grown()
        else:
            shown = None
    if shown is None:
        for report in reports:
            if not report.passed:
                report.sections.append(('obmalloc', 'This is the second run. The first one passed, '
                                        'and grew by %s.' % _shown(first)))
        return reports
    text = 'Memory grew by %s, and by %s when the test ran again; the limit is %s.\n%s' % (
        _shown(first), _shown(grown), _shown(limit), shown)
    call = CallInfo.from_call(lambda: pytest.fail(text, pytrace=False), 'call')
    failed = item.ihook.pytest_runtest_makereport(item=item, call=call)
    failed.duration = reports[1].duration
    return [reports[0], failed, reports[2]]


class _Lines:
    """The lines that hold what has grown since the block began, by the profiler."""

    def __init__(self, interval):
        self.interval = interval
        self.started = False
        self.why = None

    def __enter__(self):
        self.folder = profile._folder()
        self.path = self.folder.__enter__()
        try:
            if not profile.is_running():
                profile.start(self.interval)
                self.started = True
            profile.dump(self.file('before'))
        except (ImportError, NotImplementedError, RuntimeError, OSError) as error:
            self.why = error
        return self

    def __exit__(self, *error):
        if self.started:
            profile.stop()
        self.folder.__exit__(None, None, None)

    def file(self, name):
        return os.path.join(self.path, name)

    def grown(self):
        """The table of the lines, for the message."""
        if self.why is None:
            try:
                profile.dump(self.file('after'))
                with open(self.file('growth'), 'wb') as file:
                    file.write(_pprof.growth(*(_pprof.Profile(self.file(name))
                                               for name in ('before', 'after'))))
                rows = profile.top(_LINES, path=self.file('growth'))
            except (OSError, ValueError) as error:
                self.why = error
        if self.why is not None:
            return 'The lines are not known: %s.' % self.why
        return 'The lines that hold it, by samples:\n' + '\n'.join(
            '%10s %8d %-20s %s' % (_shown(row.bytes), row.objects, row.type or '-',
                                   '%s:%d (%s)' % (row.file, row.line, row.function)
                                   if row.file else row.function)
            for row in rows if row.bytes > 0)
