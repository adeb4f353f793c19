"""Where cargo is told to build, make takes what it installs and packs from: CARGO_TARGET_DIR,
CARGO_BUILD_TARGET, cargo's own configuration. With a cargo that only copies what is built
already, marked, to where the real one would have built it."""
import os
import shutil
import sys

import installed
import support

MARK = b'made by the cargo of this check'
CARGO = r'''#!/bin/sh -e
case "$*" in
tree*|*--filter-platform*) exec "$REAL_CARGO" "$@";;    # for the licences of the crates
esac
case $1 in
metadata) echo "{\"packages\":[],\"target_directory\":\"$CONFIGURED\",\"version\":1}"; exit;;
-Zunstable-options) [ -n "$CONFIGURED_MACHINE" ] || exit 1; echo "\"$CONFIGURED_MACHINE\""; exit;;
build) ;;
*) echo "cargo $*: not expected" >&2; exit 9;;
esac
target=${CARGO_TARGET_DIR:-$CONFIGURED} profile=release pythons=
while [ $# -gt 0 ]; do
    case $1 in
    --profile) profile=$2; shift;;
    --target-dir) target=$2; shift;;
    -p) [ "$2" != obmalloc-exec-scope ] || pythons=yes; shift;;
    esac
    shift
done
folder=$target/${CARGO_BUILD_TARGET:+$CARGO_BUILD_TARGET/}$profile
mkdir -p "$folder"
if [ "$profile" = command ]; then names=obmalloc
elif [ "$pythons" ]; then names=libobmalloc_pythons.so
else names='libobmalloc.so libobmalloc.a'
fi
for name in $names; do
    cp "$BUILT_ALREADY/$name" "$folder/$name"
    case $name in *.so) printf '%s' "$MARK" >> "$folder/$name";; esac
done
'''


class Target(support.Case):

    def setUp(self):
        for tool in 'make', 'objcopy', 'cargo':
            if not shutil.which(tool):
                self.skipTest('no %s here' % tool)
        for name in 'libobmalloc.so', 'libobmalloc.a', 'libobmalloc_pythons.so', 'obmalloc':
            if not os.path.exists(os.path.join(os.path.dirname(support.LIBRARY), name)):
                self.skipTest('no %s is built: make command' % name)

    def make(self, name, *words, configured=None, **env):
        """make install WORDS; where it has installed to."""
        cargo = support.scratch('cargo-of-check')
        if not os.path.exists(cargo):
            with open(cargo + '-new', 'w') as file:
                file.write(CARGO)
            os.chmod(cargo + '-new', 0o755)
            os.rename(cargo + '-new', cargo)
        given = {name: env.get(name, '') for name in ('CARGO_TARGET_DIR', 'CARGO_BUILD_TARGET')}
        env = dict(support.clean_environment(
            CARGO=cargo, REAL_CARGO=shutil.which('cargo'), MARK=MARK.decode(), MAKEFLAGS='',
            BUILT_ALREADY=os.path.dirname(os.path.abspath(support.LIBRARY)),
            CONFIGURED=configured or os.path.join(installed.ROOT, 'target'),
            CONFIGURED_MACHINE=env.get('CONFIGURED_MACHINE', '')), **given)
        prefix = support.scratch('target-prefix-' + name)
        own = os.path.join(installed.ROOT, 'target', 'release', 'libobmalloc.so')
        before = os.path.exists(own) and os.stat(own)
        done = support.run(['make', '-s', '-C', installed.ROOT, 'install', 'PREFIX=' + prefix, *words],
                           env, timeout=300)
        self.assertRan(done)
        after = os.path.exists(own) and os.stat(own)
        self.assertEqual(before and (before.st_ino, before.st_mtime_ns),
                         after and (after.st_ino, after.st_mtime_ns), "the tree's own is touched")
        return prefix

    def has_new_ones(self, prefix, release):
        for name in 'libobmalloc.so', 'libobmalloc_pythons.so':
            with open(os.path.join(prefix, 'lib', name), 'rb') as file:
                self.assertTrue(file.read().endswith(MARK), name)
        with open(os.path.join(prefix, 'lib/libobmalloc.a'), 'rb') as one, \
                open(os.path.join(release, 'libobmalloc.a'), 'rb') as other:
            self.assertEqual(one.read(), other.read())
        self.assertRan(support.run([os.path.join(prefix, 'bin/obmalloc'), '--version']))
        self.assertEqual(os.readlink(os.path.join(release, 'libobmalloc.so.0')), 'libobmalloc.so')

    def test_by_the_variable(self):
        folder = support.scratch('target-variable')
        prefix = self.make('variable', CARGO_TARGET_DIR=folder)
        self.has_new_ones(prefix, folder + '/release')

    def test_by_a_relative_one(self):
        folder = support.scratch('target-relative')
        prefix = self.make('relative', CARGO_TARGET_DIR=os.path.relpath(folder, installed.ROOT))
        self.has_new_ones(prefix, folder + '/release')

    def test_by_a_word_of_make_and_for_a_named_machine(self):
        folder, machine = support.scratch('target-word'), 'x86_64-unknown-linux-gnu'
        prefix = self.make('word', 'CARGO_TARGET_DIR=' + folder, CARGO_BUILD_TARGET=machine)
        self.has_new_ones(prefix, '%s/%s/release' % (folder, machine))

    def test_by_cargos_configuration(self):
        folder = support.scratch('target-configured')
        prefix = self.make('configured', configured=folder, CARGO_TARGET_DIR='')
        self.has_new_ones(prefix, folder + '/release')

    def test_by_cargos_configuration_of_the_machine(self):
        folder, machine = support.scratch('target-machine'), 'x86_64-unknown-linux-gnu'
        prefix = self.make('machine', CARGO_TARGET_DIR=folder, CONFIGURED_MACHINE=machine)
        self.has_new_ones(prefix, '%s/%s/release' % (folder, machine))

    def test_wheels_are_packed_from_there(self):
        folder = support.scratch('target-wheel')
        self.make('wheel', CARGO_TARGET_DIR=folder)
        done = support.run([sys.executable, '-B', os.path.join(installed.ROOT, 'python', 'build_wheel.py')],
                           support.clean_environment(CARGO_TARGET_DIR=folder))
        self.assertRan(done)
        self.assertTrue(done.out.splitlines()[-1].startswith(folder + '/wheels/'), done.out)
