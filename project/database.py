"""What makes SQLite and PostgreSQL behave alike, and what keeps a request from waiting for a database in trouble.

Of the engines for the one database ``db.session`` uses the default one, with transactions. Requests use
``autocommit``: each statement stands alone, so its ``BEGIN`` and ``ROLLBACK`` would be two more round trips that change
nothing. Lists of the whole table have connections of their own, so that their slow readers starve nobody
else: those of the default engine on PostgreSQL, whose cursors need a transaction, of ``lists`` on SQLite.
"""

import math
import re
import select
import socket
import sqlite3
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from functools import cache
from typing import Any

import psycopg2
import psycopg2.extensions
import sqlalchemy.util.queue
from flask import current_app
from sqlalchemy import Engine, ExceptionContext, Executable, Row, event, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.pool import QueuePool

CALL_SECONDS = 3.0  # how long one database call may take
# How long connecting, calling and trying again may take together, so that with one more wait for a
# connection, which may begin just before that, every answer is there within 6 s.
REQUEST_SECONDS = 4.5
CONNECT_SECONDS = 1.0  # how long one address of a database host may take to accept a connection
POOL_SECONDS = 1  # how long to wait for a connection that others hold; SQLAlchemy cuts it to whole seconds
BREAK_SECONDS = 0.25  # how long to fail at once after a deadline has passed
# The SQLSTATEs of a server that became a standby or stops.
LOST = ('25006', '57P01', '57P02', '57P03')

_end = ContextVar('end', default=math.inf)  # of the innermost deadline, on the monotonic clock


class DeadlineError(psycopg2.OperationalError):
    """The database did not answer in time; the connection is closed, what became of the statement is unknown."""


class FrozenError(Exception):
    """The database was found frozen a moment ago: this call was not tried."""


# --- engines


def configure(app):
    """Set the options of the engines in ``app.config``, where Flask-SQLAlchemy looks for them.

    :param app: the Flask app, its settings checked.
    """
    url = app.config['SQLALCHEMY_DATABASE_URI']
    options = {
        'poolclass': _Pool,
        'pool_size': app.config['POOL_SIZE'],
        'max_overflow': app.config['POOL_OVERFLOW'],
        'pool_timeout': POOL_SECONDS,
        # The connection used last: few servers are busy with much, rather than many woken up for little.
        'pool_use_lifo': True,
        # The values are personal data, which errors must not carry into the log.
        'hide_parameters': True,
    }
    if url.get_backend_name() == 'postgresql':
        # Texts are UTF-8 whatever the server's default; hstore would cost a query for each new connection.
        options |= {'use_native_hstore': False, 'connect_args': {'client_encoding': 'utf8'}}
    else:
        options['paramstyle'] = 'named'  # as with PostgreSQL a statement's values are a dict
    app.config['SQLALCHEMY_ENGINE_OPTIONS'] = options
    # Without transactions a connection that comes back has none to roll back.
    alone = {'url': url, 'isolation_level': 'AUTOCOMMIT', 'pool_reset_on_return': None, **options}
    app.config['SQLALCHEMY_BINDS'] = {'autocommit': alone, 'lists': dict(alone)}


def init_app(app):
    """Give the engines of ``app`` deadlines, host by host connecting, and SQLite its settings.

    :param app: the Flask app on which Flask-SQLAlchemy was initialised.
    """
    app.extensions['breaker'] = Breaker()
    with app.app_context():
        app.extensions['engines'] = app.extensions['sqlalchemy'].engines
    event.listen(app.extensions['engines']['autocommit'], 'handle_error', _judge_connection)
    for name, engine in app.extensions['engines'].items():
        if engine.dialect.name == 'sqlite':
            event.listen(engine, 'connect', _prepare_sqlite)
            if name is None:
                event.listen(engine, 'begin', _begin_sqlite)
        else:
            psycopg2.extensions.set_wait_callback(_wait)
            event.listen(engine, 'do_connect', lambda _dialect, _record, _args, kw: _connect(kw))


