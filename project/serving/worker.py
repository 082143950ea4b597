"""gunicorn's gevent worker, changed."""

import contextlib
import functools
import re
import time
from email.utils import formatdate
from typing import Any

import gevent
from gevent.server import StreamServer
from gunicorn import util
from gunicorn.http import wsgi
from gunicorn.http.body import ChunkedReader, LengthReader
from gunicorn.workers import ggevent

from serving.connection import RECEIVE_BYTES, Connection
from serving.rejections import error_response, rejection

# A valid or an empty Host header. project/service.py, which cannot be imported here, rejects empty ones, too.
HOST = re.compile(r'(?:[a-z0-9._-]+|\[[a-f0-9:.]+\])?(?::[0-9]{0,5})?', re.ASCII | re.IGNORECASE)
ABSOLUTE = re.compile('[a-z][a-z0-9+.-]*://([^/?#]*)', re.IGNORECASE)  # a URI with an authority (RFC 3986 section 3)


class CachedSettings:
    """The settings of gunicorn, each computed once. Otherwise they take 10 % of the CPU of ``/ping``.

    :param settings: gunicorn's ``Config``.
    """

    def __init__(self, settings: Any) -> None:
        self._settings = settings

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._settings, name)
        setattr(self, name, value)  # from now on, this method is not called for it
        return value


class Worker(ggevent.GeventWorker):
    """gunicorn's gevent worker with these changes.

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
        connection: Any = Connection(client, self.cfg.keepalive)  # in place of a socket
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
        status, reason = rejection(exc)
        if status != 500:
            fields = {'error': type(exc).__name__, 'status': status}
            self.log.warning('request_rejected', extra={'fields': fields})
        else:
            self.log.exception('exception')
        with contextlib.suppress(OSError):
            headers = getattr(req or getattr(exc, 'req', None), 'headers', [])
            util.write_nonblock(client, error_response(status, reason, dict(headers).get('ORIGIN')))

    def notify(self) -> None:
        """Report to the master, once a second, that this worker is alive; close connections past their deadline."""
        super().notify()
        now = time.monotonic()
        for connection in list(self.connections):
            connection.end_late(now, stopping=not self.alive)


def prefer_target_host(req: Any) -> None:
    """Replace the Host header by the authority of the request target (RFC 9112 section 3.2.2).

    A malformed Host header is not replaced. In HTTP/1.1, a missing one is not added. The service then rejects the
    request.

    :param req: gunicorn's request. Targets that are not in absolute form have no authority.
    """
    host = dict(req.headers).get('HOST')
    is_valid = req.version < (1, 1) if host is None else HOST.fullmatch(host)
    if is_valid and (target := ABSOLUTE.match(req.uri)):
        req.headers = [*(header for header in req.headers if header[0] != 'HOST'), ('HOST', target[1])]


def drain(body: Any) -> bool:
    """Discard the unread part of a body; return whether the next request can be read after it."""
    if isinstance(body.reader, LengthReader) and not body.reader.length:
        return True  # most requests: they have no body, or it has been read
    with contextlib.suppress(Exception):  # malformed chunks, exceeded limits, OSError
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
    """Return the ``Date`` header (RFC 9110 section 5.6.7) for a second, counted since the epoch."""
    return formatdate(second, usegmt=True)


# Replaced parts of gunicorn that have no setting. tests/heavy/served.py fails if gunicorn stops using one of them.
# gunicorn.conf.py runs this again on HUP. The stub lacks the names.
ggevent.StreamServer = Server  # pyright: ignore[reportAttributeAccessIssue]
# Formatting the date and making an error stream for each request would take 10 % of the CPU of /ping.
util.http_date = lambda timestamp=None: date_of(int(time.time() if timestamp is None else timestamp))
wsgi.WSGIErrorsWrapper = functools.cache(getattr(wsgi.WSGIErrorsWrapper, '__wrapped__', wsgi.WSGIErrorsWrapper))
