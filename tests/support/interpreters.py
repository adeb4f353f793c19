"""The CPythons of this machine: pyenv's versions, the distribution's, others on PATH.

Old ones (2.7, 3.6) run as children only. As a command it lists them:

    python3 tests/support/interpreters.py [WHICH]...

WHICH is a version (3.11, 3.11.7), `distribution`, `static`, `shared`, `free-threaded` or a path.
"""
import functools
import json
import os
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

EXPECTED_SHARED = ('2.7', '3.6', '3.7', '3.8', '3.9', '3.10', '3.11', '3.12', '3.13')
DISTRIBUTION = '/usr/bin/python3'

# Runs on every version; -E and -s keep the user's settings out of the answer. /proc/self/maps
# decides whether the interpreter is shared, not Py_ENABLE_SHARED: Debian ships a libpython
# beside a python that is linked without it.
_PROBE = '''
maps = open("/proc/self/maps").read()
import json, os, platform, sys, sysconfig
value = sysconfig.get_config_var
print(json.dumps({
    "implementation": platform.python_implementation(),
    "version": sys.version.split()[0],
    "numbers": list(sys.version_info[:3]),
    "shared": "libpython" in maps,
    "free_threaded": bool(value("Py_GIL_DISABLED")),
    "executable": os.path.realpath(sys.executable),
    "prefix": sys.prefix,
    "base_prefix": getattr(sys, "base_prefix", sys.prefix),
    "include": sysconfig.get_path("include"),
    "libdir": value("LIBDIR") or "",
    "library": value("INSTSONAME") or "",
    "ldversion": value("LDVERSION") or value("VERSION"),
}))
'''


@dataclass(frozen=True, repr=False)
class Python:
    """One interpreter: the real binary, not a shim or a wrapper script."""
    name: str               # as tests are named: 3.11.7, 3.11-distribution
    path: str
    executable: str         # the same without symbolic links
    implementation: str
    version: str            # as sys.version begins: 3.11.7
    numbers: tuple          # (3, 11, 7)
    shared: bool            # the code is in libpythonX.Y.so, not in the executable
    free_threaded: bool
    prefix: str
    include: str            # the folder of Python.h
    libdir: str
    library: str            # path of libpythonX.Y.so, '' if there is none
    ldversion: str          # -lpython<ldversion>

    def __repr__(self):
        return f'<Python {self.name} {self.path}>'

    @property
    def minor(self):
        return '%d.%d' % self.numbers[:2]

    @property
    def distribution(self):
        return self.name.endswith('-distribution')

    @property
    def kind(self):
        return 'free-threaded' if self.free_threaded else 'shared' if self.shared else 'static'

    @property
    def supported(self):
        """The versions that the library serves; a fake host stands for free-threaded builds."""
        return not self.free_threaded and (
            self.numbers[:2] == (2, 7) or self.numbers[:2] >= (3, 6))

    @property
    def headers(self):
        return os.path.exists(os.path.join(self.include, 'Python.h'))

    @property
    def embeddable(self):
        """C programs can be linked with it and compared: a shared libpython, Python.h, the RAW
        functions and blocks aligned to 16 bytes, which came with 3.7.4."""
        return bool(self.numbers >= (3, 7, 4) and self.library and self.shared and self.headers
                    and not self.free_threaded)

    def matches(self, word):
        """Whether a word of the option --pythons means it."""
        return word in (self.minor, self.version, self.name, self.kind, self.path) or (
            word == 'distribution' and self.distribution)


def probe(path, name=''):
    """The CPython at `path`, None if no CPython runs there."""
    try:
        out = subprocess.run([path, '-E', '-s', '-c', _PROBE], stdout=subprocess.PIPE,
                             stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=30,
                             check=True, env=_environment()).stdout
        found = json.loads(out.decode())
    except (OSError, ValueError, subprocess.SubprocessError):
        return None
    if found['implementation'] != 'CPython' or found.pop('base_prefix') != found['prefix']:
        return None     # a virtual environment's is the base's again
    library = os.path.join(found['libdir'], found['library'])
    found['library'] = library if '.so' in library and os.path.exists(library) else ''
    found['numbers'] = tuple(found['numbers'])
    return Python(name or found['version'], str(path), **found)


def _environment():
    return {key: value for key, value in os.environ.items()
            if not key.startswith(('PYTHON', 'OBMALLOC_', 'LD_'))}


