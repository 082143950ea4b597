"""gunicorn's configuration for production. gunicorn reads this file from the directory in which it is started.

This file imports no module of the project or of Flask: gunicorn's master runs it before gevent patches the workers, and
modules that are imported earlier stay unpatched.
"""

import sys

if sys.version_info < (3, 11):  # before the imports, which need it
    sys.exit('The users service needs Python 3.11 or later; this is %d.%d.' % sys.version_info[:2])

import contextlib
import functools
import gc
import logging
import os
import re
import resource
import shutil
import socket
import subprocess
import tempfile
import time
import traceback
from collections.abc import MutableMapping
from datetime import UTC, datetime, timedelta
from math import inf
from typing import Any

import gevent
import orjson
from gevent.server import StreamServer
from gunicorn import glogging, util
from gunicorn.http import errors as http_errors
from gunicorn.http import wsgi
from gunicorn.http.body import ChunkedReader, LengthReader
from gunicorn.workers import ggevent

HEAD_SECONDS = 10.0  # for the request line and the headers of a request
BODY_SECONDS = 30.0  # for the body, from the end of its headers
SEND_SECONDS = 60.0  # for a client to receive a part of a response
IDLE_SECONDS = 1.0  # idle time before shutdown closes a connection
# Limits on CPU: no request within them costs more than 20 ms (heavy/attack_costs.py). Lists in a header and chunks of
# one byte cost the most.
HEAD_BYTES = 16 * 1024
# 64 KiB, as MAX_CONTENT_LENGTH in project/config.py, and the framing of chunks, unless they are tiny.
BODY_BYTES = 68 * 1024
LINE_BYTES = 8  # bytes that each line end of a chunked body counts as; every chunk has two line ends
# Bytes of an unread body that are discarded to keep the connection, and again before it is closed.
DRAIN_BYTES = 32 * 1024
RECEIVE_BYTES = 8 * 1024  # at once
SEND_BUFFER_BYTES = 256 * 1024  # of each socket; without it, the kernel may buffer 4 MiB for a slow client
ABSOLUTE = re.compile('[a-z][a-z0-9+.-]*://([^/?#]*)', re.IGNORECASE)  # a URI with an authority (RFC 3986 section 3)


