#!/usr/bin/env python3
"""The licences of the crates that are compiled into the libraries and the command, as one
text for those who get the binaries (`make command` writes it, wheel and packages have it).

    packaging/third_party.py > target/release/THIRD-PARTY.txt

The crates are those of CARGO_BUILD_TARGET, or of this machine. A crate whose sources have no
licence text ends it with an error.
"""
import json
import os
import re
import subprocess
import sys
import textwrap

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
MANIFEST = os.path.join(ROOT, 'Cargo.toml')
# Each crate is used under the first of these that it has.
TEXTS = ('LICENSE-MIT', 'LICENSE-MIT.md', 'LICENSE', 'LICENSE.txt', 'LICENSE.md', 'LICENSE-BOOST',
         'LICENSE-APACHE')
# Their text gets the address of the source code, as these licences require.
WITH_SOURCE = ('CDDL-1.0',)

HEAD = '''\
obmalloc contains the crates below, each under the licence that follows its name, and parts
of Rust's standard library, which is Copyright (c) The Rust Project Contributors, under
MIT or Apache-2.0, at your choice: the two texts are those of LICENSE-MIT and LICENSE-APACHE.
'''


def cargo(*words):
    words = (os.environ.get('CARGO', 'cargo'),) + words + ('--locked', '--manifest-path', MANIFEST)
    return subprocess.run(words, check=True, stdout=subprocess.PIPE).stdout.decode()


def machine():
    """Rust's name of the machine that cargo builds for."""
    named = os.environ.get('CARGO_BUILD_TARGET')
    if named:
        return named
    words = os.environ.get('RUSTC', 'rustc'), '-vV'
    text = subprocess.run(words, check=True, stdout=subprocess.PIPE).stdout.decode()
    return re.search('^host: (.*)', text, re.M).group(1)


def crates(target):
    """(name, version, licence) of all that is linked, but for obmalloc's own."""
    rows = cargo('tree', '--workspace', '-e', 'normal,no-proc-macro', '--target', target,
                 '--prefix', 'none', '--no-dedupe', '-f', '{p}|{l}').splitlines()
    found = set()
    for row in filter(None, rows):
        package, licence = row.split('|')
        name, version = package.split()[:2]
        if name.split('-')[0] != 'obmalloc':
            found.add((name, version[1:], licence))
    return sorted(found)


def text(target):
    packages = json.loads(cargo('metadata', '--format-version', '1', '--filter-platform', target))
    folders = {(each['name'], each['version']): os.path.dirname(each['manifest_path'])
               for each in packages['packages']}
    sources = {(each['name'], each['version']): each['repository'] for each in packages['packages']}
    parts = [HEAD]
    for name, version, licence in crates(target):
        folder = folders[name, version]
        found = [file for file in TEXTS if os.path.exists(os.path.join(folder, file))]
        if not found:
            sys.exit('third_party: %s %s has no licence text that is known here' % (name, version))
        with open(os.path.join(folder, found[0]), encoding='utf-8') as file:
            written = textwrap.dedent(file.read()).strip()
        head = '%s %s (%s; %s)' % (name, version, licence, found[0])
        source = ''
        if licence in WITH_SOURCE:
            source = '\nIts source code, unchanged: %s\n' % sources[name, version]
        parts.append('%s\n%s\n%s\n%s\n' % (head, '-' * len(head), source, written))
    return '\n'.join(parts)


if __name__ == '__main__':
    sys.stdout.write(text(machine()))
