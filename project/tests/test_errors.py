"""Every failure has the JSON envelope, and no internal detail."""

import sqlite3
import tempfile
from pathlib import Path
from unittest import mock

import psycopg2
from sqlalchemy.exc import ProgrammingError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from werkzeug.exceptions import BadGateway

from project import db
from project.database import connecting
from project.database.connecting import TimedOut
from project.tests.base import BEARER, TOKEN, BaseTestCase, dispose, make_app
from project.tests.test_users import ANN

READ = 'The database is not available. Try again in a moment.'
WRITE = 'The database is not available. Whether the change was made is unknown: look before trying again.'


class UnknownTest(BaseTestCase):
    def test_unknown_path_is_not_found(self):
        paths = '/users//1 /users/ /users// /users/1/ /users/1/x /./users/x/y /ping/ /nowhere'
        more = '/user /Users /users.json /console /favicon.ico /static/x /users/\0/x'
        for path in (*paths.split(), *more.split(), '/' + 'x' * 3000):
            for method in ('GET', 'POST', 'DELETE', 'OPTIONS'):
                with self.subTest(path=path[:30], method=method):
                    # The test client would read two slashes as the start of a host name.
                    response = self.client.open(method=method, environ_overrides={'PATH_INFO': path})
                    self.assert_failure(response, 404, 'Not Found')

    def test_404_of_the_root_says_where_the_users_and_the_documentation_are(self):
        for prefix in ('', '/api'):
            for path in ('', '/', '//'):
                for method in ('GET', 'POST', 'DELETE', 'OPTIONS'):
                    with self.subTest(prefix=prefix, path=path, method=method):
                        environ = {'SCRIPT_NAME': prefix, 'PATH_INFO': path}
                        response = self.client.open(method=method, environ_overrides=environ)
                        message = f'The users are at {prefix}/users, the documentation at {prefix}/docs.'
                        self.assert_failure(response, 404, message)

    def test_several_slashes_at_the_start_count_as_one(self):
        for path in ('//users', '///users'):
            with self.subTest(path=path):
                response = self.client.get(environ_overrides={'PATH_INFO': path})
                self.assertEqual((response.status_code, response.json), (200, self.client.get('/users').json))

    def test_head_of_an_unknown_path_has_no_body(self):
        response = self.client.head('/nowhere')
        self.assertEqual((response.status_code, response.data), (404, b''))

    def test_response_to_a_wrong_method_names_the_right_ones(self):
        for path, methods in (
            ('/users', {'GET', 'HEAD', 'OPTIONS', 'POST'}),
            ('/users/1', {'GET', 'HEAD', 'OPTIONS', 'PATCH', 'DELETE'}),
            ('/ping', {'GET', 'HEAD', 'OPTIONS'}),
        ):
            for method in {'POST', 'PUT', 'PATCH', 'DELETE', 'TRACE', 'PROPFIND'} - methods:
                with self.subTest(path=path, method=method):
                    response = self.client.open(path, method=method)
                    self.assert_failure(response, 405, 'Method Not Allowed')
                    self.assertEqual(set(response.headers['Allow'].split(', ')), methods)


class UnexpectedTest(BaseTestCase):
    settings = {'API_TOKENS': TOKEN}

    def test_unexpected_exception_shows_no_detail(self):
        for target, method, path in (
            ('project.database.Database.read', 'GET', '/users'),
            ('project.database.Database.read', 'GET', '/users/1'),
            ('project.database.Database.write', 'POST', '/users'),
            ('project.api.users.etag', 'POST', '/users'),
            ('project.api.auth.check_token', 'DELETE', '/users/1'),  # before the view
        ):
            with self.subTest(target=target, method=method, path=path):
                with mock.patch(target, side_effect=KeyError('secret inside')), self.assertLogs('project') as logs:
                    response = self.client.open(path, method=method, json=ANN)
                self.assert_failure(response, 500, 'Internal Server Error')
                self.assertNotIn('secret', response.text)
                self.assertIn('secret inside', logs.output[0])
                self.assertIn('Traceback', logs.output[0])

    def test_invalid_statement_is_a_500(self):
        error = ProgrammingError('SELECT secret inside', {}, psycopg2.ProgrammingError('secret inside'))
        with mock.patch('project.database.Database.read', side_effect=error), self.assertLogs('project') as logs:
            response = self.client.get('/users/1')
        self.assert_failure(response, 500, 'Internal Server Error')
        self.assertNotIn('Retry-After', response.headers)
        self.assertIn('secret inside', logs.output[0])

    def test_violation_of_another_constraint_is_a_500(self):
        user = {'username': None, 'email': 'ann@example.com'}
        with mock.patch('project.api.parsing.body', return_value=user), self.assertLogs('project'):
            self.assert_failure(self.client.post('/users'), 500, 'Internal Server Error')

    def test_other_http_errors_have_only_their_name(self):
        with mock.patch('project.database.Database.read', side_effect=BadGateway('secret inside')):
            self.assert_failure(self.client.get('/users'), 502, 'Bad Gateway')


