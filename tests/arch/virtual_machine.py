"""A machine of another processor, emulated by qemu-system: its packages, its memory's first
contents, and what it reports while it runs.

    packages = Packages('arm64', 'python3.14 libc6')     # of Debian's newest suite, cached
    packages.root, packages.kernel(r'linux-binary-\\d.*-16k')
    reports = run(command, folder)                       # JSON lines of guest.py on the console
"""
import json
import os
import re
import selectors
import shutil
import stat
import subprocess
import time

import pytest
from compat.environment import FOLDER, last_line, need

from support import build, child

SUITE = 'sid'
KEYS = '/usr/share/keyrings/debian-archive-keyring.gpg'
MARK = '\x1e'           # begins a report; the kernel's messages have no such byte


class Packages:
    """Packages of Debian's newest suite for a foreign processor, unpacked in FOLDER without the
    rights of root: apt has a state of its own there. Their scripts do not run."""

    def __init__(self, processor, names):
        self.processor, self.names = processor, names
        self.folder = FOLDER / f'{SUITE}-{processor}'
        self.root = self.folder / 'root'

    def get(self):
        """Downloads and unpacks them, unless that was done. Skips where it cannot."""
        mark = self.folder / 'is-complete'
        with build.locked(self.folder.name):
            if mark.exists() and mark.read_text() == self.names:
                return self
            for program in 'apt-get', 'dpkg':
                need(program)
            self._configure()
            self._apt('update')
            shutil.rmtree(self.root, ignore_errors=True)
            shutil.rmtree(self.folder / 'archives', ignore_errors=True)
            (self.folder / 'archives/partial').mkdir(parents=True)
            self._apt('install', '--yes', '--no-install-recommends', '--download-only',
                      *self.names.split())
            self._unpack(self.root)
            mark.write_text(self.names)
        return self

    def kernel(self, pattern):
        """The image in the package whose name has the pattern; the newest of several."""
        with build.locked(self.folder.name):
            folder = self.folder / 'kernel'
            found = self._image(folder)
            if found:
                return found
            names = [name for name in self._cache('pkgnames', 'linux-').split()
                     if re.fullmatch(pattern, name)]
            if not names:
                pytest.skip(f'Debian {SUITE} has no package {pattern} for {self.processor}')
            newest = max(names, key=lambda name: [int(part) for part in re.findall(r'\d+', name)])
            shutil.rmtree(self.folder / 'archives', ignore_errors=True)
            (self.folder / 'archives/partial').mkdir(parents=True)
            self._apt('download', newest, cwd=self.folder / 'archives')
            self._unpack(folder)
            return self._image(folder)

    @staticmethod
    def _image(folder):
        found = sorted([*folder.rglob('vmlinuz'), *folder.rglob('vmlinuz-*')])
        return found[-1] if found else None

    def _configure(self):
        """The settings and the source: the archive that apt uses on this machine."""
        said = child.run(['apt-get', 'indextargets', '--format', '$(ORIGIN) $(REPO_URI)',
                          'Created-By: Packages']).out
        archives = [line.split()[1] for line in said.splitlines()
                    if line.startswith('Debian ') and 'security' not in line]
        if not archives:
            pytest.skip("Debian's archive is not among apt's sources")
        if not os.path.exists(KEYS):
            pytest.skip('no debian-archive-keyring')
        (self.folder / 'lists/partial').mkdir(parents=True, exist_ok=True)
        (self.folder / 'status').touch()
        (self.folder / 'sources.list').write_text(
            f'deb [arch={self.processor} signed-by={KEYS}] {archives[0]} {SUITE} main\n')
        settings = {'Dir::State': '', 'Dir::State::Lists': 'lists', 'Dir::State::status': 'status',
                    'Dir::Cache': '', 'Dir::Cache::archives': 'archives',
                    'Dir::Etc::sourcelist': 'sources.list'}
        lines = [f'{name} "{self.folder / value}";' for name, value in settings.items()]
        lines += ['Dir::Etc::sourceparts "/dev/null";', 'Dir::Etc::preferencesparts "/dev/null";',
                  f'APT::Architecture "{self.processor}";',
                  f'APT::Architectures "{self.processor}";', 'Acquire::Languages "none";',
                  # A mirror may be older than its lists allow.
                  'Acquire::Check-Valid-Until "false";']
        (self.folder / 'apt.conf').write_text('\n'.join(lines) + '\n')

    def _run(self, words, cwd=None):
        done = child.run(words, child.clean_environment(APT_CONFIG=self.folder / 'apt.conf'), 900,
                         cwd=cwd)
        if done.status != 0:
            pytest.skip(f'{words[0]}: {last_line(done.err)}')
        return done.out

    def _apt(self, *words, cwd=None):
        return self._run(['apt-get', '-q', *words], cwd)

    def _cache(self, *words):
        return self._run(['apt-cache', *words])

    def _unpack(self, folder):
        for package in sorted((self.folder / 'archives').glob('*.deb')):
            child.run(['dpkg', '-x', package, folder], timeout=120, status=0)


