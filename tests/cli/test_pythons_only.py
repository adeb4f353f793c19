"""`obmalloc run --pythons-only`: Pythons that Pythons start have the library; other programs
inherit nothing of it."""
import os
import re
import subprocess
import sys

import pytest

from cli import command
from support import build, child, status

# A process prints whether the library is mapped, and what it would hand on.
HERE = ('import os; print("%s %s" % (any("libobmalloc.so" in line for line in '
        'open("/proc/self/maps")), os.environ.get("LD_PRELOAD")))')

PYTHONS = r'''
import json, os, subprocess, sys
HERE = %r
said = {}
python = sys.executable
argv = [python, '-c', HERE]

def read(start):
    """What a child that start() becomes, or starts, prints."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.dup2(writer, 1)
            start()
        finally:
            os._exit(9)
    os.close(writer)
    out = os.fdopen(reader).read()
    os.waitpid(pid, 0)
    return out.strip()

def output(*arguments, **options):
    return subprocess.check_output(*arguments, **options).decode().strip()

said['itself'] = output(['cat', '/proc/%%d/maps' %% os.getpid()]).count('libobmalloc.so') > 0
said['own environment'] = os.environ.get('LD_PRELOAD')
said['subprocess'] = output(argv)
said['subprocess, copied environment'] = output(argv, env=dict(os.environ))
said['subprocess, close_fds=False'] = output(argv, close_fds=False)
said['execv'] = read(lambda: os.execv(python, argv))
said['execve'] = read(lambda: os.execve(python, argv, dict(os.environ)))
said['execvp'] = read(lambda: os.execvp(python, argv))
if hasattr(os, 'posix_spawn'):
    said['posix_spawn'] = read(lambda: os.waitpid(os.posix_spawn(python, argv, os.environ), 0))
    said['posix_spawnp'] = read(lambda: os.waitpid(os.posix_spawnp(python, argv, os.environ), 0))
if sys.version_info > (3,):
    said['fexecve'] = read(lambda: os.execve(os.open(python, os.O_RDONLY), argv, dict(os.environ)))
said['script'] = output([sys.argv[1]])
said['script by env'] = output([sys.argv[2]])
said['grandchild'] = output([python, '-c', 'import subprocess, sys; sys.stdout.write('
                             'subprocess.check_output([sys.executable, "-c", %%r]).decode())' %% HERE])
said['cleared environment'] = output(argv, env={})
said['by a shell'] = output(['sh', '-c', '"$@"', 'sh'] + argv)
print(json.dumps(said))
''' % HERE

OTHERS = r'''
import json, os, subprocess, sys
show = 'grep -c libobmalloc /proc/self/maps; echo ${LD_PRELOAD-unset}'
said = {}
run = lambda *a, **k: subprocess.check_output(*a, **k).decode().split()
said['sh'] = run(['sh', '-c', show + '; true'])
said['sh, copied environment'] = run(['sh', '-c', show + '; true'], env=dict(os.environ))
said['shell=True'] = run(show + '; true', shell=True)
said['popen'] = os.popen(show).read().split()
sys.stdout.flush()
said['grandchild'] = run([sys.executable, '-c', 'import os, sys; os.execvp("sh", ["sh", "-c", %r])' % show])
said['env'] = run(['env', 'sh', '-c', show + '; true'])
print(json.dumps(said))
'''

MULTIPROCESSING = '''
import multiprocessing, json
def there(n):
    return any("libobmalloc.so" in line for line in open("/proc/self/maps"))
if __name__ == "__main__":
    said = {}
    for way in "fork", "spawn", "forkserver":
        with multiprocessing.get_context(way).Pool(1) as pool:
            said[way] = pool.map(there, [1])[0]
    print(json.dumps(said))
'''

debian = pytest.mark.skipif(not os.path.exists('/usr/bin/python3'), reason='no /usr/bin/python3')


def start(*words, env=None):
    return command.run('run', '--pythons-only', '--verbose', '--', *words, env=env)


def test_pythons_have_it(python, tmp_path):
    scripts = [command.script(tmp_path / name, f'#!{first}\n{HERE}\n') for name, first in (
        ('direct', python.path),
        ('by-env', '/usr/bin/env python' + ('3' if python.numbers > (3,) else '')))]
    path = f'{os.path.dirname(python.path)}:{os.environ["PATH"]}'
    said = start(python.path, '-B', '-c', PYTHONS, *scripts,
                 env=child.clean_environment(PATH=path)).said
    assert said.pop('itself')
    assert said.pop('own environment') is None
    # Documented as without: the environment is cleared, or a shell is between.
    for name in 'cleared environment', 'by a shell':
        assert said.pop(name) == 'False None', name
    assert len(said) > 8
    # They have the library, and again nothing to hand on.
    assert said == dict.fromkeys(said, 'True None')


def test_other_programs_have_not(python):
    said = start(python.path, '-B', '-c', OTHERS).said
    assert said == dict.fromkeys(said, ['0', 'unset'])


