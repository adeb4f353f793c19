#!/usr/bin/env python3
"""Compares the ledger with the kernel's own count: what the live page says is with us of
the library's memory, and the Rss of the library's mappings in /proc/PID/smaps, while a
program of more than 100 MiB allocates and frees.

    c_tests/ledger.py [--python PYTHON] [--samples 40] [--threads 1] [--library SO]

A mapping is the library's (its own data, some pages in its file's mapping, left out) by its
name (`[anon:obmalloc: arena]`), where the kernel has
names, else by its address, which a snapshot tells; where a mapping of the kernel's list
has others of its kind in it, /proc/PID/pagemap tells which pages are there. Each count is
made between two answers of the page, and compared with what lies between these: with the
nearer of the two if it lies beyond. (The kernel takes milliseconds for its count, in which
the program goes on.) The exit status is 1 if any sample is farther off than 2 per cent.
"""
import argparse
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import live_page

HERE = Path(__file__).resolve().parent
# Where cargo builds.
RELEASE = (Path(os.environ.get('CARGO_TARGET_DIR') or HERE.parent / 'target')
           / os.environ.get('CARGO_BUILD_TARGET', '') / 'release').absolute()
LIMIT = 0.02


def mappings(pid):
    """(start, end, name, bytes in memory) of each."""
    rows = []
    with open('/proc/%d/smaps' % pid) as file:
        for line in file:
            head = re.match(r'([0-9a-f]+)-([0-9a-f]+) \S+ \S+ \S+ \S+\s*(.*)', line)
            if head:
                rows.append([int(head[1], 16), int(head[2], 16), head[3].strip(), 0])
            elif line.startswith('Rss:'):
                rows[-1][3] = int(line.split()[1]) * 1024
    return rows


def in_memory(pid, start, end):
    """Bytes of these addresses that are there, by the process's page table."""
    page = os.sysconf('SC_PAGESIZE')
    first, last = start // page, (end + page - 1) // page
    with open('/proc/%d/pagemap' % pid, 'rb') as file:
        entries = os.pread(file.fileno(), (last - first) * 8, first * 8)
    return sum(page for at in range(7, len(entries), 8) if entries[at] & 0x80)


def rss(pid, snapshot):
    """Bytes in memory of what is ours, and how they were found."""
    rows = mappings(pid)
    named = [row for row in rows if row[2].startswith('[anon:obmalloc:')]
    if named:
        return sum(row[3] for row in named), 'by name'
    ours = sorted([(each['address'], each['address'] + each['bytes']) for each in snapshot.arenas] +
                  [(each['address'], each['address'] + each['bytes'])
                   for each in snapshot.mappings if each['kind'] != live_page.STATIC])
    whole = [(each['address'], each['address'] + each['bytes'])
             for each in snapshot.mappings if each['kind'] == live_page.METADATA]
    ours = [part for part in ours if part in whole or not any(
        first <= part[0] and part[1] <= last for first, last in whole)]
    total = 0
    for start, end, _, resident in rows:
        inside = [(max(start, first), min(end, last)) for first, last in ours
                  if first < end and last > start]
        if sum(last - first for first, last in inside) >= end - start:
            total += resident
        else:
            total += sum(in_memory(pid, first, last) for first, last in inside)
    return total, 'by address'


def compare(python, library, samples, threads=1, pause=0.1, **settings):
    """For each sample: what the page says, as near to the count as it was then, what the kernel counts; how; and the last page."""
    env = {key: value for key, value in os.environ.items()
           if not key.startswith(('PYTHON', 'OBMALLOC_', 'LD_'))}
    env.update(LD_PRELOAD=str(library), OBMALLOC_LIVE='1', **settings)
    program = subprocess.Popen(
        [python, '-B', str(HERE / 'preload/programs/breathing.py'), str(threads)], env=env,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert program.stdout.readline() == b'ready\n'
        page, found = live_page.of(program.pid), []
        for _ in range(samples):
            snapshot = page.snapshot()
            assert page.ask()
            before = page.statistics()
            counted, how = rss(program.pid, snapshot)
            assert page.ask()
            after = page.statistics()
            for said in before, after:
                parts = sum(said['resident'][part] for part in live_page.PARTS)
                assert parts == said['resident']['total'], said['resident']
            if before['arenas']['mapped_total'] == snapshot.statistics['arenas']['mapped_total'] \
                    or how == 'by name':
                ends = sorted(each['resident']['total'] for each in (before, after))
                found.append((min(max(counted, ends[0]), ends[1]), counted))
            time.sleep(pause)
        return found, how, after
    finally:
        program.stdin.close()
        program.wait()


def main():
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--python', default=sys.executable)
    parser.add_argument('--samples', type=int, default=40)
    parser.add_argument('--threads', type=int, default=1)
    parser.add_argument('--library', default=RELEASE / 'libobmalloc.so')
    options = parser.parse_args()
    found, how, last = compare(options.python, options.library, options.samples, options.threads)
    off = [said / counted - 1 for said, counted in found]
    sizes = [counted / 2**20 for _, counted in found]
    print('%d samples of %.0f to %.0f MiB (%s): the page says %+.2f to %+.2f %%, %+.2f %% in the mean'
          % (len(found), min(sizes), max(sizes), how, 100 * min(off), 100 * max(off),
             100 * sum(off) / len(off)))
    print(last['resident'])
    return 1 if max(map(abs, off)) > LIMIT or min(sizes) < 100 or len(found) < options.samples // 2 else 0


if __name__ == '__main__':
    sys.exit(main())
