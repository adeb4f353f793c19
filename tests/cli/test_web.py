"""The package's WSGI and ASGI applications, in this process; the library's part is a file that
this test writes."""
import asyncio
import os
import sys
import threading
from pathlib import Path
from types import SimpleNamespace
from wsgiref.util import setup_testing_defaults
from wsgiref.validate import validator

import pytest

from support import build, pprof

sys.path.insert(0, str(build.ROOT / 'python'))
from obmalloc import _prometheus, profile, web      # noqa: E402

PREFIX = '/debug/obmalloc'
FRAMES = [('grow', '/srv/app.py', 3)]


@pytest.fixture(autouse=True)
def library(monkeypatch):
    """Stands for the library: `state.on`, and how much the line holds at the next dump."""
    state = SimpleNamespace(on=True, held=0, started=[], error=None)

    def dump(path):
        if state.error:
            raise state.error
        if not state.on:
            raise OSError(61, 'the profiler has not run')
        state.held += 1000
        pprof.Writer().add(FRAMES, [0, 0, 1, state.held, 0], type='<b>').write(Path(path))

    def start(interval):
        state.on = True
        state.started.append(interval)

    monkeypatch.setattr(profile, 'dump', dump)
    monkeypatch.setattr(profile, 'start', start)
    monkeypatch.setattr(profile, 'stop', lambda: setattr(state, 'on', False))
    monkeypatch.setattr(profile, 'is_running', lambda: state.on)
    monkeypatch.setattr(_prometheus, 'prometheus', lambda: '# EOF\n')
    return state


def by_wsgi(path, method='GET', query='', application=None, headers=(), **options):
    environ = {'PATH_INFO': path, 'QUERY_STRING': query, 'REQUEST_METHOD': method,
               'SCRIPT_NAME': '' if path else '/ops'}
    setup_testing_defaults(environ)
    environ.update(('HTTP_' + name.upper().replace('-', '_'), value) for name, value in headers)
    said = SimpleNamespace()

    def start_response(status, headers, error=None):
        said.status, said.headers = int(status.split()[0]), dict(headers)

    found = validator(web.wsgi(application, **options))(environ, start_response)
    said.body = b''.join(found)
    found.close()
    return said


def by_asgi(path, method='GET', query='', application=None, headers=(), root='', **options):
    sent = []

    async def receive():
        return {'type': 'http.request', 'body': b'', 'more_body': False}

    async def send(message):
        sent.append(message)

    scope = {'type': 'http', 'method': method, 'path': path, 'query_string': query.encode(),
             'headers': [(name.encode(), value.encode()) for name, value in headers],
             'root_path': root}
    asyncio.run(web.asgi(application, **options)(scope, receive, send))
    start, body = sent
    assert (start['type'], body['type']) == ('http.response.start', 'http.response.body')
    names = {'content-type': 'Content-Type', 'content-length': 'Content-Length'}
    headers = {key.decode(): value.decode() for key, value in start['headers']}
    return SimpleNamespace(status=start['status'], body=body['body'],
                           headers={names.get(key, key.title()): value
                                    for key, value in headers.items()})


@pytest.fixture(params=[by_wsgi, by_asgi], ids=['wsgi', 'asgi'])
def ask(request):
    return request.param


def test_heap(ask, tmp_path):
    said = ask(PREFIX + '/heap')
    assert (said.status, said.headers['Content-Type']) == (200, 'application/octet-stream')
    assert said.headers['Content-Disposition'] == 'attachment; filename="heap.pb.gz"'
    assert said.headers['Cache-Control'] == 'no-store'
    assert int(said.headers['Content-Length']) == len(said.body)
    (tmp_path / 'heap').write_bytes(said.body)
    [row] = profile.top(path=tmp_path / 'heap')
    assert (row.bytes, row.file, row.line) == (1000, '/srv/app.py', 3)


def test_growth(ask, tmp_path):
    said = ask(PREFIX + '/heap', query='seconds=0.05')
    assert said.status == 200
    (tmp_path / 'heap').write_bytes(said.body)
    [row] = profile.top(path=tmp_path / 'heap')
    assert (row.bytes, row.objects) == (1000, 0)


@pytest.mark.parametrize('query', ['seconds=x', 'seconds=-1', 'seconds=nan', 'seconds=inf',
                                   'seconds=301', 'seconds=1&seconds=2', 'seconds=', 'seconds',
                                   '&'.join('a=1' for _ in range(20))])
def test_wrong_seconds(ask, query):
    said = ask(PREFIX + '/heap', query=query)
    assert said.status == 400
    assert said.body == b'seconds must be a number from 0 to 300.\n'


def test_one_growth_at_a_time(ask):
    with web._growing:
        said = ask(PREFIX + '/heap', query='seconds=1')
        assert (said.status, said.headers['Retry-After']) == (503, '30')
        assert ask(PREFIX + '/heap').status == 200
    assert ask(PREFIX + '/heap', query='seconds=0.01').status == 200


