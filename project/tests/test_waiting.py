"""Commands wait for the database at their start."""

import re
import socket
import threading
from unittest import mock

from sqlalchemy.exc import OperationalError

from project import db
from project.commands import waiting
from project.database import hosts
from project.tests.base import dispose, make_app, url_of_tests
from project.tests.support.fake_postgres import FakePostgres, rows
from project.tests.test_commands import CommandTestCase


class WaitingTest(CommandTestCase):
    def connect_with(self, *errors):
        """Let connecting fail with these messages of libpq, one after the other, and then succeed."""
        connect, outcomes = db.engine.connect, [OperationalError('', {}, Exception(error)) for error in errors[::-1]]
        self.enterContext(mock.patch.object(db.engine, 'connect', lambda: raise_first(outcomes) or connect()))
        return self.enterContext(mock.patch('time.sleep'))

    def test_command_waits_for_a_server_that_starts_and_reports_it_once(self):
        prefix = 'connection to server at "db" (10.0.0.1), port 5432 failed: '
        sleep = self.connect_with(
            f'{prefix}Connection refused\n\tIs the server running?',
            f'{prefix}FATAL:  the database system is starting up',
            f'{prefix}FATAL:  the database system is not yet accepting connections',
        )
        said = self.run_command('recreate_db')
        self.assertEqual(sleep.call_count, 3)
        self.assertRegex(said, r'\AWaiting up to 30 s for the database .*: Connection refused\nDropped')
        self.assertEqual(self.users(), [])

    def test_server_that_does_not_start_is_reported_in_time(self):
        self.enterContext(mock.patch.object(waiting, 'WAIT_SECONDS', 0))
        for command in (['recreate_db'], ['db', 'upgrade'], ['seed_db']):
            with self.subTest(command=command):
                self.connect_with('Connection refused\nreally')
                self.run_command(*command, code=r'\ANo database after 0 s: .*: Connection refused\Z')

    def test_error_that_stays_is_reported_at_once(self):
        for error in ('FATAL:  password authentication failed for user "ann"', 'unable to open database file'):
            with self.subTest(error=error):
                sleep = self.connect_with(error)
                words = error.removeprefix('FATAL:  ')
                self.run_command('seed_db', code=rf'\ACannot connect to the database .*: {words}\Z')
                sleep.assert_not_called()

    def test_commit_whose_process_has_ended_is_tried_again(self):
        server = self.enterContext(FakePostgres())
        held = threading.Event()
        self.addCleanup(held.set)
        answers = {'current_setting': ['ANY 1 (*)'], 'pg_backend_pid': [7], 'pg_stat_activity': [False]}

        def respond(sql):
            if 'logical_emit_message' in sql and server.statements.count(sql) == 1:
                return held.wait(60) and None
            return next((rows(answer) for word, answer in answers.items() if word in sql), rows(['0/1']))

        server.respond = respond
        app = make_app(SQLALCHEMY_DATABASE_URI=server.url)
        self.addCleanup(dispose, app)
        with app.app_context(), mock.patch('project.database.connecting.CALL_SECONDS', 0.5):
            waiting.require_standby()
        self.assertEqual(server.statements.count(str(waiting.SMALL_COMMIT)), 2)

    def assert_reported(self, url, words):
        """Check that waiting for the database at ``url`` ends with these words, without its password."""
        app = make_app(SQLALCHEMY_DATABASE_URI=url)
        self.addCleanup(dispose, app)
        with app.app_context(), self.assertRaises(SystemExit) as end:
            waiting.wait_for_database()
        self.assertRegex(str(end.exception), words)
        self.assertNotIn('secret', str(end.exception))

    def test_unknown_host_is_reported_at_once(self):
        words = r'\ACannot connect to the database users at nowhere:5432: the name of a database host is unknown\Z'
        with mock.patch('socket.getaddrinfo', side_effect=socket.gaierror):
            self.assert_reported('postgres://u:secret@nowhere/users', words)

    def test_server_without_the_database_or_the_user_is_reported_at_once(self):
        url = url_of_tests()
        if url.get_backend_name() != 'postgresql':
            self.skipTest('SQLite has no server')
        where = re.escape(f'{url.host}:{url.port or 5432}')
        for change, words in (
            ({'database': 'no_such_database'}, f'no_such_database at {where}: .*does not exist'),
            ({'username': 'nobody', 'password': 'secret'}, f'{url.database} at {where}: .*"nobody"'),
        ):
            with self.subTest(change=change):
                wrong = url.set(**change).render_as_string(hide_password=False)
                self.assert_reported(wrong, rf'\ACannot connect to the database {words}')

    def test_file_that_is_no_database_is_reported_at_once(self):
        words = r'\ACannot connect to the database .*test_waiting\.py: file is not a database\Z'
        self.assert_reported(f'sqlite:///{__file__}', words)

    def test_command_waits_for_a_server_that_does_not_respond(self):
        self.enterContext(mock.patch.object(waiting, 'WAIT_SECONDS', 0))
        self.enterContext(mock.patch.object(hosts, 'CONNECT_SECONDS', 0.1))
        server = self.enterContext(FakePostgres())
        server.frozen = True
        words = rf'\ANo database after 0 s: users at 127\.0\.0\.1:{server.port}: .*did not respond in time\Z'
        self.assert_reported(server.url, words)

    def test_command_waits_for_a_server_that_rejects_connections(self):
        self.enterContext(mock.patch.object(waiting, 'WAIT_SECONDS', 0))
        words = r'\ANo database after 0 s: users at 127\.0\.0\.1:1, localhost:1: Connection refused\Z'
        self.assert_reported('postgres://u:secret@/users?host=127.0.0.1:1&host=localhost:1', words)


def raise_first(errors):
    """Raise the errors that are left, one at a time."""
    if errors:
        raise errors.pop()
