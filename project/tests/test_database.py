"""SQLite's connections, the table of errors, and waiting for a socket."""

import socket
import sqlite3
import tempfile
import time
import unittest
from unittest import mock

import psycopg2
from sqlalchemy import Engine, event, insert
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from project import db
from project.api.models import User
from project.database import connecting, errors
from project.database.functions import folded, unindexed
from project.database.sqlite import PAUSE_SECONDS, TURN_SECONDS
from project.tests.base import dispose, make_app, skip_syncs


class SQLiteTest(unittest.TestCase):
    def setUp(self):
        folder = self.enterContext(tempfile.TemporaryDirectory())
        self.file = f'{folder}/users.db'
        self.app = make_app(SQLALCHEMY_DATABASE_URI=f'sqlite:///{self.file}')
        self.addCleanup(dispose, self.app)
        self.enterContext(self.app.app_context())
        db.create_all()

    def test_every_connection_logs_ahead_syncs_and_checks_keys(self):
        event.remove(Engine, 'connect', skip_syncs)
        self.addCleanup(event.listen, Engine, 'connect', skip_syncs)
        dispose(self.app)
        for name, engine in db.engines.items():
            # 2 is FULL: acknowledged writes survive a power cut.
            for pragma, value in (('journal_mode', 'wal'), ('foreign_keys', 1), ('synchronous', 2)):
                with self.subTest(engine=name, pragma=pragma), engine.connect() as connection:
                    self.assertEqual(connection.exec_driver_sql(f'PRAGMA {pragma}').scalar(), value)

    def test_lists_are_read_beside_a_writer(self):
        db.session.execute(insert(User), [{'username': 'a', 'email': f'{n}@x.org'} for n in range(2001)])
        db.session.commit()
        with db.engine.begin():
            for path, count in (('/users', 2001), ('/users?limit=10', 10)):
                self.assertEqual(len(self.app.test_client().get(path).json['data']['users']), count)

    def test_wait_for_the_write_lock_does_not_block_the_thread(self):
        other = sqlite3.connect(self.file, isolation_level=None)
        self.addCleanup(other.close)
        other.execute('BEGIN IMMEDIATE')
        # The service sleeps between two tries, which lets other greenlets run. SQLite itself would not.
        pauses = []

        def release(seconds):
            if seconds:  # not sleep(0), by which the batcher lets other threads run
                pauses.append(seconds)
                if other.in_transaction:
                    other.execute('ROLLBACK')

        with mock.patch('project.database.sqlite.time.sleep', side_effect=release):
            codes = [self.add(f'{number}@example.com') for number in range(3)]
        self.assertEqual(codes, [201] * 3)
        # After it had to wait, it leaves the lock to other workers for a turn.
        self.assertEqual(pauses, [PAUSE_SECONDS, TURN_SECONDS])

    def add(self, email):
        return self.app.test_client().post('/users', json={'username': 'a', 'email': email}).status_code

    def test_command_waits_for_the_write_lock_as_long_as_it_takes(self):
        other = sqlite3.connect(self.file, isolation_level=None)
        self.addCleanup(other.close)
        other.execute('BEGIN IMMEDIATE')
        pause = time.sleep

        def release(_):
            pause(0.05)
            other.execute('ROLLBACK')

        self.enterContext(mock.patch.object(connecting, 'CALL_SECONDS', 0.01))
        with mock.patch('project.database.sqlite.time.sleep', side_effect=release):
            db.session.add(User('a', 'a@example.com'))
            db.session.commit()
        self.assertEqual(db.session.query(User).count(), 1)

    def test_other_errors_than_a_lock_end_the_wait(self):
        full = OperationalError('BEGIN IMMEDIATE', {}, sqlite_error(sqlite3.SQLITE_FULL))
        with (
            mock.patch('sqlalchemy.engine.Connection.exec_driver_sql', side_effect=full) as begin,
            self.assertLogs(self.app.logger),
        ):
            response = self.app.test_client().post('/users', json={'username': 'a', 'email': 'a@example.com'})
        self.assertEqual(response.status_code, 503)
        begin.assert_called_once()

    def test_file_that_cannot_be_written_is_a_503(self):
        read_only = make_app(SQLALCHEMY_DATABASE_URI=f'sqlite:///{self.file}')
        self.addCleanup(dispose, read_only)
        with read_only.app_context():
            event.listen(db.engines['writes'], 'connect', lambda driver, _: driver.execute('PRAGMA query_only=ON'))
        with self.assertLogs(read_only.logger):
            response = read_only.test_client().post('/users', json={'username': 'a', 'email': 'a@example.com'})
        self.assertEqual(response.status_code, 503)


