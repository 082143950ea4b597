"""The locale of the database does not affect whether emails are equal: in Turkish, ``i`` is not lower case of ``I``."""

import contextlib
import io
import json
import tempfile
import unittest
from pathlib import Path
from unittest import mock

import flask_migrate
from sqlalchemy import insert, inspect, text

from project import db, transfer
from project.commands.users import seed_original
from project.tests.base import dispose, make_app
from project.tests.support.databases import TURKISH, other_database
from project.tests.test_migrations import NOON, OLD

OLD_INDEX = ('DROP INDEX users_email_key', 'CREATE UNIQUE INDEX users_email_key ON users (lower(email))')
INSERT = "INSERT INTO users (username, email, created_at) VALUES ('x', '{}', now())"
# Letters that are equal by this collation must still be different characters to the service.
ACCENTS = "CREATE COLLATION accents (provider = icu, locale = 'und-u-ks-level1', deterministic = false)"


class TurkishTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.url = cls.enterClassContext(other_database(TURKISH))

    def setUp(self):
        self.app = make_app(SQLALCHEMY_DATABASE_URI=self.url)
        self.addCleanup(dispose, self.app)
        self.enterContext(self.app.app_context())
        self.execute('DROP SCHEMA public CASCADE', 'CREATE SCHEMA public')
        self.client = self.app.test_client()

    def execute(self, *statements):
        with db.engine.begin() as connection:
            for statement in statements:
                connection.execute(text(statement))

    def upgrade(self, revision='head'):
        with mock.patch('alembic.config.Config.print_stdout'):
            flask_migrate.upgrade(revision=revision)

    def assert_clash(self, words):
        """Check that an upgrade names the emails that clash, and changes nothing."""
        before = self.schema()
        with self.assertLogs('flask_migrate') as logs, self.assertRaises(SystemExit):
            self.upgrade()
        self.assertIn('nothing was changed', logs.output[0])
        self.assertIn(words, logs.output[0])
        self.assertEqual(self.schema(), before)

    def schema(self):
        with db.engine.connect() as connection:
            return connection.execute(text('SELECT indexdef FROM pg_indexes ORDER BY 1')).all()

    def post(self, email):
        return self.client.post('/users', json={'username': 'IRIS', 'email': email}).status_code

    def found(self, **query):
        return [user['email'] for user in self.client.get('/users', query_string=query).json['data']['users']]

    def check_identities(self):
        """Check that emails are equal if only the case of ASCII letters differs, and different for other letters."""
        self.assertEqual([self.post(email) for email in ('michael@example.com', 'IRIS@example.com')], [201, 201])
        self.assertEqual([self.post(email) for email in ('MICHAEL@example.com', 'iris@EXAMPLE.com')], [400, 400])
        self.assertEqual(self.post('\u0131ris@example.com'), 201)  # the dotless i
        self.assertEqual(self.found(email='iris@example.com'), ['IRIS@example.com'])
        self.assertEqual(self.found(email='MICHAEL@example.COM'), ['michael@example.com'])
        self.assertEqual(self.found(q='IRI'), self.found(q='iri'))
        self.assertEqual(len(self.found(q='iri')), 3)  # each has this username
        self.assertEqual(self.found(q='MICH'), ['michael@example.com'])

    def test_users_are_distinguished_as_in_every_locale(self):
        for make in (self.upgrade, db.create_all):
            with self.subTest(make=make.__name__):
                self.execute('DROP SCHEMA public CASCADE', 'CREATE SCHEMA public')
                make()
                self.check_identities()

    def test_users_are_distinguished_whatever_the_collation_of_the_column(self):
        self.upgrade()
        self.execute(
            ACCENTS,
            *(f'ALTER TABLE users ALTER {name} TYPE varchar(128) COLLATE accents' for name in ('email', 'username')),
        )
        self.check_identities()
        self.assertEqual([self.post(email) for email in ('rene@example.com', 'ren\xe9@example.com')], [201, 201])
        self.assertEqual(self.found(email='rene@example.com'), ['rene@example.com'])

    def test_look_ups_use_the_indexes(self):
        self.upgrade()
        for where, index in (
            ('lower(email COLLATE "C") = lower(\'IRIS@example.com\' COLLATE "C")', 'users_email_key'),
            ("lower(username COLLATE \"C\") BETWEEN 'ir' AND 'ir' || 'z'", 'users_username_prefix_idx'),
        ):
            with self.subTest(index=index), db.engine.connect() as connection:
                connection.execute(text('SET LOCAL enable_seqscan = off'))
                plan = connection.execute(text(f'EXPLAIN SELECT id FROM users WHERE {where}')).all()
                self.assertIn(index, str(plan))

    def test_sample_users_are_found_whatever_their_case(self):
        self.upgrade()
        self.execute(INSERT.format('MICHAEL@REALPYTHON.COM'))
        self.assertEqual(seed_original(), 1)

    def test_load_reports_an_email_that_another_user_has(self):
        self.upgrade()
        self.execute(INSERT.format('IRIS@example.com'))
        user = {'id': 7, 'username': 'i', 'email': 'iris@example.com', 'active': False}
        with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stderr(io.StringIO()) as err:
            file = Path(folder) / 'users.jsonl'
            file.write_text(json.dumps(user | {'created_at': '2026-01-01T00:00:00.000000Z'}))
            self.assertEqual(transfer.load(str(file)).rejected, 1)
        self.assertIn('another user has its email', err.getvalue())

    def test_emails_that_only_the_locale_distinguished_are_named(self):
        self.upgrade('0001')
        self.execute(*OLD_INDEX, *map(INSERT.format, ('michael@example.com', 'MICHAEL@example.com')))
        self.assert_clash('michael@example.com (2 users)')

    def test_existing_table_is_taken_along(self):
        self.upgrade('0001')
        self.execute(*OLD_INDEX, INSERT.format('IRIS@example.org'))
        self.upgrade()
        self.assertEqual(self.post('iris@example.org'), 400)

    def test_downgrade_works_with_emails_that_the_locale_takes_for_equal(self):
        self.upgrade()
        self.assertEqual([self.post(email) for email in ('IRIS@example.com', '\u0131r\u0131s@example.com')], [201, 201])
        with mock.patch('alembic.config.Config.print_stdout'):
            flask_migrate.downgrade(revision='0001', x_arg=['force=yes'])

    def store_old(self, *emails):
        with db.engine.begin() as connection:
            OLD.create(connection)
            user = {'username': 'x', 'active': True, 'created_at': NOON}
            connection.execute(insert(OLD), [user | {'email': email} for email in emails])

    def test_table_of_2017_is_taken_over(self):
        self.store_old('IRIS@example.com', '\u0131r\u0131s@example.com')  # equal in Turkish
        self.upgrade()
        self.assertEqual(self.found(email='iris@example.com'), ['IRIS@example.com'])
        self.assertFalse(inspect(db.engine).has_table('user'))

    def test_clashes_in_the_table_of_2017_are_named(self):
        self.store_old('IRIS@example.com', 'iris@example.com')
        self.assert_clash('iris@example.com (2 users)')
