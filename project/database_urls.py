"""Which database an app uses: the one that its settings name, except that tests never use that of the service."""

import json
import os
import re
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import psycopg2
from flask import Flask, current_app
from flask_sqlalchemy import SQLAlchemy
from psycopg2.extensions import parse_dsn
from sqlalchemy import event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from project import config
from project.database import libpq
from project.database.engine import configure
from project.database.identity import is_same_database

if TYPE_CHECKING:
    from flask_sqlalchemy.model import Model
    from sqlalchemy import Table
    from sqlalchemy.orm import DeclarativeBase

    class DeclarativeModel(Model, DeclarativeBase):
        """The type of ``db.Model``, which Flask-SQLAlchemy makes of these two when it is called."""

        # SQLAlchemy's FromClause allows for models of a SELECT. All models of this service have a table.
        __table__: ClassVar[Table]  # pyright: ignore[reportIncompatibleVariableOverride]


LOCAL = ('', '127.0.0.1', '::1')
# Several hosts, or an encoded host such as a folder of Unix sockets, before the path.
LIBPQ_ONLY = re.compile(r'postgres(?:ql)?(?:\+psycopg2)?(://(?:[^/?@]*@)?[^/?@]*[,%][^/?@]*(?:[/?].*)?)', re.DOTALL)

# An environment variable, which the processes that tests start inherit. JSON: the URL of the test database by the URL
# of each database that tests must not use.
REPLACED = 'REPLACED_DATABASES'
_others: set[Hashable] = set()  # places that are known not to be a database of the service


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
    return next((test_url for used, test_url in replaced().items() if _names_same(url, used)), url)


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
    """Return values of which two URLs of one database share at least one, whoever logs in and with what options.

    For PostgreSQL they are made of what libpq would take from the URL, a service file and the ``PG*`` variables.

    :param url: as :func:`parse` returns it.
    """
    if url.get_backend_name() == 'sqlite':
        return frozenset([(Path(__file__).parents[1] / 'instance' / str(url.database)).resolve()])
    parameters = libpq.parameters(connect_arguments(url))
    found: set[Hashable] = set()
    for server in libpq.servers(parameters):
        for name in {server.host, server.hostaddr} - {''} or {''}:
            host = 'localhost' if name in LOCAL or name.startswith(('/', '@')) else name.lower()
            found.add((host, server.port or '5432', parameters['dbname']))
    return frozenset(found)


def connect_arguments(url: URL) -> dict[str, Any]:
    """Return what SQLAlchemy passes to ``psycopg2.connect()`` for a URL of PostgreSQL."""
    return url.get_dialect()().create_connect_args(url)[1]


def _names_same(url: URL, other: URL) -> bool:
    """Return whether the texts of two URLs, or the files that they name, show that they are of one database."""
    here, there = places(url), places(other)
    if here & there:
        return True
    files = [place for place in (*here, *there) if isinstance(place, Path) and place.exists()]
    return len(files) == 2 and files[0].samefile(files[1])


def _complete(url: URL) -> str:
    """Return a URL as text, with its password, and with the absolute path of an SQLite file."""
    where = next(iter(places(url)))
    return (url.set(database=str(where)) if isinstance(where, Path) else url).render_as_string(hide_password=False)


