"""A WSGI application: every answer takes some thousand objects and has the worker's pid. The
table belongs to the parent if the server imports this module before it forks."""
import json
import os

import ledger

TABLE = {str(n): [n] * (n % 50) for n in range(30000)}


def work(number):
    rows = [{'n': n, 'text': str(n) * (n % 9), 'more': TABLE[str((number * 7 + n) % 30000)]}
            for n in range(200)]
    text = json.dumps(rows)
    return len(json.loads(text)), sum(map(ord, text)) % 1000003


def app(environ, start_response):
    number = int(environ['PATH_INFO'].strip('/'))
    body = json.dumps([number, work(number), os.getpid(), os.getppid(), ledger.live()]).encode()
    start_response('200 OK', [('Content-Type', 'application/json'),
                              ('Content-Length', str(len(body)))])
    return [body]