def _prepare_sqlite(connection, record):
    # Transactions are begun by _begin_sqlite: the driver would begin them late, and not at all before DDL.
    connection.isolation_level = None
    # The default, FULL, stays for "synchronous": an answered write survives a power cut.
    for pragma in ('busy_timeout=3000', 'journal_mode=WAL', 'foreign_keys=ON'):
        connection.execute(f'PRAGMA {pragma}')


def _begin_sqlite(connection):
    # A transaction that reads first and then writes could not wait for its turn: SQLite fails it at once.
    connection.exec_driver_sql('BEGIN IMMEDIATE')


# --- deadlines


if 'gevent.monkey' in sys.modules and sys.modules['gevent.monkey'].is_module_patched('select'):
    # gunicorn's gevent worker has patched the process before it loads the app.
    from gevent import get_hub
    from gevent.hub import Waiter
    from gevent.monkey import get_original
    from gevent.queue import Empty, Full, LifoQueue

    _poll = get_original('select', 'poll')  # to look without letting others run
    _readers = {}  # by file descriptor: to make one, and the kernel know of it, takes longer than the wait

    def _await_socket(fd, readable, seconds):
        loop = get_hub().loop
        reader = _readers.get(fd) if readable else None
        if reader is None:
            reader = loop.io(fd, 1 if readable else 2)
            if readable:
                _readers[fd] = reader
            else:
                _readers.pop(fd, None)  # of a connection before: one that is being made is written to first
        waiter = Waiter()
        timer = None if seconds is None else loop.timer(seconds)
        try:
            reader.start(waiter.switch, True)
            if timer:
                timer.start(waiter.switch, False)
            return waiter.get()
        finally:
            reader.stop()
            if timer:
                timer.close()

    class _Queue(LifoQueue):
        """Where SQLAlchemy's pool keeps its idle connections: gevent's queue.

        SQLAlchemy's own is for threads, which interrupt each other: it takes four locks for each connection,
        and gevent's locks are slow.
        """

        use_lifo = True  # which the pool asks for when it is made again, empty

        def __init__(self, maxsize=0, use_lifo=True):
            super().__init__(maxsize)

        def get(self, block=True, timeout=None):
            try:
                return super().get(block, timeout)
            except Empty:
                raise sqlalchemy.util.queue.Empty from None

        def put(self, item, block=True, timeout=None):
            try:
                super().put(item, block, timeout)
            except Full:
                raise sqlalchemy.util.queue.Full from None

    class _Pool(QueuePool):
        _queue_class = _Queue

else:
    _poll = select.poll
    _Pool = QueuePool

    def _await_socket(fd, readable, seconds):
        poll = _poll()
        poll.register(fd, select.POLLIN if readable else select.POLLOUT)
        return bool(poll.poll(None if seconds is None else seconds * 1000))


def _wait(connection):
    """Wait until psycopg2's call is done: in a request at most for the deadline, in a command for as long as it takes.

    libpq has no read timeout, so a frozen server would freeze the request with it. psycopg2 closes the
    connection when this raises. The statement is never cancelled: a COMMIT that waits for a synchronous
    standby answers a cancel with success, for a commit that the standby does not have. See psycopg2's
    ``set_wait_callback`` and PostgreSQL's ``synchronous_commit``.
    """
    end = None
    while (state := connection.poll()) != psycopg2.extensions.POLL_OK:
        now = time.monotonic()
        if end is None and (end := _end.get()) < math.inf:
            end = min(end, now + CALL_SECONDS)
        seconds = end - now if end < math.inf else None
        if end <= now or not _await_socket(connection.fileno(), state == psycopg2.extensions.POLL_READ, seconds):
            raise DeadlineError('the database did not answer in time')


