"""The contents of the wheel."""
import configparser
import email
import os
import platform
import re
import shutil
import subprocess
import zipfile

import pytest

from support import build, child

LICENCES = ['LICENSE-APACHE', 'LICENSE-MIT', 'THIRD-PARTY.txt']


@pytest.fixture
def wheel():
    return build.wheel()


def test_name_and_tag(wheel, tmp_path):
    """The tag's glibc is that of the newest symbol that must exist, read by another tool than
    the build's."""
    found = re.fullmatch(r'obmalloc-[\d.]+-py3-none-manylinux_(\d+)_(\d+)_(\w+?)(\.manylinux2014_\3)?'
                         r'\.whl', wheel.name)
    assert found, wheel.name
    with zipfile.ZipFile(wheel) as opened:
        opened.extractall(tmp_path)
    newest = (2, 17)
    for path in (tmp_path / 'obmalloc/libobmalloc.so', tmp_path / 'obmalloc/libobmalloc_pythons.so',
                 *tmp_path.glob('*.data/scripts/obmalloc')):
        for line in subprocess.check_output(['objdump', '-T', path], text=True).splitlines():
            version = re.search(r'GLIBC_(\d+)\.(\d+)', line)
            # A weak symbol, flag `w`, may be missing.
            if version and '*UND*' in line and ' w ' not in line[17:27]:
                newest = max(newest, tuple(map(int, version.groups())))
    assert tuple(map(int, found.groups()[:2])) == newest
    assert found[3] == platform.machine()
    assert bool(found[4]) == (newest == (2, 17)), 'the old name of the tag'


def test_licences(wheel):
    """The metadata names the licence and its files (PEP 639); the wheel has the tree's texts."""
    with zipfile.ZipFile(wheel) as opened:
        [name] = [name for name in opened.namelist() if name.endswith('.dist-info/METADATA')]
        fields = email.message_from_bytes(opened.read(name))
        texts = {file: opened.read(f'{os.path.dirname(name)}/licenses/{file}') for file in LICENCES}
    assert fields['Metadata-Version'] == '2.4'
    assert fields['License-Expression'] == 'MIT OR Apache-2.0'
    assert fields['License'] is None
    assert sorted(fields.get_all('License-File')) == LICENCES
    for file in LICENCES[:2]:
        assert texts[file] == (build.ROOT / file).read_bytes()
    others = texts[LICENCES[2]].decode()
    for crate in 'libc', 'clap', 'ratatui', 'serde_json':
        assert re.search(rf'(?m)^{crate} \d+\.\d.*MIT', others), crate
    assert others.count('Permission is hereby granted') > 40


def test_modules(wheel):
    """Each file of the package; and the plugin, by the entry point that pytest looks for."""
    package = build.ROOT / 'python/obmalloc'
    with zipfile.ZipFile(wheel) as opened:
        names = opened.namelist()
        for path in package.iterdir():
            if path.suffix in ('.py', '.pyi') or path.name == 'py.typed':
                assert opened.read(f'obmalloc/{path.name}') == path.read_bytes()
        [points] = [name for name in names if name.endswith('.dist-info/entry_points.txt')]
        read = configparser.ConfigParser()
        read.read_string(opened.read(points).decode())
    assert {name: dict(read[name]) for name in read.sections()} == {
        'pytest11': {'obmalloc': 'obmalloc.pytest_plugin'}}
    assert {'obmalloc/py.typed', 'obmalloc/__init__.pyi', 'obmalloc/pytest_plugin.py',
            'obmalloc/metrics.json'} < set(names)
    assert not [name for name in names if '__pycache__' in name]


def test_auditwheel_agrees(wheel):
    if not shutil.which('auditwheel'):
        pytest.skip('no auditwheel (PyPI has it)')
    done = child.run(['auditwheel', 'show', wheel], dict(os.environ), status=0)
    tag = re.search(r'manylinux_\d+_\d+_(x86_64|aarch64)', wheel.name).group()
    assert tag in done.out.replace('\n', ' '), done.report
