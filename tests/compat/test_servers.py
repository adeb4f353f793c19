"""Servers that fork workers, recycle them, and end them."""
import http.client
import json
import os
import signal

import pytest
from compat.environment import (PROGRAMS, assert_active, kinds_of_lines, run_both, sides,
                                virtual)

from support import child
from support.running import Running, free_port, in_threads, is_open
from support.status import ACTIVE

REQUESTS, WORKERS, LIFE = 2000, 3, 300


def get(port, number):
    link = http.client.HTTPConnection('127.0.0.1', port, timeout=30)
    try:
        link.request('GET', f'/{number}')
        answer = link.getresponse()
        assert answer.status == 200
        return json.loads(answer.read())
    finally:
        link.close()


def serve(programs, env, worker, folder):
    """(answers by number, log, the server's pid)."""
    port, answers = free_port(), {}
    command = [programs / 'gunicorn', '--preload', '-w', WORKERS, '-k', worker, '--max-requests',
               LIFE, '--max-requests-jitter', 40, '--threads', 4 if worker == 'gthread' else 1,
               '-b', f'127.0.0.1:{port}', 'web:app']
    # gunicorn creates its control socket in HOME.
    with Running(command, env | {'HOME': str(folder)}, folder, PROGRAMS) as server:
        server.wait_until(lambda: is_open(port))

        def client(first):
            for number in range(first, REQUESTS, 4):
                for _ in range(20):     # a worker that ends may reset a connection
                    try:
                        answers[number] = get(port, number)
                        break
                    except (OSError, http.client.HTTPException) as error:
                        problem = error
                else:
                    pytest.fail(f'request {number}: {problem!r}')
        in_threads(4, client)
        log = ''.join(server.end(signal.SIGTERM))
        assert not is_open(port), 'a process serves after the end'
        left = [pid for pid in {each[2] for each in answers.values()}
                if os.path.exists(f'/proc/{pid}')]
        assert not left, 'workers that still exist'
        return answers, log, server.pid


@pytest.mark.network
@pytest.mark.since(3, 10)
def test_gunicorn(python, tmp_path, found):
    programs = virtual(python, 'gunicorn')
    words = []
    for worker in 'sync', 'gthread':
        ours, stock = (serve(programs, env, worker, tmp_path)
                       for env in sides(OBMALLOC_DECAY_MS='200'))
        for answers, _, pid in ours, stock:
            assert len(answers) == REQUESTS
            assert {each[3] for each in answers.values()} == {pid}, 'workers of another parent'
        assert ({n: each[:2] for n, each in ours[0].items()}
                == {n: each[:2] for n, each in stock[0].items()})
        assert min(each[4] for each in ours[0].values()) > 30000, 'live blocks in a worker'
        assert max(each[4] for each in stock[0].values()) == -1, 'the library without preload'
        assert 'obmalloc: ' not in ours[1], ours[1][-1000:]
        # A worker that has not started yet when SIGTERM comes logs one more kind of line.
        logs = [[line for line in kinds_of_lines(log) if 'was sent SIGTERM' not in line]
                for _, log, _ in (ours, stock)]
        assert logs[0] == logs[1], worker
        pids = {each[2] for each in ours[0].values()}
        assert len(pids) > WORKERS + 1, 'no worker was recycled'
        words.append(f'{worker}: {REQUESTS} requests by {len(pids)} workers')
    found(', '.join(words))


TASKS, CHILDREN = 500, 3


def work(programs, env, folder):
    """([number, result, pid, live blocks] of each task, log)."""
    folder.mkdir()
    env = env | {'TASKS_FOLDER': str(folder)}
    command = [programs / 'celery', '-A', 'tasks', 'worker', '--pool', 'prefork', '--concurrency',
               CHILDREN, '--loglevel', 'WARNING', '--without-gossip', '--without-mingle',
               '--without-heartbeat']
    with Running(command, env | {'C_FORCE_ROOT': '1'}, folder, PROGRAMS) as worker:
        client = child.run([programs / 'python', PROGRAMS / 'tasks.py', TASKS], env, timeout=240)
        assert client.status == 0, client.report + '\n'.join(worker.output())
        return client.said, ''.join(worker.end(signal.SIGTERM))


@pytest.mark.network
@pytest.mark.since(3, 10)
def test_celery(python, tmp_path, found):
    programs = virtual(python, 'celery', 'gunicorn')
    ours, stock = (work(programs, env, tmp_path / str(n)) for n, env in enumerate(sides()))
    assert [each[:2] for each in ours[0]] == [each[:2] for each in stock[0]]
    assert len(ours[0]) == TASKS
    assert min(each[3] for each in ours[0]) > 30000, 'live blocks in a child'
    assert max(each[3] for each in stock[0]) == -1, 'the library without preload'
    pids = {each[2] for each in ours[0]}
    assert len(pids) > CHILDREN + 2, 'no child was replaced'
    assert kinds_of_lines(ours[1]) == kinds_of_lines(stock[1])
    found(f'{TASKS} tasks by {len(pids)} children')


POOL = '''
import multiprocessing, sys, json, os
import inside, ledger
def work(rows):
    return ([dict(row, seen=len(row["text"])) for row in rows], inside.workload(1), os.getpid(),
            ledger.live())
if __name__ == "__main__":
    multiprocessing.set_start_method(sys.argv[1])
    with multiprocessing.Pool(3, maxtasksperchild=7) as pool:
        rows = [{"n": n, "text": "x" * n} for n in range(300)]
        answers = pool.map(work, [rows] * 60, chunksize=1)
        queue = [pool.apply_async(work, ([{"n": 1, "text": ""}],)) for _ in range(10)]
        answers += [each.get(60) for each in queue]
        pool.close(); pool.join()
    print(json.dumps([[each[:2] for each in answers], sorted({each[2] for each in answers}),
                      min(each[3] for each in answers), max(each[3] for each in answers)]))
'''


@pytest.mark.since(3, 6)
def test_multiprocessing(python, tmp_path, found):
    path = tmp_path / 'pool.py'
    path.write_text(POOL)
    words = []
    for method in 'fork', 'spawn', 'forkserver':
        ours, stock = run_both([python.path, path, method], 200)
        (results, pids, least, _), (expected, _, _, most) = ours.said, stock.said
        assert results == expected, method
        assert least > 5000 and most == -1, 'live blocks in the workers'
        assert kinds_of_lines(ours.err) == kinds_of_lines(stock.err), method
        assert len(pids) > 6, 'no worker was replaced'
        words.append(f'{method} by {len(pids)} workers')
    loud = child.run([python.path, path, 'spawn'], sides(OBMALLOC_VERBOSE='1')[0], 200, status=0)
    assert_active(loud, python)
    assert set(loud.said[1]) <= {int(line[1]) for line in loud.lines(ACTIVE)}, \
        'a spawned worker without its status line'
    found('70 pieces of work with each start method: ' + ', '.join(words))
