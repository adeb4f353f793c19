"""docs/platforms.json: the interpreters and systems of long runs, and the table of them.

The fixture `evidence` adds what a run has shown. An entry replaces the one of the same run,
interpreter and system. docs/platforms.md has a table between two comments, a row for each
Python, architecture and C library:

    python3 tests/support/platforms.py             writes the table
    python3 tests/support/platforms.py --check     fails if the page has another one
"""
import json
import os
import platform
import re
import sys
from dataclasses import dataclass
from pathlib import Path

DOCS = Path(__file__).resolve().parents[2] / 'docs'
DATA = DOCS / 'platforms.json'
PAGE = DOCS / 'platforms.md'
BEGIN, END = '<!-- platforms -->\n', '<!-- end of platforms -->\n'
HEADING = 'Python', 'architecture', 'C library', 'served', 'shown by (on)'


@dataclass(frozen=True)
class Platform:
    """An interpreter, and the system in which it ran."""
    python: str                     # 3.15.2
    build: str                      # shared, static, free-threaded
    architecture: str = 'x86_64'
    libc: str = ''                  # glibc 2.43, musl 1.2.5
    machine: str = 'native'         # or the emulator: qemu-user 7.2, qemu-system 7.2
    page: int = 4096                # bytes of a page of the kernel
    served: bool = True             # active; otherwise the library stands aside

    @property
    def row(self):
        """The key of the table's row, which sorts by version."""
        numbers = tuple(map(int, re.findall(r'\d+', self.python)[:2]))
        free = 'free-threaded' * (self.build == 'free-threaded')
        return self.architecture != 'x86_64', self.architecture, self.libc.split()[0], numbers, free

    @property
    def words(self):
        """The interpreter and the system for people."""
        page = '' if self.page == 4096 else f'pages of {self.page >> 10} KiB'
        emulator = '' if self.machine == 'native' else self.machine
        return ', '.join(filter(None, (f'{self.python} {self.build}', self.libc, emulator, page)))


def here(python):
    """The platform of an interpreter of this machine."""
    return Platform(python.version, python.kind, platform.machine(),
                    ' '.join(platform.libc_ver()) or 'musl', page=os.sysconf('SC_PAGE_SIZE'))


def record(run, commit, date, platforms, data=DATA):
    """Adds that `run` was made on each platform, given as the fields of Platform."""
    entries = {_key(entry): entry for entry in json.loads(data.read_text())}
    for one in platforms:
        entry = dict(one, run=run, commit=commit, date=date)
        entries[_key(entry)] = entry
    lines = [json.dumps(entries[key]) for key in sorted(entries)]
    data.write_text('[\n' + ',\n'.join(lines) + '\n]\n')


def _key(entry):
    one = _platform(entry)
    return *map(str, one.row), one.build, one.machine, one.page, entry['run']


def _platform(entry):
    return Platform(**{name: entry[name] for name in Platform.__dataclass_fields__})


def table(entries):
    """The lines of the table."""
    rows = {}
    for entry in entries:
        rows.setdefault(_platform(entry).row, []).append(entry)
    yield _line(HEADING)
    yield _line(['---'] * len(HEADING))
    for (_, architecture, libc, numbers, free), found in sorted(rows.items()):
        served = {entry['served'] for entry in found}
        yield _line([' '.join(filter(None, ('%d.%d' % numbers, free))), architecture, libc,
                     'in part' if len(served) > 1 else 'yes' if True in served
                     else 'no: stands aside',
                     '<br>'.join(sorted(f'{entry["run"]} ({_platform(entry).words})'
                                        for entry in found))])


def _line(cells):
    return '| ' + ' | '.join(cells) + ' |\n'


def page():
    """The text of the page with the table that the data give."""
    before, rest = PAGE.read_text().split(BEGIN)
    lines = table(json.loads(DATA.read_text()))
    return before + BEGIN + ''.join(lines) + END + rest.split(END)[1]


def write():
    """Writes the table of the data to the page."""
    PAGE.write_text(page())


if __name__ == '__main__':
    if '--check' not in sys.argv:
        write()
    elif page() != PAGE.read_text():
        sys.exit('docs/platforms.md has another table than docs/platforms.json gives: write it by'
                 ' tests/support/platforms.py')
