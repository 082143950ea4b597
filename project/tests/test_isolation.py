"""The tests cannot reach the database of the service, whichever way its URL is spelled."""

import os
import socket
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import flask_migrate
from flask import Flask
from sqlalchemy import create_engine
from sqlalchemy.engine import URL
from sqlalchemy.pool import NullPool

from project import config, create_app, database_urls, db
from project.api.models import User
from project.commands import tests as commands
from project.database.identity import is_same_database
from project.tests import base
from project.tests.base import dispose
from project.tests.test_lesson import LessonTestCase


class IsolationTestCase(LessonTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.on_postgresql = self.url.startswith('postgres')
        self.enterContext(mock.patch.dict(os.environ, {database_urls.REPLACED: '', 'APP_SETTINGS': ''}))

    def patch_urls(self, url: str, test_url: str) -> None:
        """Let the two environment variables have these values."""
        for settings, text in ((config.BaseConfig, url), (config.TestingConfig, test_url)):
            self.enterContext(mock.patch.object(settings, 'SQLALCHEMY_DATABASE_URI', text))

    def other_spelling(self) -> str:
        """Return a URL of the development database that :func:`database_urls.places` does not recognize."""
        if self.on_postgresql:
            url = database_urls.parse(self.url, '')
            host = socket.gethostbyname(url.host or 'localhost')
            spelling = '127.1' if host == '127.0.0.1' else f'::ffff:{host}'
            return url.set(host=spelling).render_as_string(hide_password=False)
        link = Path(self.folder, 'link.db')
        if not link.exists():
            link.hardlink_to(self.url.removeprefix('sqlite:///'))
        return f'sqlite:///{link}'


class TestDatabaseTest(IsolationTestCase):
    def test_other_spelling_of_the_development_database_is_rejected(self) -> None:
        for url, test_url in ((self.url, self.other_spelling()), (self.other_spelling(), self.url)):
            with self.subTest(test_url=test_url), mock.patch('unittest.TextTestRunner.run') as run:
                self.patch_urls(url, test_url)
                with self.assertRaises(SystemExit) as end:
                    commands.run_tests(['test_users'])
                self.assertEqual(end.exception.code, database_urls.SAME_DATABASE)
                run.assert_not_called()

    def test_url_of_sqlite_itself_is_rejected(self) -> None:
        for url in ('sqlite:///file:/tmp/dev.db?uri=true', 'sqlite:///file::memory:?uri=true'):
            with self.subTest(url=url), self.assertRaisesRegex(config.SettingsError, 'DATABASE_URL must name'):
                database_urls.parse(url, 'DATABASE_URL')

    def test_wrong_option_of_libpq_is_rejected(self) -> None:
        for query, words in (
            ('nonsense=secret', 'nonsense'),
            ('database=secret', 'database'),
            ('host=a:1&host=b:2&port=secret', 'DATABASE'),
        ):
            with self.subTest(query=query), self.assertRaisesRegex(config.SettingsError, words) as raised:
                database_urls.parse(f'postgres://u:secret@h/users?{query}', 'DATABASE_URL')
            self.assertRegex(str(raised.exception), r'\ADATABASE_URL cannot be used: [^\n]*\Z')
            self.assertNotIn('secret', str(raised.exception))

    def test_database_is_compared_with_others(self) -> None:
        if not self.on_postgresql:
            self.skipTest('files are compared instead')
        url, test_url = (database_urls.parse(text, '') for text in (self.url, self.test_url))
        missing = url.set(database='no_such_database')
        for other, by_name, expected in (
            (database_urls.parse(self.other_spelling(), ''), False, True),
            (database_urls.parse(self.other_spelling(), ''), True, True),
            (test_url, False, False),
            (test_url, True, False),
            (missing, False, False),
        ):
            with self.subTest(other=other, by_name=by_name):
                self.assertIs(self.is_same_database(url, other, by_name), expected)

    def is_same_database(self, url: URL, other: URL, by_name: bool) -> bool:
        """Return whether a connection to ``url`` is to the database of ``other``."""
        with create_engine(url, poolclass=NullPool).connect() as connection:
            return is_same_database(connection.connection.dbapi_connection, other, by_name)


class RunningTestsTest(IsolationTestCase):
    """Tests that run under ``manage.py test``."""

    def test_app_on_another_spelling_cannot_use_the_development_database(self) -> None:
        self.patch_urls(self.url, self.test_url)
        database_urls.use_test_settings()
        url = self.other_spelling()
        app = create_app(type('Own', (config.DevelopmentConfig,), {'SQLALCHEMY_DATABASE_URI': url}))
        self.addCleanup(dispose, app)
        with app.app_context():
            if self.on_postgresql:
                for _ in range(2):
                    with self.assertRaisesRegex(config.SettingsError, r'Tests must not use .*:\*\*\*@'):
                        db.drop_all()
            else:
                db.drop_all()
        self.assertEqual(self.stored_users(), self.users)


class WithoutTheCommandTest(IsolationTestCase):
    """Tests that pytest or unittest runs, so that the test settings are not in force."""

    def check_rejected(self, app: Flask, *calls: Callable[[], object]) -> None:
        self.addCleanup(dispose, app)
        with app.app_context():
            for call in calls:
                with self.subTest(call=call), self.assertRaisesRegex(RuntimeError, 'was rejected: .* manage.py test'):
                    call()
        self.assertEqual(self.stored_users(), self.users)

    def test_testing_app_on_the_development_database_creates_and_drops_nothing(self) -> None:
        # SQLite cannot use a file that is open under two names.
        for url in (self.url, self.other_spelling()) if self.on_postgresql else (self.url,):
            with self.subTest(url=url):
                self.patch_urls(self.url, self.test_url)
                app = create_app(type('Own', (config.DevelopmentConfig,), {'SQLALCHEMY_DATABASE_URI': url}))
                app.config['TESTING'] = True
                self.check_rejected(app, db.create_all, db.drop_all)

    def test_tables_are_not_dropped_through_their_metadata_either(self) -> None:
        self.patch_urls(self.url, self.test_url)
        app = create_app('project.config.DevelopmentConfig')
        app.config.from_object('project.config.TestingConfig')
        self.check_rejected(
            app,
            lambda: db.metadata.drop_all(db.engine),
            lambda: db.metadata.create_all(db.engine),
            lambda: User.__table__.drop(db.engine),
            db.drop_all,
        )

    def test_check_of_the_test_database_changes_no_setting(self) -> None:
        before = dict(os.environ)
        base.refuse_other_databases(base.url_of_tests())
        self.assertEqual(dict(os.environ), before)

    def test_testing_app_migrates_the_development_database(self) -> None:
        self.patch_urls(self.url, self.test_url)
        app = create_app('project.config.DevelopmentConfig')
        app.config['TESTING'] = True
        self.addCleanup(dispose, app)
        with app.app_context():
            flask_migrate.stamp()
            flask_migrate.upgrade()
        self.assertEqual(self.stored_users(), self.users)
