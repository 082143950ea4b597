"""Chooses the database of an app: the one that its settings name, except that tests never use that of the service."""

import json
import os
import re
from collections.abc import Hashable, Iterable, Mapping
from pathlib import Path
from typing import Any

import psycopg2
from psycopg2.extensions import parse_dsn
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from project import config
from project.database import libpq
from project.database.identity import is_same_database

INSTANCE = Path(__file__).parents[1] / 'instance'
LOCAL = ('', '127.0.0.1', '::1')
# Several hosts, or an encoded host such as a folder of Unix sockets, before the path.
LIBPQ_ONLY = re.compile(r'postgres(?:ql)?(?:\+psycopg2)?(://(?:[^/?@]*@)?[^/?@]*[,%][^/?@]*(?:[/?].*)?)', re.DOTALL)

EXAMPLE = 'postgres://user:password@host:5432/users'
# An environment variable, so that processes started by tests inherit it. Its value is JSON: the URL of the test
# database by the URL of each database that tests must not use.
REPLACED = 'REPLACED_DATABASES'
_others: set[Hashable] = set()  # the arguments of is_among for which it is False


SAME_DATABASE = (
    'DATABASE_TEST_URL names the database of DATABASE_URL, whose users the tests would delete; '
    'set it to another database.'
)


def engine_url(settings: Mapping[str, Any]) -> URL:
    """Return the URL of the database that an app with these settings uses.

    :param settings: such as ``app.config``.
    :raises project.config.SettingsError: its ``SQLALCHEMY_DATABASE_URI`` names no database that the service can use.
    """
    variable = 'DATABASE_TEST_URL' if settings['TESTING'] else 'DATABASE_URL'
    url = parse(settings['SQLALCHEMY_DATABASE_URI'], variable)
    url = next((test_url for used, test_url in replaced().items() if _names_same(url, used)), url)
    # Flask-SQLAlchemy makes the instance folder, in which a relative path begins.
    folders = {file.parent for file in places(url) if isinstance(file, Path)} - {INSTANCE.resolve()}
    if not all(folder.is_dir() for folder in folders):
        raise config.SettingsError(
            f'{variable} names an SQLite file in a folder that does not exist; '
            'make the folder, or name another file, such as sqlite:///users.db in the folder instance.'
        )
    return url


def replaced() -> dict[URL, URL]:
    """Return the URL of the test database by that of each database that tests must not use; empty outside tests."""
    urls: dict[str, str] = json.loads(os.environ.get(REPLACED) or '{}')
    return {make_url(used): make_url(test_url) for used, test_url in urls.items()}


def service_urls() -> list[URL]:
    """Return the URLs of the databases that tests must not use.

    They are those of ``DATABASE_URL`` and of the configuration that ``APP_SETTINGS`` names, or named before
    :func:`use_test_settings`.

    :raises project.config.SettingsError: a setting is wrong.
    """
    classes = (config.BaseConfig, config.default_settings())
    texts = [each.SQLALCHEMY_DATABASE_URI for each in classes if not each.TESTING]
    return [*replaced(), *(parse(text, 'DATABASE_URL') for text in texts if text)]


def use_test_settings() -> None:
    """Put the test settings in force, for the rest of this process and for the processes that it starts.

    ``APP_SETTINGS`` then names ``TestingConfig``. Every app that is created on the database of ``DATABASE_URL``, or
    on that of the configuration that ``APP_SETTINGS`` named before, gets the test database instead.

    :raises project.config.SettingsError: a setting is wrong, or the test database is in use by the service.
    """
    test_url = parse(config.TestingConfig.SQLALCHEMY_DATABASE_URI, 'DATABASE_TEST_URL')
    used = service_urls()
    if any(_names_same(test_url, url) for url in used):
        raise config.SettingsError(SAME_DATABASE)
    replacements = replaced() | dict.fromkeys(used, test_url)
    os.environ[REPLACED] = json.dumps({_complete(key): _complete(value) for key, value in replacements.items()})
    os.environ['APP_SETTINGS'] = 'project.config.TestingConfig'


def places(url: URL) -> frozenset[Hashable]:
    """Return values that identify a database. Two URLs of one database share at least one, whatever their options.

    For PostgreSQL they consist of what libpq would take from the URL, a service file and the ``PG*`` variables.

    :param url: as :func:`parse` returns it.
    """
    if url.get_backend_name() == 'sqlite':
        return frozenset([(INSTANCE / str(url.database)).resolve()])
    parameters = libpq.parameters(connect_arguments(url))
    found: set[Hashable] = set()
    for server in libpq.servers(parameters):
        for name in {server.host, server.hostaddr} - {''} or {''}:
            host = 'localhost' if name in LOCAL or name.startswith(('/', '@')) else name.lower()
            found.add((host, server.port or '5432', parameters['dbname']))
    return frozenset(found)


