"""The packages of `make deb`: in a copy of this machine they install, work and are purged
without a trace; and what they say of themselves is right."""
import functools
import glob
import gzip
import hashlib
import os
import re
import shutil
import threading
import unittest

import installed
import sandbox
import support
from test_cmake import SONAME, version

PACKAGES = ['libobmalloc-dev', 'libobmalloc0', 'obmalloc']
_once = threading.Lock()


@functools.lru_cache(maxsize=None)
def _built():
    for tool in 'dpkg-deb', 'dpkg-gensymbols', 'dpkg-shlibdeps', 'strip':
        if not shutil.which(tool):
            raise unittest.SkipTest('no %s here' % tool)
    folder = os.path.join(support.TARGET, 'debs')
    for old in glob.glob(folder + '/*.deb'):
        os.remove(old)
    installed.make('deb', 'MAINTAINER=Some Body <somebody@debian.org>')
    return sorted(glob.glob(folder + '/*.deb'))


def packages():
    with _once:
        return _built()


def fields(path):
    return dict(line.split(': ', 1) for line in
                support.run(['dpkg-deb', '--field', path]).out.splitlines()
                if re.match(r'[\w-]+: ', line))


LIST = 'find / -xdev \\( -path /proc -o -path /sys -o -path /dev -o -path /tmp -o -path /var/cache ' \
       '-o -path /var/log -o -path /root -o -path /work -o -path /home \\) -prune -o -print | sort'

# /var/lib/dpkg/*-old and the like are dpkg's own notes, which any installation changes.
LIFE = r'''
cd /tmp
%(list)s > before
ldconfig -p | grep -c libobmalloc && exit 3
dpkg -i libobmalloc0_*.deb obmalloc_*.deb > installed.log 2>&1 || { cat installed.log >&2; exit 4; }
dpkg --audit | grep . && exit 5
ldconfig -p | grep -o 'libobmalloc.so.0 ' | sed 's/^/ldconfig: /'
cd /
echo "which: $(command -v obmalloc)"
/usr/bin/obmalloc doctor --json /usr/bin/python3 | sed 's/^/doctor: /'
/usr/bin/obmalloc run -v --pythons-only -- /usr/bin/python3 -c '
import os, subprocess, sys
mapped = lambda: [line.split()[-1] for line in open("/proc/self/maps")
                  if "libobmalloc" in line and "r-x" in line]
print("mapped:", *mapped())
print("inherited:", subprocess.check_output(["/usr/bin/env"]).count(b"LD_PRELOAD="))
' 2> /tmp/status
sed 's/^/status: /' /tmp/status
LD_PRELOAD=libobmalloc.so.0 OBMALLOC_VERBOSE=1 /usr/bin/python3 -c pass 2>&1 | sed 's/^/by name: /'
LD_PRELOAD=$(obmalloc path) OBMALLOC_VERBOSE=1 /usr/bin/python3 -c pass 2>&1 | sed 's/^/by path: /'
ls /usr/share/man/man1/obmalloc-doctor.1.gz

dpkg -i /tmp/libobmalloc-dev_*.deb > /tmp/installed.log 2>&1 || { cat /tmp/installed.log >&2; exit 6; }
/usr/bin/obmalloc doctor /usr/bin/python3 | head -1 | sed 's/^/with dev: /'
cd /tmp
if command -v pkg-config > found && command -v gcc > found; then
    gcc user.c $(pkg-config --cflags --libs obmalloc) -o shared
    gcc user.c $(pkg-config --cflags obmalloc) -Wl,-Bstatic -lobmalloc -Wl,-Bdynamic \
        $(pkg-config --static --libs obmalloc | sed 's/-lobmalloc//') -o static
    echo "pkg-config: $(pkg-config --modversion obmalloc)"
    echo "shared: $(./shared) $(readelf -d shared | grep -c libobmalloc.so.0)"
    echo "static: $(./static) $(readelf -d static | grep -c libobmalloc.so.0)"
else
    echo "no compiler"
fi
if command -v dpkg-shlibdeps > found && [ -x shared ]; then
    mkdir -p debian && printf 'Source: user\n\nPackage: user\nArchitecture: any\n' > debian/control
    echo "a user depends: $(dpkg-shlibdeps -O -eshared | grep -o 'libobmalloc0[^,]*')"
fi

dpkg --purge libobmalloc0 > refused 2>&1 && { echo 'purged under its users' >&2; exit 7; }
dpkg --purge obmalloc libobmalloc-dev libobmalloc0 > purged 2>&1 || { cat purged >&2; exit 8; }
grep -i warning purged >&2 && exit 9
%(list)s > after
diff before after | grep -v '/var/lib/dpkg/\(status\|available\|diversions\|statoverride\)-old\|^[0-9,]*[acd][0-9,]*$' | sed 's/^/left: /'
dpkg -l | grep libobmalloc | sed 's/^/left: /'
ldconfig -p | grep libobmalloc | sed 's/^/left: /'
echo "end"
''' % {'list': LIST}