def test_other_preloads_stay_for_all(python):
    other = str(build.program('nothing.so', 'nothing.c', '-Dmain=nothing', '-shared', '-fPIC',
                              folder=command.PROGRAMS))
    said = start(python.path, '-B', '-c', OTHERS,
                 env=child.clean_environment(LD_PRELOAD=other)).said
    assert said == dict.fromkeys(said, ['0', other])


@pytest.mark.since(3, 4)
@pytest.mark.one_python
def test_multiprocessing(python, tmp_path):
    (tmp_path / 'main.py').write_text(MULTIPROCESSING)
    said = start(python.path, '-B', tmp_path / 'main.py').said
    assert said == {'fork': True, 'spawn': True, 'forkserver': True}


@debian
def test_a_shell_first():
    """The filter is in the program that is started, whatever it is."""
    done = start('sh', '-c', 'grep -c libobmalloc /proc/self/maps; echo ${LD_PRELOAD-unset}; '
                 f'/usr/bin/env true; /usr/bin/python3 -c \'{HERE}\'')
    assert done.out.split() == ['0', 'unset', 'True', 'None']


def test_large_environments_are_left_alone():
    """There is no room for a copy: the child runs, without the library."""
    code = ('import subprocess, sys; print(subprocess.check_output([sys.executable, "-c", '
            '"import os; print(len(os.environ) > 3000)"]).decode())')
    done = start('python3', '-c', code,
                 env=child.clean_environment(**{f'V{n}': 'x' for n in range(3000)}))
    assert done.out.split() == ['True']


def small_stack(*way):
    """The rows of programs/small_stack.c, [call, status, bytes of stack], and the children's."""
    program = build.program('small-stack', 'small_stack.c', '-pthread', folder=command.PROGRAMS)
    done = child.run([*way, program, '16384', '/usr/bin/python3', '-S', '-c', HERE], status=0)
    lines = [line.split() for line in done.out.splitlines()]
    return [line for line in lines if len(line) == 3], [line for line in lines if len(line) == 2]


@debian
def test_a_thread_with_the_smallest_stack_starts_programs():
    """And it uses no more of the stack than without the library."""
    plain, _ = small_stack()
    used, said = small_stack(build.COMMAND, 'run', '--pythons-only', '--')
    assert said == [['True', 'None']] * len(plain)
    for (call, stock, least), (_, ours, most) in zip(plain, used):
        assert (stock, ours) == ('0', '0'), call
        assert int(most) - int(least) < 4096, call


def test_many_threads_with_pythons_that_live_on():
    """A child of vfork takes one of a few work areas until it has become a program; there are
    more children here than areas."""
    code = ('import subprocess, sys, threading\n'
            f'HERE = {HERE!r}\n'
            'children, end = [], threading.Event()\n'
            'def start():\n'
            '    child = subprocess.Popen([sys.executable, "-S", "-c", HERE + "; import sys; '
            'sys.stdout.flush(); sys.stdin.read()"],\n'
            '                             stdin=subprocess.PIPE, stdout=subprocess.PIPE)\n'
            '    children.append((child, child.stdout.readline()))\n'
            '    end.wait()\n'
            'threads = [threading.Thread(target=start) for _ in range(80)]\n'
            'for thread in threads: thread.start()\n'
            'while len(children) < 80: end.wait(0.02)\n'
            'end.set()\n'
            'for child, said in children: child.communicate()\n'
            'print(sorted({said.decode().strip() for _, said in children}))\n')
    assert start(os.path.realpath(sys.executable), '-c', code).out == "['True None']\n"


def test_errors_are_those_of_the_calls():
    code = ('import os, errno\n'
            'def error(call, *arguments):\n'
            '    try: call(*arguments)\n'
            '    except OSError as problem: return errno.errorcode[problem.errno]\n'
            'for path in "/nowhere/at/all", "/etc/passwd", "/":\n'
            '    print(error(os.execv, path, ["x"]), error(os.posix_spawn, path, ["x"], os.environ))\n')
    plain = child.run(['python3', '-c', code], status=0)
    assert start('python3', '-c', code).out == plain.out
    assert 'ENOENT' in plain.out


def test_without_the_second_library(tmp_path):
    done = child.run([command.layout(tmp_path), 'run', '--pythons-only', '--', 'sh', '-c',
                      'echo ${LD_PRELOAD-unset}; exit 3'], status=3)
    assert done.out == 'unset\n'
    status.says(done, '.*libobmalloc_pythons.so: No such file.*; install it'
                      '.*running without the library.')


def test_it_exports_the_exec_family_only():
    out = subprocess.check_output(['nm', '-D', '--defined-only', build.PYTHONS_ONLY], text=True)
    assert sorted(re.findall(r' [TW] (\w+)', out)) == [
        'execv', 'execve', 'execvp', 'execvpe', 'fexecve', 'posix_spawn', 'posix_spawnp']
