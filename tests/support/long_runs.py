"""Rows of docs/evidence.md, and entries of docs/platforms.json, from checks that take long:
`tests/run --record ...`.

A check calls the fixture `evidence` once it has passed. At the end of the run the amounts
of all its instances, for instance with several interpreters, become one row; it is written
only if none of them failed.
"""
import collections
import datetime
from dataclasses import asdict

import pytest

from support import evidence as page
from support import platforms as systems

KEY = 'evidence'


def pytest_addoption(parser):
    parser.getgroup('obmalloc').addoption(
        '--record', action='store_true', help='write the rows of docs/evidence.md')


@pytest.fixture
def evidence(request, record_property):
    def add(what, section, amount, versions='', result='same as stock', command='',
            seconds=None, platforms=(), shows=''):
        """`amount` is {unit: number}, which is added up, or a text; `seconds` the time of the
        runs if it is not that of the check. `platforms` (support/platforms.py) are those that
        docs/platforms.md names for the run, which it calls `shows`, by default `what`."""
        command = command or ('tests/run --all-pythons --record '
                              + request.node.nodeid.split('[')[0])
        record_property(KEY, dict(
            what=what, section=section, amount=amount, versions=versions, result=result,
            command=command, seconds=seconds, platforms=[asdict(one) for one in platforms],
            shows=shows or what))
    return add


class Rows:
    def __init__(self):
        self.found, self.failed = collections.defaultdict(list), set()

    def pytest_runtest_logreport(self, report):
        base = report.nodeid.split('[')[0]
        if report.failed:
            self.failed.add(base)
        for name, row in report.user_properties if report.when == 'call' else ():
            if name == KEY:
                self.found[row['what']].append((base, row['seconds'] or report.duration, row))

    def pytest_sessionfinish(self):
        for what, entries in self.found.items():
            if self.failed & {base for base, _, _ in entries}:
                continue
            rows = [row for _, _, row in entries]
            page.record(what=what, section=rows[0]['section'], command=rows[0]['command'],
                        result=rows[0]['result'], amount=total(row['amount'] for row in rows),
                        seconds=sum(seconds for _, seconds, _ in entries),
                        versions=joined(row['versions'] for row in rows) or 'this machine')
            systems.record(rows[0]['shows'], page.commit(), datetime.date.today().isoformat(),
                           [one for row in rows for one in row['platforms']])
        if self.found:
            systems.write()


def joined(texts, separator=', '):
    return separator.join(dict.fromkeys(filter(None, texts)))


def total(amounts):
    amounts = list(amounts)
    if isinstance(amounts[0], str):
        return joined(amounts, '; ')
    sums = collections.Counter()
    for amount in amounts:
        sums.update(amount)
    return ', '.join(f'{number if number < 1e7 else format(number, ".2g")} {unit}'
                     for unit, number in sums.items())


def pytest_configure(config):
    if config.option.record and not hasattr(config, 'workerinput'):
        config.pluginmanager.register(Rows())
