"""Unpaginated lists whose clients read slowly: the limits of their number and time, and their snapshots."""

import json
import time
from unittest import mock

from werkzeug.test import TestResponse

from project import config, db
from project.api import users
from project.database import streams
from project.database.errors import DatabaseError
from project.tests.base import BaseTestCase

REPEATABLE_READ = r'options=-c%20default_transaction_isolation=repeatable\%20read'


class Reader:
    """A client that reads an unpaginated list part by part.

    :param response: not read yet.
    """

    def __init__(self, response: TestResponse) -> None:
        self.status = response.status_code
        self.response = response
        self._parts = response.iter_encoded()
        self._text = next(self._parts)

    def names(self) -> list[str]:
        """Read the rest of the list, and return the names in it."""
        text = self._text + b''.join(self._parts)
        self.response.close()
        return [user['username'] for user in json.loads(text)['data']['users']]


class StreamsTest(BaseTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.enterContext(mock.patch.object(users, 'STREAM_ROWS', 2))
        self.store_users(9)
        url = config.TestingConfig.SQLALCHEMY_DATABASE_URI
        if self.on_postgresql:
            url += f'?{REPEATABLE_READ}'  # which may be the default of a database
        self.service = self.client_of(POOL_SIZE=1, SQLALCHEMY_DATABASE_URI=url)
        self.enterContext(mock.patch.object(self.service.application.logger, 'disabled', True))

    def begin(self) -> Reader:
        """Return a client that has read the first part of the list."""
        reader = Reader(self.service.get('/users'))
        self.addCleanup(reader.response.close)
        return reader

    def in_use(self) -> int:
        """Return the number of connections of the service that are in use."""
        return self.service.application.extensions['database'].connections_in_use()

    def test_more_clients_than_connections_read_a_list_each_with_a_snapshot_of_its_own(self) -> None:
        readers, expected = [], []
        for number in range(6):
            expected.append([user['username'] for user in self.list_users('/users?limit=100')])
            readers.append(self.begin())
            self.add_user(f'new{number}', f'new{number}@example.com')
        self.assertEqual(self.in_use(), 1 if self.on_postgresql else 6)
        self.assertEqual([len(names) for names in expected], [9, 10, 11, 12, 13, 14])
        for reader, names in zip(readers, expected, strict=True):
            self.assertEqual(reader.names(), names)
        self.assertEqual(self.in_use(), 0)

    def test_clients_that_disconnect_leave_the_others_their_lists(self) -> None:
        first, second, third = self.begin(), self.begin(), self.begin()
        first.response.close()
        third.response.close()
        self.assertEqual(len(second.names()), 9)
        self.assertEqual(self.in_use(), 0)

    def test_too_many_clients_get_503(self) -> None:
        with mock.patch.object(streams, 'MOST', 3):
            readers = [self.begin() for _ in range(3)]
            response = self.service.get('/users')
            self.assert_failure(response, 503, 'The database is not available. Try again in a moment.')
            self.assertEqual(response.headers['Retry-After'], '1')
            readers.pop().response.close()
            self.assertEqual(len(self.begin().names()), 9)

    def test_list_that_takes_too_long_is_cut(self) -> None:
        reader = self.begin()
        with (
            mock.patch.object(streams.time, 'monotonic', return_value=time.monotonic() + streams.SECONDS),
            self.assertRaises(DatabaseError),
        ):
            reader.names()
        self.assertEqual(self.in_use(), 0)
        self.assertEqual(len(self.begin().names()), 9)

    def test_connection_that_is_lost_ends_the_lists_on_it_and_no_later_one(self) -> None:
        if not self.on_postgresql:
            self.skipTest('SQLite has no server that could close connections')
        readers = [self.begin(), self.begin()]
        with db.engines['reads'].connect() as connection:
            idle = (
                "SELECT pid FROM pg_stat_activity WHERE state = 'idle in transaction' AND datname = current_database()"
            )
            gone = connection.exec_driver_sql(idle).scalars().all()
            self.assertEqual(len(gone), 1)
            connection.exec_driver_sql('SELECT pg_terminate_backend(%s, 5000)', (gone[0],))
        later = self.begin()
        for reader in readers:
            self.assertRaises(DatabaseError, reader.names)
        self.assertEqual(len(later.names()), 9)
        self.assertEqual(self.in_use(), 0)

    def test_wait_for_a_shared_connection_ends_no_other_list(self) -> None:
        if not self.on_postgresql:
            self.skipTest('on SQLite, each list has a connection of its own')
        readers = [self.begin(), self.begin()]
        service_streams = self.service.application.extensions['database']._streams
        lock = service_streams._shared[0]._lock
        with lock, mock.patch.object(users, 'REQUEST_SECONDS', 0.1):
            self.assert_failure(self.service.get('/users'), 503)
        service_streams._part_seconds = 0.1
        slow_lock = mock.Mock(
            acquire=lambda timeout: lock.acquire() and (time.sleep(0.2) or True), release=lock.release
        )
        service_streams._shared[0]._lock = slow_lock
        for reader in readers:
            self.assertEqual(len(reader.names()), 9)
        self.assertEqual(self.in_use(), 0)
