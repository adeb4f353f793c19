"""Help texts, man pages, and what `make install` puts where."""
import os
import re
import shutil
import subprocess

import command
import support

ROOT = os.path.join(support.HERE, '..', '..')


def subcommands():
    """Those that `obmalloc --help` names."""
    done = command.run('--help')
    listed = done.out.split('Commands:\n')[1].split('\n\n')[0]
    return re.findall(r'^  (\w+) ', listed, re.M)


class Help(support.Case):

    def test_each_has_a_help_with_an_example_that_is_understood(self):
        names = subcommands()
        self.assertLessEqual({'run', 'doctor', 'bench'}, set(names))
        self.assertNotIn('man', names)
        for name in names:
            for option in '-h', '--help':
                with self.subTest(command=name, option=option):
                    done = command.run(name, option)
                    self.assertRan(done)
                    self.assertEqual(done.err, '')
                    self.assertRegex(done.out, r'(?m)^Examples?:(\n +| )obmalloc %s ' % name)
                    for line in done.out.splitlines():
                        self.assertFalse(line.startswith('error'), line)

    def test_settings_are_listed(self):
        """All of the page's table."""
        with open(os.path.join(ROOT, 'docs', 'settings.md')) as file:
            names = re.findall(r'^\| `(OBMALLOC_\w+)` \|', file.read(), re.M)
        self.assertGreater(len(names), 10)
        done = command.run('run', '--help')
        for name in names:
            self.assertRegex(done.out, r'(?m)^  %s$' % name)

    def test_version(self):
        done = command.run('--version')
        self.assertRan(done)
        with open(os.path.join(ROOT, 'Cargo.toml')) as file:
            version = re.search(r'^version = "(.*)"', file.read(), re.M).group(1)
        self.assertEqual(done.out, 'obmalloc %s\n' % version)

    def test_wrong_words(self):
        for words in (), ('no-such-command',), ('run', '--no-such-option', 'true'):
            done = command.run(*words)
            self.assertRan(done, 2)
            self.assertRegex(done.err, 'Usage: obmalloc|; obmalloc run --help')


class ManPages(support.Case):

    def test_a_page_for_each(self):
        folder = support.scratch('man')
        self.assertRan(command.run('man', folder))
        pages = ['obmalloc.1'] + ['obmalloc-%s.1' % name for name in subcommands()]
        self.assertEqual(sorted(os.listdir(folder)), sorted(pages))
        for page in pages:
            with self.subTest(page=page):
                path = os.path.join(folder, page)
                with open(path) as file:
                    text = file.read()
                self.assertIn('.SH NAME', text)
                self.assertIn('.SH SYNOPSIS', text)
                self.assertIn('xample', text)
                if shutil.which('groff'):
                    done = support.run(['groff', '-man', '-Tutf8', '-ww', path])
                    self.assertRan(done)
                    self.assertEqual(done.err, '', done.report)

    def test_a_folder_that_cannot_be_made(self):
        done = command.run('man', '/proc/nowhere/man')
        self.assertRan(done, 1)
        self.assertRegex(done.err, '^obmalloc: cannot write man pages to .*; .*\n$')


class Install(support.Case):

    def test_install_run_and_uninstall(self):
        """What make install leaves is a whole: the command finds its library, and
        uninstall takes all of it away."""
        if not shutil.which('make') or not shutil.which('cargo'):
            self.skipTest('no make or cargo here')
        if os.path.abspath(support.LIBRARY) != os.path.abspath(
                os.path.join(support.RELEASE, 'libobmalloc.so')):
            self.skipTest('another library than the tree\'s own is checked')
        prefix = support.scratch('prefix')
        make = ['make', '-s', '-C', ROOT, 'PREFIX=' + prefix]
        env = dict(os.environ, MAKEFLAGS='')
        subprocess.run(make + ['install'], env=env, check=True, stdout=subprocess.PIPE)
        program = os.path.join(prefix, 'bin', 'obmalloc')
        done = support.run([program, 'run', '-v', '--', 'python3', '-c',
                            'import os; print(os.environ["LD_PRELOAD"])'])
        self.assertRan(done)
        self.assertEqual(done.out.strip(), os.path.join(prefix, 'lib', 'libobmalloc.so'))
        self.assertEqual(len(done.lines(support.ACTIVE)), 1, done.report)
        self.assertRan(support.run([program, 'doctor']))
        done = support.run(['sh', '-c', 'LD_PRELOAD=$("$1" path) OBMALLOC_VERBOSE=1 exec python3 -c pass',
                            'sh', program])
        self.assertRan(done)
        self.assertEqual(len(done.lines(support.ACTIVE)), 1, done.report)
        manual = os.path.join(prefix, 'share', 'man', 'man1')
        self.assertIn('obmalloc-doctor.1', os.listdir(manual))
        subprocess.run(make + ['uninstall'], env=env, check=True, stdout=subprocess.PIPE)
        left = [name for _, _, names in os.walk(prefix) for name in names]
        self.assertEqual(left, [])
