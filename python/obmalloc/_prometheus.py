"""The statistics in Prometheus's text form."""
from obmalloc import _calls

# Name, kind, help, and the parts: a label's value and a path in the statistics. The parts
# of obmalloc_resident_bytes add up to `total`.
_METRICS = [
    ('obmalloc_resident_bytes', 'gauge', 'Memory of the library that is resident, by what it is.',
     'part', [(part, ('resident', part)) for part in
              ('live', 'in_magazines', 'free_in_pools', 'empty_pools', 'metadata')]),
    ('obmalloc_returned_bytes_total', 'counter', 'Memory given back to the kernel.', None,
     [(None, ('resident', 'returned_total'))]),
    ('obmalloc_libc_bytes', 'gauge', "Memory of the C library's malloc.", 'part',
     [(part, ('libc', part)) for part in ('in_use', 'kept')]),
    ('obmalloc_process_resident_bytes', 'gauge', 'RSS of the process.', None, [(None, ('rss',))]),
    ('obmalloc_arenas', 'gauge', 'Arenas of the library.', 'state',
     [(part, ('arenas', part)) for part in ('in_use', 'empty')]),
    ('obmalloc_pools', 'gauge', 'Pools of the library.', 'state',
     [(part, ('pools', part)) for part in ('used', 'full', 'free')]),
    ('obmalloc_large_requests_total', 'counter', 'Requests that went to the allocator below.', None,
     [(None, ('large', 'served_below_total'))]),
]


def prometheus():
    """The text that a scrape gets: text/plain; version=0.0.4."""
    stats = _calls.stats()
    lines = []
    for name, kind, text, label, parts in _METRICS:
        values = [(part, _value(stats, path)) for part, path in parts]
        if all(value is None for _, value in values):
            continue
        lines += ['# HELP %s %s' % (name, text), '# TYPE %s %s' % (name, kind)]
        for part, value in values:
            labels = '{%s="%s"}' % (label, part) if label else ''
            lines.append('%s%s %d' % (name, labels, value))
    return '\n'.join(lines) + '\n'


def _value(stats, path):
    for key in path:
        if stats is None:
            return None
        stats = stats.get(key)
    return stats
