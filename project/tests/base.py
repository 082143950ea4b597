"""The base of the tests: an app on the test database, and helpers that act as a client.

No other database than the test database is emptied. :func:`refuse_other_databases` checks this before anything is
deleted. ``use_test_settings`` checks that the test database is not the database of the service.
"""

import contextlib
import secrets
import sqlite3
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from flask import Flask
from flask.testing import FlaskClient
from flask_testing import TestCase
from sqlalchemy import Engine, create_engine, delete, event, func, insert, select, text
from sqlalchemy.engine import URL
from sqlalchemy.pool import NullPool
from werkzeug.test import TestResponse

from project import config, create_app, database_urls, db
from project.api.models import User

ROOT = Path(__file__).parents[2]
TOKEN = 'a-token-of-the-tests-that-is-long-enough'
BEARER = {'Authorization': f'Bearer {TOKEN}'}
STATUS = {2: 'success', 4: 'fail', 5: 'error'}

_with_tables: set[URL] = set()  # the databases whose tables this process has made


@event.listens_for(Engine, 'connect')
def skip_syncs(connection: Any, _record: Any) -> None:
    """Let SQLite write without waiting for the disk, since the databases of tests need not survive a power cut."""
    if isinstance(connection, sqlite3.Connection):
        connection.execute('PRAGMA synchronous=OFF')


def make_app(base: type = config.TestingConfig, **settings: Any) -> Flask:
    """Return an app with the settings of ``base``, changed by ``settings``, and independent of the environment."""
    return create_app(type('Settings', (base,), {'SECRET_KEY': 'my_precious'} | settings))


def dispose(app: Flask) -> None:
    """Close the database connections of ``app``; an open one would be a ResourceWarning later."""
    with app.app_context():
        db.session.remove()
        for engine in db.engines.values():
            engine.dispose()


def url_of_tests() -> URL:
    """Return the URL of the test database."""
    return database_urls.parse(config.TestingConfig.SQLALCHEMY_DATABASE_URI, 'DATABASE_TEST_URL')


def refuse_other_databases(url: URL) -> None:
    """Raise an error unless ``url``, which names a database to be emptied, is that of the test database.

    :raises RuntimeError: it is that of another database.
    """
    test_url = url_of_tests()
    if database_urls.places(url) != database_urls.places(test_url):
        raise RuntimeError(f'{url} is not the test database {test_url}: nothing was deleted.')


def empty_tables() -> None:
    """Remove all users from the database of the current app, which gets new tables the first time."""
    refuse_other_databases(db.engine.url)
    database_urls.use_test_settings()  # when the tests run without manage.py
    if db.engine.url not in _with_tables:
        db.drop_all()
        db.create_all()
        _with_tables.add(db.engine.url)
    db.session.execute(delete(User))
    db.session.commit()


@contextlib.contextmanager
def scratch_database() -> Iterator[str]:
    """Create an empty database of the same kind as the test database, give its URL as text, and remove it."""
    url = url_of_tests()
    if url.get_backend_name() == 'sqlite':
        with tempfile.TemporaryDirectory() as folder:
            yield f'sqlite:///{folder}/scratch.db'
        return
    refuse_other_databases(url)
    database_urls.use_test_settings()  # when the tests run without manage.py
    schema = f'scratch_{secrets.token_hex(4)}'
    engine = create_engine(url, poolclass=NullPool)
    try:
        with engine.begin() as connection:
            connection.execute(text(f'CREATE SCHEMA {schema}'))
        options = f'-csearch_path={schema} -csynchronous_commit=off'
        yield url.update_query_dict({'options': options}).render_as_string(hide_password=False)
    finally:
        with engine.begin() as connection:
            connection.execute(text(f'DROP SCHEMA {schema} CASCADE'))


class BaseTestCase(TestCase):
    """A test with ``self.app`` and ``self.client``, and no users in the test database."""

    settings: dict[str, Any] = {}  # of the app, beside those of TestingConfig

    def create_app(self) -> Flask:
        """Return the app of this test; Flask-Testing calls this method."""
        return make_app(**self.settings)

    def setUp(self) -> None:
        """Remove all users."""
        # Flask-Testing replaces response_class, so that Flask would convert each EncodedJSON.
        self.app.response_class = type(self.app).response_class
        self.addCleanup(dispose, self.app)
        empty_tables()

    @property
    def on_postgresql(self) -> bool:
        """Whether the test database is on PostgreSQL."""
        return db.engine.dialect.name == 'postgresql'

    def client_of(self, **settings: Any) -> FlaskClient:
        """Return a client of an app with other settings. It uses the same database unless they name another one."""
        app = make_app(**settings)
        self.addCleanup(dispose, app)
        return app.test_client()

    def add_user(self, username: str = 'ann', email: str = 'ann@example.com') -> dict[str, Any]:
        """Add a user over HTTP, and return it as in the response."""
        response = self.client.post('/users', json={'username': username, 'email': email})
        self.assertEqual(response.status_code, 201, response.text)
        return response.json['data']

    def store_users(self, count: int, **columns: Any) -> None:
        """Store ``count`` users, each created a minute after the previous one, with the same values of ``columns``."""
        start = datetime(2026, 1, 1, tzinfo=UTC)
        users = [
            {
                'username': f'user{number}',
                'email': f'user{number}@example.com',
                'active': False,
                'created_at': start + timedelta(minutes=number),
            }
            | columns
            for number in range(count)
        ]
        db.session.execute(insert(User), users)
        db.session.commit()

    def count_users(self) -> int:
        """Return the number of users in the table."""
        with db.engine.connect() as connection:
            return connection.scalar(select(func.count()).select_from(User))

    def list_users(self, path: str = '/users') -> list[dict[str, Any]]:
        """Return the users in the response to a GET of ``path``."""
        response = self.client.get(path)
        self.assertEqual(response.status_code, 200, response.text)
        return response.json['data']['users']

    def assert_failure(
        self, response: TestResponse, code: int, message: str | None = None, errors: dict[str, str] | None = None
    ) -> None:
        """Check that a response is a failure in the envelope, with the headers of every response."""
        self.assertEqual(response.status_code, code, response.text)
        self.assertEqual(response.content_type, 'application/json')
        self.assertEqual(response.headers['Access-Control-Allow-Origin'], '*')
        self.assertEqual(response.json['status'], STATUS[code // 100])
        if message:
            self.assertEqual(response.json['message'], message)
        else:
            self.assertTrue(response.json['message'])
        self.assertEqual(response.json.get('errors'), errors)
        self.assertLessEqual(response.json.keys(), {'status', 'message', 'errors'})
