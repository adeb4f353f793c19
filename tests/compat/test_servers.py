"""Servers that fork workers, recycle them, and end them."""
import http.client
import json
import os
import shutil
import signal
import socket

from base import (PROGRAMS, Fails, Running, active, at_once, comes, demand, environment,
                  kinds_of_lines, ran, same, sides, since, support, virtual)

REQUESTS, WORKERS, LIFE = 2000, 3, 300


def free_port():
    with socket.socket() as one:
        one.bind(('127.0.0.1', 0))
        return one.getsockname()[1]


def ask(port, number):
    link = http.client.HTTPConnection('127.0.0.1', port, timeout=30)
    try:
        link.request('GET', '/%d' % number)
        answer = link.getresponse()
        demand(answer.status == 200, 'status', answer.status)
        return json.loads(answer.read())
    finally:
        link.close()


def is_open(port):
    try:
        socket.create_connection(('127.0.0.1', port), 1).close()
        return True
    except OSError:
        return False


def serve(programs, env, worker):
    """(answers by number, what was logged, the server's pid)."""
    port, answers = free_port(), {}
    command = [os.path.join(programs, 'gunicorn'), '--preload', '-w', str(WORKERS), '-k', worker,
               '--max-requests', str(LIFE), '--max-requests-jitter', '40', '--threads',
               '4' if worker == 'gthread' else '1', '-b', '127.0.0.1:%d' % port, 'web:app']
    env = dict(env, HOME=support.scratch())     # where it has its control socket
    with Running(command, env, PROGRAMS) as server:
        demand(comes(lambda: is_open(port) or server.child.poll() is not None)
               and server.child.poll() is None, 'it does not serve', server.said())

        def client(first):
            for number in range(first, REQUESTS, 4):
                for again in range(20):     # a worker that ends may reset a connection
                    try:
                        answers[number] = ask(port, number)
                        break
                    except (OSError, http.client.HTTPException) as error:
                        complaint = error
                else:
                    raise Fails('request %d: %r' % (number, complaint))
        at_once(4, client)
        status, out, err = server.end(signal.SIGTERM)
        demand(status == 0, 'exit status', status, err[-2000:])
        demand(not is_open(port), 'somebody serves after the end')
        left = [pid for pid in {each[2] for each in answers.values()}
                if os.path.exists('/proc/%d' % pid)]
        demand(not left, 'workers that are still there:', left)
        return answers, out + err, server.pid


@environment('gunicorn', since(3, 10))
def gunicorn(python):
    programs = virtual(python, 'gunicorn')
    words = []
    for worker in 'sync', 'gthread':
        ours, stock = (serve(programs, env, worker) for env in sides(OBMALLOC_DECAY_MS='200'))
        for answers, _, pid in ours, stock:
            demand(len(answers) == REQUESTS, len(answers), 'answers')
            demand({each[3] for each in answers.values()} == {pid}, 'workers of others')
        same({n: each[:2] for n, each in ours[0].items()},
             {n: each[:2] for n, each in stock[0].items()}, 'answers')
        demand(min(each[4] for each in ours[0].values()) > 30000, 'not ours in a worker')
        demand(max(each[4] for each in stock[0].values()) == -1, 'ours in the other side')
        demand('obmalloc: ' not in ours[1], 'we said something', ours[1][-1000:])
        # A worker that is not yet up when the end comes is one more kind of line.
        logs = [[line for line in kinds_of_lines(side[1]) if 'was sent SIGTERM' not in line]
                for side in (ours, stock)]
        same(*logs, worker + ': log')
        pids = len({each[2] for each in ours[0].values()})
        demand(pids > WORKERS + 1, 'no worker was recycled')
        words.append('%s: %d requests by %d workers' % (worker, REQUESTS, pids))
    return ', '.join(words)


TASKS, CHILDREN = 500, 3


def work(programs, env, name):
    folder = support.scratch(name)
    shutil.rmtree(folder, ignore_errors=True)
    env = dict(env, TASKS_FOLDER=folder)
    command = [os.path.join(programs, 'celery'), '-A', 'tasks', 'worker', '--pool', 'prefork',
               '--concurrency', str(CHILDREN), '--loglevel', 'WARNING', '--without-gossip',
               '--without-mingle', '--without-heartbeat']
    os.makedirs(folder)
    with Running(command, dict(env, C_FORCE_ROOT='1'), PROGRAMS) as worker:
        client = support.run([os.path.join(programs, 'python'), os.path.join(PROGRAMS, 'tasks.py'),
                              str(TASKS)], env, timeout=240)
        if client.status != 0:
            raise Fails(client.report + '\n'.join(worker.said()))
        status, out, err = worker.end(signal.SIGTERM)
        demand(status == 0, 'exit status', status, err[-2000:])
        return support.said(client), out + err, worker.pid, client


@environment('celery', since(3, 10))
def celery(python):
    programs = virtual(python, 'celery', 'gunicorn')
    label = python.label.replace(' ', '-')
    ours, stock = (work(programs, env, 'tasks-%s-%d' % (label, n))
                   for n, env in enumerate(sides()))
    same([each[:2] for each in ours[0]], [each[:2] for each in stock[0]], 'results')
    demand(len(ours[0]) == TASKS, len(ours[0]), 'results')
    demand(min(each[3] for each in ours[0]) > 30000, 'not ours in a child')
    demand(max(each[3] for each in stock[0]) == -1, 'ours in the other side')
    pids = len({each[2] for each in ours[0]})
    demand(pids > CHILDREN + 2, 'no child was replaced', pids)
    same(kinds_of_lines(ours[1]), kinds_of_lines(stock[1]), 'log')
    return '%d tasks by %d children' % (TASKS, pids)


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


@environment('multiprocessing', since(3, 6))
def multiprocessing(python):
    path = support.scratch('pool-%s.py' % python.label.replace(' ', '-'))
    with open(path, 'w') as file:
        file.write(POOL)
    words = []
    for method in 'fork', 'spawn', 'forkserver':
        ours, stock = (ran(support.run([python.path, path, method], env, timeout=200))
                       for env in sides())
        (results, pids, least, _), (expected, _, _, most) = support.said(ours), support.said(stock)
        same(results, expected, method)
        demand(least > 5000 and most == -1, 'whose blocks:', least, most)
        same(kinds_of_lines(ours.err), kinds_of_lines(stock.err), method + ': stderr')
        demand(len(pids) > 6, 'no worker was replaced')
        words.append('%s by %d' % (method, len(pids)))
    loud = ran(support.run([python.path, path, 'spawn'], sides(OBMALLOC_VERBOSE='1')[0],
                           timeout=200))
    active(loud, python)
    said = {int(line.group(1)) for line in loud.lines(support.ACTIVE)}
    demand(set(support.said(loud)[1]) <= said, 'a spawned worker without its line')
    return '70 pieces each: ' + ', '.join(words)
