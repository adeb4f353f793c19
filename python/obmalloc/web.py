"""Pages about this process's memory, for a server that runs already, by WSGI and by ASGI:

    application = obmalloc.web.wsgi(application)        # in front of an application
    app.mount('/debug/obmalloc', obmalloc.web.asgi())   # or mounted by a framework

The pages, which _LIST has, show names of functions and files: keep them from the public. No thread
is started, and the profiler only by a POST to a page that allow_start=True switches on.
"""
import errno
import math
import os
import shutil
import subprocess
import threading
import time
from typing import Any, Awaitable, Callable, Generator, Iterable, List, Optional, Tuple
from urllib.parse import parse_qs

from obmalloc import _pprof, _prometheus, profile

__all__ = ['asgi', 'wsgi']

_PREFIX = '/debug/obmalloc'
_LIST = """\
GET  heap                the heap profile, for `obmalloc report` and `go tool pprof`
GET  heap?seconds=30     what has grown within 30 seconds
GET  flame               a flame graph
GET  flame?seconds=30    a flame graph of what has grown within 30 seconds
GET  metrics             the statistics, for Prometheus
"""
_LIST_OF_POSTS = """\
POST start               starts the profiler
POST stop                stops it
"""
_MOST_SECONDS = 300
_FLAME_SECONDS = 30         # for the command
_TEXT = 'text/plain; charset=utf-8'
_STATUS = {200: 'OK', 400: 'Bad Request', 403: 'Forbidden', 404: 'Not Found',
           405: 'Method Not Allowed', 409: 'Conflict', 500: 'Internal Server Error',
           501: 'Not Implemented', 503: 'Service Unavailable'}
# The flame graph has a script of its own, and names of functions: it gets no right beyond.
_SANDBOX = ("sandbox allow-scripts; default-src 'none'; style-src 'unsafe-inline'; "
            "script-src 'unsafe-inline'; img-src data:")
_growing = threading.Lock()     # one request for a growth at a time


def _forked() -> None:
    """A child has no request, but may have its parent's lock."""
    global _growing
    _growing = threading.Lock()


os.register_at_fork(after_in_child=_forked)

_Headers = List[Tuple[str, str]]
# Yields the seconds to wait, and returns status, headers and body.
_Answer = Generator[float, None, Tuple[int, _Headers, bytes]]


class _Refusal(Exception):
    """Another status than 200, with a text for a person."""

    def __init__(self, status: int, text: str, *headers: Tuple[str, str]) -> None:
        super().__init__(text)
        self.status = status
        self.headers = list(headers)


class _Request:
    """What the pages depend on."""

    def __init__(self, method: str, page: str, query: str, accept: str, site: str) -> None:
        self.method = method
        self.page = page
        self.query = query
        self.accept = accept
        self.site = site        # Sec-Fetch-Site


