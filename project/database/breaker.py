"""The circuit breaker: rejects calls at once while the database does not respond."""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator

from project.database.errors import CircuitOpen, DatabaseError, DeadlineExceeded, PoolExhausted

OPEN_SECONDS = 0.25  # between a timeout and the next probe


class Breaker:
    """Opens when a call times out. While it is open, one call at a time is let through to probe the database.

    Only reads go through it, because a slow COMMIT may be due to a standby, not to the server.

    :param clock: returns seconds; the monotonic clock unless a test has its own.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._retry_at: float | None = None  # None while the breaker is closed
        self._probing = False

    @property
    def is_open(self) -> bool:
        """Whether the last call to finish timed out."""
        return self._retry_at is not None

    def check(self) -> None:
        """Raise CircuitOpen if a call would be rejected now. The caller uses this before it waits for a batch."""
        if self._retry_at is not None and (self._probing or self._clock() < self._retry_at):
            raise CircuitOpen

    @contextlib.contextmanager
    def watch(self) -> Iterator[None]:
        """Watch the call in the ``with`` block.

        :raises CircuitOpen: the breaker is open, and a probe is running or not yet due.
        """
        with self._lock:
            self.check()
            if probe := self.is_open:
                self._probing = True
        try:
            yield
        except DeadlineExceeded:
            self._retry_at = self._clock() + OPEN_SECONDS
            raise
        except PoolExhausted:  # the call did not reach the database
            if probe:
                self._retry_at = self._clock() + OPEN_SECONDS
            raise
        except DatabaseError:  # the database has responded, or its server has rejected the connection
            self._retry_at = None
            raise
        else:
            self._retry_at = None
        finally:
            if probe:
                self._probing = False
