"""Unpaginated lists, read in parts: many slow clients on few connections.

While the pool has a free connection, a stream has its own. On PostgreSQL further streams share connections. They need
not wait for each other's clients, since a cursor does not occupy its connection while its client reads. Each stream is
a snapshot of its own: in a READ COMMITTED transaction, a cursor reads the table as it was when the cursor was declared
("Transaction Isolation" and "DECLARE" in PostgreSQL's manual). On SQLite, all cursors of a connection read the same
snapshot. So each stream has a connection of its own, which is an open file.
"""

import contextlib
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from math import inf
from threading import Lock
from typing import Any, cast

from sqlalchemy import Connection, CursorResult, Engine, Executable, Row, text
from sqlalchemy.pool import QueuePool

from project.database import leadership, libpq
from project.database.connecting import deadline, seconds_left
from project.database.engine import SERVER
from project.database.errors import DatabaseError, DeadlineExceeded, Disconnected, PoolExhausted, translated

MOST = 200  # streams of a process at the same time: a slow client takes 1.6 MB, a third of it in the kernel
SECONDS = 3600.0  # for a whole stream: a snapshot keeps the database from freeing the space of rows that have changed
# For one transaction: start at once along the index instead of sorting the whole table first, and disconnect
# clients who stop reading.
SETTINGS = text("SET LOCAL cursor_tuple_fraction = 0.0001; SET LOCAL idle_in_transaction_session_timeout = '60s'")


class Streams:
    """The streams of one app.

    :param engine: ``streams`` in :mod:`project.database.engine`.
    :param part_seconds: the deadline of each part.
    """

    def __init__(self, engine: Engine, part_seconds: float) -> None:
        self._engine = engine
        self._part_seconds = part_seconds
        on_postgresql = engine.dialect.name == 'postgresql'
        self._most_connections = cast(QueuePool, engine.pool).size() if on_postgresql else inf
        self._shared: list[SharedConnection] = []
        self._lock = Lock()

    def rows(
        self, statement: Executable, parameters: Mapping[str, Any], size: int
    ) -> Generator[Sequence[Row[Any]], None, None]:
        """Yield the rows of a SELECT in lists; see :meth:`Database.stream`."""
        ends_at = time.monotonic() + SECONDS
        with deadline(self._part_seconds):
            try:
                shared, result = self._begin(statement, parameters, size)
            except Disconnected:  # the connection that it shared was broken before
                shared, result = self._begin(statement, parameters, size)
        try:
            while time.monotonic() < ends_at:
                # The wait for the turn does not count: this part's timeout would end the other streams.
                with shared.turn(), deadline(self._part_seconds):
                    part = [result.fetchmany(size)]
                if not part[0]:
                    return
                yield part.pop()  # so that no rows stay in memory while the client reads
            raise DeadlineExceeded
        finally:
            self._end(shared, result)

    def _begin(
        self, statement: Executable, parameters: Mapping[str, Any], size: int
    ) -> 'tuple[SharedConnection, CursorResult[Any]]':
        """Declare a cursor for a new stream, and return its connection and its result."""
        with self._lock:
            self._shared = [shared for shared in self._shared if shared.may_be_joined()]
            if sum(shared.streams for shared in self._shared) >= MOST:
                raise PoolExhausted()
            if len(self._shared) < self._most_connections:
                self._shared.append(SharedConnection(self._engine))
            shared = min(self._shared, key=lambda shared: shared.streams)
            shared.streams += 1
        try:
            with shared.turn() as connection:
                options = {'stream_results': True, 'yield_per': size}
                return shared, connection.execute(statement, parameters, execution_options=options)
        except BaseException:
            self._end(shared, None)
            raise

    def _end(self, shared: 'SharedConnection', result: CursorResult[Any] | None) -> None:
        """Close the cursor of a stream, and return the connection to the pool if no other stream shares it."""
        if result is not None:
            with contextlib.suppress(DatabaseError), shared.turn(), deadline(self._part_seconds):
                result.close()
        with self._lock:
            shared.streams -= 1
            if shared.streams:
                return
            self._shared = [other for other in self._shared if other is not shared]
        with contextlib.suppress(DatabaseError), deadline(self._part_seconds):  # the client has all rows, or an error
            shared.close()


class SharedConnection:
    """A connection, in one transaction, that streams use in turn.

    :param engine: the engine, which connects at the first use.
    :ivar streams: the number of streams that use the connection.
    :ivar is_broken: whether the connection has failed.
    """

    def __init__(self, engine: Engine) -> None:
        self.streams = 0
        self.is_broken = False
        self._engine = engine
        self._server: libpq.Server | None = None
        self._connection: Connection | None = None
        self._lock = Lock()

    def may_be_joined(self) -> bool:
        """Return whether a new stream may use it, which must not see the users of a server that leads no longer."""
        return not self.is_broken and (self._server is None or not leadership.is_superseded(self._server))

    @contextlib.contextmanager
    def turn(self) -> Iterator[Connection]:
        """Give one stream the connection. An error ends all streams that share it.

        :raises DeadlineExceeded: the others had the connection until the deadline. They go on.
        :raises DatabaseError: the database could not run a statement.
        """
        seconds = seconds_left()
        if not self._lock.acquire(timeout=max(0.0, seconds) if seconds < inf else -1):
            raise DeadlineExceeded
        with contextlib.ExitStack() as stack, translated():
            stack.callback(self._lock.release)
            if self.is_broken:
                raise Disconnected
            try:
                if self._connection is None:
                    self._connection = self._engine.connect()
                    self._server = self._connection.info.get(SERVER)
                    if self._connection.dialect.name == 'postgresql':
                        self._connection.execute(SETTINGS)
                yield self._connection
            except BaseException:
                self.is_broken = True
                if self._connection is not None:
                    self._connection.invalidate()
                raise

    def close(self) -> None:
        """Return it to the pool."""
        if self._connection is not None:
            with translated():
                self._connection.close()
