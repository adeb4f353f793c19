"""Which interpreters this machine has, found at run time.

Shared builds come from pyenv, the static one from the distribution.  What is
expected and not here is returned as well, so that the driver can say so:
a check that silently did not run looks exactly like one that passed.
"""
import json
import os
import shutil
import subprocess
from typing import NamedTuple

EXPECTED_SHARED = ('2.7', '3.6', '3.7', '3.8', '3.9', '3.10', '3.11', '3.12', '3.13')
DISTRIBUTION = ('/usr/bin/python3', '/usr/local/bin/python3')

# Runs on every version; -E and -s keep the user's settings out of the answer.
# The map is asked first, and not Py_ENABLE_SHARED: the distribution ships a
# libpython beside a python that is linked without it.
PROBE = '''
shared = "libpython" in open("/proc/self/maps").read()
import json, sys, sysconfig
value = sysconfig.get_config_var
print(json.dumps({
    "version": sys.version.split()[0],
    "numbers": list(sys.version_info[:3]),
    "shared": shared,
    "free_threaded": bool(value("Py_GIL_DISABLED")),
    "prefix": sys.prefix,
    "libdir": value("LIBDIR"),
    "library": value("INSTSONAME"),
}))
'''


class Python(NamedTuple):
    """One interpreter: the real binary, not a shim or a wrapper script."""
    path: str
    version: str          # as sys.version begins: '3.11.7'
    numbers: tuple        # (3, 11, 7)
    shared: bool          # the code is in libpythonX.Y.so, not in the executable
    free_threaded: bool
    prefix: str
    library: str          # path of libpythonX.Y.so to embed, '' if there is none

    @property
    def label(self):
        return '%s %s' % (self.version, 'shared' if self.shared else 'static')

    @property
    def minor(self):
        return '%d.%d' % self.numbers[:2]


def probe(path):
    """The interpreter behind path, or None if there is none that runs."""
    try:
        out = subprocess.run([path, '-E', '-s', '-c', PROBE], stdout=subprocess.PIPE,
                             stderr=subprocess.DEVNULL, timeout=30, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    said = json.loads(out.decode())
    library = os.path.join(said['libdir'] or '', said['library'] or '')
    return Python(path, said['version'], tuple(said['numbers']), said['shared'],
                  said['free_threaded'], said['prefix'],
                  library if '.so' in library and os.path.exists(library) else '')


def of_pyenv():
    """The binaries of all pyenv versions, asked of pyenv itself."""
    if not shutil.which('pyenv'):
        return []
    def ask(*words):
        return subprocess.run(('pyenv',) + words, stdout=subprocess.PIPE,
                              stderr=subprocess.DEVNULL).stdout.decode().split('\n')[:-1]
    prefixes = [ask('prefix', name)[:1] for name in ask('versions', '--bare')]
    return [os.path.join(found[0], 'bin', 'python') for found in prefixes if found]


def find():
    """(usable interpreters, in order of version; sentences about what is missing)"""
    found, missing = {}, []
    for path in of_pyenv() + list(DISTRIBUTION):
        python = probe(path) if os.path.exists(path) else None
        if python is None:
            continue
        if python.free_threaded:
            missing.append('%s: free-threaded, a fake host stands for it' % path)
        elif python.numbers[:2] == (2, 7) or (3, 6) <= python.numbers[:2] <= (3, 14):
            found.setdefault(os.path.realpath(path), python)
        else:
            missing.append('%s: %s is outside the supported range' % (path, python.version))
    pythons = sorted(found.values(), key=lambda python: (python.numbers, python.shared))
    for minor in EXPECTED_SHARED:
        if not any(python.shared and python.minor == minor for python in pythons):
            missing.append('no shared build of %s here' % minor)
    if all(python.shared for python in pythons):
        missing.append('no static build here')
    return pythons, missing


def matches(python, words):
    """Is this one of those asked for: '3.11', '3.11.7', 'static' or 'shared'?"""
    names = (python.minor, python.version, 'shared' if python.shared else 'static')
    return any(word in names for word in words)