def test_a_fork_while_a_growth_is_recorded(ask):
    """A child is no longer in its parent's request."""
    with web._growing:
        child = os.fork()
        if not child:
            os._exit(ask(PREFIX + '/heap', query='seconds=0.01').status == 200)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 1


def test_a_client_that_leaves_ends_its_growth():
    async def leave():
        scope = {'type': 'http', 'method': 'GET', 'path': PREFIX + '/heap', 'headers': [],
                 'query_string': b'seconds=200', 'root_path': ''}
        request = asyncio.ensure_future(web.asgi()(scope, None, None))
        await asyncio.sleep(0.05)
        assert web._growing.locked()
        request.cancel()
        await asyncio.gather(request, return_exceptions=True)
    asyncio.run(leave())
    assert not web._growing.locked()


def test_the_profiler_is_off(ask, library):
    library.on = False
    said = ask(PREFIX + '/heap')
    assert said.status == 409
    assert b'OBMALLOC_PROFILE=512K' in said.body
    assert b'is off' in ask(PREFIX + '/').body


@pytest.mark.parametrize('error, status', [
    (RuntimeError('it is not served'), 409), (NotImplementedError('no profiler'), 501),
    (ImportError('no library'), 501), (OSError(28, 'full'), 500)])
def test_refusals_of_the_library(ask, library, error, status):
    library.error = error
    said = ask(PREFIX + '/heap')
    assert (said.status, said.headers['Content-Type']) == (status, 'text/plain; charset=utf-8')


def test_start_is_off_unless_allowed(ask, library):
    library.on = False
    for page in 'start', 'stop':
        assert ask(f'{PREFIX}/{page}', 'POST').status == 403
    assert b'POST' not in ask(PREFIX + '/').body
    assert library.started == []


def test_start_and_stop(ask, library):
    library.on = False
    allowed = {'allow_start': True, 'interval': 4096}
    assert b'POST start' in ask(PREFIX + '/', **allowed).body
    for page in 'start', 'stop':
        said = ask(f'{PREFIX}/{page}', **allowed)
        assert (said.status, said.headers['Allow']) == (405, 'POST')
        said = ask(f'{PREFIX}/{page}', 'POST', headers=[('Sec-Fetch-Site', 'cross-site')],
                   **allowed)
        assert said.status == 403
    assert library.started == []
    for _ in range(2):
        assert ask(f'{PREFIX}/start', 'POST', headers=[('Sec-Fetch-Site', 'same-origin')],
                   **allowed).status == 200
    assert (library.started, library.on) == ([4096], True)
    assert ask(f'{PREFIX}/stop', 'POST', **allowed).status == 200
    assert not library.on
    with pytest.raises(ValueError, match='interval'):
        ask(PREFIX, interval=0)


def test_metrics(ask):
    said = ask(PREFIX + '/metrics')
    assert (said.status, said.body) == (200, b'# EOF\n')
    assert said.headers['Content-Type'] == 'text/plain; version=0.0.4; charset=utf-8'
    said = ask(PREFIX + '/metrics', headers=[('Accept', 'application/openmetrics-text;q=1,*/*')])
    assert said.headers['Content-Type'].startswith('application/openmetrics-text; version=1.0.0')


def test_methods(ask):
    for page in '', 'heap', 'flame', 'metrics':
        for method in 'POST', 'PUT', 'DELETE':
            said = ask(f'{PREFIX}/{page}', method)
            assert (said.status, said.headers['Allow']) == (405, 'GET, HEAD')
    head, get = (ask(PREFIX + '/metrics', method) for method in ('HEAD', 'GET'))
    assert (head.status, head.body) == (200, b'')
    assert head.headers == get.headers


def test_unknown_pages_are_not_repeated(ask):
    for page in '<script>', 'heap/', '../heap', 'heap%0d%0aX: y':
        said = ask(f'{PREFIX}/{page}')
        assert said.status == 404
        assert said.body == b'There is no such page; /debug/obmalloc/ lists them.\n'
        assert said.headers['X-Content-Type-Options'] == 'nosniff'


def test_flame_without_the_command(ask, monkeypatch):
    monkeypatch.setenv('PATH', '/nowhere')
    monkeypatch.setattr(sys, 'executable', '/nowhere/python')
    monkeypatch.setattr(sys, 'argv', ['/nowhere/program'])
    said = ask(PREFIX + '/flame')
    assert said.status == 501
    assert b'is not installed' in said.body


@pytest.mark.parametrize('script, status, words', [
    ('printf "<html>$1 $3" > "$4"', 200, b'<html>report --flame'),
    ('exit 3', 500, b'ended with status 3'),
    ('exec sleep 100', 500, b'took more than 0 seconds')])
