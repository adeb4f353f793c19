"""The heap profile's estimates: of programs with a known mix, by line, and of a large heap as a whole.
The bounds are those of the sampler's theory: a block of `size` bytes is sampled with the probability
p = 1 - exp(-size / interval), independently of all others, and counts as 1 / p blocks."""
import json
import math

import pytest

from support import build, child
from support.preload import run_program

INTERVAL = 4096
RUNS = 200
# Of 200 runs with six lines: with normal errors 99.7 % are within three standard errors.
WITHIN = 0.99


def standard_error(count, size):
    p = 1 - math.exp(-size / INTERVAL)
    return size * math.sqrt(count * (1 - p) / p)


@pytest.mark.parametrize('how', ['plain', 'threads', 'fork'])
def test_each_line_is_within_three_standard_errors(python, how):
    if python.numbers < (3, 6):
        pytest.skip('the package needs 3.6')
    done = run_program(python, 'profile_mix.py', str(RUNS), str(INTERVAL), how,
                       env=child.preloaded(PACKAGE=str(build.ROOT / 'python'), OBMALLOC_POOL_MAX='512'),
                       timeout=300)
    exact, runs = json.loads(done.out)
    assert len(runs) == RUNS
    near = total = 0
    for name, (count, size) in exact.items():
        errors = []
        for run in runs:
            times = run['times']
            error = run.get(name, 0) - times * count * size
            errors.append(error / (standard_error(times * count, size) or 1))
        near += sum(abs(error) <= 3 for error in errors)
        total += RUNS
        mean = sum(errors) / RUNS
        # The mean of all runs: without a bias it is within 4 / sqrt(RUNS) nearly always.
        assert abs(mean) < 4 / math.sqrt(RUNS), (name, mean)
    assert near / total >= WITHIN, f'{near} of {total}'
