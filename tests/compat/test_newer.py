"""Debian's newest suite in a folder: a newer C library, CPython 3.14, one that is newer
than we know, and a free-threaded one. The library is the one that was built here."""
import glob
import os
import re
import shutil

from base import (FOLDER, ROOT, Fails, Skip, demand, environment, last_line, need, ran, same,
                  support)

SUITE = 'sid'
SYSTEM = os.path.join(FOLDER, SUITE)
# What the preload checks need, and CPython's own tests.
PACKAGES = ('python3.14 libpython3.14-testsuite python3.13 python3.15 python3 gcc libc6-dev'
            ' libpython3.14-dev binutils')
# Where a free-threaded CPython can be had as source, by Debian's name.
SOURCE = ('trixie', 'python3.13')

# The folder as root of a process and its children only, with what a system has.
ENTER = '''
mount --bind "$0" "$0" && cd "$0" && mount --rbind /dev dev && mount -t proc proc proc \
  && mount -t sysfs none sys && mount -t tmpfs none tmp && mount --make-rprivate . || exit 77
exec chroot . "$@"
'''


def inside(command, timeout=1200, **settings):
    """A command in the newer system."""
    env = support.clean_environment(PATH='/usr/sbin:/usr/bin:/sbin:/bin', **settings)
    done = support.run(['unshare', '-m', 'sh', '-c', ENTER, SYSTEM, *command], env, timeout)
    if done.status == 77:
        raise Skip('nothing can be mounted here: ' + last_line(done.err))
    return done


def debootstrap():
    """The program, from the system or from its package, and its folder of scripts."""
    found = shutil.which('debootstrap')
    if found:
        return found, None
    folder = os.path.join(FOLDER, 'debootstrap')
    if not os.path.exists(folder):
        done = support.run(['sh', '-c', 'mkdir -p "$1.deb" && cd "$1.deb" &&'
                            ' apt-get download debootstrap && dpkg -x debootstrap*.deb "$1"',
                            'sh', folder], timeout=200)
        if done.status != 0:
            raise Skip('no debootstrap: ' + last_line(done.err))
    return (os.path.join(folder, 'usr/sbin/debootstrap'),
            os.path.join(folder, 'usr/share/debootstrap'))


def system():
    """Makes the newer system, unless it is there, and puts us and our checks into it."""
    if os.geteuid() != 0:
        raise Skip('only root can make another system')
    need('unshare')
    mark = os.path.join(SYSTEM, 'is-complete')
    if not os.path.exists(mark):
        program, scripts = debootstrap()
        env = support.clean_environment(**({'DEBOOTSTRAP_DIR': scripts} if scripts else {}))
        if not os.path.exists(os.path.join(SYSTEM, 'etc/apt/sources.list')):
            done = support.run(['sh', program, '--variant=minbase', SUITE, SYSTEM], env, 1800)
            if done.status != 0:
                raise Skip('debootstrap: ' + last_line(done.out))
        # A copy of the archive may be older than its lists allow.
        done = inside(['sh', '-c', 'apt-get -o Acquire::Check-Valid-Until=false update &&'
                       ' apt-get install -y --no-install-recommends ' + PACKAGES], 1800,
                      DEBIAN_FRONTEND='noninteractive')
        if done.status != 0:
            raise Skip('apt-get: ' + last_line(done.err))
        open(mark, 'w').close()
    work = os.path.join(SYSTEM, 'obmalloc')
    shutil.rmtree(work, ignore_errors=True)
    os.makedirs(os.path.join(work, 'target/release'))
    shutil.copy(support.LIBRARY, os.path.join(work, 'target/release/libobmalloc.so'))
    for name in 'c_tests', 'include':
        shutil.copytree(os.path.join(ROOT, name), os.path.join(work, name),
                        ignore=shutil.ignore_patterns('__pycache__'))
    return '/obmalloc/target/release/libobmalloc.so'


WORK = ('import sys; sys.path.insert(0, "/obmalloc/c_tests/preload/programs"); import inside\n'
        'print(sys.version.split()[0], inside.workload(3))')


