"""Connections to PostgreSQL: deadlines and waiting.

libpq has no read timeout, and its ``connect_timeout`` is not in force while psycopg2 has a wait callback. So the
callback below waits for the socket, at most until the innermost :class:`deadline`.
"""

import contextlib
import math
import select
import selectors
import sys
import time
from collections.abc import Iterator
from contextvars import ContextVar, Token
from types import TracebackType
from typing import Any

import psycopg2
import psycopg2.extensions

CALL_SECONDS = 3.0  # for one database call

_end: ContextVar[float] = ContextVar('end', default=math.inf)  # of the innermost deadline, on the monotonic clock
_is_probe: ContextVar[bool] = ContextVar('is_probe', default=False)

if 'gevent.monkey' in sys.modules and sys.modules['gevent.monkey'].is_module_patched('select'):
    # gunicorn's gevent worker has patched the process before it loads the app.
    from gevent.monkey import get_original
    from gevent.socket import wait_read, wait_write

    _poll = get_original('select', 'poll')  # does not let other greenlets run

    def _wait_for_socket(fd: int, reading: bool, seconds: float | None) -> bool:
        try:
            (wait_read if reading else wait_write)(fd, seconds, timeout_exc=TimeoutError())
        except TimeoutError:
            return False
        return True

    def _is_readable(fd: int) -> bool:
        poll = _poll()
        poll.register(fd, select.POLLIN)
        return bool(poll.poll(0))

else:
    # One system call for each use, and no file descriptor. Windows has no poll().
    _Selector: type[selectors.BaseSelector] = getattr(selectors, 'PollSelector', selectors.SelectSelector)

    def _wait_for_socket(fd: int, reading: bool, seconds: float | None) -> bool:
        with _Selector() as selector:
            selector.register(fd, selectors.EVENT_READ if reading else selectors.EVENT_WRITE)
            return bool(selector.select(seconds))

    def _is_readable(fd: int) -> bool:
        return _wait_for_socket(fd, True, 0)


class TimedOut(psycopg2.OperationalError):
    """The database did not respond in time. The connection is closed, and the outcome of the statement is unknown."""


class Unreadable(psycopg2.OperationalError):
    """The server sent data that psycopg2 cannot read, such as a message that is not UTF-8."""


class deadline:  # noqa: N801, used like a function
    """Limits the time of the database calls within a ``with`` block.

    :param seconds: for all calls of the block together. Each call is also limited to ``CALL_SECONDS``.
        An enclosing deadline that ends earlier stays in force.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def __enter__(self) -> float:
        """Start the deadline, and return the end of the innermost deadline on the monotonic clock."""
        end = min(_end.get(), time.monotonic() + self._seconds)
        self._token: Token[float] = _end.set(end)
        return end

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _end.reset(self._token)


@contextlib.contextmanager
def probing() -> Iterator[None]:
    """Let no timeout of the ``with`` block change how other calls use the pool and the hosts."""
    token = _is_probe.set(True)
    try:
        yield
    finally:
        _is_probe.reset(token)


def is_probe() -> bool:
    """Return whether the current call runs within :func:`probing`."""
    return _is_probe.get()


def end_of_call() -> float:
    """Return the time at which the next database call must end, on the monotonic clock.

    Outside of a deadline, as in commands, it is infinity.
    """
    end = _end.get()
    return min(end, time.monotonic() + CALL_SECONDS) if end < math.inf else end


def seconds_left() -> float:
    """Return the time until the end of the innermost deadline; infinity outside of one."""
    return _end.get() - time.monotonic()


def wait(connection: Any) -> None:
    """Wait until psycopg2's call is done, at most until the deadline. Without one, as in commands, wait indefinitely.

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
    return bool(connection.closed) or _is_readable(connection.fileno())


def as_driver_error(error: Exception) -> psycopg2.Error:
    """Return an error of psycopg2 that has a message unchanged, and :class:`Unreadable` for any other error.

    For a message that is not UTF-8, psycopg2 raises UnicodeDecodeError, or on Python 3.11.2 an error without a message.
    """
    if isinstance(error, psycopg2.Error):
        return error if error.args else Unreadable('FATAL:  the server sent a message that is not UTF-8')
    text = error.object.decode(errors='replace') if isinstance(error, UnicodeDecodeError) else repr(error)
    return Unreadable(text)