# ---- the first file system, in the form that the kernel unpacks ----

def write_cpio(path, entries):
    """Writes an archive of (name, mode, bytes), parents before their children."""
    with open(path, 'wb') as out:
        for number, (name, mode, data) in enumerate([*entries, ('TRAILER!!!', 0, b'')]):
            name = os.fsencode(name) + b'\0'
            fields = (number, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name), 0)
            for part in (b'070701' + b''.join(b'%08x' % field for field in fields) + name, data):
                out.write(part + b'\0' * (-len(part) % 4))


def folders(*names):
    return [(name, stat.S_IFDIR | 0o755, b'') for name in names]


def link(name, target):
    return name, stat.S_IFLNK | 0o777, os.fsencode(target)


def file(name, data, mode=0o755):
    return name, stat.S_IFREG | mode, data


def tree(folder, to='', wanted=lambda path: True):
    """The files of a folder on this machine, as entries below `to`."""
    for path in sorted(folder.rglob('*')):
        name, mode = os.path.join(to, path.relative_to(folder)), path.lstat().st_mode
        if not wanted(path):
            continue
        if path.is_symlink():
            yield link(name, os.readlink(path))
        elif path.is_dir():
            yield name, mode, b''
        elif stat.S_ISREG(mode):
            yield name, mode, path.read_bytes()


def parents(path):
    """Entries for the folders above an absolute path, the first one first."""
    return folders(*(str(each).lstrip('/') for each in reversed(path.parents)
                     if str(each) != '/'))


# ---- running ----

def run(command, log, limit, silence):
    """Runs an emulator whose console is its stdout. Returns the reports, and why there are no more
    if it did not run to its end; the whole output goes to the file `log`. Ends it after `limit`
    seconds, or `silence` seconds without output."""
    reports, rest, broken, began = [], b'', '', time.monotonic()
    with open(log, 'wb') as out, subprocess.Popen(
            [str(word) for word in command], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT) as machine:
        try:
            selector = selectors.DefaultSelector()
            selector.register(machine.stdout, selectors.EVENT_READ)
            while not broken:
                if not selector.select(silence):
                    broken = f'no output for {silence} s'
                    break
                data = os.read(machine.stdout.fileno(), 1 << 16)
                if not data:
                    break
                out.write(data)
                out.flush()
                *lines, rest = (rest + data).split(b'\n')
                reports += [json.loads(line[line.index(MARK.encode()) + 1:]) for line in lines
                            if MARK.encode() in line]
                if time.monotonic() - began > limit:
                    broken = f'no end after {limit} s'
        finally:
            machine.kill()
    if not broken and (not reports or reports[-1]['name'] != 'end'):
        broken = 'it ended early'
    return reports, f'{broken}\n{tail(log)}' if broken else ''


def tail(path, lines=30):
    text = path.read_text('utf-8', 'replace').splitlines()
    return '\n'.join(line[:300] for line in text[-lines:])