class deadline:  # noqa: N801, since it is used as a function
    """Let the database calls within the block take at most ``seconds`` together, and ``CALL_SECONDS`` each.

    :param seconds: a float; the call that goes on for longer raises :class:`DeadlineError`. Waiting for a
        connection of the pool counts, but is not cut short: it ends after ``POOL_SECONDS``.
    """

    def __init__(self, seconds):
        self._seconds = seconds

    def __enter__(self):
        self._token = _end.set(min(_end.get(), time.monotonic() + self._seconds))

    def __exit__(self, *error):
        _end.reset(self._token)


class Breaker:
    """Fails calls at once while the database is known to be frozen; one at a time tries whether it still is.

    A context manager around a call that only reads: a slow COMMIT may wait for a standby alone.
    """

    def __init__(self):
        self._retry_at = None  # on the monotonic clock; None while nothing is known against the database

    @property
    def is_open(self):
        """Whether the database was frozen when it was last asked."""
        return self._retry_at is not None

    def __enter__(self):
        """Let the call pass, or raise :class:`FrozenError`."""
        if self._retry_at is not None:
            now = time.monotonic()
            if now < self._retry_at:
                raise FrozenError
            self._retry_at = now + REQUEST_SECONDS  # this call is the one that tries

    def __exit__(self, kind, error, traceback):
        """Judge by how the call went. An error is an answer, too, unless it is that there was none."""
        asked = error is None or isinstance(error, DBAPIError)
        if asked and not isinstance(getattr(error, 'orig', None), DeadlineError):
            self._retry_at = None
        elif asked or self.is_open:
            self._retry_at = time.monotonic() + BREAK_SECONDS


_resolver = ThreadPoolExecutor(4, 'resolver')
_timed_out = {}  # when connecting to an address last took too long, by the address


def _connect(kw):
    """Connect to the first address of the URL's hosts that takes us, each within its own deadline.

    libpq would go through the hosts itself, but its ``connect_timeout`` is not in force while a wait
    callback is set, nor does any timeout bound its look-up of names.

    :raises psycopg2.OperationalError: the error of the last address, or of one that did not answer.
    """
    hosts = (kw.get('host') or '').split(',')
    ports = str(kw.get('port') or '').split(',')
    error = psycopg2.OperationalError('no host of the database has an address')
    addresses = []
    for host, port in zip(hosts, ports if len(ports) == len(hosts) else ports[:1] * len(hosts), strict=True):
        try:
            addresses += [(host, port, address) for address in _resolve(host)]
        except psycopg2.OperationalError as reason:
            error = reason
    # The machine that died without a word comes last: it would cost each new connection a deadline.
    for address in sorted(addresses, key=lambda address: _timed_out.get(address, 0)):
        host, port, hostaddr = address
        try:
            with deadline(CONNECT_SECONDS):
                connection = psycopg2.connect(**{**kw, 'host': host, 'port': port, 'hostaddr': hostaddr})
            _timed_out.pop(address, None)
            return connection
        except psycopg2.OperationalError as reason:
            if isinstance(reason, DeadlineError):
                _timed_out[address] = time.monotonic()
            if not isinstance(error, DeadlineError):
                error = reason
    raise error


def _resolve(host):
    """The IP addresses of ``host``; an empty one for a Unix socket."""
    if not host or host.startswith(('/', '@')):
        return ['']
    try:
        seconds = max(0, min(CONNECT_SECONDS, _end.get() - time.monotonic()))
        found = _resolver.submit(socket.getaddrinfo, host, None, type=socket.SOCK_STREAM).result(seconds)
    except TimeoutError:
        raise DeadlineError('the name service did not answer in time') from None
    except OSError:
        raise psycopg2.OperationalError('the name of a database host is unknown') from None
    return [address[0] for *_, address in found]


# --- what requests use


