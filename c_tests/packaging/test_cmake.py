"""The CMake package that `make install` leaves: a project finds it and links both ways,
wherever the tree lies then."""
import os
import re
import shutil

import installed
import support

PROJECT = os.path.join(installed.HERE, 'cmake')
SONAME = 'libobmalloc.so.0'


def version():
    with open(os.path.join(installed.ROOT, 'Cargo.toml')) as file:
        return re.search(r'^version = "(.*)"', file.read(), re.M).group(1)


class CMake(support.Case):

    def configure(self, prefix, name, *words):
        """cmake of the project, which looks for packages in prefix; the run, the folder."""
        cmake = installed.from_pypi('cmake', 'cmake')
        if not shutil.which('gcc'):
            self.skipTest('no gcc here')
        folder = support.scratch('cmake-' + name)
        return support.run([cmake, '-S', PROJECT, '-B', folder, '-DCMAKE_PREFIX_PATH=' + prefix,
                            *words], timeout=300), folder

    def builds_and_runs(self, prefix, libdir, name):
        done, folder = self.configure(prefix, name, '-DWANTED=' + version())
        self.assertRan(done)
        self.assertIn('found obmalloc %s in %s/' % (version(), libdir), done.out)
        self.assertRan(support.run([installed.from_pypi('cmake', 'cmake'), '--build', folder],
                                   timeout=300))
        for program in 'with_shared', 'with_static':
            with self.subTest(program=program):
                path = os.path.join(folder, program)
                done = support.run([path])
                self.assertRan(done)
                said, held = done.out.split()
                self.assertEqual(said, version())
                # A thousand blocks of 48 bytes; some may have been taken beforehand.
                self.assertGreater(int(held), 40 * 1000, done.report)
                needed = support.run(['readelf', '-d', path]).out
                self.assertEqual(SONAME in needed, program == 'with_shared')
        linked = support.run(['ldd', os.path.join(folder, 'with_shared')]).out
        self.assertIn('%s => %s/' % (SONAME, libdir), linked)

    def test_in_its_prefix(self):
        prefix = support.scratch('prefix')
        installed.make('install', 'PREFIX=' + prefix)
        for name in 'LICENSE-MIT', 'LICENSE-APACHE', 'THIRD-PARTY.txt':
            self.assertIn('share/doc/obmalloc/' + name, installed.files(prefix))
        self.builds_and_runs(prefix, prefix + '/lib', 'prefix')
        installed.make('uninstall', 'PREFIX=' + prefix)
        self.assertEqual(installed.files(prefix), [])
        self.assertFalse(os.path.exists(prefix + '/lib/cmake/obmalloc'))

    def test_staged_multiarch_and_moved(self):
        """As for a package: DESTDIR, a multiarch LIBDIR; and then moved elsewhere."""
        stage = support.scratch('stage')
        words = ('PREFIX=/usr', 'LIBDIR=/usr/lib/x86_64-linux-gnu', 'DESTDIR=' + stage)
        installed.make('install', *words)
        for name in installed.files(stage):
            with open(os.path.join(stage, name), 'rb') as file:
                if name.endswith(('.cmake', '.pc')):
                    self.assertNotIn(stage.encode(), file.read(), name)
        moved = support.scratch('moved')
        shutil.copytree(stage, moved, symlinks=True)
        installed.make('uninstall', *words)
        self.assertEqual(installed.files(stage), [])
        self.builds_and_runs(moved + '/usr', moved + '/usr/lib/x86_64-linux-gnu', 'moved')

        with self.subTest('by a link to the folder of libraries, as /lib is one to /usr/lib'):
            os.symlink('usr/lib', moved + '/lib')
            done, _ = self.configure(moved, 'link')
            self.assertRan(done)

        with self.subTest('versions'):
            major, minor, patch = map(int, version().split('.'))
            newer = '%d.%d.%d' % (major, minor, patch + 1)
            for wanted, suits in ((str(major), True), ('%d.0' % major, True),
                                  (version() + ';EXACT', True), (newer, False),
                                  ('%d.0.0' % (major + 1), False),
                                  ('%d.0...<%s' % (major, newer), True),
                                  ('%d.0...<%s' % (major, version()), False),
                                  ('%d.0...%s' % (major, version()), True)):
                done, _ = self.configure(moved + '/usr', 'version', '-DWANTED=' + wanted)
                self.assertEqual(done.status == 0, suits, wanted + '\n' + done.report)
                if not suits:
                    self.assertIn('version: ' + version(), done.err)

        with self.subTest('a tree that is not whole'):
            os.remove(moved + '/usr/lib/x86_64-linux-gnu/libobmalloc.a')
            done, _ = self.configure(moved + '/usr', 'incomplete')
            self.assertNotEqual(done.status, 0)
            self.assertIn('libobmalloc.a is missing: install', done.err.replace('\n  ', ' '))
