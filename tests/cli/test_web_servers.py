"""The package's pages in real servers, over HTTP."""
import http.client
import os
import time

import pytest

from cli.prometheus import metrics
from support import build, child, running

pytestmark = [pytest.mark.since(3, 8), pytest.mark.one_python]
PREFIX = '/debug/obmalloc'

APPLICATION = '''
import sys
kept = []

def application(environ, start_response):
    kept.extend([n, str(n)] for n in range(2000))      # line 6
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"hello"]
'''
SERVERS = {
    'wsgiref': ((), '''
from wsgiref.simple_server import make_server
from obmalloc import web
make_server("127.0.0.1", int(sys.argv[1]), web.wsgi(application, allow_start=True)).serve_forever()
''', ['app.py', '{port}']),
    'gunicorn': (('gunicorn',), '''
from obmalloc import web
application = web.wsgi(application, allow_start=True)
''', ['-m', 'gunicorn', '-b', '127.0.0.1:{port}', '-w', '1', 'app:application']),
    'flask': (('gunicorn', 'flask'), '''
import flask
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from obmalloc import web
app = flask.Flask("app")
app.route("/")(lambda: application({}, lambda *words: None)[0])
app.wsgi_app = DispatcherMiddleware(app.wsgi_app, {"/debug/obmalloc": web.wsgi(allow_start=True)})
''', ['-m', 'gunicorn', '-b', '127.0.0.1:{port}', '-w', '1', '--threads', '2', 'app:app']),
    'fastapi': (('uvicorn', 'fastapi'), '''
import fastapi
from obmalloc import web
app = fastapi.FastAPI()
app.get("/")(lambda: application({}, lambda *words: None)[0].decode())
app.mount("/debug/obmalloc", web.asgi(allow_start=True))
''', ['-m', 'uvicorn', '--port', '{port}', '--log-level', 'warning', 'app:app']),
    'uvicorn': (('uvicorn',), '''
from obmalloc import web
async def other(scope, receive, send):
    if scope["type"] == "lifespan":
        raise ValueError("none")
    [body] = application({}, lambda *words: None)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body})
app = web.asgi(other, allow_start=True)
''', ['-m', 'uvicorn', '--port', '{port}', '--log-level', 'warning', 'app:app']),
}


def fetch(port, path, method='GET'):
    connection = http.client.HTTPConnection('127.0.0.1', port, timeout=30)
    connection.request(method, path)
    found = connection.getresponse()
    body = found.read()
    connection.close()
    return found.status, body


@pytest.fixture(params=[
    pytest.param(name, marks=[pytest.mark.slow, pytest.mark.network] if packages else [])
    for name, (packages, _, _) in SERVERS.items()])
def server(request, python, package, tmp_path):
    """The port of a server that runs."""
    packages, tail, words = SERVERS[request.param]
    programs = build.virtual(f'web-{python.name}', *packages, python=python.path)
    (tmp_path / 'app.py').write_text(APPLICATION + tail)
    port = running.free_port()
    env = child.clean_environment(PYTHONPATH=package, PYTHONDONTWRITEBYTECODE=1,
                                  PATH=f'{package}/bin:{os.environ["PATH"]}')
    words = [word.format(port=port) for word in words]
    with running.Running([programs / 'python', '-m', 'obmalloc', 'run', *words], env, tmp_path,
                         tmp_path) as program:
        program.wait_until(lambda: running.is_open(port))
        yield port


def test_pages(server, package, tmp_path):
    """The profiler is off until it is started; then the profile has the line that keeps memory, and
    the growth no more than what came within its seconds."""
    assert fetch(server, '/')[0] == 200
    status, body = fetch(server, PREFIX + '/metrics')
    assert status == 200
    assert sum(metrics(body.decode())['obmalloc_resident_bytes'].values()) > 1 << 20
    status, body = fetch(server, PREFIX + '/')
    assert status == 200 and b'is off' in body
    assert fetch(server, PREFIX + '/heap')[0] == 409
    assert fetch(server, PREFIX + '/none')[0] == 404
    status, body = fetch(server, PREFIX + '/start', 'POST')
    assert status == 200, body
    for _ in range(40):
        assert fetch(server, '/')[0] == 200
    status, body = fetch(server, PREFIX + '/heap')
    assert status == 200
    held = rows(package, body, tmp_path)
    assert (os.path.basename(held[0]['file']), held[0]['line']) == ('app.py', 6)
    # 40 requests of 2000 lists of 2 items, and a text each.
    assert 5e6 < sum(row['bytes'] for row in held if row['line'] == 6) < 30e6
    began = time.monotonic()
    status, body = fetch(server, PREFIX + '/heap?seconds=1')
    assert status == 200
    assert time.monotonic() - began > 1
    assert sum(row['bytes'] for row in rows(package, body, tmp_path)) < 4e6
    status, body = fetch(server, PREFIX + '/flame')
    assert status == 200, body
    assert b'app.py' in body
    status, body = fetch(server, PREFIX + '/flame?seconds=0.1')
    assert status == 200, body
    assert fetch(server, PREFIX + '/stop', 'POST')[0] == 200
    assert b'is off' in fetch(server, PREFIX + '/')[1]


def rows(package, body, folder):
    """The rows of a profile by the package, in an interpreter without the library."""
    (folder / 'heap.pb.gz').write_bytes(body)
    code = ('import json, sys, obmalloc\n'
            'rows = obmalloc.profile.top(20, path=sys.argv[1])\n'
            'print(json.dumps([row._asdict() for row in rows]))')
    return child.run(['python3', '-c', code, folder / 'heap.pb.gz'],
                     child.clean_environment(PYTHONPATH=package), status=0).said