def read(statement, parameters=None):
    """Run a select on its own and return its rows.

    It is tried once more when the connection turns out to have died in the pool.

    :param statement: the select; the same object each time, so that SQLAlchemy compiles it once.
    :param parameters: its bound values by name.
    :raises sqlalchemy.exc.SQLAlchemyError, FrozenError: the database is in trouble.
    """
    extensions = current_app.extensions
    engine = extensions['engines']['autocommit']
    with extensions['breaker'], deadline(REQUEST_SECONDS):
        for last_try in (False, True):
            try:
                return _run(engine, statement, parameters)
            except DBAPIError as error:
                if last_try or isinstance(error.orig, DeadlineError):
                    raise
                if not (error.connection_invalidated or _rolled_back(error)):
                    raise


def write(statement, parameters=None):
    """Run an insert, update or delete on its own, commit it, and return the rows of its RETURNING.

    A connection that died in the pool is replaced before the statement is sent. After that only a
    failure that the database reports as rolled back is tried again; anything else may have been
    committed, and is raised.

    :param statement: with RETURNING; SQLAlchemy adds the columns that have a Python default.
    :param parameters: its bound values by name.
    :raises sqlalchemy.exc.SQLAlchemyError, FrozenError: the database is in trouble, the outcome unknown.
    """
    with deadline(REQUEST_SECONDS):
        if current_app.extensions['breaker'].is_open:
            # A write can't be the one that tries: its COMMIT may be slow for reasons of its own.
            read(_ONE)
        for last_try in (False, False, True):
            try:
                return _execute(_engine('autocommit'), statement, parameters)
            except DBAPIError as error:
                if last_try or not _rolled_back(error):
                    raise


def _execute(engine: Engine, statement: Executable, parameters: dict[str, Any] | None) -> Sequence[Row]:
    """Run a statement by SQLAlchemy, with the Python defaults of its columns, and return its rows."""
    with engine.connect() as connection:
        while _died(connection.connection):  # the next one of the pool may have died with it
            connection.invalidate()
        return connection.execute(statement, parameters).all()


def _judge_connection(context: ExceptionContext) -> None:
    """Decide which connections :func:`_execute` may not use again after an error."""
    error = context.original_exception
    if getattr(error, 'pgcode', None) in LOST:
        context.is_disconnect = True
    # One slow COMMIT says nothing against the others of the pool.
    context.invalidate_pool_on_disconnect = not isinstance(error, DeadlineError)


def _run(engine, statement, parameters):
    """Run a statement by the driver: SQLAlchemy's SQL, pool and errors, without its transactions and results.

    Those would take longer than the rest of the call. So values go in and come out as the driver has them;
    the statements of ``User`` are made for that.
    """
    sql, constants = _compile(statement, engine.dialect)
    errors, connection = engine.dialect.loaded_dbapi.Error, None
    try:
        connection = engine.raw_connection()
        while _died(connection):  # the next one of the pool may have died with it
            connection.invalidate()
            connection = engine.raw_connection()
        cursor = connection.cursor()
        cursor.execute(sql, constants | (parameters or {}))
        return cursor.fetchall()
    except errors as error:
        gone = connection is not None and _leads_nowhere(error, connection, engine.dialect)
        if gone:
            # The others lead nowhere, too: each would cost a request its deadline. This is what SQLAlchemy does then:
            # they are replaced when they are next asked for. After dispose() those in use would stay open.
            engine.pool._invalidate(connection, error)
        raise DBAPIError.instance(
            sql, None, error, errors, hide_parameters=True, connection_invalidated=gone, dialect=engine.dialect
        ) from error
    finally:
        if connection is not None:
            connection.close()


@cache
def _compile(statement, dialect):
    """The SQL of a statement, and the values that it brings along, such as SQLite's OFFSET 0."""
    compiled = statement.compile(dialect=dialect)
    return str(compiled), {name: value for name, value in compiled.params.items() if value is not None}


def _leads_nowhere(error, connection, dialect):
    """Whether the connection is of no use any more: closed, or to a server that became a standby or goes away."""
    if getattr(error, 'pgcode', None) in LOST:
        return True
    return dialect.is_disconnect(error, connection.dbapi_connection, None)


