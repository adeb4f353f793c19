"""The breakdown of the live page against the kernel's own count: the Rss of the library's
mappings in /proc/PID/smaps, while a program of more than 100 MiB allocates and frees.

A mapping of the library (its own data, a few pages of its file's mapping, is left out) is found
by name (`[anon:obmalloc: arena]`) where the kernel has names, otherwise by the addresses of a
snapshot; where a mapping of the kernel's list is the library's in part, /proc/PID/pagemap tells
which pages are resident. Each count is made between two answers of the page. It is compared with
the nearer one if it is outside the interval between them. (The kernel takes milliseconds for its
count, in which the program continues.)
"""
import os
import re
import subprocess
import time

from support import child, live_page
from support.preload import PROGRAMS


def mappings(pid):
    """(start, end, name, resident bytes) of each."""
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
    """Resident bytes of these addresses, by the process's page table."""
    page = os.sysconf('SC_PAGESIZE')
    first, last = start // page, (end + page - 1) // page
    with open('/proc/%d/pagemap' % pid, 'rb') as file:
        entries = os.pread(file.fileno(), (last - first) * 8, first * 8)
    return sum(page for at in range(7, len(entries), 8) if entries[at] & 0x80)


def rss(pid, snapshot):
    """Resident bytes of the library's mappings, and whether they were found by name."""
    rows = mappings(pid)
    named = [row for row in rows if row[2].startswith('[anon:obmalloc:')]
    if named:
        return sum(row[3] for row in named), True
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
    return total, False


def compare(python, samples, threads=1, pause=0.1, **settings):
    """For each sample, the bytes of the page nearest to the kernel's count, and that count."""
    program = subprocess.Popen(
        [python.path, '-B', PROGRAMS / 'breathing.py', str(threads)],
        env=child.preloaded(OBMALLOC_STATS_PAGE='1', **settings),
        stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert program.stdout.readline() == b'ready\n'
        page, found = live_page.of(program.pid), []
        for _ in range(samples):
            snapshot = page.snapshot()
            assert page.ask()
            before = page.statistics()
            counted, by_name = rss(program.pid, snapshot)
            assert page.ask()
            after = page.statistics()
            for said in before, after:
                parts = sum(said['resident'][part] for part in live_page.PARTS)
                assert parts == said['resident']['total'], said['resident']
            mapped = [each['arenas']['mapped_total'] for each in (before, snapshot.statistics)]
            if by_name or mapped[0] == mapped[1]:
                ends = sorted(each['resident']['total'] for each in (before, after))
                found.append((min(max(counted, ends[0]), ends[1]), counted))
            time.sleep(pause)
        return found
    finally:
        program.stdin.close()
        program.wait()
