"""How production serves. gunicorn reads this file from the directory that it is started in.

Nothing of the project or of Flask is imported here: gunicorn's master runs this before its workers are
patched by gevent, and what is imported earlier than that stays unpatched.
"""

import contextlib
import functools
import gc
import logging
import os
import resource
import shutil
import socket
import sys
import tempfile
import time
from datetime import UTC, datetime

import gevent
import orjson
from gevent.server import StreamServer
from gunicorn import glogging, util
from gunicorn.http import wsgi
from gunicorn.workers import ggevent

SEND_SECONDS = 60.0  # how long a client may take for a part of an answer, or be silent in the middle of a body
IDLE_SECONDS = 1.0  # how long a connection has no request under way before it may be closed for stopping


class Worker(ggevent.GeventWorker):
    """gevent's worker, except for four things.

    Told to stop, it does not wait for connections that have no request under way; gunicorn would wait for
    them as long as for a request: until ``graceful_timeout``. A client that stops reading in the middle of
    a long list loses it, and with it the database connection that it comes from. No client is served again
    and again while others wait. And what gunicorn does with a timer and two packets for each request is done
    by a look at all connections every second and with one.
    """

    def __init__(self, *args, **kwargs):
        """Take what gunicorn passes."""
        super().__init__(*args, **kwargs)
        self.idle = {}  # since when each connection has been without a request, on the monotonic clock

    def timeout_ctx(self):
        """No timer around the reading of a request: notify() looks after those who are silent."""
        return NO_TIMER

    def handle(self, listener, client, addr):
        """Serve a connection."""
        self.idle[client] = time.monotonic()
        try:
            # The listener is only asked for its name, which it does not know any more once it is closed.
            super().handle(client, client, addr)
        finally:
            del self.idle[client]

    def handle_request(self, listener_name, req, sock, addr):
        """Serve a request, the head of which has been read."""
        self.idle[sock] = float('inf')
        sock.settimeout(SEND_SECONDS)
        joining = Joining(sock)
        try:
            super().handle_request(listener_name, req, joining, addr)
        finally:
            joining.flush()
            sock.settimeout(None)
            self.idle[sock] = time.monotonic()
        # A client quick enough to have its next request here already would be served before all others.
        gevent.sleep(0)

    def notify(self):
        """Tell the master every second that this worker lives, and take leave of clients who were idle for too long."""
        super().notify()
        least = self.cfg.keepalive if self.alive else IDLE_SECONDS
        for client, since in list(self.idle.items()):
            if time.monotonic() - since >= least:
                # The reader finds the end after what has been received, so a request that came meanwhile is
                # still served. With gevent's own shutdown() it would find an error.
                with contextlib.suppress(OSError):
                    client._sock.shutdown(socket.SHUT_RD)


class Server(StreamServer):
    """gevent's server, except that it turns away nobody who is connected already when it stops to listen."""

    def close(self):
        """Serve those in the kernel's queue, whom closing would reset with their requests; then stop."""
        with contextlib.suppress(OSError):
            while not self.closed and (accepted := self.do_read()):
                self.do_handle(*accepted)
        super().close()


ggevent.StreamServer = Server  # the worker takes it from there
NO_TIMER = contextlib.nullcontext()


class Joining:
    """A client's socket that sends the head of an answer, which comes first, together with the start of its body.

    :param sock: the socket.
    """

    def __init__(self, sock):
        self._sock = sock
        self._head = None  # b'' when it has been sent

    def sendall(self, data):
        """Send ``data``, or keep it when it is the head."""
        if self._head is None:
            self._head = data
            return
        head, self._head = self._head, b''
        self._sock.sendall(head + data)

    def flush(self):
        """Send a head that no body follows."""
        if self._head:
            self.sendall(b'')

    def __getattr__(self, name):
        """What else a socket does."""
        return getattr(self._sock, name)


# One process of gevent's serves thousands of slow or idle clients, each in a greenlet of its own.
worker_class = Worker
workers = int(os.environ.get('WEB_CONCURRENCY') or 2)
worker_connections = 10_000
# Each connection is a file, and some systems let a process open 1,024 unless it asks for more.
resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
# Seconds. A worker that is told to stop, by TERM or HUP, ends the requests that it has; the longest of
# them but for streams is bounded by the database's deadlines.
graceful_timeout = 10
# Longer than the proxy's (nginx: 60 s), so that the proxy is the one to close an idle connection, not
# this side while a request is on its way.
keepalive = 75
# A worker may be replaced after so many requests, should a leak ever ask for it. Off by default.
max_requests = os.environ.get('MAX_REQUESTS') or '0'
if not max_requests.isdecimal():
    sys.exit('MAX_REQUESTS must be a whole number.')