def is_script(path):
    """A shim of pyenv, or another wrapper: not an interpreter itself."""
    with open(path, 'rb') as file:
        return file.read(2) == b'#!'


def _pyenv():
    """(name, path) of all versions of pyenv."""
    if not shutil.which('pyenv'):
        return []
    def ask(*words):
        return subprocess.run(('pyenv', *words), stdout=subprocess.PIPE,
                              stderr=subprocess.DEVNULL).stdout.decode().split()
    root = Path(*ask('root')[:1], 'versions')
    return [(name, root / name / 'bin' / 'python') for name in ask('versions', '--bare')]


def _on_path(pattern):
    """Files of this name in the folders of PATH, and in /usr/local/bin."""
    folders = [Path(folder) for folder in os.get_exec_path() + ['/usr/local/bin']]
    return [path for folder in folders if folder.is_dir() for path in sorted(folder.iterdir())
            if re.fullmatch(pattern, path.name)]


def debug_builds():
    """Paths of interpreters built --with-pydebug, such as Debian's python3.11-dbg."""
    found = _on_path(r'python3\.\d+(d|-dbg)')
    return sorted({os.path.realpath(path) for path in found if os.access(path, os.X_OK)})


@functools.lru_cache(maxsize=None)
def find():
    """All interpreters, by version, each once."""
    wishes = [(path, name.replace('/', '-')) for name, path in _pyenv()]
    wishes += [(DISTRIBUTION, '{minor}-distribution')]
    wishes += [(path, '{version}-path') for path in _on_path(r'python(2|3|[23]\.\d+t?)')]
    names = {}      # of the real paths; the first name counts
    for path, name in wishes:
        real = os.path.realpath(path)
        if os.access(real, os.X_OK) and not is_script(real):
            names.setdefault(real, (str(path), name))
    with ThreadPoolExecutor() as pool:
        probed = list(pool.map(lambda each: probe(*each), names.values()))
    found = {}      # by name, which has to tell one from another
    for python in filter(None, probed):
        name = python.name.format(minor=python.minor, version=python.version)
        name += '-2' if name in found else ''
        found[name] = replace(python, name=name)
    return tuple(sorted(found.values(), key=lambda each: (each.numbers, each.shared, each.name)))


def select(words=''):
    """Those that a comma-separated list means: versions, kinds, paths; '' means all."""
    wanted = [word for word in words.split(',') if word]
    found = [python for python in find()
             if not wanted or any(map(python.matches, wanted))]
    for word in wanted:
        if '/' in word and not any(python.matches(word) for python in found):
            found += filter(None, [probe(word)])
    return found


def missing():
    """What is expected and not installed, or not served, as sentences."""
    have = [python for python in find() if python.supported]
    absent = [f'no shared build of {minor}' for minor in EXPECTED_SHARED
              if not any(python.shared and python.minor == minor for python in have)]
    absent += [f'{python.name} is {python.kind}: a fake host stands for it' if python.free_threaded
               else f'{python.name} is outside the supported range'
               for python in find() if not python.supported]
    return absent + ([] if any(not python.shared for python in have) else ['no static build'])


def sample(pythons):
    """The interpreters that differ most: the oldest, the newest, and static ones."""
    shared = [python for python in pythons if python.shared]
    return [python for python in pythons
            if not python.shared or python in shared[:1] + shared[-1:]]


def relink(python, stock=False, archive=None):
    """The interpreter linked anew with the archive for its obmalloc.o (or, for the other side of
    a comparison, with its own), made by relink/relink.py where it is not up to date.

    Returns a Python; raises RuntimeError with relink.py's words where that cannot be done."""
    root = Path(__file__).resolve().parents[2]
    words = [sys.executable, root / 'relink' / 'relink.py', python.path]
    words += ['--stock'] if stock else []
    words += ['--archive', archive] if archive else []
    done = subprocess.run(list(map(str, words)), stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr.strip() or 'relink.py failed')
    name = python.version + ('-stock' if stock else '')
    path = root / 'target' / 'relink' / name / 'bin' / f'python{python.minor}'
    return probe(path, f'{python.name}-{"stock" if stock else "relinked"}')


if __name__ == '__main__':
    for each in select(','.join(sys.argv[1:])):
        print(f'{each.name:20} {each.kind:13} {each.path}')