def stream(statement, parameters, size):
    """Yield the rows of a select in lists of ``size``, on PostgreSQL through a server-side cursor.

    All are of one moment. The connection, of a pool that no other request uses, is taken when the first list
    is asked for; it is freed after the last one and when the generator is closed. PostgreSQL ends the
    transaction of a client who takes nothing for a minute.

    :param statement: the select; the same object each time, so that SQLAlchemy compiles it once.
    :param parameters: its bound values by name.
    :raises sqlalchemy.exc.SQLAlchemyError: the database is in trouble.
    """
    on_postgresql = _engine(None).dialect.name == 'postgresql'
    # A transaction of SQLite's default engine would keep others from writing; a select on its own does not.
    engine = _engine(None) if on_postgresql else _engine('lists')
    with deadline(REQUEST_SECONDS):
        connection = engine.connect()
    try:
        with deadline(REQUEST_SECONDS):
            while _died(connection.connection):
                connection.invalidate()
            if on_postgresql:
                connection.execute(_STREAM_SETTINGS)
            rows = connection.execution_options(stream_results=True, yield_per=size).execute(statement, parameters)
            parts = rows.partitions()
        while True:
            with deadline(REQUEST_SECONDS):
                part = next(parts, None)
            if part is None:
                return
            yield part
    finally:
        with deadline(REQUEST_SECONDS):
            connection.close()


# For one transaction: the rows are to come at once, along the index, instead of after a sort of the whole
# table, and a client who stops reading is not waited for.
_STREAM_SETTINGS = text(
    "SET LOCAL cursor_tuple_fraction = 0.0001; SET LOCAL idle_in_transaction_session_timeout = '60s'"
)


_ONE = text('SELECT 1')


def _engine(name):
    return current_app.extensions['engines'][name]


def _died(connection):
    """Whether this idle connection is closed: by psycopg2 or by the server; then its socket has something to read."""
    driver = connection.dbapi_connection
    if not hasattr(driver, 'fileno'):
        return False  # SQLite's
    if driver.closed:
        return True
    poll = _poll()
    poll.register(driver.fileno(), select.POLLIN)
    return bool(poll.poll(0))


def _rolled_back(error):
    """Whether the database says that the statement did nothing and may be tried again.

    40001 is a serialization failure, 40P01 a deadlock: PostgreSQL's manual, "Serialization Failure Handling".
    """
    return getattr(error.orig, 'pgcode', None) in ('40001', '40P01')


def is_schema_error(error: Exception) -> bool:
    """Return whether ``error`` says that a table or a column does not exist.

    SQLSTATE 42P01 is an undefined table, 42703 an undefined column. SQLite has only its messages.
    """
    original = getattr(error, 'orig', None)
    if isinstance(original, sqlite3.OperationalError):
        return bool(re.match(r'no such (table|column): |table .* has no column named ', str(original)))
    return getattr(original, 'pgcode', None) in ('42P01', '42703')


def in_trouble(error):
    """Whether ``error`` says that the database can't serve now, rather than that the statement is wrong.

    SQLSTATE classes (PostgreSQL's manual, appendix A): 08 connection, 25006 read-only, 53 resources,
    57 operator, 40001 and 40P01 concurrency, 55P03 lock. SQLite has no codes: all that is operational counts.
    """
    if isinstance(error, FrozenError):
        return True
    if isinstance(error, PoolTimeout):
        return True
    if not isinstance(error, DBAPIError):
        return False
    if error.connection_invalidated or isinstance(error.orig, psycopg2.OperationalError | psycopg2.InterfaceError):
        return True
    code = getattr(error.orig, 'pgcode', None) or ''
    if code.startswith(('08', '53', '57')) or code in ('25006', '40001', '40P01', '55P03'):
        return True
    return isinstance(error.orig, sqlite3.OperationalError)
