"""What becomes of an SQLite file in trouble, and what its clients see.

See :mod:`project.tests.processes` for how to run it.
"""

import contextlib
import sqlite3
import subprocess
import time

from project.tests.processes import SLACK_SECONDS, FaultCase, Load, Writers, manage, measured, wait_until

ACKNOWLEDGES_BEFORE_COMMIT = """
import itertools

import gevent

from manage import app
from project import database

numbers = itertools.count(1)
commit = database.write


def commit_later(statement, values):
    with app.app_context():
        commit(statement, values)


def write(statement, values):
    gevent.spawn_later(0.2, commit_later, statement, values)
    return [(next(numbers), values['username'], values['email'], False, '2026-01-01T00:00:00.000000Z')]


database.write = write
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
        self.service = self.start_service(f'sqlite:///{self.file}', **kw)
        return self.service

    def test_missing_table_is_503_with_the_command_that_makes_it(self):
        self.serve()
        self.check_missing_table(f'sqlite:///{self.file}')

    def emails(self):
        """The addresses in the file, which must be in order."""
        with contextlib.closing(sqlite3.connect(self.file)) as connection:
            self.assertEqual([('ok',)], connection.execute('PRAGMA integrity_check').fetchall())
            return sorted(email for (email,) in connection.execute('SELECT email FROM users'))

    def check_killed_while_writing(self):
        """``kill -9`` of the master and its workers while clients write, again and again."""
        acknowledged = []
        for _ in range(2):
            with Writers(self.service, 8, 0) as writers:
                wait_until(lambda writers=writers: len(writers.acknowledged) > 60, SLACK_SECONDS, 'writers are served')
                self.service.kill()
            acknowledged += writers.acknowledged
            self.assertLessEqual({answer.status for answer in writers.answers}, {201})
            stored = self.emails()
            self.assertEqual([], sorted(set(acknowledged) - set(stored)), 'acknowledged, and lost')
            self.assertEqual(len(stored), len(set(stored)))
            self.service.start()
        served = [user['email'] for user in self.service.get('/users').body['data']['users']]
        self.assertEqual(self.emails(), sorted(served))

    def test_killed_while_writing_loses_nobody(self):
        self.serve()
        self.check_killed_while_writing()

    def test_service_that_acknowledges_before_commit_is_found_out(self):
        (self.directory / 'broken.py').write_text(ACKNOWLEDGES_BEFORE_COMMIT)
        self.serve(app='broken:app')
        with self.assertRaisesRegex(AssertionError, 'acknowledged, and lost'):
            self.check_killed_while_writing()

    def test_eight_writers_get_no_error(self):
        self.serve()
        with Load(lambda: self.service.get('/users?limit=5'), 2) as readers, Writers(self.service, 8, 0) as writers:
            wait_until(lambda: len(writers.answers) > 300, 60, 'writers are served')
        self.assert_promised(writers, {201})
        self.assert_promised(readers, {200})
        self.assertEqual(sorted(writers.acknowledged), self.emails())
        measured('SQLite, 8 writers, slowest answer', max(answer.seconds for answer in writers.answers))

    def test_reader_of_a_long_list_keeps_no_writer_waiting(self):
        self.serve()
        manage(f'sqlite:///{self.file}', 'seed_db', '--count', '40000')
        with contextlib.closing(self.service.connect()) as connection:
            connection.request('GET', '/users')
            self.assertEqual(b'{', connection.getresponse().read(1))
            with Writers(self.service, 2) as writers:
                wait_until(lambda: len(writers.answers) > 50, SLACK_SECONDS, 'writers are served')
        self.assert_promised(writers, {201})

    def test_full_disk_is_503_for_writes_and_reads_go_on(self):
        mounted = subprocess.run(
            ['mount', '-t', 'tmpfs', '-o', 'size=1m', 'tmpfs', self.file.parent], capture_output=True, check=False
        )
        app = 'manage:app'
        if mounted.returncode == 0:
            self.addCleanup(subprocess.run, ['umount', '-l', self.file.parent], check=True)
        else:
            # Without the right to mount, SQLite itself is told how large the file may become.
            (self.directory / 'small.py').write_text(SMALL)
            app = 'small:app'
        self.serve(app=app)
        first = self.service.post('first@example.com').body['data']['id']
        reads = Load(lambda: self.service.get(f'/users/{first}'), 2)
        with reads, Writers(self.service, 4, 0) as writers:
            wait_until(lambda: writers.statuses().count(503) > 40, 120, 'the disk is full')
            full = time.monotonic()
            wait_until(lambda: len(writers.statuses(full)) > 40, SLACK_SECONDS, 'writers are answered')
        self.assert_promised(writers, {201, 503})
        self.assert_promised(reads, {200})
        self.assertIn(503, writers.statuses(full))
        self.assertEqual(200, self.service.get('/users').status)
        if mounted.returncode == 0:
            subprocess.run(['mount', '-o', 'remount,size=50m', self.file.parent], check=True)
            for number in range(8):
                self.assertEqual(201, self.service.post(f'{number}@after.example.com').status)
        stored = set(self.emails())
        self.assertEqual([], sorted(set(writers.acknowledged) - stored))
