"""/health and /users detect a schema that is not that of the code. The tests use a scratch database."""

from unittest import mock

from sqlalchemy import Column, Integer, Table, text
from sqlalchemy.exc import DBAPIError

from project import db, readiness
from project.database import reading
from project.database.errors import CircuitOpen
from project.tests.test_migrations import HEAD, MigrationTestCase

UPGRADE = '"python manage.py db upgrade"'
RECREATE = '"python manage.py recreate_db"'
ANN = {'username': 'ann', 'email': 'ann@example.com'}


class ReadinessTest(MigrationTestCase):
    def setUp(self):
        super().setUp()
        self.client = self.app.test_client()

    def execute(self, *statements):
        with db.engine.begin() as connection:
            for statement in statements:
                connection.execute(text(statement))

    def code_has(self, *revisions):
        """Let the code have these revisions, of which the last is the newest."""
        migrations = frozenset(revisions), frozenset(revisions[-1:])
        return mock.patch('project.readiness._migrations', return_value=migrations)

    def assert_not_ready(self, words, requests=(('GET', '/health'), ('GET', '/users'), ('POST', '/users'))):
        messages = set()
        for method, path in requests:
            with self.subTest(method=method, path=path), self.assertLogs(self.app.logger) as logs:
                response = self.client.open(path, method=method, json=ANN if method == 'POST' else None)
                self.assertEqual((response.status_code, response.headers['Retry-After']), (503, '1'), response.text)
                self.assertEqual(response.json.keys(), {'status', 'message'})
                self.assertIn(words, response.json['message'])
                self.assertIn('schema_not_ready', logs.output[0])
                messages.add(response.json['message'])
        self.assertEqual(len(messages), 1)

    def assert_ready(self):
        for path in ('/health', '/users'):
            with self.subTest(path=path):
                response = self.client.get(path)
                self.assertEqual(response.status_code, 200, response.text)

    def test_empty_database_needs_an_upgrade(self):
        self.assert_not_ready(UPGRADE)
        self.upgrade()
        self.assert_ready()

    def test_dropped_tables_need_recreate_db(self):
        self.upgrade()
        self.assert_ready()
        db.drop_all()
        self.assert_not_ready(RECREATE)

    def test_database_of_2017_needs_an_upgrade(self):
        self.store_old({'email': 'ann@example.com'})
        self.assert_not_ready(UPGRADE)

    def test_tables_of_create_all_are_ready(self):
        db.create_all()
        self.assert_ready()

    def test_older_schema_needs_an_upgrade(self):
        self.upgrade()
        with self.code_has('0001', HEAD, 'newer'):
            self.assert_not_ready(UPGRADE, [('GET', '/health')])
            self.execute('ALTER TABLE users RENAME COLUMN active TO is_active')
            self.assert_not_ready(UPGRADE)

    def test_newer_schema_is_ready_while_it_has_what_the_code_needs(self):
        self.upgrade()
        self.execute("UPDATE alembic_version SET version_num = 'newer'", 'ALTER TABLE users ADD COLUMN more INTEGER')
        self.assert_ready()
        self.execute('ALTER TABLE users RENAME COLUMN active TO is_active')
        self.assert_not_ready('Start the newer code')

    def test_changed_models_need_a_migration(self):
        self.upgrade()
        extra = Table('extra', db.metadata, Column('id', Integer, primary_key=True))
        self.addCleanup(db.metadata.remove, extra)
        self.assert_not_ready('"python manage.py db migrate"', [('GET', '/health')])

    def test_changed_models_without_a_recorded_revision_need_a_stamp(self):
        db.create_all()
        self.execute('ALTER TABLE users RENAME COLUMN active TO is_active')
        self.assert_not_ready('"python manage.py db stamp REVISION"')

    def test_neither_health_nor_users_costs_a_query_more(self):
        self.upgrade()
        for path in ('/health', '/users'):
            with (
                self.subTest(path=path),
                mock.patch('project.database.fetch', side_effect=reading.fetch) as fetch,
            ):
                self.assertEqual(self.client.get(path).status_code, 200)
                self.assertEqual(fetch.call_count, 1)

    def test_wrong_statement_stays_a_500(self):
        self.upgrade()
        for statement in ('SELECT nope FROM users', 'SELECT id FROM nowhere'):
            with self.subTest(statement=statement), mock.patch('project.api.models.User.newest_first') as wrong:
                wrong.return_value = text(statement)
                with self.assertLogs(self.app.logger):
                    self.assertEqual(self.client.get('/users').status_code, 500)

    def test_error_of_a_session_in_an_added_view_names_the_command_too(self):
        @self.app.get('/added')
        def added():
            return {'count': db.session.execute(text('SELECT count(*) FROM users')).scalar_one()}

        self.assert_not_ready(UPGRADE, [('GET', '/added')])
        db.session.remove()
        self.upgrade()
        self.assertEqual(self.client.get('/added').json, {'count': 0})

    def test_wrong_statement_of_a_command_is_an_error(self):
        self.assertRaises(DBAPIError, readiness.read_patiently, text('SELECT 1 FROM'))

    def test_database_that_is_lost_while_the_schema_is_looked_at_is_unavailable(self):
        lost = mock.patch('project.readiness.inspect_schema', side_effect=CircuitOpen)
        with lost, self.assertLogs(self.app.logger) as logs:
            response = self.client.get('/users')
        self.assertEqual(response.json['message'], 'The database is not available. Try again in a moment.')
        self.assertIn('database_unavailable', logs.output[0])