class _Pages:
    """The pages, for both kinds of servers."""

    def __init__(self, allow_start: bool, interval: Optional[int]) -> None:
        if interval is not None and interval < 1:
            raise ValueError('interval must be at least 1')
        self.allow_start = allow_start
        self.interval = interval
        self.pages = {
            '': ('GET', self.index), 'heap': ('GET', self.heap), 'flame': ('GET', self.flame),
            'metrics': ('GET', self.metrics), 'start': ('POST', self.start),
            'stop': ('POST', self.stop),
        }   # type: Any

    def answer(self, request: _Request) -> _Answer:
        try:
            if request.page not in self.pages:
                raise _Refusal(404, 'There is no such page; %s/ lists them.' % _PREFIX)
            method, page = self.pages[request.page]
            allowed = (method, 'HEAD') if method == 'GET' else (method,)
            if request.method not in allowed:
                raise _Refusal(405, 'This page takes %s.' % method, ('Allow', ', '.join(allowed)))
            headers, body = yield from page(request)
            status = 200
        except _Refusal as error:
            status, body = error.status, ('%s\n' % error).encode()
            headers = [('Content-Type', _TEXT), *error.headers]
        headers += [('Content-Length', str(len(body))), ('Cache-Control', 'no-store'),
                    ('X-Content-Type-Options', 'nosniff')]
        return status, headers, b'' if request.method == 'HEAD' else body

    # ---- the pages: each returns headers and body ----

    def index(self, request: _Request) -> Generator[float, None, Tuple[_Headers, bytes]]:
        yield from ()
        state = 'runs' if _is_running() else 'is off'
        return _text('The profiler of process %d %s.\n\n%s' % (
            os.getpid(), state, _LIST + (_LIST_OF_POSTS if self.allow_start else '')))

    def heap(self, request: _Request) -> Generator[float, None, Tuple[_Headers, bytes]]:
        with _folder() as folder:
            paths = yield from self.recorded(request, folder)
            if len(paths) == 2:
                body = _pprof.growth(*map(_pprof.Profile, paths))
            else:
                with open(paths[0], 'rb') as file:
                    body = file.read()
        return [('Content-Type', 'application/octet-stream'),
                ('Content-Disposition', 'attachment; filename="heap.pb.gz"')], body

    def flame(self, request: _Request) -> Generator[float, None, Tuple[_Headers, bytes]]:
        command = _command()
        with _folder() as folder:
            paths = yield from self.recorded(request, folder)
            made = os.path.join(folder, 'flame.html')
            yield from _run([command, 'diff' if len(paths) == 2 else 'report', *paths, '--flame',
                             made])
            with open(made, 'rb') as file:
                body = file.read()
        return [('Content-Type', 'text/html; charset=utf-8'),
                ('Content-Security-Policy', _SANDBOX)], body

    def metrics(self, request: _Request) -> Generator[float, None, Tuple[_Headers, bytes]]:
        yield from ()
        kind = ('application/openmetrics-text; version=1.0.0; charset=utf-8'
                if 'application/openmetrics-text' in request.accept
                else 'text/plain; version=0.0.4; charset=utf-8')
        try:
            body = _prometheus.prometheus().encode()
        except ImportError as error:
            raise _Refusal(501, str(error)) from error
        return [('Content-Type', kind)], body

    def start(self, request: _Request) -> Generator[float, None, Tuple[_Headers, bytes]]:
        self.check_start(request)
        yield from ()
        if not _is_running():
            _library_call(profile.start, self.interval)
        return _text('The profiler of process %d runs.\n' % os.getpid())

    def stop(self, request: _Request) -> Generator[float, None, Tuple[_Headers, bytes]]:
        self.check_start(request)
        yield from ()
        if _is_running():
            _library_call(profile.stop)
        return _text('The profiler of process %d is off.\n' % os.getpid())

    def check_start(self, request: _Request) -> None:
        if not self.allow_start:
            raise _Refusal(403, 'This page is off; allow_start=True in the program switches it on.')
        if request.site not in ('', 'none', 'same-origin'):
            raise _Refusal(403, "Pages of other sites cannot change the profiler.")

    def recorded(self, request: _Request, folder: str) -> Generator[float, None, List[str]]:
        """A file with the profile; with seconds in the query one of before and one of after them."""
        seconds = _seconds(request.query)
        paths = [os.path.join(folder, name) for name in ('before.pb.gz', 'heap.pb.gz')]
        if not seconds or request.method == 'HEAD':
            _library_call(profile.dump, paths[1])
            return paths[1:]
        lock = _growing         # another one after a fork
        if not lock.acquire(False):
            raise _Refusal(503, 'Another request waits for its seconds.', ('Retry-After', '30'))
        try:
            _library_call(profile.dump, paths[0])
            yield seconds
            _library_call(profile.dump, paths[1])
        finally:
            lock.release()
        return paths


_folder = profile._folder


def _text(text: str) -> Tuple[_Headers, bytes]:
    return [('Content-Type', _TEXT)], text.encode()


def _is_running() -> bool:
    try:
        return profile.is_running()
    except (ImportError, NotImplementedError):
        return False


def _seconds(query: str) -> float:
    """The seconds of a query; 0 without any."""
    try:
        [text] = parse_qs(query, keep_blank_values=True, strict_parsing=bool(query),
                          max_num_fields=10).get('seconds', ['0'])
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds <= _MOST_SECONDS:
        raise _Refusal(400, 'seconds must be a number from 0 to %d.' % _MOST_SECONDS)
    return seconds


def _library_call(function: Any, *arguments: Any) -> None:
    """A call of the library; its refusal is an answer of the server."""
    try:
        function(*arguments)
    except (ImportError, NotImplementedError) as error:
        raise _Refusal(501, str(error)) from error
    except RuntimeError as error:           # not served
        raise _Refusal(409, str(error)) from error
    except OSError as error:
        if error.errno == errno.ENODATA:
            raise _Refusal(409, 'The profiler has not run. OBMALLOC_PROFILE=512K in the '
                           'environment starts it with the process, obmalloc.profile.start() '
                           'later.') from error
        raise _Refusal(500, 'No profile: %s.' % os.strerror(error.errno or 0)) from error


