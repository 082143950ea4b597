"""A database server whose messages are in another language or encoding, over HTTP and in commands."""

import contextlib
import io
import re
from unittest import mock

import psycopg2
from sqlalchemy import text

from project import db
from project.commands import waiting
from project.tests.base import BaseTestCase, dispose, make_app
from project.tests.support.fake_postgres import READY, FakePostgres, fatal, message, rows

STARTING = (
    'the database system is starting up',
    'das Datenbanksystem startet',
    'le système de base de données démarre',
    'база данных запускается',
)
FRENCH = STARTING[2].encode('latin1')
ROW = (7, 'ann', 'ann@example.com', False, '2026-01-01 00:00:00')
# Printed for FRENCH. On some releases of Python, psycopg2 loses the message.
LATIN1 = '(le syst.me de base de donn.es d.marre|the server sent a message that is not UTF-8)'
UNREADABLE = message(b'E', b'SERREUR\0C57014\0M' + FRENCH + b'\0\0') + READY
BROKEN_ROW = rows(('xx',)).replace(b'xx', b'\xe8m')
REQUESTS = (('GET', '/health'), ('GET', '/users'), ('GET', '/users?limit=1'), ('GET', '/users/7'), ('POST', '/users'))


class UnreadableTest(BaseTestCase):
    def setUp(self):
        super().setUp()
        self.server = self.enterContext(FakePostgres())
        self.service = self.client_of(SQLALCHEMY_DATABASE_URI=self.server.url)
        self.enterContext(mock.patch.object(self.service.application.logger, 'disabled', True))

    def assert_unavailable(self):
        """Check that the response to each kind of request is a 503 with Retry-After."""
        for method, path in REQUESTS:
            with self.subTest(method=method, path=path):
                body = {'username': 'ann', 'email': 'ann@example.com'} if method == 'POST' else None
                response = self.service.open(path, method=method, json=body)
                self.assert_failure(response, 503)
                self.assertEqual(response.headers['Retry-After'], '1')

    def test_server_that_starts_is_a_503_in_every_language_and_encoding(self):
        for words in (*(words.encode() for words in STARTING), FRENCH, b'\xff\xfe\x80'):
            with self.subTest(words=words):
                self.server.reject = fatal('57P03', words)
                self.assert_unavailable()

    def test_error_of_a_statement_is_a_503_if_it_cannot_be_read(self):
        self.server.respond = lambda sql: UNREADABLE
        self.assert_unavailable()
        self.server.respond = lambda sql: rows(ROW)
        self.assertEqual(self.service.get('/users/7').status_code, 200)

    def test_row_that_cannot_be_read_is_a_503(self):
        self.server.respond = lambda sql: BROKEN_ROW
        self.assert_unavailable()

    def test_version_that_sqlalchemy_cannot_read_is_a_503(self):
        self.enterContext(mock.patch.object(self.server, 'version', 'SomethingElse 1'))
        self.assert_unavailable()

    def test_session_of_a_view_gets_an_error_of_the_database_and_another_connection(self):
        self.server.respond = lambda sql: BROKEN_ROW
        with self.service.application.app_context():
            for _ in range(2):
                with self.assertRaises(Exception) as raised:
                    db.session.execute(text('SELECT 1')).all()
                self.assertIsInstance(raised.exception.orig, psycopg2.OperationalError)
                db.session.rollback()
        self.assertEqual(self.server.connected, 2)


class CommandTest(BaseTestCase):
    def wait(self, rejections):
        """Wait for a server that rejects this number of connections; return the output and the exit message."""
        server = self.enterContext(FakePostgres())
        app = make_app(SQLALCHEMY_DATABASE_URI=server.url)
        self.addCleanup(dispose, app)
        rest = iter(rejections)

        def next_one(_seconds=0):
            server.reject = next(rest, None)

        next_one()
        err, message = io.StringIO(), None
        with app.app_context(), contextlib.redirect_stderr(err), mock.patch('time.sleep', next_one):
            try:
                waiting.wait_for_database()
            except SystemExit as end:
                message = end.code
        return err.getvalue(), message

    def test_server_that_starts_is_waited_for_in_every_language_and_encoding(self):
        for words in (*(words.encode() for words in STARTING), FRENCH):
            with self.subTest(words=words):
                printed, message = self.wait([fatal('57P03', words)] * 2)
                self.assertIsNone(message)
                self.assertRegex(printed, LATIN1 if words == FRENCH else re.escape(words.decode()))

    def test_server_that_does_not_start_is_reported_in_one_line(self):
        self.enterContext(mock.patch.object(waiting, 'WAIT_SECONDS', 0))
        _, message = self.wait([fatal('57P03', FRENCH)] * 5)
        self.assertRegex(message, rf'\ANo database after 0 s: .*: {LATIN1}\Z')

    def test_wrong_password_is_reported_at_once(self):
        printed, message = self.wait([fatal('28P01', b'password authentication failed for user "u"')])
        self.assertEqual(printed, '')
        self.assertIn('password authentication failed', message)