def connect_arguments(url: URL) -> dict[str, Any]:
    """Return what SQLAlchemy passes to ``psycopg2.connect()`` for a URL of PostgreSQL."""
    return dict(url.get_dialect()().create_connect_args(url)[1])


def _names_same(url: URL, other: URL) -> bool:
    """Return whether two URLs have a value of :func:`places` in common, or name the same file."""
    here, there = places(url), places(other)
    if here & there:
        return True
    files = [place for place in (*here, *there) if isinstance(place, Path) and place.exists()]
    return len(files) == 2 and files[0].samefile(files[1])


def _complete(url: URL) -> str:
    """Return a URL as text, with its password, and with the absolute path of an SQLite file."""
    where = next(iter(places(url)))
    return (url.set(database=str(where)) if isinstance(where, Path) else url).render_as_string(hide_password=False)


def is_among(urls: Iterable[URL], connection: Any, url: URL, by_name: bool = False) -> bool:
    """Return whether a connection is to the database of one of ``urls``.

    :param urls: as :func:`replaced` or :func:`service_urls` returned them.
    :param connection: the driver's connection.
    :param url: the URL of its engine.
    :param by_name: as for :func:`project.database.identity.is_same_database`.
    """
    urls = frozenset(urls)
    key = places(url), urls, by_name
    if key in _others:
        return False
    on_postgresql = url.get_backend_name() == 'postgresql'
    for used in urls:
        if _names_same(url, used):
            return True
        if on_postgresql and used.get_backend_name() == 'postgresql' and is_same_database(connection, used, by_name):
            return True
    _others.add(key)
    return False


def parse(text: str | URL, variable: str) -> URL:
    """Return a database's URL as SQLAlchemy needs it, with psycopg2 as the driver for PostgreSQL.

    SQLAlchemy rejects ``postgres://``, and from 2.1 on chooses another driver for plain ``postgresql://``.

    :param variable: the environment variable to name in an error.
    :raises project.config.SettingsError: it is no URL, or not one of a PostgreSQL database or an SQLite file.
    """
    try:
        text = text.strip() if isinstance(text, str) else text
        libpq_only = LIBPQ_ONLY.fullmatch(text) if isinstance(text, str) else None
        url = _from_libpq(libpq_only[1]) if libpq_only else make_url(text)
    except (ArgumentError, ValueError, psycopg2.Error):
        raise config.SettingsError(f'{variable} must be a URL such as {EXAMPLE}') from None
    if url.drivername in ('postgres', 'postgresql', 'postgresql+psycopg2'):
        url = _without_query_fields(url.set(drivername='postgresql+psycopg2'))
        try:
            libpq.check(connect_arguments(url))
        except (ArgumentError, OSError, TypeError, ValueError, psycopg2.Error) as error:
            message = f'{variable} cannot be used: {" ".join(str(error).split())}; use a URL such as {EXAMPLE}'
            raise config.SettingsError(f'{message}, and check the PG* variables.') from None
        return url
    name = url.database or ':memory:'
    # A name that begins with "file:" is a URL of SQLite's own, which has many forms for one file.
    files = URL.create('sqlite', database=name), URL.create('sqlite+pysqlite', database=name)
    if url in files and name != ':memory:' and not name.startswith('file:'):
        return url
    raise config.SettingsError(
        f'{variable} must name a PostgreSQL database, such as {EXAMPLE}, '
        'or an SQLite file, with three slashes and without options, such as sqlite:///users.db.'
    )


def _from_libpq(rest: str) -> URL:
    """Return the URL for one that libpq reads, without its scheme, and SQLAlchemy does not."""
    query: dict[str, str] = parse_dsn(f'postgresql{rest}')
    return URL.create('postgresql', query=query)


def _without_query_fields(url: URL) -> URL:
    """Return ``url`` with the user, the password and the database in their usual places, where a password is hidden."""
    query = dict(url.query)
    user, password, name = (query.pop(field, None) for field in ('user', 'password', 'dbname'))
    return url.set(
        query=query,
        username=str(user) if user is not None else url.username,
        password=str(password) if password is not None else url.password,
        database=str(name) if name is not None else url.database,
    )
