"""Connections to PostgreSQL: deadlines, waiting, and the choice of a host. Everything about psycopg2 is here.

libpq has no read timeout, and its ``connect_timeout`` is not in force while psycopg2 has a wait callback. So the
callback below waits for the socket, at most until the innermost :class:`deadline`.
"""

import math
import random
import select
import socket
import sys
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar, Token
from types import TracebackType
from typing import Any

import psycopg2
import psycopg2.extensions

from project.database import libpq

CALL_SECONDS = 3.0  # for one database call
CONNECT_SECONDS = 1.0  # for one address of a database host to accept a connection

_end: ContextVar[float] = ContextVar('end', default=math.inf)  # of the innermost deadline, on the monotonic clock

if 'gevent.monkey' in sys.modules and sys.modules['gevent.monkey'].is_module_patched('select'):
    # gunicorn's gevent worker has patched the process before it loads the app.
    from gevent.monkey import get_original
    from gevent.socket import wait_read, wait_write

    _poll = get_original('select', 'poll')  # looks at a socket without letting other greenlets run

    def _wait_for_socket(fd: int, reading: bool, seconds: float | None) -> bool:
        try:
            (wait_read if reading else wait_write)(fd, seconds, timeout_exc=TimeoutError())
        except TimeoutError:
            return False
        return True

else:
    _poll = select.poll

    def _wait_for_socket(fd: int, reading: bool, seconds: float | None) -> bool:
        poll = select.poll()
        poll.register(fd, select.POLLIN if reading else select.POLLOUT)
        return bool(poll.poll(None if seconds is None else seconds * 1000))


class TimedOut(psycopg2.OperationalError):
    """The database did not respond in time. The connection is closed, and the outcome of the statement is unknown."""


class Unreadable(psycopg2.OperationalError):
    """The server sent something that psycopg2 cannot read, such as a message that is not UTF-8."""