class Packages(support.Case):

    def test_life_in_a_copy_of_this_machine(self):
        if not os.path.exists('/usr/bin/python3') or not shutil.which('dpkg'):
            self.skipTest('no Debian here, or no /usr/bin/python3')
        done = sandbox.script(LIFE, *packages(), os.path.join(installed.HERE, 'cmake', 'user.c'))
        self.assertRan(done)
        said = {}
        for line in done.out.splitlines():
            name, _, rest = line.partition(': ')
            said.setdefault(name, []).append(rest)
        self.assertIn('end', said, done.report)
        self.assertEqual(said.get('left', []), [], done.report)
        self.assertEqual(said['ldconfig'], ['libobmalloc.so.0 '])
        self.assertEqual(said['which'], ['/usr/bin/obmalloc'])
        self.assertIn('"verdict":"active"', said['doctor'][0].replace('": ', '":'), done.report)
        mapped = sorted(said['mapped'][0].split(), key=len)
        folder = os.path.dirname(mapped[0])
        self.assertRegex(folder, r'^/usr/lib/[\w-]+$')
        self.assertEqual(mapped, [
            '%s/libobmalloc.so.%s' % (folder, version()),
            folder + '/obmalloc/libobmalloc_pythons.so'])
        self.assertEqual(said['inherited'], ['0'])
        self.assertRegex(said['status'][0], '^obmalloc: active in pid')
        self.assertRegex(said['by name'][0], '^obmalloc: active in pid')
        self.assertRegex(said['by path'][0], '^obmalloc: active in pid')
        self.assertEqual(said['with dev'], ['obmalloc is active in /usr/bin/python3'])
        if 'no compiler' not in said:
            self.assertEqual(said['pkg-config'], [version()])
            for way, needed in ('shared', '1'), ('static', '0'):
                number, held, links = said[way][0].split()
                self.assertEqual((number, links), (version(), needed))
                self.assertGreater(int(held), 40 * 1000)
            self.assertEqual(said.get('a user depends'), ['libobmalloc0 (>= 0.1.0)'])

    def test_what_they_say_of_themselves(self):
        found = {fields(path)['Package']: fields(path) for path in packages()}
        self.assertEqual(sorted(found), PACKAGES)
        for name, said in found.items():
            self.assertEqual(said['Version'].rsplit('-', 1)[0], version())
            self.assertEqual(said['Maintainer'], 'Some Body <somebody@debian.org>')
            self.assertGreater(int(said['Installed-Size']), 100)
        of = found['obmalloc']['Version']
        self.assertRegex(found['libobmalloc0']['Depends'], r'^libc6 \(>= 2\.\d+\)$')
        self.assertEqual(found['libobmalloc-dev']['Depends'], 'libobmalloc0 (= %s), libc6-dev' % of)
        self.assertRegex(found['obmalloc']['Depends'],
                         r'^libobmalloc0 \(= %s\), libc6 \(>= 2\.\d+\), libgcc-s1 \(>= ' % re.escape(of))

    def test_licences(self):
        """Each package has the copyright notice, the MIT text and the place of Apache's."""
        with open(os.path.join(installed.ROOT, 'LICENSE-MIT')) as file:
            _, notice, *text = [' '.join(part.split()) for part in file.read().split('\n\n')]
        for path in packages():
            folder = support.scratch('licences-' + os.path.basename(path))
            self.assertRan(support.run(['dpkg-deb', '--extract', path, folder]))
            name = fields(path)['Package']
            with open('%s/usr/share/doc/%s/copyright' % (folder, name)) as file:
                written = ' '.join(word for word in file.read().split() if word != '.')
            for wanted in (notice.replace('(c)', '').replace('Copyright ', 'Copyright:'), *text,
                           'is in the file /usr/share/common-licenses/Apache-2.0.'):
                self.assertIn(wanted, written)
            with gzip.open('%s/usr/share/doc/%s/third-party.txt.gz' % (folder, name), 'rt') as file:
                self.assertGreater(file.read().count('Permission is hereby granted'), 40)

    def test_symbols_file(self):
        """Each exported name stands there, with the release that had it first."""
        [path] = [path for path in packages() if os.path.basename(path).startswith('libobmalloc0_')]
        folder = support.scratch('control')
        self.assertRan(support.run(['dpkg-deb', '--control', path, folder]))
        with open(folder + '/symbols') as file:
            head, *rows = file.read().splitlines()
        self.assertEqual(head, SONAME + ' libobmalloc0 #MINVER#')
        with open(os.path.join(installed.ROOT, 'tests', 'abi', 'exports.txt')) as file:
            exports = {line.strip() for line in file if line.strip() and line[0] != '#'}
        with open(os.path.join(installed.ROOT, 'tests', 'abi', 'releases', '0.1.0',
                               'names.txt')) as file:
            first = set(file.read().split())
        said = dict(re.fullmatch(r' (\w+)@Base (\S+)', row).groups() for row in rows)
        self.assertEqual(set(said), exports)
        self.assertEqual({name for name, since in said.items() if since == '0.1.0'}, first & exports)

    def test_the_same_bytes_again(self):
        def sums():
            return {os.path.basename(path): hashlib.sha256(open(path, 'rb').read()).hexdigest()
                    for path in glob.glob(folder + '/*.deb')}
        folder = os.path.dirname(packages()[0])
        before = sums()
        installed.make('deb', 'MAINTAINER=Some Body <somebody@debian.org>')
        self.assertEqual(sums(), before)

    def test_lintian(self):
        if not shutil.which('lintian'):
            self.skipTest('no lintian here (Debian has it)')
        done = support.run(['lintian', '--fail-on', 'error', *packages()], timeout=300)
        self.assertRan(done)
