"""Hours compressed into minutes: programs that do everything at once, in cycles after which no
block may be left and no figure may have grown.

The C program (soak.c) is linked with the library, the Python program (soak.py) runs with the
library preloaded. Each process draws settings of the library from the seed and writes a line of
figures at the end of each cycle. The programs themselves check that no block was changed, that
the live blocks are those that they hold, and that no thread or child is left. Here is checked
that no figure grows: a line is fitted to its values of the cycles but the first third, and its
rise from the first of them to the last must stay below a bound (BOUNDS).

    tests/run tests/soak/test_soak.py -n 2 --seconds 3600 --seed 7 --all-pythons
"""
import json
import os
import random
import re
import subprocess
from pathlib import Path

import pytest

from support import build, child

HERE = Path(__file__).parent
HARNESS = build.ROOT / 'c_tests/harness'
FLAGS = ['-std=gnu11', '-D_GNU_SOURCE', '-g', '-O2', '-Wall', '-Wextra', '-Werror']
# Stacks and per-thread heaps that the C library caches would hide growth of the library.
QUIET_LIBC = 'glibc.pthread.stack_cache_size=1:glibc.malloc.arena_max=2'

SETTINGS = {    # None: not set
    'OBMALLOC_ALIGN': (None, '16', '8', 'obj:8', 'mem:8'),
    'OBMALLOC_DECAY_MS': (None, '0', '1', '20', '100', '1000', '-1'),
    'OBMALLOC_FORK_COW': (None, 'auto', 'share', 'freeze'),
    'OBMALLOC_POOL_MAX': (None, '512', '4096', '8192', '32K'),
    'OBMALLOC_BACKGROUND_THREAD': (None, '0', '1'),
}
SHORT = {'OBMALLOC_DECAY_MS': ('0', '1', '20', '100', '-1')}    # so that waiting is short

MIB, KIB = 1 << 20, 1 << 10
BOUNDS = {      # the most that a figure may rise from the first fitted cycle to the last
    'c': {'rss': 2 * MIB, 'rss_idle': 6 * MIB, 'ours': 256 * KIB, 'metadata': 256 * KIB,
          'from_os': 3 * MIB, 'arenas': 1, 'magazines': 0, 'live': 0, 'unexplained': 512 * KIB},
    'python': {'rss': 3 * MIB, 'rss_idle': 7 * MIB, 'ours': 2 * MIB, 'metadata': 256 * KIB,
               'from_os': 5 * MIB, 'arenas': 2, 'magazines': 128 * KIB, 'live': 300,
               'live_bytes': 64 * KIB, 'objects': 100},
}
IN_BYTES = ('rss', 'rss_idle', 'ours', 'metadata', 'from_os', 'magazines', 'live_bytes',
            'unexplained')
# Of a Python's address space the highest step is subtracted first: objects that are never freed
# (2.7 keeps the memory of its numbers) are spread over the arenas of the highest peak. Memory
# figures have no such allowance.
ADDRESS_SPACE = {'c': (), 'python': ('from_os', 'arenas')}
# Blocks that CPython does not free of an interpreter are scattered among freed ones and pin pages
# of 4 KiB: PINNED times their size beyond themselves. (Arenas that they pin are address space,
# except for the arena's record.)
PINNED = 3
ARENA_RECORD = 11 * KIB
# Slots of depots (src/heap/depot.rs) are allocated as batches arrive, per class and shard, and
# stay: 198 KiB for all classes, in 16 shards. Most exist after SETTLED cycles. Until then caches of
# CPython may grow once, too, by some hundred blocks: the highest step of blocks is subtracted, which
# hides no leak, as that rises in each cycle.
DEPOTS, SETTLED = 16 * 198 * KIB, 30
GROWS_ONCE = ('live', 'live_bytes', 'objects')
# 2.7 prints this if a finalizer meets a refused request, which children provoke.
IGNORED = re.compile(
    r'Exception (?:<unknown>)?(MemoryError\b|<exception repr\(\) failed>).* ignored$')
COUNTED = ('operations', 'bytes_looked_at', 'refused', 'trees', 'threads', 'forks', 'execs',
           'processes', 'interpreters', 'limits', 'memory_errors', 'trims')


def shape(total):
    """(cycles, seconds of each) of a process that lasts `total` seconds."""
    cycles = 12 if total >= 120 else 6
    return cycles, max(0.4, total / cycles - (1 if total >= 120 else 0.6))


def draw_settings(rng, seconds):
    choices = dict(SETTINGS, **(SHORT if seconds < 10 else {}))
    drawn = {key: rng.choice(values) for key, values in sorted(choices.items())}
    return {key: value for key, value in drawn.items() if value is not None}


@pytest.fixture
def soak(request, library, evidence):
    """Runs one process for `total` seconds and judges its figures."""
    seed = request.config.getoption('--seed', 1)

    def soak(kind, command, total, version, leaves=0):
        rng = random.Random(f'{seed} {request.node.name}')
        cycles, seconds = shape(total)
        settings = draw_settings(rng, seconds)
        env = child.clean_environment(GLIBC_TUNABLES=QUIET_LIBC, **settings)
        if kind == 'python':
            env['LD_PRELOAD'] = str(library)
        print(f'{cycles} cycles of {seconds:.1f} s, {settings}')
        done = child.run([*command, rng.randrange(1 << 30), cycles, f'{seconds:.3f}'], env,
                         timeout=120 + 4 * cycles * (seconds + 4), status=0)
        errors = [line for line in done.err.splitlines() if not IGNORED.match(line)]
        assert not errors, '\n'.join(errors)
        lines = [json.loads(line) for line in done.out.splitlines() if line.startswith('{')]
        assert len(lines) == cycles, done.report
        amount = {'cycles': cycles} | {key.replace('_', ' '): lines[-1][key]
                                       for key in COUNTED if lines[-1].get(key)}
        judge(kind, settings, lines, leaves)
        evidence('soak: threads, forks, execs, sub-interpreters and refused requests at once',
                 'Threads and forks', amount, version, 'no block changed or lost; no growth',
                 f'make soak MINUTES={request.config.getoption("--seconds", 20) / 60:g} SEED={seed}')
    return soak