max_requests = int(max_requests)
max_requests_jitter = max_requests // 10
# Whom to believe about what is in front of the service is PROXY_HOPS' to say, see project/headers.py.
# gunicorn itself believes everybody, but there is nothing that it would believe; so it need not compare addresses.
forwarded_allow_ips = '*'
forwarder_headers = ''
secure_scheme_headers = {}
sendfile = False  # it would overtake the head of its answer, see Joining; no answer here is a file of the app's
# Bytes, and header lines.
limit_request_line = 4094
limit_request_field_size = 8190
limit_request_fields = 64
# The heartbeat is a file; on a disk that stalls, it would get healthy workers killed.
worker_tmp_dir = '/dev/shm' if os.path.isdir('/dev/shm') else None  # noqa: S108, a file system rather than a file
control_socket_disable = True
loglevel = (os.environ.get('LOG_LEVEL') or 'info').lower()
accesslog = '-'


class JSONFormatter(logging.Formatter):
    """One JSON object a line: time in UTC, level, event, request id, the record's ``fields``, a traceback."""

    def format(self, record):
        """The line for ``record``."""
        line = {'time': datetime.fromtimestamp(record.created, UTC), 'level': record.levelname.lower()}
        line |= {'event': record.getMessage(), **getattr(record, 'fields', {})}
        if record.exc_info:
            line['traceback'] = self.formatException(record.exc_info)
        return orjson.dumps(line, default=str, option=orjson.OPT_UTC_Z).decode()


class Logger(glogging.Logger):
    """gunicorn's own lines, and one for each request, as JSON on stdout."""

    def setup(self, cfg):
        """Give gunicorn's loggers one handler; the app's logger takes it from them."""
        super().setup(cfg)
        handler = logging.StreamHandler(sys.stdout)
        handler.setFormatter(JSONFormatter())
        self.error_log.handlers = [handler]

    def access(self, resp, req, environ, request_time):
        """Tell of a request: its route, never its path or query, in which personal data may stand.

        A line made by the logging package costs five times as much as all of this.
        """
        if self.error_log.level > logging.INFO:
            return
        line = {
            'time': datetime.now(UTC),
            'level': 'info',
            'event': 'request',
            'request_id': environ.get('users.request_id'),
            'method': req.method,
            'route': environ.get('users.route'),  # none when the head of the request was refused
            # A response to what gunicorn itself refused has no status_code.
            'status': int(resp.status.split()[0]),
            'ms': round(request_time.total_seconds() * 1000, 1),
        }
        sys.stdout.buffer.write(orjson.dumps(line, option=orjson.OPT_UTC_Z | orjson.OPT_APPEND_NEWLINE))
        sys.stdout.buffer.flush()


logger_class = Logger


def write_error(sock, status_int, reason, mesg):
    """Answer what is no HTTP, or too much of it, as everything else is answered.

    This stands for gunicorn's function of the same name, which answers such requests with HTML.
    """
    body = orjson.dumps({'status': 'fail' if status_int < 500 else 'error', 'message': reason})
    head = (
        f'HTTP/1.1 {status_int} {reason}',
        'Connection: close',
        'Content-Type: application/json',
        f'Content-Length: {len(body)}',
        # As project/headers.py has them, which this answer never reaches.
        *(['Access-Control-Allow-Origin: *'] if os.environ.get('CORS_ORIGINS', '*').strip() in ('', '*') else []),
        'Access-Control-Expose-Headers: X-Request-ID',
        "Content-Security-Policy: default-src 'none'; frame-ancestors 'none'",
        'Cache-Control: private, no-cache',
        'Referrer-Policy: no-referrer',
        'X-Content-Type-Options: nosniff',
        'X-Frame-Options: DENY',
        f'X-Request-ID: {os.urandom(16).hex()}',
        '\r\n',
    )
    util.write_nonblock(sock, '\r\n'.join(head).encode('latin1') + body)


util.write_error = write_error


def on_starting(server):
    """Give the workers a directory to count together in, if they are to count."""
    if os.environ.get('METRICS') == '1':
        os.environ['PROMETHEUS_MULTIPROC_DIR'] = tempfile.mkdtemp(prefix='users-metrics-')


def post_worker_init(worker):
    """Keep what gunicorn would work out anew for each request, and the garbage collector from what is there to stay."""
    # A setting takes it two calls of functions, and a request twenty settings. In a worker none of them changes.
    vars(worker.cfg).update({name: setting.get() for name, setting in worker.cfg.settings.items()})
    wsgi.WSGIErrorsWrapper = functools.cache(wsgi.WSGIErrorsWrapper)
    date = functools.lru_cache(1)(util.http_date)
    util.http_date = lambda: date(int(time.time()))
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


def child_exit(server, worker):
    """Take what a worker had in progress off the metrics; what it has done stays counted."""
    if os.environ.get('METRICS') == '1':
        from prometheus_client import multiprocess

        multiprocess.mark_process_dead(worker.pid)


def on_exit(server):
    """Leave no files behind."""
    if os.environ.get('METRICS') == '1':
        shutil.rmtree(os.environ['PROMETHEUS_MULTIPROC_DIR'], ignore_errors=True)
