"""Help texts, man pages, and the tree of `make install`."""
import os
import re
import shutil

import pytest

from cli import command
from support import build, child, status


def subcommands():
    """The commands that `obmalloc --help` lists."""
    listed = command.run('--help').out.split('Commands:\n')[1].split('\n\n')[0]
    return re.findall(r'^  (\w+) ', listed, re.M)


def test_subcommands():
    names = subcommands()
    assert {'run', 'doctor'} <= set(names)
    assert 'man' not in names


@pytest.mark.parametrize('option', ['-h', '--help'])
def test_help_has_an_example(option):
    for name in subcommands():
        done = command.run(name, option)
        assert done.err == ''
        assert re.search(fr'(?m)^Examples?:(\n +| )obmalloc {name} ', done.out), done.report
        assert not re.search('(?m)^error', done.out), done.report


def test_settings_are_listed():
    """All of the table in docs/settings.md."""
    page = (build.ROOT / 'docs' / 'settings.md').read_text()
    names = re.findall(r'^\| `(OBMALLOC_\w+)` \|', page, re.M)
    assert len(names) > 10
    listed = re.findall(r'(?m)^  (OBMALLOC_\w+)$', command.run('run', '--help').out)
    assert set(names) <= set(listed)


def test_version():
    assert command.run('--version').out == f'obmalloc {build.version()}\n'


@pytest.mark.parametrize('words', [(), ('no-such-command',), ('run', '--no-such-option', 'true')],
                         ids=['none', 'command', 'option'])
def test_wrong_words(words):
    done = command.run(*words, status=2)
    assert re.search('Usage: obmalloc|; obmalloc run --help', done.err)


def test_man_pages(tmp_path):
    """One for each command; groff finds no fault."""
    command.run('man', tmp_path)
    pages = ['obmalloc.1'] + [f'obmalloc-{name}.1' for name in subcommands()]
    assert sorted(os.listdir(tmp_path)) == sorted(pages)
    for page in pages:
        text = (tmp_path / page).read_text()
        for part in '.SH NAME', '.SH SYNOPSIS', 'xample':
            assert part in text
        if shutil.which('groff'):
            done = child.run(['groff', '-man', '-Tutf8', '-ww', tmp_path / page], status=0)
            assert done.err == '', done.report


def test_a_folder_that_cannot_be_created():
    done = command.run('man', '/proc/nowhere/man', status=1)
    status.says(done, 'cannot write man pages to .*; .*')


def test_install_run_and_uninstall(tmp_path):
    """The installed command finds its library; uninstall removes every file."""
    build.make('install', f'PREFIX={tmp_path}')
    program = tmp_path / 'bin/obmalloc'
    done = child.run([program, 'run', '-v', '--', 'python3', '-c',
                      'import os; print(os.environ["LD_PRELOAD"])'], status=0)
    assert done.out.strip() == str(tmp_path / 'lib/libobmalloc.so')
    assert len(done.lines(status.ACTIVE)) == 1, done.report
    child.run([program, 'doctor'], status=0)
    done = child.run(['sh', '-c', 'LD_PRELOAD=$("$1" path) OBMALLOC_VERBOSE=1 exec python3 -c pass',
                      'sh', program], status=0)
    assert len(done.lines(status.ACTIVE)) == 1, done.report
    assert (tmp_path / 'share/man/man1/obmalloc-doctor.1').exists()
    build.make('uninstall', f'PREFIX={tmp_path}')
    assert build.files(tmp_path) == []