class Connection:
    """A client's socket as gunicorn sees it, which limits what a client may send, and how long it may take.

    * The headers of a request, and its body, each have a deadline and a limit in bytes.
    * ``100 Continue`` is sent when the body is read, so not if the response is 401 or 413.
    * The headers of a response are sent together with the start of its body, instead of in a packet of their own.
    * Closing the connection while the client is still sending would reset it, and the client would lose the response.
      So this class first ends its own direction, and discards a limited part of the rest.

    :param sock: the socket.
    """

    def __init__(self, sock: Any) -> None:
        self._sock = sock
        self._headers: bytes | None = b''  # of a response: None before they are complete, b'' when they have been sent
        self._continue: bytes | None = None  # the response 100 Continue, until it is sent
        self._left = HEAD_BYTES  # how many bytes the client may still send of this part of a request
        self._in_body = self._is_chunked = False
        self._ended = False
        self._receiving = False
        self._idle_since = time.monotonic()  # inf from the end of the headers to the end of the response
        self._deadline = self._idle_since + HEAD_SECONDS
        self._between_requests = False
        self.settimeout = sock.settimeout
        self.gettimeout = sock.gettimeout

    def begin_request(self, is_chunked: bool) -> None:
        """Start the limits of a body, when the headers of a request have been received.

        :param is_chunked: whether the body is chunked.
        """
        self._headers = None
        self._in_body, self._is_chunked, self._left = True, is_chunked, BODY_BYTES
        self._idle_since = inf
        self._deadline = time.monotonic() + BODY_SECONDS
        self._sock.settimeout(SEND_SECONDS)

    def end_response(self) -> None:
        """Send the headers of the response if it has no body. From now on, the rest of the request is discarded."""
        if self._headers:
            self._sock.sendall(self._headers)
        self._headers, self._continue = b'', None
        self._left = min(self._left, DRAIN_BYTES)

    def begin_idle(self, started: bool) -> None:
        """Wait for the next request.

        :param started: whether the first bytes of its headers have been received.
        """
        self._sock.settimeout(None)
        self._in_body, self._is_chunked, self._left = False, False, HEAD_BYTES
        self._between_requests = not started
        self._idle_since = time.monotonic()
        self._deadline = self._idle_since + (HEAD_SECONDS if started else keepalive)

    def recv(self, size: int) -> bytes:
        """Return bytes that the client has sent; none if it has ended its stream or exceeded a deadline.

        :param size: bytes.
        :raises LimitRequestHeaders: the headers are too large.
        :raises RequestEntityTooLarge: the body is too large, with the framing of its chunks.
        """
        if self._ended or time.monotonic() >= self._deadline:
            self._ended = True  # otherwise the rest of a body that came too late would be read as the next request
            return b''
        if self._continue:
            self._sock.sendall(self._continue)
            self._continue = None
        self._receiving = True
        data = self._sock.recv(min(size, RECEIVE_BYTES))
        self._receiving = False
        self._ended = not data
        self._left -= len(data)
        if self._is_chunked:
            self._left -= LINE_BYTES * data.count(b'\r\n')
        if self._between_requests and data:
            self._between_requests = False
            self._deadline = time.monotonic() + HEAD_SECONDS
        if self._left < 0:
            if not self._in_body:
                raise http_errors.LimitRequestHeaders('the headers are too large')
            from werkzeug.exceptions import RequestEntityTooLarge  # not at the top: see the start of this file

            raise RequestEntityTooLarge
        return data

    def send(self, data: bytes) -> None:
        """Keep ``100 Continue`` until the body is read. gunicorn uses this method for nothing else."""
        self._continue = data

    def sendall(self, data: bytes) -> None:
        """Send ``data``. Keep the headers of a response until its body is sent."""
        if self._headers is None:
            self._headers = data
            return
        data, self._headers = self._headers + data, b''
        # gevent's sendall() first reads the size of the kernel's buffer, which takes 2 % of a request.
        if (sent := self._sock.send(data)) < len(data):
            self._sock.sendall(memoryview(data)[sent:])

    def close(self) -> None:
        """Close it."""
        if self._between_requests or self._ended:
            self._sock.close()
        else:
            util.close_graceful(self._sock, max_drain=DRAIN_BYTES)

    def end_late(self, now: float, stopping: bool) -> None:
        """End the client's stream if it is late, or if the worker is stopping and the connection is idle."""
        if self._receiving and (now >= self._deadline or (stopping and now >= self._idle_since + IDLE_SECONDS)):
            # The reader finds the end of the stream after what has been received, so that a request that has just
            # arrived is still served. On the connection's own socket gevent would raise an error in the reader.
            sock = self._sock
            with contextlib.suppress(OSError), socket.fromfd(sock.fileno(), sock.family, sock.type) as twin:
                twin.shutdown(socket.SHUT_RD)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)


INTERNAL_ERROR = (500, 'Internal Server Error')
# The responses to requests that gunicorn rejects, by exception. The first match counts; without one it is 500.
REJECTIONS = {
    # The stub lacks these two.
    http_errors.InvalidResponseHeader: INTERNAL_ERROR,  # pyright: ignore[reportAttributeAccessIssue]
    http_errors.InvalidResponseHeaderName: INTERNAL_ERROR,  # pyright: ignore[reportAttributeAccessIssue]
    http_errors.ConfigurationProblem: (404, 'Not Found'),  # the path is outside of SCRIPT_NAME
    http_errors.LimitRequestLine: (414, 'URI Too Long'),
    http_errors.ExpectationFailed: (417, 'Expectation Failed'),
    http_errors.LimitRequestHeaders: (431, 'Request Header Fields Too Large'),
    http_errors.UnsupportedTransferCoding: (501, 'Not Implemented'),
    http_errors.ParseException: (400, 'Bad Request'),
}


class CachedSettings:
    """The settings of gunicorn, each computed once. Otherwise they take 10 % of the CPU of ``/ping``.

    :param settings: gunicorn's own object, whose attributes this one has.
    """

    def __init__(self, settings: Any) -> None:
        self._settings = settings

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._settings, name)
        setattr(self, name, value)  # from now on, this method is not called for it
        return value


