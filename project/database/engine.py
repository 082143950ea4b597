"""The engines of the service and their events: what makes SQLite and PostgreSQL behave alike.

Each purpose has its own engine, and so its own connection pool. A slow kind of call cannot take the connections of the
others:

=============  ===========================================================================================
(default)      ``db.session``, commands and migrations. Each connection is in a transaction.
``reads``      Single SELECT statements of requests. Autocommit: a transaction would be two more round trips.
``writes``     Single statements that change a user. They may wait for a lock, or for a standby.
``streams``    Unpaginated lists, whose clients may read slowly.
=============  ===========================================================================================
"""

import time
from functools import partial
from typing import Any, cast
from weakref import WeakKeyDictionary

import psycopg2
import psycopg2.extensions
from flask import Flask
from sqlalchemy import Engine, event
from sqlalchemy.engine import ExceptionContext
from sqlalchemy.exc import InvalidatePoolError, OperationalError, SQLAlchemyError
from sqlalchemy.pool import ConnectionPoolEntry

from project.database import connecting, hosts, leadership, sqlite
from project.database.connecting import TimedOut
from project.database.errors import BY_SQLSTATE, Disconnected

POOL_SECONDS = 1  # to wait for a connection of the pool; SQLAlchemy rounds it down to whole seconds
TRANSACTIONS = (None, 'writes')  # the engines that write
# Execution options of statements.
LOCK_TIMEOUT = 'lock_timeout'  # milliseconds
KEEP_POOL = 'keep_pool'  # a bool
SERVER = 'server'  # in the info of a connection: the address that it is connected to


def configure(app: Flask) -> None:
    """Set the engine options in ``app.config``, where Flask-SQLAlchemy looks for them.

    :param app: the Flask app, its settings checked.
    """
    url = app.config['SQLALCHEMY_DATABASE_URI']
    options = {
        'pool_size': app.config['POOL_SIZE'],
        'max_overflow': app.config['POOL_OVERFLOW'],
        'pool_timeout': POOL_SECONDS,
        'pool_use_lifo': True,  # LIFO reuses warm backends
        'hide_parameters': True,
    }
    on_postgresql = url.get_backend_name() == 'postgresql'
    if on_postgresql:
        # Text is UTF-8 whatever the server's default. Looking for hstore would cost a query for each new connection.
        options |= {'use_native_hstore': False, 'connect_args': {'client_encoding': 'utf8'}}
    else:
        options['paramstyle'] = 'named'  # the values of a statement are a dict, as with psycopg2
    # A connection in autocommit mode has no transaction to roll back when it is returned.
    autocommit = {'url': url, 'isolation_level': 'AUTOCOMMIT', 'pool_reset_on_return': None, **options}
    transactions = {'url': url, **options}
    app.config['SQLALCHEMY_ENGINE_OPTIONS'] = options
    app.config['SQLALCHEMY_BINDS'] = {
        'reads': autocommit,
        # The begin event in sqlite.py waits for the write lock.
        'writes': dict(autocommit if on_postgresql else transactions),
        # PostgreSQL's server-side cursors need a transaction, and READ COMMITTED gives each a snapshot of its own.
        # SQLite's transactions would block writers.
        'streams': (
            {**transactions, 'isolation_level': 'READ COMMITTED', 'max_overflow': 0}
            if on_postgresql
            else {**autocommit, 'max_overflow': -1}
        ),
    }


def listen(name: str | None, engine: Engine) -> None:
    """Give an engine its events.

    :param name: the engine's name, as in the table above; None for the default engine.
    :param engine: the engine.
    """
    if engine.dialect.name == 'sqlite':
        event.listen(engine, 'connect', sqlite.set_pragmas)
        if name == 'streams':
            event.listen(engine, 'connect', lambda connection, _: connection.execute('PRAGMA cache_size=-256'))  # KiB
        if name in TRANSACTIONS:
            event.listen(engine, 'connect', lambda connection, _: connection.execute('PRAGMA busy_timeout=0'))
            event.listen(engine, 'begin', sqlite.begin_immediate)
        return
    psycopg2.extensions.set_wait_callback(connecting.wait)
    event.listen(engine, 'do_connect', _connect)
    event.listen(engine, 'checkout', lambda connection, record, _: _reject_stale(engine, connection, record))
    event.listen(engine, 'handle_error', _replace_unreadable)
    event.listen(engine, 'handle_error', _judge_pool)
    if name == 'writes':
        # Not before_cursor_execute, which would make SQLAlchemy look for events of each new connection.
        event.listen(engine, 'do_execute', _execute_with_lock_timeout)