class FunctionsTest(unittest.TestCase):
    def test_functions_are_spelled_for_each_database(self):
        for function, dialect, expected in (
            (folded, postgresql, 'lower(users.email COLLATE "C")'),
            (folded, sqlite, 'lower(users.email)'),
            (unindexed, postgresql, 'users.email'),
            (unindexed, sqlite, '+users.email'),
        ):
            self.assertEqual(str(function(User.email).compile(dialect=dialect.dialect())), expected)


def sqlite_error(code, text='secret'):
    """Return an error of SQLite with this result code."""
    error = sqlite3.OperationalError(text)
    error.sqlite_errorcode = code
    return error


def postgresql_error(sqlstate, kind=psycopg2.OperationalError):
    """Return an error of psycopg2 with this SQLSTATE."""
    error = kind('secret')
    error.__setstate__({'pgcode': sqlstate})
    return error


class ErrorsTest(unittest.TestCase):
    def test_driver_errors_are_translated_by_their_codes(self):
        for original, expected in (
            (postgresql_error('08006'), errors.Unavailable),
            (postgresql_error('40001'), errors.RolledBack),
            (postgresql_error('57P01'), errors.Disconnected),
            (postgresql_error('55P03'), errors.RolledBack),
            (postgresql_error('42P01', psycopg2.ProgrammingError), errors.Undefined),
            (postgresql_error('23505', psycopg2.IntegrityError), errors.Duplicate),
            (postgresql_error('42601', psycopg2.ProgrammingError), errors.DatabaseError),
            (postgresql_error('55000'), errors.DatabaseError),
            (psycopg2.OperationalError('secret'), errors.Unavailable),
            (psycopg2.InterfaceError('secret'), errors.Unavailable),
            (psycopg2.ProgrammingError('secret'), errors.DatabaseError),
            (connecting.TimedOut('secret'), errors.DeadlineExceeded),
            (sqlite_error(sqlite3.SQLITE_BUSY), errors.RolledBack),
            (sqlite_error(sqlite3.SQLITE_BUSY_SNAPSHOT), errors.RolledBack),
            (sqlite_error(sqlite3.SQLITE_FULL), errors.Unavailable),
            (sqlite_error(sqlite3.SQLITE_ERROR, 'no such table: users'), errors.Undefined),
            (sqlite_error(sqlite3.SQLITE_ERROR, 'table users has no column named x'), errors.Undefined),
            (sqlite3.IntegrityError('NOT NULL constraint failed: users.email'), errors.DatabaseError),
        ):
            with self.subTest(original=original):
                translated = errors.translate(DBAPIError('SELECT 1', {}, original))
                self.assertIs(type(translated), expected)
                self.assertNotIn('secret', str(translated))
        self.assertEqual(errors.translate(PoolTimeout('secret')).kind, 'PoolExhausted')
        broken = DBAPIError('SELECT 1', {}, psycopg2.DatabaseError('secret'), connection_invalidated=True)
        self.assertIs(type(errors.translate(broken)), errors.Disconnected)

    def test_duplicate_of_sqlite_names_its_index_or_its_columns(self):
        for text, constraint, columns in (
            ("UNIQUE constraint failed: index 'users_email_key'", 'users_email_key', ()),
            ('UNIQUE constraint failed: users.username, users.active', None, ('username', 'active')),
        ):
            original = sqlite3.IntegrityError(text)
            original.sqlite_errorcode = sqlite3.SQLITE_CONSTRAINT_UNIQUE
            duplicate = errors.translate(DBAPIError('', {}, original))
            self.assertEqual((duplicate.constraint, duplicate.columns), (constraint, columns))


class WaitingTest(unittest.TestCase):
    """The wait for a socket, in threads; support/in_greenlets.py runs the same in greenlets."""

    def test_wait_ends_when_the_socket_is_ready_or_the_time_is_over(self) -> None:
        here, there = socket.socketpair()
        with here, there:
            self.assertFalse(connecting._wait_for_socket(here.fileno(), True, 0.01))
            self.assertTrue(connecting._wait_for_socket(here.fileno(), False, 60))
            there.send(b'x')
            for seconds in (60, None):
                self.assertTrue(connecting._wait_for_socket(here.fileno(), True, seconds))