class Worker(ggevent.GeventWorker):
    """gevent's worker with these changes.

    * Each client's socket is a :class:`Connection`, with limits. Once a second, the worker closes connections that are
      past their deadline, instead of using a timer for each request.
    * The part of a body that a view has not read is discarded up to a limit. gunicorn would discard it without limit,
      and without serving other clients.
    * Shutdown closes idle connections. gunicorn would wait for them as for requests, until ``graceful_timeout``.
    * After each request, other clients are served before the next request of the same client.
    * Requests that gunicorn rejects get a JSON response, and a log line without their content.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.cfg: Any = CachedSettings(self.cfg)
        self.connections: set[Connection] = set()

    # The stub says None, but gunicorn returns a context manager.
    def timeout_ctx(self) -> contextlib.AbstractContextManager[None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Return no timer: notify() closes idle connections."""
        return contextlib.nullcontext()

    def handle(self, listener: Any, client: Any, addr: Any) -> None:
        """Serve a connection."""
        connection: Any = Connection(client)  # in place of a socket
        self.connections.add(connection)
        try:
            # gunicorn reads the address from the listener, and a closed one has none. The client's socket has it too.
            super().handle(connection, connection, addr)
        finally:
            self.connections.discard(connection)

    # The stub says bool, but gunicorn returns None.
    def handle_request(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, listener_name: Any, req: Any, sock: Any, addr: Any
    ) -> None:
        """Serve a request whose headers have been received.

        :raises StopIteration: the connection is to be closed.
        """
        sock.begin_request(isinstance(req.body.reader, ChunkedReader))
        req.version = min(req.version, (1, 1))  # the response to HTTP/1.9 is HTTP/1.1
        if not req.uri.startswith('/'):
            prefer_target_host(req)
        closing = False
        try:
            super().handle_request(listener_name, req, sock, addr)
        except StopIteration:
            closing = True
        finally:
            sock.end_response()
        if not drain(req.body) or closing:
            raise StopIteration
        gevent.sleep(0)  # without it, p99 under load is 87 ms instead of 17
        received = req.unreader.take_buffered()
        req.unreader.unread(received)
        sock.begin_idle(started=bool(received))

    def handle_error(self, req: Any, client: Any, addr: Any, exc: BaseException) -> None:
        """Respond to a request that gunicorn rejects, and log it without data from the client."""
        status, reason = next((found for kind, found in REJECTIONS.items() if isinstance(exc, kind)), INTERNAL_ERROR)
        if status != 500:
            fields = {'error': type(exc).__name__, 'status': status}
            self.log.warning('request_rejected', extra={'fields': fields})
        else:
            self.log.exception('exception')
        with contextlib.suppress(OSError):
            util.write_nonblock(client, error_response(status, reason))

    def notify(self) -> None:
        """Report to the master, once a second, that this worker is alive; close connections past their deadline."""
        super().notify()
        now = time.monotonic()
        for connection in list(self.connections):
            connection.end_late(now, stopping=not self.alive)


def prefer_target_host(req: Any) -> None:
    """Replace the Host header by the authority of the request target (RFC 9112 section 3.2.2).

    :param req: gunicorn's request. Targets that are not in absolute form have no authority.
    """
    others = [header for header in req.headers if header[0] != 'HOST']
    if (target := ABSOLUTE.match(req.uri)) and (len(others) < len(req.headers) or req.version < (1, 1)):
        req.headers = [*others, ('HOST', target[1])]


def drain(body: Any) -> bool:
    """Discard the unread part of a body; return whether the next request can be read after it."""
    if isinstance(body.reader, LengthReader) and not body.reader.length:
        return True  # most requests: they have no body, or it has been read
    with contextlib.suppress(Exception):  # gunicorn's for malformed chunks, those of Connection.recv, OSError
        while body.read(RECEIVE_BYTES):
            gevent.sleep(0)  # other clients are served meanwhile
        return True
    return False


class Server(StreamServer):
    """gevent's server, except that it drains the accept queue before closing."""

    def close(self) -> None:
        """Accept the connections in the kernel's queue, which would be reset otherwise, and then stop listening."""
        with contextlib.suppress(OSError):
            while not self.closed and (accepted := self.do_read()):
                self.do_handle(*accepted)
        super().close()


@functools.lru_cache(1)
def date_of(second: int) -> str:
    """Return the ``Date`` header for a second, counted since the epoch."""
    return http_date(second)