def _command() -> str:
    from obmalloc import __main__
    path = str(__main__._command())
    if not os.path.isabs(path):
        path = shutil.which(path) or ''
    if not path:
        raise _Refusal(501, 'The command obmalloc, which draws flame graphs, is not installed '
                       'here. Fetch %s/heap instead, and use: obmalloc report heap.pb.gz --flame '
                       'flame.html' % _PREFIX)
    return path


def _run(argv: List[str]) -> Generator[float, None, None]:
    """Runs the command without a thread: its end is waited for in short sleeps."""
    # Its own process must not be profiled.
    env = {key: value for key, value in os.environ.items()
           if key != 'LD_PRELOAD' and not key.startswith('OBMALLOC_')}
    try:
        child = subprocess.Popen(argv, env=env, stdin=subprocess.DEVNULL,
                                 stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    except OSError as error:
        raise _Refusal(501, 'The command obmalloc cannot be started: %s.'
                       % os.strerror(error.errno or 0)) from error
    try:
        until = time.monotonic() + _FLAME_SECONDS
        while child.poll() is None:
            if time.monotonic() > until:
                raise _Refusal(500, 'The flame graph took more than %d seconds.' % _FLAME_SECONDS)
            yield 0.01
    finally:
        if child.poll() is None:
            child.kill()
            child.wait()
    if child.returncode:
        raise _Refusal(500, 'The command obmalloc ended with status %d.' % child.returncode)


def _page(path: str, root: str, mounted: bool) -> Optional[str]:
    """The page that a path means; None if it is the other application's.

    Servers differ in whether the path begins with the mount point `root`."""
    if root and (path == root or path.startswith(root + '/')):
        path = path[len(root):]
    if path == _PREFIX or path.startswith(_PREFIX + '/'):
        return path[len(_PREFIX) + 1:]
    return path.lstrip('/') if mounted else None


def wsgi(application: Optional[Callable[..., Iterable[bytes]]] = None, *,
         allow_start: bool = False, interval: Optional[int] = None) \
        -> Callable[..., Iterable[bytes]]:
    """A WSGI application with the pages. With an application, requests for other paths are that
    one's; without, it is to be mounted, at any path, or to be served alone.

    A request with `seconds` takes up the thread, or the process, of its worker for them."""
    pages = _Pages(allow_start, interval)

    def respond(environ: Any, start_response: Any) -> Iterable[bytes]:
        page = _page(environ.get('PATH_INFO', ''), '', application is None)
        if page is None:
            assert application is not None
            return application(environ, start_response)
        answer = pages.answer(_Request(
            environ['REQUEST_METHOD'], page, environ.get('QUERY_STRING', ''),
            environ.get('HTTP_ACCEPT', ''), environ.get('HTTP_SEC_FETCH_SITE', '')))
        try:
            while True:
                time.sleep(next(answer))
        except StopIteration as done:
            status, headers, body = done.value
        finally:
            answer.close()
        start_response('%d %s' % (status, _STATUS[status]), headers)
        return [body]

    return respond


def asgi(application: Optional[Callable[..., Awaitable[None]]] = None, *,
         allow_start: bool = False, interval: Optional[int] = None) \
        -> Callable[..., Awaitable[None]]:
    """An ASGI application with the pages. With an application, requests for other paths, websockets
    and the lifespan are that one's; without, it is to be mounted, at any path, or to be served
    alone. The event loop runs on while a request waits for its `seconds`."""
    import asyncio
    pages = _Pages(allow_start, interval)

    async def respond(scope: Any, receive: Any, send: Any) -> None:
        page = None
        if scope['type'] == 'http':
            page = _page(scope['path'], scope.get('root_path', ''), application is None)
        if page is None:
            if application is not None:
                await application(scope, receive, send)
            elif scope['type'] == 'lifespan':
                for event in 'startup', 'shutdown':
                    await receive()
                    await send({'type': 'lifespan.%s.complete' % event})
            elif scope['type'] == 'websocket':
                await receive()
                await send({'type': 'websocket.close', 'code': 1000})
            else:
                raise ValueError('scope type %r is not served' % scope['type'])
            return
        found = {name.lower(): value.decode('latin-1') for name, value in scope['headers']}
        answer = pages.answer(_Request(
            scope['method'], page, scope.get('query_string', b'').decode('latin-1'),
            found.get(b'accept', ''), found.get(b'sec-fetch-site', '')))
        try:
            while True:
                await asyncio.sleep(next(answer))
        except StopIteration as done:
            status, headers, body = done.value
        finally:
            answer.close()
        await send({'type': 'http.response.start', 'status': status,
                    'headers': [(name.lower().encode(), value.encode())
                                for name, value in headers]})
        await send({'type': 'http.response.body', 'body': body})

    return respond
