"""Which database an app uses: the one that its settings name, except that tests never use that of the service."""

import os
import re
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import psycopg2
from flask import Flask, current_app
from flask_sqlalchemy import SQLAlchemy
from psycopg2.extensions import parse_dsn
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from project import config
from project.database import libpq
from project.database.engine import configure

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

_replacements: dict[Hashable, URL] = {}  # the test database, by each place of a database that tests must not use


def engine_url(settings: Mapping[str, Any]) -> URL:
    """Return the URL of the database that an app with these settings uses.

    :param settings: such as ``app.config``.
    :raises project.config.SettingsError: its ``SQLALCHEMY_DATABASE_URI`` names no database that the service can use.
    """
    variable = 'DATABASE_TEST_URL' if settings['TESTING'] else 'DATABASE_URL'
    url = parse(settings['SQLALCHEMY_DATABASE_URI'], variable)
    tests = [_replacements[place] for place in places(url) if place in _replacements] if _replacements else []
    return tests[0] if tests else url


def use_test_settings() -> None:
    """Put the test settings in force, for the rest of this process and for the processes that it starts.

    ``APP_SETTINGS`` then names ``TestingConfig``. Every app that is created on the database of ``DATABASE_URL``, or
    on that of the configuration that ``APP_SETTINGS`` named before, gets the test database instead.

    :raises project.config.SettingsError: a setting is wrong, or the test database is in use by the service.
    """
    test_url = parse(config.TestingConfig.SQLALCHEMY_DATABASE_URI, 'DATABASE_TEST_URL')
    for settings in (config.BaseConfig, config.default_settings()):
        if not settings.TESTING:
            used = places(parse(settings.SQLALCHEMY_DATABASE_URI, 'DATABASE_URL'))
            if used & places(test_url):
                raise config.SettingsError(
                    'DATABASE_TEST_URL names the database of DATABASE_URL, whose users the tests would delete; '
                    'set it to another database.'
                )
            _replacements.update(dict.fromkeys(used, test_url))
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