def judge(kind, settings, lines, leaves):
    """No figure rises by more than its bound."""
    kept = lines[len(lines) // 3:]
    done = subtract_interpreters(lines, kept, leaves) if leaves else 0
    bounds = dict(BOUNDS[kind])
    if len(lines) < SETTLED:
        bounds['metadata'] += DEPOTS
        bounds['ours'] += DEPOTS
    if not purges_when_idle(settings):
        del bounds['rss_idle']
    if done:
        for key in bounds.keys() & {'rss', 'rss_idle', 'ours'}:
            bounds[key] += PINNED * leaves * done
        bounds['metadata'] += ARENA_RECORD * (kept[-1]['highwater'] - kept[0]['highwater'])
        del bounds['from_os'], bounds['arenas']
    grown = []
    for key, bound in bounds.items():
        values = [line[key] for line in kept]
        if key in ADDRESS_SPACE[kind] or key in GROWS_ONCE and len(lines) < SETTLED:
            values = without_highest_step(values)
        rise = slope(values) * (len(values) - 1)
        unit, name = (MIB, ' MiB') if key in IN_BYTES else (1, '')
        shown = ' '.join(f'{line[key] / unit:.{2 if name else 0}f}' for line in lines)
        text = f'{key:10} {shown}{name}; rises by {rise / unit:.2f} of {bound / unit:.2f}'
        print(text)
        if rise > bound:
            grown.append(text)
    assert not grown, '\n'.join(grown)


def purges_when_idle(settings):
    """Whether an idle program returns pages by itself."""
    return (int(settings.get('OBMALLOC_DECAY_MS', 1000)) >= 0
            and settings.get('OBMALLOC_BACKGROUND_THREAD') != '0')


def subtract_interpreters(lines, kept, leaves):
    """CPython does not free all of a sub-interpreter. With the library it may leave no more than
    without it (`leaves`), and this part is no growth of the library. Returns the number of
    interpreters in the fitted cycles."""
    done = kept[-1]['interpreters'] - kept[0]['interpreters']
    if done == 0:
        return 0
    each = (kept[-1]['live_bytes'] - kept[0]['live_bytes']) / done
    print(f'an interpreter leaves {each:.0f} bytes, {leaves} without the library')
    assert each <= leaves, 'an interpreter leaves more than without the library'
    blocks = (kept[-1]['live'] - kept[0]['live']) / done
    first = lines[0]['interpreters']
    for line in lines:
        count = line['interpreters'] - first
        for key in ('rss', 'rss_idle', 'ours', 'live_bytes'):
            line[key] -= count * each
        line['live'] -= count * blocks
    return done


def without_highest_step(values):
    """The values with the highest rise subtracted from all values after it."""
    steps = [after - before for before, after in zip(values, values[1:])]
    highest = max(steps + [0])
    if highest == 0:
        return values
    at = steps.index(highest) + 1
    return values[:at] + [value - highest for value in values[at:]]


def slope(values):
    """Of the least-squares line, per cycle."""
    n = len(values)
    middle, mean = (n - 1) / 2, sum(values) / n
    across = sum((i - middle) ** 2 for i in range(n))
    return sum((i - middle) * (value - mean) for i, value in enumerate(values)) / (across or 1)


@pytest.fixture(scope='session')
def program(library, tmp_path_factory):
    folder = tmp_path_factory.mktemp('soak')
    for name in 'libobmalloc.so', 'libobmalloc.so.0':       # by its SONAME, as installed
        os.symlink(library, folder / name)
    sources = [HERE / 'soak.c', HARNESS / 'harness.c']
    subprocess.run([os.environ.get('CC', 'cc'), *FLAGS, '-I', build.ROOT / 'include', '-I', HARNESS,
                    *sources, '-o', folder / 'soak', '-L', folder,
                    f'-Wl,-rpath,{folder}', '-l:libobmalloc.so', '-lpthread'], check=True)
    return folder / 'soak'


def test_c(program, life, soak, request):
    total = request.config.getoption('--seconds', 20)
    soak('c', [program], total / max(1, round(total / 720)), 'C')


def left_by_interpreters(python):
    """Bytes that one sub-interpreter leaves in this CPython without the library."""
    if python.numbers < (3, 12):
        return 0
    done = child.run([python.path, '-B', HERE / 'soak.py', 'interpreters', 8],
                     child.clean_environment(PYTHONMALLOC='malloc'), 300, status=0)
    return int(done.out)


def test_python(python, chosen, soak, request):
    command = [python.path, '-B', HERE / 'soak.py']
    if python.numbers >= (3, 12):       # of threads at a fork
        command[1:1] = ['-W', 'ignore::DeprecationWarning']
    soak('python', command, request.config.getoption('--seconds', 20) / len(chosen),
         f'CPython {python.version} {python.kind}', left_by_interpreters(python))