def test_flame(ask, monkeypatch, tmp_path, script, status, words):
    """The command gets a file, and what it writes is the page, without rights for its scripts."""
    command = tmp_path / 'obmalloc'
    command.write_text(f'#!/bin/sh\n{script}\n')
    command.chmod(0o755)
    monkeypatch.setattr(sys, 'executable', str(tmp_path / 'python'))
    monkeypatch.setattr(web, '_FLAME_SECONDS', 0.4 if 'sleep' in script else 30)
    said = ask(PREFIX + '/flame')
    assert (said.status, words in said.body) == (status, True), said.body
    if status == 200:
        assert said.headers['Content-Type'] == 'text/html; charset=utf-8'
        assert said.headers['Content-Security-Policy'].startswith('sandbox allow-scripts; default')


def test_flame_of_a_growth(ask, monkeypatch, tmp_path):
    """Two profiles, for `obmalloc diff`."""
    command = tmp_path / 'obmalloc'
    command.write_text('#!/bin/sh\ntest -s "$2" && test -s "$3" && echo "$1 $4" > "$5"\n')
    command.chmod(0o755)
    monkeypatch.setattr(sys, 'executable', str(tmp_path / 'python'))
    assert ask(PREFIX + '/flame', query='seconds=0.01').body == b'diff --flame\n'


# ---- mounting ----

def other_wsgi(environ, start_response):
    start_response('200 OK', [('Content-Type', 'text/plain')])
    return [b'the other one']


async def other_asgi(scope, receive, send):
    await send({'type': 'http.response.start', 'status': 200, 'headers': []})
    await send({'type': 'http.response.body', 'body': b'the other one'})


def test_in_front_of_an_application(ask):
    other = other_wsgi if ask is by_wsgi else other_asgi
    for path in '/', '/heap', '/debug', '/debug/obmallocs', '/debug/obmalloc.txt':
        assert ask(path, application=other).body == b'the other one'
    for path in PREFIX, PREFIX + '/':
        assert b'The profiler of process' in ask(path, application=other).body
    assert ask(PREFIX + '/none', application=other).status == 404


def test_mounted(ask):
    """WSGI servers cut the mount point off; ASGI servers do so, or name it."""
    assert ask('/heap').status == 200
    assert ask('/').status == ask('').status == 200
    for root in '/ops', PREFIX:
        for path in '/heap', root + '/heap', root:
            assert by_asgi(path, root=root).status == 200
    assert by_asgi('/api' + PREFIX + '/heap', root='/api', application=other_asgi).status == 200
    assert by_asgi('/api/heap', root='/api', application=other_asgi).body == b'the other one'


def test_other_events_of_asgi():
    """Served alone, it takes part in the lifespan and closes websockets; an application in front
    of which it is gets them."""
    async def run(application, kind, *events):
        received, sent = list(events), []

        async def receive():
            return {'type': received.pop(0)}

        async def send(message):
            sent.append(message['type'])

        await application({'type': kind}, receive, send)
        return sent
    assert asyncio.run(run(web.asgi(), 'lifespan', 'lifespan.startup', 'lifespan.shutdown')) == [
        'lifespan.startup.complete', 'lifespan.shutdown.complete']
    assert asyncio.run(run(web.asgi(), 'websocket', 'websocket.connect')) == ['websocket.close']
    assert len(asyncio.run(run(web.asgi(other_asgi), 'websocket'))) == 2
    with pytest.raises(ValueError, match='is not served'):
        asyncio.run(run(web.asgi(), 'gopher'))


def test_no_thread(ask):
    """Not by a mount, nor by a request."""
    before = threading.active_count()
    for page in '', 'heap', 'metrics', 'none':
        ask(f'{PREFIX}/{page}')
    ask(f'{PREFIX}/heap', query='seconds=0.01')
    assert threading.active_count() == before


def test_flask(library):
    flask = pytest.importorskip('flask')
    from werkzeug.middleware.dispatcher import DispatcherMiddleware
    app = flask.Flask('app')
    app.wsgi_app = DispatcherMiddleware(app.wsgi_app, {PREFIX: web.wsgi()})
    client = app.test_client()
    assert client.get(PREFIX + '/heap').status_code == 200
    assert client.get(PREFIX + '/none').status_code == 404
    assert client.post(PREFIX + '/heap').headers['Allow'] == 'GET, HEAD'


def test_starlette(library):
    pytest.importorskip('starlette')
    pytest.importorskip('httpx')
    from starlette.applications import Starlette
    from starlette.testclient import TestClient
    app = Starlette()
    app.mount(PREFIX, web.asgi())
    with TestClient(app) as client:
        assert client.get(PREFIX + '/heap').status_code == 200
        assert client.get(PREFIX + '/heap?seconds=0.01').status_code == 200
        assert client.get(PREFIX + '/none').status_code == 404
