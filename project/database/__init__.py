"""The interface to the database: requests use it only through :class:`Database`.

This package knows neither users nor HTTP. Its errors are those of :mod:`project.database.errors`.

    view -> User -> Database -> Batcher -> engine

The deadlines of one request: a call to the database ends after ``CALL_SECONDS``. Connecting, calling and retrying
together end after ``REQUEST_SECONDS``. One more wait for a connection may begin just before that. So every response is
complete within 6 s. The exception is an unpaginated list that is longer than ``STREAM_ROWS``: its first byte is sent
within that time, and each further part has a deadline of its own.
"""

from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any, TypeVar, cast

from flask import Flask, current_app
from sqlalchemy import Engine, Executable, Row, text
from sqlalchemy.pool import QueuePool
from werkzeug.local import LocalProxy

from project.database import leadership
from project.database.batching import Batcher
from project.database.breaker import Breaker
from project.database.connecting import deadline, probing
from project.database.engine import KEEP_POOL, LOCK_TIMEOUT, SERVER, configure, listen
from project.database.errors import Disconnected, RolledBack, translated
from project.database.reading import Compilable, fetch
from project.database.streams import Streams

__all__ = ['REQUEST_SECONDS', 'Database', 'configure', 'database', 'deadline', 'init_app']

REQUEST_SECONDS = 4.5
# For one statement that writes on PostgreSQL. It may wait for a primary that was replaced. With the time that
# leadership.py takes to find the new one, writes move there within 3 s.
WRITE_SECONDS = 2.5
WRITE_TRIES = 3  # attempts of a statement that the database rolls back

ONE = text('SELECT 1')
T = TypeVar('T')


def init_app(app: Flask) -> None:
    """Give ``app`` its :class:`Database`.

    :param app: the Flask app on which Flask-SQLAlchemy was initialised.
    """
    with app.app_context():
        engines = app.extensions['sqlalchemy'].engines
    for name, engine in engines.items():
        listen(name, engine)
    app.extensions['database'] = Database(engines)


class Database:
    """The database of one app.

    :param engines: by their names in :mod:`project.database.engine`.
    """

    def __init__(self, engines: Mapping[str | None, Engine]) -> None:
        self._engines = engines
        self._batcher = Batcher()
        self._streams = Streams(engines['streams'], REQUEST_SECONDS)
        self.breaker = Breaker()
        self.dialect: str = engines[None].dialect.name  # 'sqlite' or 'postgresql'

    def batch(self, function: Callable[[list[Any]], Sequence[Any]], item: Any) -> Any:
        """Run ``function`` for ``item``, together with all calls that wait at the same time.

        :param function: takes a list of items. Returns an outcome for each, in the same order; an outcome that is an
            exception is raised in its call.
        :param item: the item of this call, such as an id.
        :returns: the outcome, which other calls may share: do not change it.
        :raises DatabaseError: the call failed.
        """
        self.breaker.check()  # otherwise it would wait for the probe
        with deadline(REQUEST_SECONDS) as end:
            return self._batcher.run(function, function, item, end)

    def share(self, key: Any, function: Callable[[], T]) -> T:
        """Run ``function`` once for all calls with the same key that wait at the same time.

        :param key: names everything that the result depends on; hashable.
        :param function: only reads.
        :returns: its result, which other calls may share: do not change it.
        :raises DatabaseError: the call failed.
        """
        self.breaker.check()
        with deadline(REQUEST_SECONDS) as end:
            return cast(T, self._batcher.run(key, lambda items: [function()] * len(items), None, end))

    def read(self, statement: Compilable, parameters: Mapping[str, Any] | None = None) -> Sequence[Any]:
        """Run a SELECT on its own, and return its rows as tuples.

        It is sent again if its connection turns out to be stale, or if the database rolled it back.

        :param statement: the same object each time, so that it is compiled once. Values are those of the driver,
            without SQLAlchemy's conversions.
        :param parameters: its bound values by name.
        :raises DatabaseError: the call failed.
        """
        with deadline(REQUEST_SECONDS), self.breaker.watch():
            try:
                return fetch(self._engines['reads'], statement, parameters or {})
            except (Disconnected, RolledBack):
                return fetch(self._engines['reads'], statement, parameters or {})

    def write(self, statement: Executable, parameters: Any, lock_milliseconds: int | None = None) -> Sequence[Row[Any]]:
        """Run an INSERT, UPDATE or DELETE on its own, commit it, and return the rows of its RETURNING.

        It is sent again only if the database rolled it back. After any other failure it may have been committed.

        :param statement: the same object each time, so that SQLAlchemy compiles it once.
        :param parameters: its bound values by name, or a list of these for an INSERT of several rows.
        :param lock_milliseconds: how long it may wait for a lock of PostgreSQL. After that it is not sent again.
        :raises RolledBack: it changed nothing.
        :raises Unavailable: its outcome may be unknown.
        :raises DatabaseError: the database rejected it.
        """
        options = {KEEP_POOL: True, LOCK_TIMEOUT: lock_milliseconds}
        with deadline(REQUEST_SECONDS):
            if self.breaker.is_open:
                self.read(ONE)  # a write cannot be the probe, since its COMMIT may be slow because of a standby
            for _ in range(WRITE_TRIES - 1):
                try:
                    return self._execute(statement, parameters, options)
                except RolledBack:
                    if lock_milliseconds is not None:
                        raise
            return self._execute(statement, parameters, options)

    def stream(
        self, statement: Executable, parameters: Mapping[str, Any], size: int
    ) -> Generator[Sequence[Row[Any]], None, None]:
        """Yield the rows of a SELECT in lists, on PostgreSQL through a server-side cursor: one snapshot.

        A connection is taken when the first list is requested, and others may share it. It is returned after the last
        list, and when the generator is closed.

        :param statement: the same object each time, so that SQLAlchemy compiles it once.
        :param parameters: its bound values by name.
        :param size: the number of rows in a list.
        :raises DatabaseError: a part could not be read, or there are too many streams, or this one took too long.
        """
        return self._streams.rows(statement, parameters, size)

    def probe(self, statement: Compilable) -> Sequence[Any]:
        """Run a SELECT on its own, and return its rows. Its timeout affects no other call.

        Calls that wait at the same time run once, so that they never take more than one connection.

        :param statement: as for :meth:`read`.
        :raises DatabaseError: the call failed.
        """

        def fetch_once(items: list[None]) -> list[Sequence[Any]]:
            with probing():
                return [fetch(self._engines['reads'], statement, {})] * len(items)

        with deadline(REQUEST_SECONDS) as end:
            return cast(Sequence[Any], self._batcher.run(('probe', statement), fetch_once, None, end))

    def connections_in_use(self) -> int:
        """Return the number of connections that are checked out of the pools."""
        return sum(cast(QueuePool, engine.pool).checkedout() for engine in self._engines.values())

    def _execute(self, statement: Executable, parameters: Any, options: Mapping[str, Any]) -> Sequence[Row[Any]]:
        limit = deadline(WRITE_SECONDS if self.dialect == 'postgresql' else REQUEST_SECONDS)
        with limit, translated(), self._engines['writes'].begin() as connection:
            rows = connection.execute(statement, parameters, execution_options=options).all()
            server = connection.info.get(SERVER)
        if server is not None:
            leadership.settle(server)
        return rows


database = cast(Database, LocalProxy(lambda: current_app.extensions['database']))
