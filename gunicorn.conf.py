"""How production serves. gunicorn reads this file from the directory that it is started in.

Nothing of the project or of Flask is imported here: gunicorn's master runs this file before gevent patches its workers,
and modules that are imported earlier stay unpatched.
"""

import contextlib
import gc
import logging
import os
import resource
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import MutableMapping
from datetime import UTC, datetime, timedelta
from typing import Any

import gevent
import orjson
from gevent.server import StreamServer
from gunicorn import glogging, util
from gunicorn.workers import ggevent

SEND_SECONDS = 60.0  # for a client to take a part of a response, or to send the next part of a body
IDLE_SECONDS = 1.0  # idle time before shutdown closes a connection


class Worker(ggevent.GeventWorker):
    """gevent's worker with four changes.

    * Shutdown closes idle connections. gunicorn would wait for them as for requests, until ``graceful_timeout``.
    * A client that stops reading in the middle of a response loses its connection, which frees the database's.
    * After each request, other clients are served before the next request of the same client.
    * One sweep a second closes idle connections, instead of a timer for each request. The headers are sent together
      with the start of the body, instead of in a packet of their own.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.idle_since: dict[Any, float] = {}  # by connection, on the monotonic clock; inf during a request

    # The stub says None, but gunicorn returns a context manager.
    def timeout_ctx(self) -> contextlib.AbstractContextManager[None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Return no timer: notify() closes idle connections."""
        return contextlib.nullcontext()

    def handle(self, listener: Any, client: Any, addr: Any) -> None:
        """Serve a connection."""
        self.idle_since[client] = time.monotonic()
        try:
            # gunicorn asks the listener for its address, which a closed one does not know. The client has the same.
            super().handle(client, client, addr)
        finally:
            del self.idle_since[client]

    # The stub says bool, but gunicorn returns None.
    def handle_request(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, listener_name: Any, req: Any, sock: Any, addr: Any
    ) -> None:
        """Serve a request, the headers of which have been read."""
        self.idle_since[sock] = float('inf')
        sock.settimeout(SEND_SECONDS)
        buffered: Any = BufferedHeaders(sock)  # in place of a socket
        try:
            super().handle_request(listener_name, req, buffered, addr)
        finally:
            buffered.flush()
            sock.settimeout(None)
            self.idle_since[sock] = time.monotonic()
        gevent.sleep(0)  # without it, p99 under load is 87 ms instead of 17

    def notify(self) -> None:
        """Report to the master, once a second, that this worker is alive, and close idle connections."""
        super().notify()
        limit = self.cfg.keepalive if self.alive else IDLE_SECONDS
        for client, since in list(self.idle_since.items()):
            if time.monotonic() - since >= limit:
                # The reader finds the end of the stream after what has been received, so that a request that has just
                # arrived is still served. On the connection's own socket gevent would raise an error in the reader.
                with contextlib.suppress(OSError), socket.fromfd(client.fileno(), client.family, client.type) as twin:
                    twin.shutdown(socket.SHUT_RD)


class Server(StreamServer):
    """gevent's server, except that it drains the accept queue before closing."""

    def close(self) -> None:
        """Accept the connections in the kernel's queue, which closing would reset, and then stop listening."""
        with contextlib.suppress(OSError):
            while not self.closed and (accepted := self.do_read()):
                self.do_handle(*accepted)
        super().close()


# gunicorn has no setting for it. test_server.py fails if the worker does not use it. The stub lacks the name.
ggevent.StreamServer = Server  # pyright: ignore[reportAttributeAccessIssue]


class BufferedHeaders:
    """A client's socket that sends the headers of a response, which come first, together with the start of its body.

    :param sock: the socket.
    """

    def __init__(self, sock: Any) -> None:
        self._sock = sock
        self._headers: bytes | None = None  # b'' when they have been sent

    def sendall(self, data: bytes) -> None:
        """Send ``data``, or keep it if it is the headers."""
        if self._headers is None:
            self._headers = data
            return
        headers, self._headers = self._headers, b''
        self._sock.sendall(headers + data)

    def flush(self) -> None:
        """Send the headers if no body has followed."""
        if self._headers:
            self.sendall(b'')

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)