class UnavailableTest(BaseTestCase):
    """Tests with an unavailable database: the driver is a mock, or an SQLite file cannot be used."""

    settings = {'API_TOKENS': TOKEN}

    def check_503(self, client, user_id=1):
        for method, path, message in (
            ('GET', '/users', READ),
            ('GET', '/users?limit=1', READ),
            ('HEAD', '/users', READ),
            ('GET', f'/users/{user_id}', READ),
            ('GET', '/health', READ),
            ('POST', '/users', WRITE),
            ('PATCH', f'/users/{user_id}', WRITE),
            ('DELETE', f'/users/{user_id}', WRITE),
        ):
            with self.subTest(method=method, path=path):
                with self.assertLogs('project') as logs:
                    body = {} if method in ('GET', 'HEAD') else {'json': ANN}
                    response = client.open(path, method=method, headers=BEARER, **body)
                self.assertEqual((response.status_code, response.headers['Retry-After']), (503, '1'))
                if method != 'HEAD':
                    self.assert_failure(response, 503, message)
                self.assertNotIn('secret', response.text)
                self.assertIn('database_unavailable', logs.output[0])
        self.assertEqual(client.get('/ping').status_code, 200)

    def client_of_postgresql(self):
        """Return a client of a service on PostgreSQL; the driver is a mock."""
        return self.client_of(SQLALCHEMY_DATABASE_URI='postgres://u:p@127.0.0.1:1/none', API_TOKENS=TOKEN)

    def test_postgresql_that_cannot_be_reached(self):
        client = self.client_of_postgresql()
        with mock.patch('psycopg2.connect', side_effect=psycopg2.OperationalError('secret')):
            self.check_503(client)

    def test_postgresql_that_does_not_respond(self):
        client = self.client_of_postgresql()
        with mock.patch('psycopg2.connect', side_effect=TimedOut('secret')) as connect:
            self.check_503(client)
            # While the circuit breaker is open, no request waits for it.
            self.assertLess(connect.call_count, 8)

    def test_sqlite_file_that_cannot_be_opened(self):
        with tempfile.TemporaryDirectory() as folder:
            client = self.client_of(SQLALCHEMY_DATABASE_URI=f'sqlite:///{folder}/users.db', API_TOKENS=TOKEN)
            Path(folder, 'users.db').mkdir()
            self.check_503(client)

    def test_sqlite_that_is_locked(self):
        folder = self.enterContext(tempfile.TemporaryDirectory())
        app = make_app(SQLALCHEMY_DATABASE_URI=f'sqlite:///{folder}/users.db', API_TOKENS=TOKEN)
        self.addCleanup(dispose, app)
        with app.app_context():
            db.create_all()
        client = app.test_client()
        user_id = client.post('/users', json=ANN).json['data']['id']
        other = sqlite3.connect(f'{folder}/users.db')
        other.execute('BEGIN IMMEDIATE')
        self.enterContext(mock.patch.object(connecting, 'CALL_SECONDS', 0.01))
        for method in ('POST', 'PATCH', 'DELETE'):
            with self.subTest(method=method), self.assertLogs('project'):
                path = '/users' if method == 'POST' else f'/users/{user_id}'
                response = client.open(path, method=method, json=ANN, headers=BEARER)
                self.assert_failure(response, 503, WRITE)
        self.assertEqual(len(client.get('/users').json['data']['users']), 1)
        other.rollback()
        other.close()
        self.assertEqual(client.delete(f'/users/{user_id}', headers=BEARER).status_code, 204)

    def test_pool_that_is_exhausted(self):
        with mock.patch('sqlalchemy.pool.QueuePool._do_get', side_effect=PoolTimeout('secret')):
            dispose(self.app)
            self.check_503(self.client)
