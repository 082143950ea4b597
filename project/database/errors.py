"""The errors of the database for the rest of the service. This module translates the errors of the drivers.

=========================  ===========================================================================================
:class:`Unavailable`       The database cannot serve now. The following are kinds of it.
:class:`DeadlineExceeded`  It did not respond in time. The outcome of the statement is unknown.
:class:`CircuitOpen`       It did not respond in time just before. The call was rejected.
:class:`PoolExhausted`     All connections of the pool were in use. The statement was not sent.
:class:`Disconnected`      The connection broke. The outcome of the statement is unknown.
:class:`RolledBack`        The statement changed nothing, and may succeed when it is sent again.
:class:`Duplicate`         A unique constraint rejected the row.
:class:`Undefined`         A table, a column or a character does not exist: the database is not as the code needs it.
:class:`DatabaseError`     Any other error. It is a fault of the service.
=========================  ===========================================================================================

No message of the database is kept, since it may contain personal data.
"""

import contextlib
import re
import sqlite3
from collections.abc import Iterator

import psycopg2
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from project.database.connecting import TimedOut


class DatabaseError(Exception):
    """The database could not run a statement.

    :param kind: the name of the driver's error class; by default that of this class.
    :param sqlstate: PostgreSQL's code for the error.
    """

    def __init__(self, kind: str = '', sqlstate: str | None = None) -> None:
        super().__init__(kind, sqlstate)
        self.kind = kind or type(self).__name__
        self.sqlstate = sqlstate

    def __str__(self) -> str:
        return f'{self.kind} {self.sqlstate}' if self.sqlstate else self.kind


class Unavailable(DatabaseError):
    """The database cannot serve now."""


class DeadlineExceeded(Unavailable):
    """The database did not respond in time. The outcome of the statement is unknown."""


class CircuitOpen(Unavailable):
    """The database did not respond in time just before. The call was rejected."""


class PoolExhausted(Unavailable):
    """All connections of the pool were in use. The statement was not sent."""


class Disconnected(Unavailable):
    """The connection broke. The outcome of the statement is unknown."""


class RolledBack(Unavailable):
    """The statement changed nothing, and may succeed when it is sent again."""


class Duplicate(DatabaseError):
    """A unique constraint rejected the row.

    :ivar constraint: the name of the constraint or index; SQLite does not name constraints.
    :ivar columns: the names of the columns, where only SQLite names them.
    """

    constraint: str | None = None
    columns: tuple[str, ...] = ()


class Undefined(DatabaseError):
    """A table, a column or a character does not exist: the database is not as the code needs it."""


# By SQLSTATE, or by its class, which is its first two characters: PostgreSQL's manual, appendix A.
BY_SQLSTATE: dict[str, type[DatabaseError]] = {
    '08': Unavailable,  # connection exception
    '22P05': Undefined,  # untranslatable_character: the encoding of the database lacks it
    '23505': Duplicate,  # unique_violation
    '25006': Disconnected,  # read_only_sql_transaction: the server has become a standby
    '40001': RolledBack,  # serialization_failure
    '40P01': RolledBack,  # deadlock_detected
    '42703': Undefined,  # undefined_column
    '42P01': Undefined,  # undefined_table
    '53': Unavailable,  # insufficient resources
    '55P03': RolledBack,  # lock_not_available: lock_timeout
    '57': Unavailable,  # operator intervention
    '57P01': Disconnected,  # admin_shutdown
    '57P02': Disconnected,  # crash_shutdown
    '57P03': Disconnected,  # cannot_connect_now
    '58': Unavailable,  # system error
}
# By SQLite's primary result code: https://sqlite.org/rescode.html. Its other operational errors are Unavailable.
BY_SQLITE_CODE: dict[int, type[DatabaseError]] = {
    sqlite3.SQLITE_BUSY: RolledBack,
    sqlite3.SQLITE_LOCKED: RolledBack,
}
SQLITE_UNIQUE = (sqlite3.SQLITE_CONSTRAINT_UNIQUE, sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY)


@contextlib.contextmanager
def translated() -> Iterator[None]:
    """Turn the errors of calls to the database in the ``with`` block into those of this module.

    :raises DatabaseError: the error, without the driver's message.
    :raises SQLAlchemyError: SQLAlchemy rejected the statement, which is a fault of the service.
    """
    try:
        yield
    except (DBAPIError, PoolTimeout) as error:
        raise translate(error) from None
    except (DatabaseError, SQLAlchemyError):
        raise
    except Exception as error:  # SQLAlchemy could not read the server's version, for example
        raise translate_driver(error, True) from None


def translate(error: DBAPIError | PoolTimeout) -> DatabaseError:
    """Return the error of this module for an error of SQLAlchemy."""
    if isinstance(error, PoolTimeout):
        return PoolExhausted()
    return translate_driver(error.orig, error.connection_invalidated)


def translate_driver(error: BaseException | None, disconnected: bool) -> DatabaseError:
    """Return the error of this module for any exception that psycopg2 or sqlite3 raised.

    :param disconnected: whether the error has ended its connection.
    """
    kind = type(error).__name__
    if isinstance(error, TimedOut):
        return DeadlineExceeded(kind)
    if isinstance(error, sqlite3.Error):
        return _translate_sqlite(error, kind)
    sqlstate: str | None = getattr(error, 'pgcode', None)
    found = BY_SQLSTATE.get(sqlstate or '') or BY_SQLSTATE.get((sqlstate or '')[:2])
    if found is Duplicate:
        duplicate = Duplicate(kind, sqlstate)
        duplicate.constraint = error.diag.constraint_name if isinstance(error, psycopg2.Error) else None
        return duplicate
    if disconnected:
        return Disconnected(kind, sqlstate)
    if sqlstate is None and isinstance(error, psycopg2.OperationalError | psycopg2.InterfaceError):
        found = Unavailable  # libpq's own errors have no code
    return (found or DatabaseError)(kind, sqlstate)


def _translate_sqlite(original: sqlite3.Error, kind: str) -> DatabaseError:
    code = getattr(original, 'sqlite_errorcode', 0)  # absent from errors of the sqlite3 module itself
    text = str(original)  # SQLite has no code for these errors, so the text decides
    if code in SQLITE_UNIQUE:
        duplicate = Duplicate(kind)
        # "UNIQUE constraint failed: users.username" or "UNIQUE constraint failed: index 'users_email_key'"
        if index := re.search("index '(.+)'", text):
            duplicate.constraint = index[1]
        else:
            duplicate.columns = tuple(re.findall(r'\.(\w+)', text))
        return duplicate
    if re.match(r'no such (table|column): |table .* has no column named ', text):
        return Undefined(kind)
    found = BY_SQLITE_CODE.get(code & 0xFF)
    if found is None and isinstance(original, sqlite3.OperationalError):
        found = Unavailable
    return (found or DatabaseError)(kind)