worker_class = Worker  # one process serves thousands of slow or idle clients, each in a greenlet
workers = int(os.environ.get('WEB_CONCURRENCY') or 2)
worker_connections = 10_000
# Each connection is a file, and some systems let a process open 1,024 unless it asks for more.
_, most_files = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (most_files, most_files))
# Seconds. A worker that stops finishes its requests. The database's deadlines limit the longest, except for streams.
graceful_timeout = 10
# Longer than the proxy's (nginx: 60 s), so that the proxy closes an idle connection first, not this side while a
# request is on its way.
keepalive = 75
# The number of requests after which a worker is replaced; 0 is never.
max_requests_text = os.environ.get('MAX_REQUESTS') or '0'
if not max_requests_text.isdecimal():
    sys.exit('MAX_REQUESTS must be a whole number.')
max_requests = int(max_requests_text)
max_requests_jitter = max_requests // 10
# PROXY_HOPS says which proxies to trust, see project/headers.py. gunicorn itself has nothing to trust them with.
forwarded_allow_ips = '*'
forwarder_headers = ''
secure_scheme_headers: dict[str, str] = {}
sendfile = False  # it would overtake the buffered headers; no response is a file object
# Bytes, and header lines.
limit_request_line = 4094
limit_request_field_size = 8190
limit_request_fields = 64
# The heartbeat is a file. On a disk that stalls, it would get healthy workers killed.
worker_tmp_dir = '/dev/shm' if os.path.isdir('/dev/shm') else None  # noqa: S108, a file system rather than a file
control_socket_disable = True
loglevel = (os.environ.get('LOG_LEVEL') or 'info').lower()
accesslog = '-'


class JSONFormatter(logging.Formatter):
    """One JSON object a line: time in UTC, level, event, request id, the record's ``fields``, a traceback."""

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
        """Give gunicorn's loggers one handler; the app's logger takes it from them."""
        super().setup(cfg)
        handler = logging.StreamHandler(sys.stdout)
        handler.setFormatter(JSONFormatter())
        self.error_log.handlers = [handler]

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
            'method': req.method,
            'route': environ.get('users.route'),  # absent if gunicorn rejected the request
            'status': int(
                resp.status.split()[0]
            ),  # the response to a request that gunicorn rejected has no status_code
            'ms': round(request_time.total_seconds() * 1000, 1),
        }
        sys.stdout.buffer.write(orjson.dumps(line, option=orjson.OPT_UTC_Z | orjson.OPT_APPEND_NEWLINE))
        sys.stdout.buffer.flush()


logger_class = Logger


def write_error(sock: socket.socket, status_int: int, reason: str, mesg: str) -> None:
    """Send the JSON response to a request that gunicorn rejects; its own function of this name sends HTML."""
    body = orjson.dumps({'status': 'fail' if status_int < 500 else 'error', 'message': reason})
    any_origin = os.environ.get('CORS_ORIGINS', '*').strip() in ('', '*')
    lines = (
        f'HTTP/1.1 {status_int} {reason}',
        'Connection: close',
        'Content-Type: application/json',
        f'Content-Length: {len(body)}',
        # The headers of project/headers.py, which this response does not pass.
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
    util.write_nonblock(sock, '\r\n'.join(lines).encode('latin1') + body)


util.write_error = write_error  # gunicorn has no setting for it; test_server.py fails if the worker does not use it


def on_starting(server: Any) -> None:
    """Make the directory in which the workers add up their metrics.

    :raises SystemExit: with ``--preload``, the master has loaded the app before gevent patched anything, and the
        workers would block in what the app has already imported.
    """
    if server.cfg.preload_app and issubclass(server.worker_class, ggevent.GeventWorker):
        sys.exit('gunicorn --preload does not work with the gevent worker of this service: remove --preload.')
    if os.environ.get('METRICS') == '1':
        os.environ['PROMETHEUS_MULTIPROC_DIR'] = tempfile.mkdtemp(prefix='users-metrics-')


def post_worker_init(worker: Worker) -> None:
    """Keep the garbage collector from looking again and again at objects that stay."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


def child_exit(server: Any, worker: Any) -> None:
    """Remove the gauges of a worker that has ended; its counters stay."""
    if os.environ.get('METRICS') == '1':
        from prometheus_client import multiprocess

        multiprocess.mark_process_dead(worker.pid)


def on_exit(server: Any) -> None:
    """Remove the metrics directory."""
    if os.environ.get('METRICS') == '1':
        shutil.rmtree(os.environ['PROMETHEUS_MULTIPROC_DIR'], ignore_errors=True)
