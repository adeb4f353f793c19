"""The packages of `make deb`: in a copy of this machine they install, work and are purged
without a trace; and their fields, licences and symbols are right."""
import gzip
import hashlib
import os
import re
import shutil
from pathlib import Path

import pytest

from abi import abi
from support import build, child, debian, sandbox

pytestmark = pytest.mark.slow
SONAME = 'libobmalloc.so.0'
USER = Path(__file__).parent / 'cmake' / 'user.c'


def fields(path):
    return dict(line.split(': ', 1) for line in
                child.run(['dpkg-deb', '--field', path], status=0).out.splitlines()
                if re.match(r'[\w-]+: ', line))


@pytest.fixture
def packages():
    """{name: file}"""
    found = {fields(path)['Package']: path for path in debian.packages()}
    assert sorted(found) == ['libobmalloc-dev', 'libobmalloc0', 'obmalloc']
    return found


LIST = 'find / -xdev \\( -path /proc -o -path /sys -o -path /dev -o -path /tmp -o -path /var/cache ' \
       '-o -path /var/log -o -path /root -o -path /work -o -path /home \\) -prune -o -print | sort'

# /var/lib/dpkg/*-old and the like are dpkg's own notes: any installation changes them.
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


def test_life_in_a_copy_of_this_machine(packages):
    if not os.path.exists('/usr/bin/python3') or not shutil.which('dpkg'):
        pytest.skip('no Debian, or no /usr/bin/python3')
    done = sandbox.script(LIFE, *packages.values(), USER)
    said = {}
    for line in done.out.splitlines():
        name, _, rest = line.partition(': ')
        said.setdefault(name, []).append(rest)
    assert 'end' in said, done.report
    assert said.get('left', []) == [], done.report
    assert said['ldconfig'] == ['libobmalloc.so.0 ']
    assert said['which'] == ['/usr/bin/obmalloc']
    assert '"verdict":"active"' in said['doctor'][0].replace('": ', '":')
    mapped = sorted(said['mapped'][0].split(), key=len)
    folder = os.path.dirname(mapped[0])
    assert re.fullmatch(r'/usr/lib/[\w-]+', folder)
    assert mapped == [f'{folder}/libobmalloc.so.{build.version()}',
                      f'{folder}/obmalloc/libobmalloc_pythons.so']
    assert said['inherited'] == ['0']
    for line in 'status', 'by name', 'by path':
        assert said[line][0].startswith('obmalloc: active in pid')
    assert said['with dev'] == ['obmalloc is active in /usr/bin/python3']
    if 'no compiler' not in said:
        assert said['pkg-config'] == [build.version()]
        for way, needed in ('shared', '1'), ('static', '0'):
            number, held, links = said[way][0].split()
            assert (number, links) == (build.version(), needed)
            assert int(held) > 40 * 1000
        assert said['a user depends'] == ['libobmalloc0 (>= 0.1.0)']


def test_fields(packages):
    found = {name: fields(path) for name, path in packages.items()}
    for said in found.values():
        assert said['Version'].rsplit('-', 1)[0] == build.version()
        assert said['Maintainer'] == debian.MAINTAINER
        assert int(said['Installed-Size']) > 100
    version = found['obmalloc']['Version']
    assert re.fullmatch(r'libc6 \(>= 2\.\d+\)', found['libobmalloc0']['Depends'])
    assert found['libobmalloc-dev']['Depends'] == f'libobmalloc0 (= {version}), libc6-dev'
    assert re.match(rf'libobmalloc0 \(= {re.escape(version)}\), libc6 \(>= 2\.\d+\), libgcc-s1 \(',
                    found['obmalloc']['Depends'])


def test_licences(packages, tmp_path):
    """Each package has the copyright notice, the MIT text and the place of Apache's."""
    text = (build.ROOT / 'LICENSE-MIT').read_text()
    _, notice, *text = [' '.join(part.split()) for part in text.split('\n\n')]
    for name, path in packages.items():
        child.run(['dpkg-deb', '--extract', path, tmp_path / name], status=0)
        folder = tmp_path / name / 'usr/share/doc' / name
        words = (folder / 'copyright').read_text().split()
        written = ' '.join(word for word in words if word != '.')
        for wanted in (notice.replace('(c)', '').replace('Copyright ', 'Copyright:'), *text,
                       'is in the file /usr/share/common-licenses/Apache-2.0.'):
            assert wanted in written
        with gzip.open(folder / 'third-party.txt.gz', 'rt') as file:
            assert file.read().count('Permission is hereby granted') > 40


def test_symbols_file(packages, tmp_path):
    """Each exported name, with the first release that has it."""
    child.run(['dpkg-deb', '--control', packages['libobmalloc0'], tmp_path], status=0)
    head, *rows = (tmp_path / 'symbols').read_text().splitlines()
    assert head == f'{SONAME} libobmalloc0 #MINVER#'
    since = dict(re.fullmatch(r' (\w+)@Base (\S+)', row).groups() for row in rows)
    exports = set(abi.listed('exports.txt')) - abi.LOADERS
    assert set(since) == exports
    assert ({name for name, release in since.items() if release == '0.1.0'}
            == abi.names('0.1.0') & exports)


def test_a_second_build_is_identical(packages):
    def sums(paths):
        return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}
    assert sums(debian.make()) == sums(packages.values())


def test_lintian(packages):
    if not shutil.which('lintian'):
        pytest.skip('no lintian (Debian has it)')
    child.run(['lintian', '--fail-on', 'error', *packages.values()], timeout=300, status=0)
