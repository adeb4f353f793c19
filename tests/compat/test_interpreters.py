"""Interpreters with a GIL each, in one process, at the same time."""
import pytest
from compat.environment import PROGRAMS, assert_active, run_both

SECONDS, COUNT = 20, 200


def slope(samples, column):
    """Growth per interpreter, over the second half of those that were created and destroyed."""
    half = samples[len(samples) // 2 - 1:]
    return (half[-1][column] - half[0][column]) / (half[-1][0] - half[0][0])


@pytest.mark.since(3, 12)
def test_sub_interpreters(python, found):
    runs = run_both([python.path, '-W', 'ignore', PROGRAMS / 'gils.py', SECONDS, COUNT], 400,
                    OBMALLOC_VERBOSE='1', OBMALLOC_DECAY_MS='100')
    ours, stock = (run.said for run in runs)
    assert_active(runs[0], python)
    assert runs[0].err.count('\n') == 1 and runs[1].err == '', runs[0].report
    for each in ours, stock:
        assert len(each[0]) == 2 and min(map(min, each[0])) > 50, 'rounds'
    # CPython does not free all of an interpreter's blocks, so memory grows in stock, too; with
    # the library it may grow no faster.
    growth, usual = slope(ours[1], 2) * 1024, slope(stock[1], 2) * 1024
    assert growth < usual + 8, 'KiB that each interpreter leaves'
    found('%d s, %.1f processors, %d shards, rounds %s (stock %s); %d created and destroyed: %.0f'
          ' blocks stay of each, %.1f KiB, stock %.1f KiB'
          % (SECONDS, ours[2], ours[3], sum(map(sum, ours[0])), sum(map(sum, stock[0])), COUNT,
             slope(ours[1], 1), growth, usual))
