"""pools.py METHOD: a multiprocessing pool whose workers receive and return objects."""
from __future__ import print_function

import multiprocessing
import sys

import inside


def work(rows):
    """A worker's answer: its rows with a change, and the checksum of its own workload."""
    return [dict(row, seen=True) for row in rows], inside.workload(1)


def main(method):
    if hasattr(multiprocessing, 'set_start_method'):
        multiprocessing.set_start_method(method)
    else:
        assert method == 'fork', method
    pool = multiprocessing.Pool(2)
    answers = pool.map(work, [[{'n': n, 'text': 'x' * n} for n in range(200)] for _ in range(4)])
    pool.close()
    pool.join()
    expected = inside.workload(1)
    for rows, checksum in answers:
        assert checksum == expected
        assert rows[199] == {'n': 199, 'text': 'x' * 199, 'seen': True}
    print('done')


if __name__ == '__main__':
    main(sys.argv[1])
