"""Databases of their own on the server of the test database, in other locales and encodings."""

import contextlib
import secrets
import unittest
from collections.abc import Iterator

from sqlalchemy import create_engine, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from project.tests.base import url_of_tests

TURKISH = "LOCALE_PROVIDER icu ICU_LOCALE 'tr-TR' LOCALE 'C' ENCODING 'UTF8'"


@contextlib.contextmanager
def other_database(options: str) -> Iterator[str]:
    """Make an empty database beside the test database, give its URL, and remove it.

    :param options: of ``CREATE DATABASE``, such as ``ENCODING 'LATIN1' LOCALE 'C'``.
    :raises unittest.SkipTest: the test database is on SQLite, or the server cannot make such a database.
    """
    url = url_of_tests()
    if url.get_backend_name() != 'postgresql':
        raise unittest.SkipTest('SQLite has neither locales nor encodings')
    name = f'{url.database}_{secrets.token_hex(4)}'
    server = create_engine(url, poolclass=NullPool, isolation_level='AUTOCOMMIT')
    with server.connect() as connection:
        try:
            connection.execute(text(f'CREATE DATABASE {name} TEMPLATE template0 {options}'))
        except DBAPIError as error:
            raise unittest.SkipTest(f'the server cannot make such a database: {error.orig}') from None
        try:
            yield url.set(database=name).render_as_string(hide_password=False)
        finally:
            connection.execute(text(f'DROP DATABASE {name} WITH (FORCE)'))
