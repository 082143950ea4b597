"""The extension Flask-SQLAlchemy, changed to create and drop tables only in the configured database."""

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from flask import Flask, current_app, has_app_context
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import Connection, MetaData, Table, event
from sqlalchemy.engine import URL

from project import config, database_urls
from project.database.engine import configure

if TYPE_CHECKING:
    from flask_sqlalchemy.model import Model
    from sqlalchemy.orm import DeclarativeBase

    class DeclarativeModel(Model, DeclarativeBase):
        """The type of ``db.Model``, which Flask-SQLAlchemy makes of these two when it is called."""

        # SQLAlchemy declares a FromClause, since a model may be mapped to a SELECT. Here all models have a table.
        __table__: ClassVar[Table]  # pyright: ignore[reportIncompatibleVariableOverride]


class GuardedSQLAlchemy(SQLAlchemy):
    """SQLAlchemy that creates and drops tables only in the database that the app's configuration names.

    Flask-SQLAlchemy creates the engines in :meth:`init_app`. A configuration that is loaded later does not move them.
    Apps with a configuration for tests create and drop no tables in the database of ``DATABASE_URL``.
    """

    Model: 'type[DeclarativeModel]'

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for kind in (MetaData, Table):
            for verb in ('create', 'drop'):
                event.listen(kind, f'before_{verb}', partial(self._check_database, verb))

    def init_app(self, app: Flask) -> None:
        """Create the engines of ``app``, and leave its ``SQLALCHEMY_DATABASE_URI`` as it was given.

        :raises project.config.SettingsError: that is not a URL of PostgreSQL or of an SQLite file.
        """
        given = app.config['SQLALCHEMY_DATABASE_URI']
        app.config['SQLALCHEMY_DATABASE_URI'] = app.extensions['database_url'] = database_urls.engine_url(app.config)
        configure(app)
        super().init_app(app)
        app.config['SQLALCHEMY_DATABASE_URI'] = given
        with app.app_context():
            for engine in self.engines.values():
                if engine.dialect.name == 'postgresql':
                    event.listen(engine, 'first_connect', lambda connection, _, url=engine.url: _check(connection, url))

    def _check_database(self, verb: str, target: MetaData | Table, connection: Connection, **options: Any) -> None:
        """Check the database before tables of the models are created or dropped in it.

        :param verb: ``create`` or ``drop``.
        :param target: what is created or dropped. Alembic's operations have a ``MetaData`` of their own.
        :raises RuntimeError: the configuration of the current app now names another database than the app uses,
            or it is a configuration for tests and the database is that of ``DATABASE_URL``.
        """
        metadata = target if isinstance(target, MetaData) else target.metadata
        if metadata not in self.metadatas.values() or not has_app_context():
            return
        settings, created_on = current_app.config, current_app.extensions['database_url']
        url, opened = connection.engine.url, connection.connection.dbapi_connection
        reason = None
        if settings['TESTING'] and database_urls.is_among(database_urls.service_urls(), opened, url):
            reason = 'its configuration is one for tests, but this is the database of DATABASE_URL'
        elif database_urls.places(url) & database_urls.places(created_on) and not _is_named(created_on, settings):
            reason = 'its configuration has changed since and names another database'
        if reason:
            method = f'db.{verb}_all' if isinstance(target, MetaData) else f'{target.name}.{verb}'
            raise RuntimeError(
                f'{method}() was rejected: this app is on {url.render_as_string()}; {reason}. '
                'Run the tests with "python manage.py test", or create the app with its configuration: '
                "create_app('project.config.TestingConfig')."
            )


def _is_named(url: URL, settings: Mapping[str, Any]) -> bool:
    """Return whether an app that is created with these settings uses the database at ``url``."""
    try:
        return database_urls.engine_url(settings) == url
    except config.SettingsError:
        return False


def _check(connection: Any, url: URL) -> None:
    """Reject a connection of tests to a database of the service whose URL has another spelling.

    :raises project.config.SettingsError: it is to such a database.
    """
    if urls := database_urls.replaced():
        try:
            if database_urls.is_among(urls, connection, url, by_name=True):
                raise config.SettingsError(
                    f'Tests must not use {url.render_as_string()}: it is the database of DATABASE_URL.'
                )
        finally:
            connection.rollback()