class deadline:  # noqa: N801, used like a function
    """Limits the time of the database calls within a ``with`` block.

    :param seconds: for all calls of the block together. Each call is also limited to ``CALL_SECONDS``.
        An enclosing deadline that ends earlier stays in force.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def __enter__(self) -> float:
        """Start the time, and return the end of the innermost deadline on the monotonic clock."""
        end = min(_end.get(), time.monotonic() + self._seconds)
        self._token: Token[float] = _end.set(end)
        return end

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _end.reset(self._token)


def end_of_call() -> float:
    """Return when the next database call must end, on the monotonic clock.

    Outside of a deadline, as in commands, it need not end.
    """
    end = _end.get()
    return min(end, time.monotonic() + CALL_SECONDS) if end < math.inf else end


def wait(connection: Any) -> None:
    """Wait until psycopg2's call is done: within a deadline, else for as long as it takes (as commands do).

    psycopg2 closes the connection when this raises. The statement is not cancelled: a COMMIT that waits for a
    synchronous standby reports success when it is cancelled, although the standby does not have it. See psycopg2's
    ``set_wait_callback`` and PostgreSQL's ``synchronous_commit``.

    :param connection: the psycopg2 connection.
    :raises TimedOut: the deadline passed.
    """
    end: float | None = None
    while (state := connection.poll()) != psycopg2.extensions.POLL_OK:
        now = time.monotonic()
        if end is None and (end := _end.get()) < math.inf:
            end = min(end, now + CALL_SECONDS)
        seconds = end - now if end is not None and end < math.inf else None
        late = seconds is not None and seconds <= 0
        if late or not _wait_for_socket(connection.fileno(), state == psycopg2.extensions.POLL_READ, seconds):
            raise TimedOut('the database did not respond in time')


def is_stale(connection: Any) -> bool:
    """Return whether an idle connection was closed by psycopg2 or by the server.

    The server sends nothing on an idle connection except its end, so there is nothing to read on a good one.
    This takes no round trip.

    :param connection: the psycopg2 connection.
    """
    if connection.closed:
        return True
    poll = _poll()
    poll.register(connection.fileno(), select.POLLIN)
    return bool(poll.poll(0))


_resolver = ThreadPoolExecutor(4, 'resolver')
_timed_out: dict[libpq.Server, float] = {}  # when an address timed out or was abandoned


def timed_out_at(address: libpq.Server) -> float:
    """Return when an address last timed out or was abandoned, on the monotonic clock; 0 if it has worked since."""
    return _timed_out.get(address, 0.0)


def try_last(address: libpq.Server) -> None:
    """Let new connections try an address after the others, until one to it succeeds."""
    _timed_out[address] = time.monotonic()


def addresses(parameters: Mapping[str, str]) -> list[libpq.Server]:
    """Return the addresses of the database's hosts, in the order of the URL.

    :param parameters: as :func:`project.database.libpq.parameters` returned them.
    :raises psycopg2.OperationalError: no host has one.
    """
    error = psycopg2.OperationalError('no host of the database has an address')
    found: list[libpq.Server] = []
    for server in libpq.servers(parameters):
        try:
            found += [server._replace(hostaddr=address) for address in _resolve(server)]
        except psycopg2.OperationalError as reason:
            error = reason
    if not found:
        raise error
    return found


def connect(arguments: dict[str, Any]) -> tuple[Any, libpq.Server]:
    """Connect to the first address of the database's hosts that accepts, each within its own deadline.

    The hosts are those that libpq would take: from the URL, a service file or its variables. Of libpq's parameters
    ``connect_timeout`` is not in force.

    :param arguments: psycopg2's.
    :returns: the psycopg2 connection, and the address.
    :raises psycopg2.Error: the error of the last address, or of one that timed out.
    """
    parameters = libpq.parameters(arguments)
    found = addresses(parameters)
    error: psycopg2.Error | None = None
    if parameters.get('load_balance_hosts') == 'random':
        random.shuffle(found)
    # libpq knows one address at a time, so it cannot prefer a standby among several.
    prefers_standby = parameters.get('target_session_attrs') == 'prefer-standby'
    for attributes in ('standby', 'any') if prefers_standby else (None,):
        wanted = {'target_session_attrs': attributes} if attributes else {}
        # Try addresses that timed out last: each would cost a new connection its deadline.
        for address in sorted(found, key=timed_out_at):
            try:
                with deadline(CONNECT_SECONDS):
                    connection = psycopg2.connect(**{**arguments, **address._asdict(), **wanted})
                _timed_out.pop(address, None)
                return connection, address
            except Exception as reason:
                if isinstance(reason, TimedOut):
                    try_last(address)
                if not isinstance(error, TimedOut):
                    error = as_driver_error(reason)
    raise error or psycopg2.OperationalError('no host of the database has an address')


def as_driver_error(error: Exception) -> psycopg2.Error:
    """Return an error of psycopg2 as it is, and for any other one that psycopg2 raised :class:`Unreadable`."""
    if isinstance(error, psycopg2.Error):
        return error
    text = error.object.decode(errors='replace') if isinstance(error, UnicodeDecodeError) else repr(error)
    return Unreadable(text)


def _resolve(server: libpq.Server) -> list[str]:
    """Return the IP addresses of a server; an empty one for a Unix socket."""
    host = server.host
    if server.hostaddr or not host or host.startswith(('/', '@')):
        return [server.hostaddr]
    try:
        seconds = max(0, min(CONNECT_SECONDS, _end.get() - time.monotonic()))
        found = _resolver.submit(socket.getaddrinfo, host, None, type=socket.SOCK_STREAM).result(seconds)
    except TimeoutError:
        raise TimedOut('the name service did not respond in time') from None
    except OSError:
        raise psycopg2.OperationalError('the name of a database host is unknown') from None
    return [str(address[0]) for *_, address in found]