def is_of_service(connection: Any, url: URL, by_name: bool = False) -> bool:
    """Return whether a connection is to a database that tests must not use.

    :param connection: the driver's connection.
    :param url: the URL of its engine.
    :param by_name: as for :func:`project.database.identity.is_same_database`.
    """
    key = places(url), by_name, os.environ.get(REPLACED)
    if key in _others:
        return False
    on_postgresql = url.get_backend_name() == 'postgresql'
    for used in service_urls():
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
        libpq_only = LIBPQ_ONLY.fullmatch(text) if isinstance(text, str) else None
        url = _from_libpq(libpq_only[1]) if libpq_only else make_url(text)
    except (ArgumentError, ValueError, psycopg2.Error):
        raise config.SettingsError(f'{variable} is no URL such as postgres://user:password@host:5432/users') from None
    if url.drivername in ('postgres', 'postgresql', 'postgresql+psycopg2'):
        url = _without_query_fields(url.set(drivername='postgresql+psycopg2'))
        try:
            libpq.servers(libpq.parameters(connect_arguments(url)))
        except (ArgumentError, psycopg2.Error) as error:
            raise config.SettingsError(f'{variable} cannot be used: {str(error).strip()}.') from None
        return url
    if url.drivername in ('sqlite', 'sqlite+pysqlite') and url.database not in (None, '', ':memory:'):
        if not url.database.startswith('file:'):  # SQLite's own URLs have many forms for one file
            return url
    raise config.SettingsError(
        f'{variable} must name a PostgreSQL database (postgres://...) or an SQLite file (sqlite:///...).'
    )


def _from_libpq(rest: str) -> URL:
    """Return the URL for one that libpq reads, without its scheme, and SQLAlchemy does not."""
    query: dict[str, str] = parse_dsn(f'postgresql{rest}')
    return URL.create('postgresql', query=query)


def _without_query_fields(url: URL) -> URL:
    """Return ``url`` with the user, the password and the database in their usual places, where a password is hidden."""
    query = dict(url.query)
    fields = {
        'username': query.pop('user', url.username),
        'password': query.pop('password', url.password),
        'database': query.pop('dbname', url.database),
    }
    return url.set(query=query, **fields)


class GuardedSQLAlchemy(SQLAlchemy):
    """SQLAlchemy that creates and drops tables only in the database that the app's configuration names.

    Flask-SQLAlchemy creates the engines in :meth:`init_app`. A configuration that is loaded later does not move them.
    """

    Model: 'type[DeclarativeModel]'

    def init_app(self, app: Flask) -> None:
        """Create the engines of ``app``, and leave its ``SQLALCHEMY_DATABASE_URI`` as it was given.

        :raises project.config.SettingsError: that is not a URL of PostgreSQL or of an SQLite file.
        """
        given = app.config['SQLALCHEMY_DATABASE_URI']
        app.config['SQLALCHEMY_DATABASE_URI'] = app.extensions['database_url'] = engine_url(app.config)
        configure(app)
        super().init_app(app)
        app.config['SQLALCHEMY_DATABASE_URI'] = given
        with app.app_context():
            for engine in self.engines.values():
                if engine.dialect.name == 'postgresql':
                    event.listen(engine, 'first_connect', lambda connection, _, url=engine.url: _check(connection, url))

    def create_all(self, *args: Any, **kwargs: Any) -> None:
        """Create the tables that do not exist; arguments as for Flask-SQLAlchemy.

        :raises RuntimeError: the configuration of the current app now names another database.
        """
        self._check_database('create_all')
        super().create_all(*args, **kwargs)

    def drop_all(self, *args: Any, **kwargs: Any) -> None:
        """Drop all tables; arguments as for Flask-SQLAlchemy.

        :raises RuntimeError: the configuration of the current app now names another database.
        """
        self._check_database('drop_all')
        super().drop_all(*args, **kwargs)

    def _check_database(self, method: str) -> None:
        url = current_app.extensions['database_url']
        try:
            if engine_url(current_app.config) == url:
                return
        except config.SettingsError:
            pass  # so it names another one
        raise RuntimeError(
            f'db.{method}() was rejected: this app was created on {url.render_as_string()}, but its configuration '
            'has changed since and names another database. Run the tests with "python manage.py test", or '
            "create the app with its configuration: create_app('project.config.TestingConfig')."
        )


def _check(connection: Any, url: URL) -> None:
    """Reject a connection of tests to a database of the service whose URL has another spelling.

    :raises project.config.SettingsError: it is to such a database.
    """
    if os.environ.get(REPLACED):
        try:
            if is_of_service(connection, url, by_name=True):
                raise config.SettingsError(
                    f'Tests must not use {url.render_as_string()}: it is the database of DATABASE_URL.'
                )
        finally:
            connection.rollback()
