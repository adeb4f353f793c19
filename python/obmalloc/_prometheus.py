"""The statistics in Prometheus' text format, which is valid OpenMetrics, too: the metrics of
`obmalloc stats PID --prometheus`. Names, types and help texts are the schema's, metrics.json in
this package, which the wheel's build gets from `obmalloc schema`."""
import json
import os
import re

from obmalloc import _calls

_schema = None


def _families():
    """The metrics of the schema."""
    global _schema
    if _schema is None:
        path = os.path.join(os.path.dirname(os.path.abspath(__file__)), 'metrics.json')
        with open(path) as file:
            _schema = json.load(file)
    return _schema['families']


def _process():
    """The RSS of this process and the files' part of it, by the kernel."""
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
    """The parts of the RSS, which sum to it; None if it is not known. The C library reports
    what it has, not how much of that is resident: its parts come from the rest of the RSS."""
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


def _samples(family, stats):
    """The (labels, value) pairs of a metric; None if a value is not known."""
    source, label = family['source'], family['label']
    if source == 'info':
        return [({'version': stats['version'], 'host': stats['host'] or ''}, 1)]
    if source == 'age':
        return [({}, 0)]
    if source == 'process':
        parts = _parts(stats)
        return parts and [({label: name}, parts[name]) for name in family['samples']]

    def labels(value, **others):
        return dict(others, **{label: value}) if label else others

    if source == 'classes':
        return [(labels(value, size=each['size']), each[path[-1]])
                for each in stats['classes'] for value, path in family['samples']]
    samples = [(labels(value), _at(stats, path)) for value, path in family['samples']]
    return None if any(value is None for _, value in samples) else samples


def _at(found, path):
    """The value at a path in the statistics, of which a part may be null."""
    for word in path:
        found = None if found is None else found[word]
    return found


def prometheus():
    """The text for a scrape, by either content type: text/plain; version=0.0.4, or
    application/openmetrics-text; version=1.0.0; charset=utf-8. docs/metrics.md has each name."""
    lines, stats = [], _calls.stats()
    for family in _families():
        samples = _samples(family, stats)
        if samples is None:
            continue
        # The family of a counter has OpenMetrics' name, its sample's without _total.
        name, kind = family['name'], family['type']
        title = name[:-len('_total')] if kind == 'counter' else name
        lines += ['# HELP %s %s' % (title, family['help']), '# TYPE %s %s' % (title, kind)]
        for labels, value in samples:
            braced = ','.join('%s="%s"' % pair for pair in labels.items())
            lines.append('%s%s %d' % (name, '{%s}' % braced if braced else '', value))
    return '\n'.join(lines + ['# EOF', ''])