# Replaced parts of gunicorn that have no setting. tests/heavy/served.py fails if gunicorn stops using one of them.
# The stub lacks the names.
ggevent.StreamServer = Server  # pyright: ignore[reportAttributeAccessIssue]
# Formatting the date and making an error stream for each request would take 10 % of the CPU of /ping.
http_date = util.http_date
util.http_date = lambda timestamp=None: date_of(int(time.time() if timestamp is None else timestamp))
wsgi.WSGIErrorsWrapper = functools.cache(wsgi.WSGIErrorsWrapper)


def variable(name: str, default: str) -> str:
    """Return an environment variable without white space around it; the default if it is missing or blank."""
    return os.environ.get(name, '').strip() or default


def number(name: str, default: str) -> int:
    """Return the number in an environment variable. :func:`on_starting` checks its limits.

    :raises SystemExit: it is not a number.
    """
    text = variable(name, default)
    if not (text.isascii() and text.isdecimal()):
        sys.exit(f'{name} must be a whole number, such as {default}.')
    return int(text)


worker_class = Worker  # one process serves thousands of slow or idle clients, each in a greenlet
workers = number('WEB_CONCURRENCY', '2')
worker_connections = 10_000
# Each connection is an open file, and some systems limit a process to 1,024 of them unless it raises its limit.
_, most_files = resource.getrlimit(resource.RLIMIT_NOFILE)
if most_files == resource.RLIM_INFINITY:
    most_files = 10_240  # macOS rejects more (OPEN_MAX), and has no other limit by default
resource.setrlimit(resource.RLIMIT_NOFILE, (most_files, most_files))
# Seconds. A worker that stops finishes its requests. The database's deadlines limit the longest, except for streams.
graceful_timeout = 10
# Seconds. Longer than the proxy's (nginx: 60 s), so that the proxy closes an idle connection first. This server could
# close it while the proxy is sending a request.
keepalive = 75
# The number of requests after which a worker is replaced; 0 is never.
max_requests = number('MAX_REQUESTS', '0')
max_requests_jitter = max_requests // 10
if 'SCRIPT_NAME' in os.environ:
    os.environ['SCRIPT_NAME'] = variable('SCRIPT_NAME', '')  # which gunicorn reads for each request
# PROXY_HOPS says which proxies to trust, see project/headers.py. gunicorn itself trusts no header of a proxy.
forwarded_allow_ips = '*'
forwarder_headers = ''
secure_scheme_headers: dict[str, str] = {}
sendfile = False  # sendfile() would send before the buffered headers; no response is a file object
# Bytes, and header lines.
limit_request_line = 4094
limit_request_field_size = 8190
limit_request_fields = 64
# The heartbeat is a file. If it were on a disk that stalls, gunicorn would kill healthy workers. mkstemp() makes it, so
# no other user can choose its name.
worker_tmp_dir = '/dev/shm' if os.path.isdir('/dev/shm') else None  # noqa: S108  # nosec B108
control_socket_disable = True
loglevel = variable('LOG_LEVEL', 'info').lower()
with_metrics = variable('METRICS', '0') == '1'
accesslog = '-'


# The methods that are logged. Any other one is text from the client.
METHODS = {'GET', 'HEAD', 'POST', 'PATCH', 'DELETE', 'OPTIONS', 'PUT', 'TRACE', 'CONNECT'}


class JSONFormatter(logging.Formatter):
    """One JSON object a line: time in UTC, level, event, request id, the record's ``fields``, a traceback."""

    def formatException(self, ei: Any) -> str:  # noqa: N802, the name is logging's
        """Return a traceback without the messages of its exceptions.

        They may contain what a client sent: PostgreSQL's contain the row that violates a constraint.
        """
        lines, error = [], ei[1]
        while error is not None:
            lines[:0] = [
                *traceback.format_tb(error.__traceback__),
                f'{type(error).__module__}.{type(error).__name__}\n',
            ]
            error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
        return ''.join(lines)

    def format(self, record: logging.LogRecord) -> str:
        """Return the line for ``record``."""
        line = {'time': datetime.fromtimestamp(record.created, UTC), 'level': record.levelname.lower()}
        line |= {'event': record.getMessage(), **getattr(record, 'fields', {})}
        if record.exc_info:
            line['traceback'] = self.formatException(record.exc_info)
        return orjson.dumps(line, default=str, option=orjson.OPT_UTC_Z).decode()


