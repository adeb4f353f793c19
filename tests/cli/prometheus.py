"""A strict reader of metrics, and Prometheus' own."""
import re

from support import build, child

SAMPLE = r'([a-z_]+)(?:\{(.+)\})? (\d+(?:\.\d+)?)'
LABEL = r'([a-z_]+)="((?:[^"\\\n]|\\["\\n])*)"'


def metrics(text, classic=False):
    """{name: {labels: value}} of a text that keeps to the grammar: each family in one piece,
    after its HELP and TYPE, and `# EOF` at the end. In OpenMetrics the family of a counter has
    the name of its samples without _total; in the classic format the names are equal."""
    lines = text.split('\n')
    assert lines[-2:] == ['# EOF', ''], lines[-3:]
    found, family, kind, seen = {}, None, None, set()
    for line in lines[:-2]:
        head = re.fullmatch(r'# (HELP|TYPE) ([a-z_]+) (.+)', line)
        if head and head[1] == 'HELP':
            assert kind != 'new' and head[2] not in seen, line
            family, kind = head[2], 'new'
            seen.add(family)
        elif head:
            assert (kind, family) == ('new', head[2]) and head[3] in ('gauge', 'counter'), line
            kind = head[3]
        else:
            name, labels, value = re.fullmatch(SAMPLE, line).groups()
            ending = '_total' if kind == 'counter' and not classic else ''
            assert name == family + ending and name.endswith('_total') == (kind == 'counter'), line
            assert not labels or re.fullmatch(f'{LABEL}(,{LABEL})*', labels), line
            pairs = tuple(re.findall(LABEL, labels or ''))
            assert len(dict(pairs)) == len(pairs) and pairs not in found.setdefault(name, {}), line
            found[name][pairs] = float(value)
    return found


BOTH_PARSERS = '''
import json, sys
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families as classic
def samples(families):
    return [[each.name, sorted(each.labels.items()), each.value] for family in families
            for each in family.samples]
with open(sys.argv[1], encoding="utf-8") as file:
    text = file.read()
'''


def client(code, file):
    """Runs code with prometheus_client from PyPI and the text of the file."""
    programs = build.virtual('prometheus', 'prometheus_client')
    return child.run([programs / 'python', '-c', BOTH_PARSERS + code, file], status=0)