@environment('newer-debian')
def newer_debian():
    """Loads with the newer C library; each CPython says what it should, and works."""
    library = system()
    names = ran(support.run(['objdump', '-T', support.LIBRARY])).out
    floor = max(re.findall(r'GLIBC_([\d.]+)', names),
                key=lambda text: [int(part) for part in text.split('.')])
    loader = inside(['/lib64/ld-linux-x86-64.so.2', '--version']).out
    words = ['needs glibc %s, there is %s'
             % (floor, re.search(r'version ([\d.]+?)\.?\s', loader).group(1))]
    for path in sorted(glob.glob(SYSTEM + '/usr/bin/python3.??')):
        python = '/usr/bin/' + os.path.basename(path)
        stock = ran(inside([python, '-B', '-c', WORK]))
        done = ran(inside(['env', 'LD_PRELOAD=' + library, python, '-B', '-c', WORK],
                          OBMALLOC_VERBOSE='1'))
        same(done.out, stock.out, 'output')
        version = stock.out.split()[0]
        known = [int(part) for part in version.split('.')[:2]] <= [3, 14]
        lines = done.lines(support.ACTIVE) if known else done.lines(support.ASIDE)
        demand(len(lines) == 1 and len(done.err.splitlines()) == 1, done.report)
        demand(known or 'not one of those served' in done.err, done.report)
        words.append(version + (' active' if known else ' aside'))
    return ', '.join(words)


@environment('newer-preload')
def newer_preload():
    """All checks of every way into a process, with 3.14. What the library costs in
    memory is another question there (other libraries, other pages): it is told only."""
    system()
    done = inside(['sh', '-c', 'cd /obmalloc && python3.14 c_tests/preload/run.py --pythons 3.14'])
    failed = re.findall(r'^FAIL +(.*)$', done.out, re.M)
    demand(re.search(r'^\d+ passed', done.out, re.M), done.report)
    wrong = [line for line in failed if ' cost: ' not in line]
    demand(not wrong, '\n'.join(wrong), done.out[-3000:])
    cost = re.search(r'cost: pass: .*difference (\+\d+) \(allowed (\d+)\)', done.out)
    return '%s; "pass" costs %s KiB' % (
        re.search(r'^\d+ passed.*', done.out, re.M).group().replace(
            '%d failed' % len(failed), '%d failed (cost)' % len(failed)), cost.group(1))


SLICE = ('test_gc test_json test_list test_dict test_set test_unicode test_tracemalloc'
         ' test_threading test_sys test_capi test_fork1 test_interpreters test_weakref'
         ' test_exceptions test_bytes test_multiprocessing_fork test_cmd_line test_embed'
         ' test_io').split()
# In a static build CPython's own functions answer when asked for the allocator's name and
# its table (README, "What it replaces"): they say that it is not pymalloc.
OWN_ANSWERS = ('test_sys.SysModuleTest.test_debugmallocstats',
               'test_cmd_line.CmdLineTest.test_python_malloc_stats',
               'test_cmd_line.CmdLineTest.test_pythonmalloc',
               "test_cmd_line.CmdLineTest.test_pythonmalloc (env_var=None, name='pymalloc')")
RUN = '''
for module in %s; do
    timeout 300 env $PRELOAD python3.14 -B /obmalloc/c_tests/cpython/run_module.py $module \
        /tmp/found >/dev/null 2>&1
    sed "s/^/$module	/" /tmp/found; rm -f /tmp/found
done
''' % ' '.join(SLICE)


