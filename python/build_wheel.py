#!/usr/bin/env python3
"""Makes a wheel of what is built: the package, both libraries and the command.

    python/build_wheel.py [--from target/release] [--to target/wheels]

The tag says the oldest glibc that the three ELF files can run with, read from their own
symbol versions: py3-none-manylinux_2_X_x86_64. Nothing but the standard library is used.
"""
import argparse
import base64
import csv
import hashlib
import io
import os
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
# The libraries that every manylinux system has.
ALLOWED = {'libc.so.6', 'libm.so.6', 'libdl.so.2', 'librt.so.1', 'libpthread.so.0', 'libutil.so.1',
           'libgcc_s.so.1', 'ld-linux-x86-64.so.2'}

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
Classifier: Operating System :: POSIX :: Linux
Classifier: Programming Language :: Python :: 3
Classifier: Programming Language :: Python :: Implementation :: CPython
Classifier: Programming Language :: Rust
Classifier: Topic :: Software Development :: Libraries
Classifier: Topic :: System :: Monitoring
Description-Content-Type: text/markdown

Brings libobmalloc.so, the command `obmalloc` and the package `obmalloc`:

    obmalloc doctor
    obmalloc run -- python app.py
    python -m obmalloc run app.py
'''


def version():
    with open(os.path.join(ROOT, 'Cargo.toml')) as file:
        return re.search(r'^version = "(.*)"', file.read(), re.M).group(1)


def needs(path):
    """(files that an ELF file needs, newest glibc version whose symbols it must have)

    Versions that only weak symbols ask for are not needed: the loader goes on without."""
    text = subprocess.run(['readelf', '-dVW', path], check=True, stdout=subprocess.PIPE,
                          env=dict(os.environ, LC_ALL='C')).stdout.decode()
    files = set(re.findall(r'\(NEEDED\).*\[(.*?)\]', text))
    versions = [(0, 0)]
    for name, flags in re.findall(r'Name: GLIBC_([\d.]+)\s+Flags: (\S+)', text):
        if 'WEAK' not in flags:
            versions.append(tuple(map(int, name.split('.')[:2])))
    return files, max(versions)


def stripped(path, folder):
    """A copy without symbols for debuggers: half the size."""
    copy = os.path.join(folder, os.path.basename(path))
    shutil.copy(path, copy)
    subprocess.run(['strip', '--strip-unneeded', copy], check=True)
    return copy


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
    for path in files:
        if not os.path.exists(path):
            sys.exit('%s is not there: make command' % path)
    floor = (2, 17)
    for path in files:
        needed, newest = needs(path)
        strange = needed - ALLOWED
        if strange:
            sys.exit('%s needs %s, which not every system has' % (path, ', '.join(strange)))
        print('%-28s glibc %d.%d' % ((os.path.basename(path),) + newest))
        floor = max(floor, newest)
    tag = 'py3-none-manylinux_%d_%d_x86_64' % floor
    os.makedirs(target, exist_ok=True)
    name = 'obmalloc-%s' % version()
    path = os.path.join(target, '%s-%s.whl' % (name, tag))
    wheel = Wheel(path, name + '.dist-info')
    package = os.path.join(HERE, 'obmalloc')
    for file in sorted(os.listdir(package)):
        if file.endswith('.py'):
            with open(os.path.join(package, file), 'rb') as opened:
                wheel.add('obmalloc/' + file, opened.read())
    # The counters and metrics, for the package's exporter.
    schema = subprocess.run([os.path.join(source, COMMAND), 'schema'], check=True,
                            stdout=subprocess.PIPE).stdout
    wheel.add('obmalloc/metrics.json', schema)
    with tempfile.TemporaryDirectory() as folder:
        for file in files:
            with open(stripped(file, folder), 'rb') as opened:
                base = os.path.basename(file)
                place = name + '.data/scripts/' if base == COMMAND else 'obmalloc/'
                wheel.add(place + base, opened.read(), 0o755)
    info = name + '.dist-info/'
    wheel.add(info + 'METADATA', METADATA.format(version=version()).encode())
    wheel.add(info + 'WHEEL', ('Wheel-Version: 1.0\nGenerator: obmalloc\nRoot-Is-Purelib: false\n'
                               'Tag: %s\n' % tag).encode())
    wheel.add(info + 'top_level.txt', b'obmalloc\n')
    for file in LICENCES:
        with open(os.path.join(ROOT, file), 'rb') as opened:
            wheel.add(info + 'licenses/' + file, opened.read())
    wheel.add(info + 'licenses/THIRD-PARTY.txt', third_party.text().encode())
    wheel.close()
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
