"""Responses of the service on SQLite with several writers, without disk space, and when the service is killed.

Run by name: ``python manage.py test faults_sqlite``.
"""

import contextlib
import sqlite3
import subprocess
import time

from project.tests.support.fault_case import FaultCase, measured
from project.tests.support.loads import Load, Writers
from project.tests.support.servers import SLACK_SECONDS, manage, wait_until

ACKNOWLEDGES_BEFORE_COMMIT = """
import itertools

import gevent

from manage import app
from project.database import Database

numbers = itertools.count(1)
commit = Database.write


def write(database, statement, users, lock_milliseconds=None):
    gevent.spawn_later(0.2, commit, database, statement, users)
    users = users if isinstance(users, list) else [users]
    time = '2026-01-01T00:00:00.000000Z'
    return [(next(numbers), user['username'], user['email'], False, time) for user in users]


Database.write = write
"""
SMALL = """
from sqlalchemy import event

from manage import app

with app.app_context():
    for engine in app.extensions['sqlalchemy'].engines.values():
        event.listen(engine, 'connect', lambda connection, _: connection.execute('PRAGMA max_page_count = 200'))
"""


class SQLiteTest(FaultCase):
    """The service under gunicorn with two workers on an SQLite file."""

    def setUp(self):
        super().setUp()
        self.file = self.directory / 'data' / 'users.db'
        self.file.parent.mkdir()

    def serve(self, **kw):
        """Start the service."""
        self.server = self.start_server(f'sqlite:///{self.file}', **kw)
        return self.server

    def test_missing_table_is_503_with_the_command_that_makes_it(self):
        self.serve()
        self.check_missing_table(f'sqlite:///{self.file}')

    def emails(self):
        """Return the emails in the file, whose integrity is checked."""
        with contextlib.closing(sqlite3.connect(self.file)) as connection:
            self.assertEqual([('ok',)], connection.execute('PRAGMA integrity_check').fetchall())
            return sorted(email for (email,) in connection.execute('SELECT email FROM users'))

    def check_killed_while_writing(self):
        """Kill the service while clients write, twice, and check that no acknowledged user is lost."""
        acknowledged = []
        for _ in range(2):
            with Writers(self.server, 8, 0) as writers:
                wait_until(lambda writers=writers: len(writers.acknowledged) > 60, SLACK_SECONDS, 'writers are served')
                self.server.kill()
            acknowledged += writers.acknowledged
            self.assertLessEqual({response.status for response in writers.responses}, {201})
            stored = self.emails()
            self.assertEqual([], sorted(set(acknowledged) - set(stored)), 'acknowledged, and lost')
            self.assertEqual(len(stored), len(set(stored)))
            self.server.start()
        served = [user['email'] for user in self.server.get('/users').body['data']['users']]
        self.assertEqual(self.emails(), sorted(served))

    def test_killed_while_writing_loses_no_acknowledged_user(self):
        self.serve()
        self.check_killed_while_writing()

    def test_suite_detects_an_acknowledgement_before_the_commit(self):
        (self.directory / 'broken.py').write_text(ACKNOWLEDGES_BEFORE_COMMIT)
        self.serve(app='broken:app')
        with self.assertRaisesRegex(AssertionError, 'acknowledged, and lost'):
            self.check_killed_while_writing()

    def test_eight_writers_get_no_error(self):
        self.serve()
        with Load(lambda: self.server.get('/users?limit=5'), 2) as readers, Writers(self.server, 8, 0) as writers:
            wait_until(lambda: len(writers.responses) > 300, 60, 'writers are served')
        self.assert_promised(writers, {201})
        self.assert_promised(readers, {200})
        self.assertEqual(sorted(writers.acknowledged), self.emails())
        measured('SQLite, 8 writers, slowest response', max(response.seconds for response in writers.responses))

    def test_write_lock_of_another_process_delays_only_writes(self):
        server = self.serve(WEB_CONCURRENCY='1')
        path = f'/users/{server.post("first@example.com").body["data"]["id"]}'
        with (
            contextlib.closing(sqlite3.connect(self.file, isolation_level=None)) as other,
            Load(lambda: server.get('/ping')) as pings,
            Load(lambda: server.get(path), 2) as readers,
        ):
            other.execute('BEGIN IMMEDIATE')
            with Writers(server, 4) as writers:
                locked = time.monotonic()
                wait_until(lambda: time.monotonic() > locked + 3, 10, 'time passes')
                self.assertEqual([], writers.acknowledged)
                other.execute('ROLLBACK')
                wait_until(lambda: len(writers.acknowledged) > 20, 10, 'writers are served')
        self.assert_promised(writers, {201, 503})
        self.assert_promised(readers, {200})
        self.assert_quick(pings, 'SQLite locked by another process, /ping')
        self.assert_quick(readers, 'SQLite locked by another process, one user')

    def test_reader_of_a_long_list_keeps_no_writer_waiting(self):
        self.serve()
        manage(f'sqlite:///{self.file}', 'seed_db', '--count', '40000')
        with contextlib.closing(self.server.connect()) as connection:
            connection.request('GET', '/users')
            self.assertEqual(b'{', connection.getresponse().read(1))
            with Writers(self.server, 2) as writers:
                wait_until(lambda: len(writers.responses) > 50, SLACK_SECONDS, 'writers are served')
        self.assert_promised(writers, {201})

    def test_full_disk_is_503_for_writes_only(self):
        mounted = subprocess.run(
            ['mount', '-t', 'tmpfs', '-o', 'size=1m', 'tmpfs', self.file.parent], capture_output=True, check=False
        )
        app = 'manage:app'
        if mounted.returncode == 0:
            self.addCleanup(subprocess.run, ['umount', '-l', self.file.parent], check=True)
        else:
            # Without the right to mount, SQLite itself limits the size of the file.
            (self.directory / 'small.py').write_text(SMALL)
            app = 'small:app'
        self.serve(app=app)
        first = self.server.post('first@example.com').body['data']['id']
        reads = Load(lambda: self.server.get(f'/users/{first}'), 2)
        with reads, Writers(self.server, 4, 0) as writers:
            wait_until(lambda: writers.statuses().count(503) > 40, 120, 'the disk is full')
            full = time.monotonic()
            wait_until(lambda: len(writers.statuses(full)) > 40, SLACK_SECONDS, 'writers get responses')
        self.assert_promised(writers, {201, 503})
        self.assert_promised(reads, {200})
        self.assertIn(503, writers.statuses(full))
        self.assertEqual(200, self.server.get('/users').status)
        if mounted.returncode == 0:
            subprocess.run(['mount', '-o', 'remount,size=50m', self.file.parent], check=True)
            for number in range(8):
                self.assertEqual(201, self.server.post(f'{number}@after.example.com').status)
        stored = set(self.emails())
        self.assertEqual([], sorted(set(writers.acknowledged) - stored))
