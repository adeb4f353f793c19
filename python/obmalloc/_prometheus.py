"""The statistics in Prometheus's text form, which is OpenMetrics' form, too: the names, the texts and the numbers of
`obmalloc stats PID --prometheus` (cli/src/stats/prometheus.rs; a check compares
them)."""
import re

from obmalloc import _calls


def _process():
    """What the kernel says of this process: its RSS, and the files' part of it."""
    for name, names in (('smaps_rollup', ('Rss', 'Anonymous')),
                        ('status', ('VmRSS', 'RssFile', 'RssShmem'))):
        try:
            with open('/proc/self/' + name) as file:
                found = dict(re.findall(r'^(\w+):\s+(\d+) kB$', file.read(), re.M))
            rss, *rest = (int(found[each]) * 1024 for each in names)
        except (OSError, KeyError):
            continue
        return rss, rss - rest[0] if name == 'smaps_rollup' else sum(rest)
    return None


def _parts(stats):
    """The parts of the RSS, which sum to it; None if it is not known. The C library says
    what it has, not what of that is in memory: it takes of what is left."""
    process = _process()
    if process is None:
        return None
    rss, files = process
    left = rss - files
    parts = {}
    libc = stats['libc'] or {'in_use': 0, 'kept': 0}
    for name, wanted in (('ours', stats['resident']['total']), ('libc_in_use', libc['in_use']),
                         ('libc_kept', libc['kept'])):
        parts[name] = min(wanted, left)
        left -= parts[name]
    return dict(parts, files=files, other=left)


def _metrics(stats):
    """(name, kind, help, [(labels, value)]) of each metric, in the command's order."""
    def one(name, kind, text, value):
        return name, kind, text, [({}, value)]

    def by(name, text, label, values, keys=None):
        return name, 'gauge', text, [({label: key}, values[key]) for key in keys or values]

    resident, arenas, pools = stats['resident'], stats['arenas'], stats['pools']
    yield ('obmalloc_info', 'gauge', 'The library and its host; always 1.',
           [({'version': stats['version'], 'host': stats['host'] or ''}, 1)])
    yield by('obmalloc_resident_bytes',
             "Memory of the library's that is with the process, by what it is for. The parts "
             'sum to part ours of obmalloc_process_resident_bytes.', 'part', resident,
             ('live', 'in_magazines', 'free_in_pools', 'empty_pools', 'metadata'))
    parts = _parts(stats)
    if parts is not None:
        yield by('obmalloc_process_resident_bytes',
                 'Memory of the process, by whose it is. The parts sum to its RSS.', 'part',
                 parts, ('ours', 'libc_in_use', 'libc_kept', 'files', 'other'))
    yield one('obmalloc_live_requested_bytes', 'gauge',
              'What the program asked for of part live of obmalloc_resident_bytes, by '
              'estimate; the rest is rounding.', stats['bytes']['live_requested_estimate'])
    yield one('obmalloc_returned_bytes_total', 'counter',
              'Memory that was free and has gone back to the kernel.', resident['returned_total'])
    yield one('obmalloc_address_space_bytes', 'gauge',
              'Address space from the kernel, in memory or not.', stats['bytes']['from_os'])
    yield by('obmalloc_arenas', 'Arenas that the library has.', 'state', arenas,
             ('in_use', 'empty'))
    yield one('obmalloc_arenas_highwater', 'gauge', 'The most arenas that there were at once.',
              arenas['highwater'])
    yield one('obmalloc_arenas_mapped_total', 'counter',
              'Arenas that have come from the kernel.', arenas['mapped_total'])
    yield one('obmalloc_arenas_unmapped_total', 'counter',
              'Arenas that have gone back to the kernel.', arenas['unmapped_total'])
    yield by('obmalloc_pools',
             'Pools in the arenas: with some free blocks, without, and of no size class.',
             'state', pools, ('used', 'full', 'free'))
    yield one('obmalloc_large_requests_total', 'counter',
              'Requests that no pool serves and that the C library got.',
              stats['large']['served_below_total'])
    yield one('obmalloc_large_blocks', 'gauge',
              "Blocks of the C library's that such requests have got and that are not freed "
              'yet.', stats['large']['blocks_live'])
    if stats['libc'] is not None:
        yield by('obmalloc_libc_bytes', "What the C library's malloc has, in memory or not.",
                 'state', stats['libc'], ('in_use', 'kept'))
    yield one('obmalloc_threads', 'gauge',
              'Threads that have magazines of free blocks, or had some and have ended.',
              stats['threads'])
    yield one('obmalloc_misses_total', 'counter',
              'Requests for which a thread had no block at hand and went to the heap.',
              stats['misses'])
    yield one('obmalloc_page_age_seconds', 'gauge', 'How old these numbers are.', 0)
    classes = stats['classes']
    yield ('obmalloc_class_blocks', 'gauge',
           'Blocks of each size in bytes. Times the size, state live sums to part live of '
           'obmalloc_resident_bytes, in_magazines to its own.',
           [({'size': each['size'], 'state': state}, each['blocks_' + state])
            for each in classes for state in ('live', 'in_magazines', 'free')])
    for name, text, key in (
            ('obmalloc_class_pools', 'Pools of each size class.', 'pools'),
            ('obmalloc_class_resident_bytes',
             'Memory in the pools of each size class: sums to the parts live, in_magazines and '
             'free_in_pools of obmalloc_resident_bytes.', 'resident')):
        yield name, 'gauge', text, [({'size': each['size']}, each[key]) for each in classes]


def prometheus():
    """The text that a scrape gets, by either content type: text/plain; version=0.0.4, or
    application/openmetrics-text; version=1.0.0; charset=utf-8. docs/metrics.md has each name."""
    lines = []
    for name, kind, text, values in _metrics(_calls.stats()):
        # A counter's family has OpenMetrics' name: that of its sample without _total.
        family = name[:-len('_total')] if kind == 'counter' else name
        lines += ['# HELP %s %s' % (family, text), '# TYPE %s %s' % (family, kind)]
        for labels, value in values:
            said = ','.join('%s="%s"' % pair for pair in labels.items())
            lines.append('%s%s %d' % (name, '{%s}' % said if said else '', value))
    return '\n'.join(lines + ['# EOF', ''])