class Logger(glogging.Logger):
    """gunicorn's own lines, and one for each request, as JSON on stdout."""

    def setup(self, cfg: Any) -> None:
        """Give gunicorn's loggers one handler, which the app's logger uses too."""
        super().setup(cfg)
        handler = logging.StreamHandler(sys.stdout)
        handler.setFormatter(JSONFormatter())
        self.error_log.handlers = [handler]

    def debug(self, msg: str, *args: Any, **kwargs: Any) -> None:
        """Write nothing: gunicorn's lines of this level contain what clients sent."""

    def access(self, resp: Any, req: Any, environ: MutableMapping[str, Any], request_time: timedelta) -> None:
        """Write the access-log line. It has the route, never the path or query, which may contain personal data.

        The logging package would cost 16 % of the CPU of ``/ping``.
        """
        if self.error_log.level > logging.INFO:
            return
        line = {
            'time': datetime.now(UTC),
            'level': 'info',
            'event': 'request',
            'request_id': environ.get('users.request_id'),
            'method': req.method if req.method in METHODS else 'other',
            'route': environ.get('users.route'),  # absent if gunicorn rejected the request
            'status': int(
                resp.status.split()[0]
            ),  # the response to a request that gunicorn rejected has no status_code
            'ms': round(request_time.total_seconds() * 1000, 1),
        }
        for name in ('trace_id', 'token', 'user_id'):  # the name of the token, and the id of the user that was changed
            if value := environ.get(f'users.{name}'):
                line[name] = value
        sys.stdout.buffer.write(orjson.dumps(line, option=orjson.OPT_UTC_Z | orjson.OPT_APPEND_NEWLINE))
        sys.stdout.buffer.flush()


logger_class = Logger


def error_response(status: int, reason: str) -> bytes:
    """Return the JSON response to a request that gunicorn rejects.

    :param reason: the reason phrase, which is the message, too.
    """
    body = orjson.dumps({'status': 'fail' if status < 500 else 'error', 'message': reason})
    any_origin = '*' in variable('CORS_ORIGINS', '*')
    lines = (
        f'HTTP/1.1 {status} {reason}',
        'Connection: close',
        'Content-Type: application/json',
        f'Content-Length: {len(body)}',
        # The headers of project/headers.py, which does not handle this response.
        *(['Access-Control-Allow-Origin: *'] if any_origin else []),
        'Access-Control-Expose-Headers: X-Request-ID',
        "Content-Security-Policy: default-src 'none'; frame-ancestors 'none'",
        'Cache-Control: private, no-cache',
        'Referrer-Policy: no-referrer',
        'X-Content-Type-Options: nosniff',
        'X-Frame-Options: DENY',
        f'X-Request-ID: {os.urandom(16).hex()}',
        '\r\n',
    )
    return '\r\n'.join(lines).encode('latin1') + body


# gunicorn, too, finds manage.py in the current directory.
LOAD_APP = "import sys; sys.path.insert(0, ''); import manage"


def on_starting(server: Any) -> None:
    """Check the settings, and make the directory in which the workers store their metrics.

    :raises SystemExit: a setting is wrong. A process that loads the app prints one line about it. Without this check,
        each worker would print it. Also with ``--preload``: the master has then loaded the app before gevent patched
        anything, and the workers would block in the modules that the app has imported.
    """
    if server.cfg.preload_app and issubclass(server.worker_class, ggevent.GeventWorker):
        sys.exit('gunicorn --preload does not work with the gevent worker of this service: remove --preload.')
    command = [sys.executable, '-c', LOAD_APP]
    loaded = subprocess.run(command, stdout=subprocess.DEVNULL, check=False)  # noqa: S603, with nothing from outside
    if loaded.returncode:
        sys.exit(loaded.returncode)
    if with_metrics:
        os.environ['PROMETHEUS_MULTIPROC_DIR'] = tempfile.mkdtemp(prefix='users-metrics-')


def post_worker_init(worker: Worker) -> None:
    """Limit the send buffers; exclude long-lived objects from garbage collection."""
    for listener in worker.sockets:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


def child_exit(server: Any, worker: Any) -> None:
    """Remove the gauges of a worker that has ended. Its counters stay."""
    if with_metrics:
        from prometheus_client import multiprocess

        multiprocess.mark_process_dead(worker.pid)


def on_exit(server: Any) -> None:
    """Remove the metrics directory."""
    if with_metrics:
        shutil.rmtree(os.environ['PROMETHEUS_MULTIPROC_DIR'], ignore_errors=True)
