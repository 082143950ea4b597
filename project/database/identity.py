"""Checks whether a connection and a URL lead to the same database, whatever the form of the URL."""

import secrets
from typing import Any

from sqlalchemy import create_engine, text
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from project.database.engine import listen

LOCK = text('SELECT pg_advisory_xact_lock(:key)')


def is_same_database(connection: Any, url: URL, by_name: bool = False) -> bool:
    """Return whether a PostgreSQL connection is to the database of ``url``; False if that cannot be reached.

    A second connection takes an advisory lock. If both are in one database, the first one cannot take the lock, too.

    :param connection: the psycopg2 connection. A transaction may begin in it, which the caller ends.
    :param url: with the driver psycopg2.
    :param by_name: send nothing to a database that has another name than that of ``url``.
    """
    engine = create_engine(url, poolclass=NullPool)
    listen(None, engine)
    key = secrets.randbits(63)
    try:
        with engine.connect() as other:
            there: Any = other.connection.dbapi_connection
            if by_name and connection.info.dbname != there.info.dbname:
                return False
            other.execute(LOCK, {'key': key})
            with connection.cursor() as cursor:
                cursor.execute('SELECT pg_try_advisory_xact_lock(%s)', (key,))
                return not cursor.fetchone()[0]
    except DBAPIError:
        return False
