"""`obmalloc settings`: all settings, their values, and where each comes from."""
import json
import re
import subprocess

import pytest

from cli import command
from support import build, child, status


def settings(*words, **variables):
    done = command.run('settings', '--json', *words, env=child.clean_environment(**variables))
    return json.loads(done.out)


def values(**variables):
    return {each['name']: each['value'] for each in settings(**variables)['settings']}


def names():
    """The settings in docs/settings.md, in its order."""
    page = (build.ROOT / 'docs' / 'settings.md').read_text()
    table = page.split('<!-- settings -->')[1].split('<!-- end of settings -->')[0]
    return re.findall(r'(?m)^\| `(OBMALLOC_\w+)` \|', table)


def test_all_of_them():
    listed = settings()
    assert [each['name'] for each in listed['settings']] == names()
    assert all(each['source'] == 'default' for each in listed['settings'])
    assert all(each['value'] == each['default'] for each in listed['settings'])
    assert listed['unknown'] == [] and listed['pid'] is None
    text = command.run('settings', env=child.clean_environment()).out
    assert re.findall(r'(?m)^(OBMALLOC_\w+) ', text) == names()


def test_long_has_the_meaning():
    text = command.run('settings', '--long').out
    for each in settings()['settings']:
        assert f'      {each["values"]}; {each["default"]}\n      {each["meaning"]}\n' in text


def test_origin():
    done = command.run('settings', env=child.clean_environment(
        OBMALLOC_DECAY_MS='250', OBMALLOC_LIMIT='1G', OBMALLOC_ALIGN='7', OBMALLOC_NO_SUCH='1'))
    for row in (r'OBMALLOC_DECAY_MS +250 +environment',
                r'OBMALLOC_SOFT_LIMIT +1073741824 +OBMALLOC_LIMIT, its deprecated name',
                r'OBMALLOC_ALIGN +16 +default; OBMALLOC_ALIGN=7: not understood, ignored',
                r'OBMALLOC_NO_SUCH: not understood, ignored'):
        assert re.search(f'(?m)^{row}$', done.out), done.report


def test_the_present_name_counts():
    both = values(OBMALLOC_GUARD='10', OBMALLOC_GUARD_SAMPLE_RATE='20')
    assert both['OBMALLOC_GUARD_SAMPLE_RATE'] == '20'
    empty = values(OBMALLOC_GUARD='10', OBMALLOC_GUARD_SAMPLE_RATE='')
    assert empty['OBMALLOC_GUARD_SAMPLE_RATE'] == '0'


def test_without_effect():
    listed = settings(OBMALLOC_SYSCALLS='stock', OBMALLOC_STATS_PAGE='1')['settings']
    assert [each['name'] for each in listed if not each['has_effect']] == ['OBMALLOC_STATS_PAGE']


def test_of_a_running_program():
    """Those that it was started with, whatever this command's environment has."""
    program = subprocess.Popen(['sleep', '60'], env=child.clean_environment(OBMALLOC_THP='never'))
    try:
        listed = settings(str(program.pid), OBMALLOC_THP='always')
    finally:
        program.kill()
        program.wait()
    thp = next(each for each in listed['settings'] if each['name'] == 'OBMALLOC_THP')
    assert (listed['pid'], thp['value'], thp['source']) == (program.pid, 'never', 'environment')


@pytest.mark.parametrize('pid, number', [('4194303', 1), ('x', 2)])
def test_no_such_program(pid, number):
    done = command.run('settings', pid, status=number)
    if number == 1:
        status.says(done, 'cannot read the environment of process 4194303: .*; name a .*')
