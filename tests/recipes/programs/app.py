"""A WSGI application, and a program of its own: it prints what `who` finds."""
import json
import sys
import time

from who import who


def app(environ, start_response):
    body = json.dumps(who()).encode()
    start_response('200 OK', [('Content-Type', 'application/json'),
                              ('Content-Length', str(len(body)))])
    return [body]


application = app       # uwsgi's name for it

if __name__ == '__main__':
    # A service: it prints once and runs until it is ended.
    print(json.dumps(who()), flush=True)
    time.sleep(float(sys.argv[1]) if sys.argv[1:] else 0)
