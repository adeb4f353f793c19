"""A small shop that leaks in three ways: docs/tutorial-leak.md finds them.

    python3 app.py [PORT]       8000 by default; load.py sends it requests
"""
import functools
import gc
import html
import sys
import uuid
from urllib.parse import parse_qs
from wsgiref.simple_server import WSGIRequestHandler, make_server

CATALOGUE = ['%s %s' % (colour, thing) for colour in ('red', 'green', 'blue', 'black', 'white')
             for thing in ('shoe', 'boot', 'hat', 'scarf', 'glove', 'coat', 'shirt', 'sock')]
SESSIONS = {}
RULES = []


class Session:
    """What the shop remembers of a visitor."""

    def __init__(self, agent):
        self.agent = agent
        self.seen = [{'item': item, 'views': 0} for item in CATALOGUE[:8]]
        self.cart = {}


class Rule:
    """The price of an item for a number of pieces."""

    def __init__(self, item, pieces, cents):
        self.item = item
        self.pieces = pieces
        self.cents = cents


def session_of(environ):
    """The visitor's session, or a new one."""
    token = environ.get('HTTP_COOKIE', '').partition('session=')[2]
    if token not in SESSIONS:
        token = uuid.uuid4().hex
        SESSIONS[token] = Session(environ.get('HTTP_USER_AGENT', ''))
    return token, SESSIONS[token]


@functools.lru_cache(maxsize=None)
def search(words):
    """The items that match best, with the letters that they have in common with the words."""
    found = [(len(set(words) & set(item)), item) for item in CATALOGUE]
    return sorted(found, reverse=True)[:20]


def load_rules():
    """New prices. They live until the next ones, so the collector need not visit them."""
    RULES.append([Rule(item, pieces, 100 + pieces) for item in CATALOGUE for pieces in range(50)])
    gc.freeze()


def price(item):
    return next(rule.cents for rule in RULES[-1] if rule.item == item)


def application(environ, start_response):
    path = environ['PATH_INFO']
    headers = [('Content-Type', 'text/html; charset=utf-8')]
    if path == '/rules' and environ['REQUEST_METHOD'] == 'POST':
        load_rules()
        lines = ['new prices']
    elif path == '/search':
        words = parse_qs(environ['QUERY_STRING']).get('q', [''])[0]
        lines = ['%s: %d cents' % (item, price(item)) for _, item in search(words)]
    elif path == '/':
        token, session = session_of(environ)
        headers.append(('Set-Cookie', 'session=%s; HttpOnly' % token))
        lines = ['%(item)s, seen %(views)d times' % each for each in session.seen]
    else:
        start_response('404 Not Found', headers)
        return [b'no such page\n']
    start_response('200 OK', headers)
    return [html.escape(line).encode() + b'<br>\n' for line in lines]


class Quiet(WSGIRequestHandler):
    """Writes no line for each request."""

    def log_message(self, format, *args):
        pass


def main():
    served = application
    try:
        from obmalloc import web
        served = web.wsgi(application)      # the pages below /debug/obmalloc
    except ImportError:
        pass        # the package is not installed here
    load_rules()
    with make_server('127.0.0.1', int((sys.argv[1:] or [8000])[0]), served,
                     handler_class=Quiet) as server:
        print('http://127.0.0.1:%d/' % server.server_port, flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            pass


if __name__ == '__main__':
    main()
