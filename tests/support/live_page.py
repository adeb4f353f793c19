"""Reads the live page of a process, and snapshots. format/src/layout.rs defines the form;
the command has the other reader.

    page = live_page.of(pid); page.ask(); page.statistics()['resident']['total']
    live_page.Snapshot(open('heap.map', 'rb').read()).pools
"""
import ctypes
import mmap
import os
import struct
import time

LINK = '/memfd:obmalloc-live (deleted)'
PAGE_BYTES = 65536
UNKNOWN = 2**64 - 1
WANT_SNAPSHOT, DROP_SNAPSHOT = 1, 2
NO_CLASS = 0xFFFF
RESIDENT, RETURNED, IDLE = 1, 2, 4
RECORD, MAGAZINES, MAP, STATIC, METADATA = 1, 2, 3, 4, 5

CONTROL = struct.Struct('<8s10IQ')
CONTROL_NAMES = ('magic', 'version', 'page_bytes', 'pid', 'sequence', 'request', 'answered',
                 'wanted', 'thread', 'snapshot_sequence', 'snapshot_error', 'snapshot_bytes')
REQUEST, ANSWERED, WANTED = 24, 28, 32      # offsets of these words
STATISTICS_AT = 120
STATISTICS = [
    (None, 'QII32s32s', ('made_ms', 'pid', 'os_page_bytes', 'version', 'host')),
    ('arenas', '6Q', ('size', 'in_use', 'empty', 'mapped_total', 'unmapped_total', 'highwater')),
    ('pools', '5Q', ('size', 'used', 'full', 'free', 'lanes')),
    ('bytes', '6Q', ('from_os', 'metadata', 'live', 'live_requested_estimate', 'in_magazines',
                     'free_in_pools')),
    ('resident', '7Q', ('total', 'live', 'in_magazines', 'free_in_pools', 'empty_pools',
                        'metadata', 'returned_total')),
    ('large', 'Qq', ('served_below_total', 'blocks_live')),
    ('libc', '2Q', ('in_use', 'kept')),
    (None, '3Q', ('rss', 'threads', 'misses')),
]
CLASS = ('size', 'pools', 'full', 'blocks_live', 'blocks_in_magazines', 'blocks_free', 'resident')
CLASSES = 112
STATISTICS_BYTES = 6600
HEADER = struct.Struct('<8sII7Q')
ARENA = struct.Struct('<3QII')
POOL = struct.Struct('<QQHHIIIII')
PAGE, MAPPING = struct.Struct('<HHB3x'), struct.Struct('<QQII')
PARTS = ('live', 'in_magazines', 'free_in_pools', 'empty_pools', 'metadata')

libc = ctypes.CDLL(None, use_errno=True)


def statistics(data):
    """Of the bytes of a `Statistics`, what `obmalloc_stats_json` says."""
    said, at = {}, 0
    for section, form, names in STATISTICS:
        form = struct.Struct('<' + form)
        values = dict(zip(names, form.unpack_from(data, at)))
        at += form.size
        (said if section is None else said.setdefault(section, {})).update(values)
    for name in 'version', 'host':
        said[name] = said[name].split(b'\0')[0].decode() or None
    if said['libc']['in_use'] == UNKNOWN:
        said['libc'] = None
    each = struct.Struct('<7Q')
    assert at + CLASSES * each.size == STATISTICS_BYTES
    rows = [each.unpack_from(data, at + i * each.size) for i in range(CLASSES)]
    said['classes'] = [{'class': i + 1, **dict(zip(CLASS, row))} for i, row in enumerate(rows)
                       if row[1]]
    return said


class Page:
    def __init__(self, path):
        with open(path, 'r+b') as file:
            self.map = mmap.mmap(file.fileno(), PAGE_BYTES)
        self.path = path

    def control(self):
        return dict(zip(CONTROL_NAMES, CONTROL.unpack_from(self.map)))

    def word(self, offset):
        return ctypes.c_uint32.from_buffer(self.map, offset)

    def ask(self, wanted=0, seconds=5.0):
        """Whether it was answered in time."""
        request, answered = self.word(REQUEST), self.word(ANSWERED)
        self.word(WANTED).value |= wanted
        request.value += 1
        ticket = request.value
        libc.syscall(202, ctypes.byref(request), 1, 2**31 - 1, None)     # FUTEX_WAKE
        end = time.monotonic() + seconds
        while (answered.value - ticket) % 2**32 >= 2**31:
            if time.monotonic() > end:
                return False
            time.sleep(0.0005)
        return True

    def statistics(self):
        """Whole, or an error if no whole one is to be had."""
        for _ in range(1000):
            before = self.control()['sequence']
            data = self.map[STATISTICS_AT:STATISTICS_AT + STATISTICS_BYTES]
            if before % 2 == 0 and self.control()['sequence'] == before:
                return statistics(data)
            time.sleep(0.0005)
        raise RuntimeError('always torn')

    def snapshot(self, seconds=20.0):
        if not self.ask(WANT_SNAPSHOT, seconds):
            raise RuntimeError('no answer')
        control = self.control()
        if control['snapshot_error']:
            raise OSError(control['snapshot_error'], os.strerror(control['snapshot_error']))
        with open(self.path, 'rb') as file:
            data = os.pread(file.fileno(), control['snapshot_bytes'], PAGE_BYTES)
        assert self.control()['snapshot_sequence'] == control['snapshot_sequence'], 'torn'
        return Snapshot(data)


def find(pid):
    """Descriptors of the process that are live pages."""
    folder = '/proc/%d/fd' % pid
    found = []
    for name in os.listdir(folder):
        try:
            if os.readlink('%s/%s' % (folder, name)) == LINK:
                found.append('%s/%s' % (folder, name))
        except FileNotFoundError:
            pass
    return found


def of(pid, seconds=10.0):
    """The page of a process, which may just have begun."""
    end = time.monotonic() + seconds
    while True:
        for path in find(pid):
            page = Page(path)
            if page.control()['magic'] == b'OBMALIVE':
                return page
        if time.monotonic() > end:
            raise RuntimeError('no live page of %d' % pid)
        time.sleep(0.005)


class Snapshot:
    def __init__(self, data):
        (magic, self.version, header, self.real_ms, arenas, pools, pages, mappings,
         self.types_offset, self.types_bytes) = HEADER.unpack_from(data)
        assert magic == b'OBMALMAP' and header >= HEADER.size + STATISTICS_BYTES
        self.statistics = statistics(data[HEADER.size:])
        at = header

        def rows(form, count, names):
            nonlocal at
            part = data[at:at + count * form.size]
            assert len(part) == count * form.size, 'cut short'
            at += len(part)
            return [dict(zip(names, row)) for row in form.iter_unpack(part)]
        self.arenas = rows(ARENA, arenas, ('address', 'bytes', 'first_pool', 'pools', 'flags'))
        self.pools = rows(POOL, pools, ('address', 'first_page', 'class', 'pages', 'block_bytes',
                                        'blocks', 'taken', 'first_block'))
        self.pages = rows(PAGE, pages, ('taken_bytes', 'blocks', 'flags'))
        self.mappings = rows(MAPPING, mappings, ('address', 'bytes', 'kind'))
        self.end = at