def _connect(dialect: Any, record: ConnectionPoolEntry, _: Any, arguments: dict[str, Any]) -> Any:
    connection, record.info[SERVER] = hosts.connect(arguments)
    record.info['is_abandoned'] = partial(leadership.is_abandoned, connection, record.info[SERVER], arguments)
    record.info['connected_at'] = time.monotonic()
    return connection


_discarded_at: WeakKeyDictionary[Engine, float] = WeakKeyDictionary()


def discard_older(engine: Engine) -> None:
    """Let the pool replace each of its current connections before the next use. A health check replaces none."""
    if not connecting.is_probe():
        _discarded_at[engine] = time.monotonic()


def _reject_stale(engine: Engine, connection: Any, record: ConnectionPoolEntry) -> None:
    """Replace all connections of the pool if this one is stale, or if its server is no longer the leader.

    :raises InvalidatePoolError: SQLAlchemy replaces the connection.
    :raises psycopg2.OperationalError: the new connection has to be replaced, too. SQLAlchemy would raise an
        InvalidRequestError, which is a 500.
    """
    replaced = cast(dict[str, bool], record.record_info)  # unlike info, it is kept when the connection is replaced
    if not _must_be_replaced(engine, connection, record):
        replaced.clear()
    elif replaced:
        replaced.clear()
        raise psycopg2.OperationalError('two connections in a row could not be used')
    else:
        replaced['once'] = True
        raise InvalidatePoolError


def _must_be_replaced(engine: Engine, connection: Any, record: ConnectionPoolEntry) -> bool:
    """Return whether a connection is stale, its server is no longer the leader, or the pool was discarded."""
    if connecting.is_stale(connection) or record.info['connected_at'] <= _discarded_at.get(engine, 0.0):
        return True
    try:
        return bool(record.info['is_abandoned']())
    except TimedOut:
        hosts.record_timeout(record.info[SERVER])
        discard_older(engine)
        raise
    except psycopg2.OperationalError:
        return True


def _replace_unreadable(context: ExceptionContext) -> OperationalError | None:
    """Replace an exception that psycopg2 raised and that is no error of the database, and end the connection.

    An example is UnicodeDecodeError, for a message of the server that is not UTF-8.
    """
    original = context.original_exception
    # SQLAlchemy has wrapped errors of the driver, and those of preparing the statement.
    if context.sqlalchemy_exception is not None or isinstance(original, SQLAlchemyError):
        return None
    if not isinstance(original, Exception):
        return None  # such as GreenletExit
    context.is_disconnect = True
    return OperationalError(None, None, connecting.as_driver_error(original), connection_invalidated=True)


def _judge_pool(context: ExceptionContext) -> None:
    """Decide whether an error ends the other connections of the pool, too.

    It does if the server reported that it is unavailable, or if it did not respond. The execution option ``keep_pool``
    is for statements whose timeout may have another reason, such as a COMMIT that waits for a standby.
    """
    original = context.original_exception
    if BY_SQLSTATE.get(getattr(original, 'pgcode', None) or '') is Disconnected:
        context.is_disconnect = True
    if isinstance(original, TimedOut) and context.execution_context is not None:
        keep = context.execution_context.execution_options.get(KEEP_POOL, False)
        context.invalidate_pool_on_disconnect = not keep
        if keep and context.connection is not None:
            leadership.suspect(context.connection.info[SERVER])


def _execute_with_lock_timeout(cursor: Any, statement: str, parameters: Any, context: Any) -> bool:
    """Limit the time that a statement waits for locks, if its execution option says so.

    PostgreSQL runs the two statements, which are sent together in autocommit mode, as one transaction, so the
    limit ends with it: "Multiple Statements in a Simple Query" in its manual.

    :returns: whether the statement was executed; otherwise SQLAlchemy executes it.
    """
    milliseconds = context.execution_options.get(LOCK_TIMEOUT)
    if milliseconds is None:
        return False
    cursor.execute(f'SET LOCAL lock_timeout = {int(milliseconds)}; {statement}', parameters)
    return True
