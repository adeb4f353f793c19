"""Many forks under load: c_tests/fork_storm.c forks FORKS times in each of its parts, while four
threads work. Forks of its children are not counted.

    FORKS=20000 WAYS=so,a,pre tests/run tests/soak/test_forks.py --all-pythons
"""
import os
import re
import sys

import pytest

from support import build, child

FORKS = int(os.environ.get('FORKS', 200))
WAYS = os.environ.get('WAYS', 'so,a,pre').split(',')
PARTS = 6


@pytest.mark.slow
@pytest.mark.parametrize('way', WAYS)
def test_forks(way, library, evidence):
    done = child.run([sys.executable, build.ROOT / 'c_tests/run.py', '--only', 'fork_storm',
                      '--timeout', 18000, '--ways', way],
                     child.clean_environment(FORK_STORM=str(FORKS)), 18000, status=0)
    assert re.search(rf'^fork_storm +{way} +ok', done.out, re.M), done.report
    evidence('forks under load', 'Threads and forks', {'forks while four threads work':
                                                       PARTS * FORKS}, f'C, linked as {way}',
             'no child hung or failed; no block is live at the end',
             f'make forks FORKS={FORKS} WAYS={",".join(WAYS)}')
