"""Interpreters with a GIL each, in one process, really at once."""
import os

from base import PROGRAMS, active, demand, environment, ran, sides, since, support

SECONDS, COUNT = 20, 200


def slope(samples, column):
    """Growth for each interpreter, over the second half of those that came and went."""
    half = samples[len(samples) // 2 - 1:]
    return (half[-1][column] - half[0][column]) / (half[-1][0] - half[0][0])


@environment('sub-interpreters', since(3, 12))
def sub_interpreters(python):
    runs = [ran(support.run([python.path, '-W', 'ignore', os.path.join(PROGRAMS, 'gils.py'),
                             str(SECONDS), str(COUNT)], env, timeout=400))
            for env in sides(OBMALLOC_VERBOSE='1', OBMALLOC_DECAY_MS='100')]
    ours, stock = map(support.said, runs)
    active(runs[0], python)
    demand(runs[0].err.count('\n') == 1 and runs[1].err == '', runs[0].report)
    for each in ours, stock:
        demand(len(each[0]) == 2 and min(map(min, each[0])) > 50, 'rounds', each[0])
    # What CPython itself leaves of an interpreter stays allocated with us, too: memory
    # may grow as it does in stock, and no faster.
    growth, usual = slope(ours[1], 2) * 1024, slope(stock[1], 2) * 1024
    demand(growth < usual + 8, 'KiB that stay of each interpreter: %.1f, stock %.1f; %s %s' % (
        growth, usual, ours[1], stock[1]))
    return ('%d s, %.1f processors, %d lanes, rounds %s (stock %s); %d came and went: %.0f blocks'
            ' stay of each, %.1f KiB, stock %.1f KiB'
            % (SECONDS, ours[2], ours[3], sum(map(sum, ours[0])), sum(map(sum, stock[0])), COUNT,
               slope(ours[1], 1), growth, usual))