@environment('newer-tests')
def newer_tests():
    """A part of 3.14's own tests, outcome by outcome."""
    library = system()
    sides = []
    for preload in '', 'LD_PRELOAD=' + library:
        done = inside(['sh', '-c', RUN], 3000, PRELOAD=preload, HOME='/tmp')
        found = {}
        for line in done.out.splitlines():
            module, _, rest = line.partition('\t')
            outcome, _, test = rest.partition('\t')
            if not outcome.startswith('#') and outcome != 'module':
                found.setdefault(module + ' ' + test, []).append(outcome)
        demand(len(found) > 2000, len(found), 'tests', done.report)
        mapped = [line for line in done.out.splitlines() if '\tmapped\t' in line]
        demand(all('libobmalloc' in line for line in mapped) == bool(preload) and mapped,
               'mapped:', mapped[:3])
        sides.append({test: sorted(outcomes) for test, outcomes in found.items()})
    stock, ours = sides
    different = {test: (ours.get(test), stock.get(test)) for test in set(ours) | set(stock)
                 if ours.get(test) != stock.get(test)}
    wrong = {test: two for test, two in different.items() if not test.endswith(OWN_ANSWERS)}
    demand(not wrong, wrong)
    bad = sum('FAIL' in each or 'ERROR' in each for each in stock.values())
    return '%d tests of %d modules: as without us, %d of them failures; %d ask who allocates' % (
        len(stock), len(SLICE), bad, len([each for each in different if '(' not in each]))


def free_threaded_python():
    """A free-threaded interpreter: of the newer system, of this one, or built from
    Debian's source, which takes ten minutes."""
    for path in glob.glob('/usr/bin/python3*t') + glob.glob('/usr/bin/python3*-nogil'):
        return path
    folder = os.path.join(FOLDER, 'free-threaded')
    built = glob.glob(folder + '/install/bin/python3.??t')
    if built:
        return built[0]
    system()
    suite, name = SOURCE
    done = inside(['sh', '-c', 'sed -n "s/^deb \\(.*\\) %s main.*/deb-src \\1 %s main/p"'
                   ' /etc/apt/sources.list > /etc/apt/sources.list.d/source.list;'
                   ' apt-get -o Acquire::Check-Valid-Until=false update && mkdir -p /src && cd /src'
                   ' && apt-get source --download-only %s/%s' % (SUITE, suite, name, suite)], 600)
    if done.status != 0:
        raise Skip('no source: ' + last_line(done.err))
    done = support.run(['sh', '-c', 'mkdir -p "$1/src"; tar -xf "$2"/src/%s_*.orig.tar.xz -C'
                        ' "$1/src" --strip-components=1 && cd "$1/src" &&'
                        ' ./configure -q --disable-gil --enable-shared --prefix="$1/install" --without-ensurepip CFLAGS=-O1'
                        ' && make -s -j2 && make -s altinstall' % name, 'sh', folder, SYSTEM],
                       timeout=3600)
    built = glob.glob(folder + '/install/bin/python3.??t')
    if done.status != 0 or not built:
        raise Fails('it cannot be built: ' + done.report)
    return built[0]


@environment('free-threaded')
def free_threaded():
    """Aside, with the reason, and the program runs; also when we are opened late."""
    path = free_threaded_python()
    env = dict(LD_LIBRARY_PATH=os.path.join(os.path.dirname(path), '..', 'lib'),
               PYTHONPATH=support.PROGRAMS, PYTHONDONTWRITEBYTECODE='1', OBMALLOC_VERBOSE='1')
    code = ('import inside, sys; inside.in_threads(4, lambda: inside.workload(1));'
            ' print(sys._is_gil_enabled(), inside.workload(2))')
    stock = ran(support.run([path, '-c', code], support.clean_environment(**env)))
    demand(stock.out.startswith('False'), 'it has a GIL', stock.out)
    done = ran(support.run([path, '-c', code], support.preloaded(**env)))
    same(done.out, stock.out, 'output')
    lines = done.lines(support.ASIDE)
    demand(len(lines) == 1 and 'free-threaded' in done.err and len(done.err.splitlines()) == 1,
           done.report)
    late = ran(support.run([path, '-c', 'import inside, sys; lib = inside.library(sys.argv[1])\n'
                            'assert lib.obmalloc_install() != 0\n'
                            'assert inside.live(inside.stats(lib)) == 0\n' + code, support.LIBRARY],
                           support.clean_environment(**env)))
    same(late.out, stock.out, 'opened late: output')
    demand('free-threaded' in late.err, late.report)
    return re.sub(r'in pid \d+: ', '', lines[0].group()[len('obmalloc: '):])
