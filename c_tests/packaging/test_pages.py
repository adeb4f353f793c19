"""The examples of docs/c.md, docs/python.md and CONTRIBUTING.md, as the pages have them: the
programs are built and run from an installed tree, the tests where the tests lie."""
import os
import re
import shutil
import sys

import installed
import run
import support


def example(page, language, word):
    """The one fenced block of a page in this language that has the word."""
    with open(os.path.join(installed.ROOT, page)) as file:
        blocks = re.findall(r'^```%s\n(.*?)^```$' % language, file.read(), re.M | re.S)
    found = [block for block in blocks if word in block]
    if len(found) != 1:
        raise AssertionError('%s has %d blocks in %s with %r' % (page, len(found), language, word))
    return found[0]


def written(name, text):
    """The text in a file of that name, alone in its folder; its path."""
    folder = support.scratch('example-' + name)
    os.makedirs(folder, exist_ok=True)
    path = os.path.join(folder, name)
    with open(path, 'w') as file:
        file.write(text)
    return path


class Pages(support.Case):

    def test_program_for_c(self):
        """By pkg-config with the shared library, and with the archive."""
        if not shutil.which('pkg-config') or not shutil.which('cc'):
            self.skipTest('no pkg-config here, or no cc')
        prefix = support.scratch('c-prefix')
        installed.make('install', 'PREFIX=' + prefix)
        folder = os.path.dirname(written('words.c', example('docs/c.md', 'c', 'int main')))
        lines = example('docs/c.md', 'sh', 'pkg-config').splitlines()
        env = support.clean_environment(PKG_CONFIG_PATH=prefix + '/lib/pkgconfig',
                                        LD_LIBRARY_PATH=prefix + '/lib')
        archive = 'cc -o words words.c -I %s/include %s/lib/libobmalloc.a' % (prefix, prefix)
        for way, compile_line in ('shared', lines[1]), ('archive', archive):
            with self.subTest(way):
                done = support.run(['sh', '-ec', compile_line.replace('cc ', 'cc -Wall -Wextra -Werror ')
                                    + '\n' + lines[2]], env, cwd=folder)
                self.assertRan(done)
                [wanted] = re.findall('`(100000 different words, .*?)`', self.text('docs/c.md'))
                self.assertEqual(done.out, wanted + '\nfree pages returned\n')

    def test_program_for_python(self):
        made = support.run([sys.executable, '-B',
                            os.path.join(installed.ROOT, 'python', 'build_wheel.py'),
                            '--from', os.path.dirname(support.LIBRARY),
                            '--to', support.scratch('pages-wheel')])
        self.assertRan(made)
        folder = support.scratch('pages-unpacked')
        self.assertRan(support.run([sys.executable, '-m', 'zipfile', '-e',
                                    made.out.splitlines()[-1], folder]))
        path = written('app.py', example('docs/python.md', 'python', 'import obmalloc'))
        done = support.run([sys.executable, '-B', path], support.clean_environment(PYTHONPATH=folder))
        self.assertRan(done)
        numbers = re.fullmatch(r'held (\d+) MiB, left (\d+) MiB, returned (\d+) MiB\n', done.out)
        self.assertTrue(numbers, done.report)
        held, left, returned = map(int, numbers.groups())
        self.assertGreater(held, 40)
        self.assertLess(left, 5)
        self.assertGreater(returned, 40)

    def test_first_c_test(self):
        """CONTRIBUTING.md's C program, with both libraries: it passes and prints its fact."""
        if not shutil.which('cc'):
            self.skipTest('no cc here')
        text = example('CONTRIBUTING.md', 'c', 'TEST_MAIN')
        self.assertRegex(text, r'^/\* ways: ')
        path = written('grown_block.c', text)
        for library in '.so', '.a':
            with self.subTest(library):
                program = path[:-2] + library
                self.assertRan(support.run(
                    ['cc', '-std=gnu11', '-O1', '-Wall', '-Wextra', '-Werror',
                     '-I', os.path.join(installed.ROOT, 'include'),
                     '-I', os.path.join(installed.ROOT, 'c_tests'), path, '-o', program,
                     os.path.abspath(support.LIBRARY)[:-3] + library, '-lpthread', '-ldl']))
                done = support.run([program], support.clean_environment(
                    LD_LIBRARY_PATH=os.path.dirname(os.path.abspath(support.LIBRARY))))
                self.assertRan(done)
                self.assertRegex(done.out, '^.*: ok\n$')

    def test_first_preload_check(self):
        """CONTRIBUTING.md's check of a preloaded interpreter, made with this one."""
        path = written('test_first.py', example('CONTRIBUTING.md', 'python', 'PythonCase'))
        done = support.run([sys.executable, '-B', '-c', RUN, os.path.dirname(path),
                            os.path.dirname(os.path.abspath(run.__file__)), '--pythons',
                            '%d.%d.%d' % sys.version_info[:3], '--library', support.LIBRARY],
                           timeout=100)
        if '0 passed, 0 failed' in done.out:
            self.skipTest('the checks find no interpreter like this one here')
        self.assertRan(done)
        self.assertRegex(done.out, r'\n[1-9]\d* passed, 0 failed', done.report)

    def text(self, page):
        with open(os.path.join(installed.ROOT, page)) as file:
            return file.read()


RUN = '''
import sys
folder, preload = sys.argv[1:3]
sys.argv[1:3] = []
sys.path[:0] = [preload, folder]
import run
sys.exit(run.main(folder))
'''
