"""`obmalloc run --pythons-only`: Pythons that Pythons start have the library, and nothing
else that they start inherits anything of it."""
import os
import re
import subprocess
import sys

import command
import support

# What a process that was started says of itself: whether the library is mapped.
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


class InEachPython(support.PythonCase):

    def start(self, code, *arguments, **env):
        done = command.run('run', '--pythons-only', '--verbose', '--', self.python.path, '-B', '-c',
                           code, *arguments, env=support.clean_environment(**env))
        self.assertRan(done)
        return support.said(done)

    def script(self, name, first):
        path = support.scratch('%s-%s' % (name, self.python.label.replace(' ', '-')))
        with open(path, 'w') as file:
            file.write('#!%s\n%s\n' % (first, HERE))
        os.chmod(path, 0o755)
        return path

    def test_pythons_have_it(self):
        by_env = os.path.dirname(self.python.path) + ':' + os.environ['PATH']
        said = self.start(PYTHONS, self.script('direct', self.python.path),
                          self.script('by-env', '/usr/bin/env python3' if self.python.numbers > (3,)
                                      else '/usr/bin/env python'), PATH=by_env)
        self.assertTrue(said.pop('itself'))
        self.assertIsNone(said.pop('own environment'))
        # What is documented to be without: it has cleared the environment, or a shell
        # stands between.
        for name in 'cleared environment', 'by a shell':
            self.assertEqual(said.pop(name), 'False None', name)
        self.assertGreater(len(said), 8)
        for name, words in said.items():
            with self.subTest(way=name):
                # It has the library, and again nothing to hand on.
                self.assertEqual(words, 'True None')

    def test_other_programs_have_not(self):
        for name, words in self.start(OTHERS).items():
            with self.subTest(way=name):
                self.assertEqual(words, ['0', 'unset'])

    def test_what_is_preloaded_otherwise_stays_for_all(self):
        other = support.build('nothing.so', 'nothing.c', '-shared', '-fPIC')
        for name, words in self.start(OTHERS, LD_PRELOAD=other).items():
            with self.subTest(way=name):
                self.assertEqual(words, ['0', other])

    @support.since(3, 4)
    @support.takes_long
    def test_multiprocessing(self):
        folder = support.scratch('mp-%s' % self.python.label.replace(' ', '-'))
        os.makedirs(folder, exist_ok=True)
        path = os.path.join(folder, 'main.py')
        with open(path, 'w') as file:
            file.write('import multiprocessing, json\n'
                       'def there(n):\n'
                       '    return any("libobmalloc.so" in line for line in open("/proc/self/maps"))\n'
                       'if __name__ == "__main__":\n'
                       '    said = {}\n'
                       '    for way in "fork", "spawn", "forkserver":\n'
                       '        with multiprocessing.get_context(way).Pool(1) as pool:\n'
                       '            said[way] = pool.map(there, [1])[0]\n'
                       '    print(json.dumps(said))\n')
        done = command.run('run', '--pythons-only', '--', self.python.path, '-B', path)
        self.assertRan(done)
        self.assertEqual(support.said(done), {'fork': True, 'spawn': True, 'forkserver': True})


class PythonsOnly(support.Case):

    def test_a_shell_that_is_started_first(self):
        """What it executes itself is looked at as well."""
        done = command.run('run', '--pythons-only', '--', 'sh', '-c',
                           'grep -c libobmalloc /proc/self/maps; echo ${LD_PRELOAD-unset}; '
                           '/usr/bin/env true; /usr/bin/python3 -c \'%s\'' % HERE)
        if not os.path.exists('/usr/bin/python3'):
            self.skipTest('no python3 of the distribution here')
        self.assertEqual(done.out.split(), ['0', 'unset', 'True', 'None'], done.report)

    def test_large_environments_are_left_alone(self):
        """More than there is room for: the child runs, without the library."""
        env = support.clean_environment(**{'V%d' % n: 'x' for n in range(3000)})
        code = ('import subprocess, sys; print(subprocess.check_output([sys.executable, "-c", '
                '"import os; print(len(os.environ) > 3000)"]).decode())')
        done = command.run('run', '--pythons-only', '--', 'python3', '-c', code, env=env)
        self.assertRan(done)
        self.assertEqual(done.out.split(), ['True'])

    def small_stack(self, *command):
        """What c_tests/command/small_stack.c says: [way, status, bytes], and what else."""
        source = os.path.join(os.path.dirname(os.path.abspath(__file__)), 'small_stack.c')
        program = support.build('small-stack', source, '-pthread')
        done = support.run([*command, program, '16384', '/usr/bin/python3', '-S', '-c', HERE])
        self.assertRan(done)
        lines = [line.split() for line in done.out.splitlines()]
        return [line for line in lines if len(line) == 3], [line for line in lines if len(line) == 2]

    def test_a_thread_with_a_small_stack_starts_programs(self):
        """The least that a thread may have; and no more of it is used than without us."""
        if not os.path.exists('/usr/bin/python3'):
            self.skipTest('no python3 of the distribution here')
        plain, _ = self.small_stack()
        used, said = self.small_stack(command.path(), 'run', '--pythons-only', '--')
        self.assertEqual(said, [['True', 'None']] * len(plain))
        for (way, status, least), (_, ours, most) in zip(plain, used):
            self.assertEqual((status, ours), ('0', '0'), way)
            self.assertLess(int(most) - int(least), 4096, way)

    def test_many_threads_have_pythons_that_live_on(self):
        """What a child of vfork works in is free again when it has become a program: there is
        less of it than there are children here."""
        code = ('import subprocess, sys, threading\n'
                'HERE = %r\n'
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
                'print(sorted({said.decode().strip() for _, said in children}))\n' % HERE)
        done = command.run('run', '--pythons-only', '--', os.path.realpath(sys.executable), '-c', code)
        self.assertRan(done)
        self.assertEqual(done.out, "['True None']\n")

    def test_errors_are_those_of_the_calls(self):
        code = ('import os, errno\n'
                'def error(call, *arguments):\n'
                '    try: call(*arguments)\n'
                '    except OSError as problem: return errno.errorcode[problem.errno]\n'
                'for path in "/nowhere/at/all", "/etc/passwd", "/":\n'
                '    print(error(os.execv, path, ["x"]), error(os.posix_spawn, path, ["x"], os.environ))\n')
        plain = support.run(['python3', '-c', code])
        done = command.run('run', '--pythons-only', '--', 'python3', '-c', code)
        self.assertRan(done)
        self.assertEqual(done.out, plain.out)
        self.assertIn('ENOENT', done.out)

    def test_without_the_second_library(self):
        program = command.layout('no-pythons')
        done = support.run([program, 'run', '--pythons-only', '--', 'sh', '-c',
                            'echo ${LD_PRELOAD-unset}; exit 3'])
        self.assertRan(done, 3)
        self.assertEqual(done.out, 'unset\n')
        self.assertRegex(done.err, '^obmalloc: .*libobmalloc_pythons.so: No such file.*; install it'
                                   '.*running without the library.\n$')

    def test_it_exports_nothing_else(self):
        library = os.path.join(os.path.dirname(support.LIBRARY), 'libobmalloc_pythons.so')
        out = subprocess.check_output(['nm', '-D', '--defined-only', library]).decode()
        names = sorted(re.findall(r' [TW] (\w+)', out))
        self.assertEqual(names, ['execv', 'execve', 'execvp', 'execvpe', 'fexecve', 'posix_spawn',
                                 'posix_spawnp'])
