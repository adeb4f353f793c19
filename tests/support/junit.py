"""What a run of pytest on CPython's own tests found, from its report in JUnit's format."""
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree import ElementTree

# The properties that support/verdict.py records; several tests are separated by "; ".
KINDS = {'failing': 'fails on both sides', 'known': 'known difference',
         'flaky': 'varies without the library', 'sometimes': 'seldom differs',
         'left_out': 'left out, as it ends the run without the library'}


@dataclass
class Comparison:
    tests: int = 0              # with equal outcomes, except those that both sides skip
    skipped: int = 0            # tests that both sides skip
    seconds: int = 0            # of both sides' runs
    modules: int = 0            # in which a test ran
    idle: list = field(default_factory=list)            # "module: why no test ran"
    differences: list = field(default_factory=list)     # "module: what differs"
    notes: dict = field(default_factory=lambda: {kind: [] for kind in KINDS})

    def add(self, case):
        module = case.get('name').partition('[')[2].partition('-')[0]
        properties = {one.get('name'): one.get('value') for one in case.iter('property')}
        self.tests += int(properties.get('tests', 0))
        self.skipped += int(properties.get('skipped', 0))
        self.seconds += int(properties.get('seconds', 0))
        for kind, found in self.notes.items():
            found += [f'{module}: {one}' for one in properties.get(kind, '').split('; ') if one]
        wrong, skip = case.find('failure'), case.find('skipped')
        wrong = case.find('error') if wrong is None else wrong
        if wrong is not None:
            self.differences.append(f'{module}: {wrong.text}')
        elif skip is not None:
            self.idle.append(f'{module}: {skip.get("message")}')
        else:
            self.modules += 1

    @property
    def amount(self):
        counts = {'tests fail on both sides': len(self.notes['failing']),
                  'tests skipped on both sides': self.skipped,
                  'modules run no test': len(self.idle),
                  'tests differ as expected': len(self.notes['known']),
                  'tests vary without the library': len(self.notes['flaky'])}
        return f'{self.tests} tests, {self.modules} modules: ' + ', '.join(
            f'{count} {what}' for what, count in counts.items() if count)

    @property
    def summary(self):
        lines = [self.amount] + [f'difference: {one}' for one in self.differences]
        lines += [f'{KINDS[kind]}: {one}' for kind, found in self.notes.items() for one in found]
        return '\n'.join(lines + [f'no test: {one}' for one in self.idle]) + '\n'


def read(path):
    """The comparison of which this file is the report."""
    comparison = Comparison()
    for case in ElementTree.parse(Path(path)).iter('testcase'):
        comparison.add(case)
    return comparison
