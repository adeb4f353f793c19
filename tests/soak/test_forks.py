"""Many forks under load: c_tests/fork/storm.c forks FORKS times in each of its cases, while four
threads work. Forks of its children are not counted.

    FORKS=20000 WAYS=so,a,pre tests/run tests/soak/test_forks.py --all-pythons
"""
import os
import re

import pytest

from support import build, child

FORKS = int(os.environ.get('FORKS', 200))
WAYS = os.environ.get('WAYS', 'so,a,pre').split(',')
CASES = 6


@pytest.mark.slow
@pytest.mark.parametrize('way', WAYS)
def test_forks(way, library, evidence):
    done = child.run(['make', '-C', build.ROOT / 'c_tests', 'CASE=fork/storm-*', f'WAYS={way}',
                      'TIMEOUT=18000'],
                     child.clean_environment(FORK_STORM=str(FORKS)), 18000, status=0)
    assert len(re.findall(rf'^fork/storm-\S+ +{way} +ok', done.out, re.M)) == CASES, done.report
    evidence('forks under load', 'Threads and forks', {'forks while four threads work':
                                                       CASES * FORKS}, f'C, linked as {way}',
             'no child hung or failed; no block is live at the end',
             f'make forks FORKS={FORKS} WAYS={",".join(WAYS)}')
