"""An unavailable database, over HTTP: a fake server stops responding, closes connections and rejects statements."""

import math
import socket
import threading
import unittest
from concurrent.futures import ThreadPoolExecutor
from unittest import mock

import psycopg2

from project import database
from project.api import users
from project.database import connecting, hosts, streams
from project.database.breaker import OPEN_SECONDS, Breaker
from project.tests.base import BaseTestCase
from project.tests.support.concurrency import Request, post
from project.tests.support.fake_postgres import FakePostgres, error, fatal, rows
from project.tests.support.servers import SLACK_SECONDS, wait_until

ANN = {'username': 'ann', 'email': 'ann@example.com'}
ROW = (7, 'ann', 'ann@example.com', False, '2026-01-01 00:00:00')
OUTCOMES = {
    503: '08000 08001 08006 08P01 25006 40001 40P01 53000 53100 53200 53300 55P03 57000 57014 57P01 57P02 57P03 58030',
    500: '22P02 22001 23502 23503 42601 42501 55000 40002 XX000',
}
SHORT = 0.1  # seconds


class UnavailableTest(BaseTestCase):
    def setUp(self):
        super().setUp()
        self.server = self.enterContext(FakePostgres())
        self.service = self.client_of(SQLALCHEMY_DATABASE_URI=self.server.url, API_TOKENS='t' * 32)
        self.now = 0.0  # for the circuit breaker
        self.service.application.extensions['database'].breaker = Breaker(lambda: self.now)
        self.enterContext(mock.patch.object(self.service.application.logger, 'disabled', True))

    def get(self, path='/users/7'):
        """Return the status of a GET. Check that a 503 has the envelope, and no text of the database."""
        return self.check(self.service.get(path))

    def post(self):
        """Return the status of a POST; check a 503 as in :meth:`get`."""
        return self.check(self.service.post('/users', json=ANN))

    def check(self, response):
        if response.status_code >= 500:
            self.assert_failure(response, response.status_code)
            self.assertNotIn('secret', response.text)
            self.assertEqual(response.headers.get('Retry-After'), '1' if response.status_code == 503 else None)
        return response.status_code

    def fail_times(self, count, response):
        """Let the next ``count`` statements get ``response``, and the others a user."""
        left = [response] * count
        self.server.respond = lambda sql: left.pop() if left else rows(ROW)

    def sent(self, request):
        """Return the status of a request, and the number of statements that it took."""
        self.server.statements.clear()
        return request(), len(self.server.statements)

    def test_status_follows_from_the_code_of_the_error(self):
        for status, codes in OUTCOMES.items():
            for sqlstate in codes.split():
                with self.subTest(sqlstate=sqlstate):
                    self.server.respond = lambda sql, code=sqlstate: error(code)
                    self.assertEqual((self.get(), self.get('/users'), self.post()), (status,) * 3)

    def test_connection_that_is_rejected_is_a_503(self):
        for sqlstate in ('57P03', '53300', '28P01', '3D000'):
            with self.subTest(sqlstate=sqlstate):
                self.server.reject = fatal(sqlstate)
                self.assertEqual((self.get(), self.post()), (503, 503))

    def test_read_is_sent_again_once_if_the_connection_broke_or_the_database_rolled_it_back(self):
        for failure in (None, error('40001'), error('40P01'), error('57P01')):
            with self.subTest(failure=failure):
                self.fail_times(1, failure)
                self.assertEqual(self.sent(self.get), (200, 2))
                self.fail_times(2, failure)
                self.assertEqual(self.sent(self.get), (503, 2))
        self.fail_times(1, error('42601'))
        self.assertEqual(self.sent(self.get), (500, 1))

    def test_write_is_sent_again_only_if_the_database_rolled_it_back(self):
        change = lambda: self.check(  # noqa: E731
            self.service.patch('/users/7', json={'active': True}, headers={'Authorization': 'Bearer ' + 't' * 32})
        )
        for count, failure, status in (
            (1, error('40001'), 200),
            (2, error('40P01'), 200),
            (3, error('40001'), 503),
            (1, None, 503),
            (1, error('57P01'), 503),
            (1, error('08006'), 503),
        ):
            with self.subTest(count=count, failure=failure):
                left = [failure] * count
                self.server.respond = lambda sql, left=left: left.pop() if left and 'UPDATE' in sql else rows(ROW)
                sent = self.sent(change)
                self.assertEqual(sent, (status, 1 + count + (status == 200)))  # with the look-up before

    def test_calls_of_one_request_share_its_deadline(self):
        ends = []
        self.server.respond = lambda sql: (
            error('55P03') if 'lock_timeout' in sql and 'INSERT' in sql else rows((3,) if 'count(*)' in sql else ROW)
        )

        def note_end(function):
            def noting(*arguments, **options):
                ends.append(connecting._end.get())
                return function(*arguments, **options)

            return noting

        for place, name in (
            (database, 'fetch'),
            (database.Database, '_execute'),
            (streams.Streams, '_begin'),
        ):
            self.enterContext(mock.patch.object(place, name, note_end(getattr(place, name))))
        with mock.patch.object(users, 'STREAM_ROWS', 0):  # every list is streamed
            for send, status, calls in (
                (self.post, 201, 2),
                (lambda: self.get('/users?count=true&limit=1'), 200, 2),
                (lambda: self.get('/users'), 200, 2),
            ):
                ends.clear()
                self.assertEqual(send(), status)
                self.assertEqual((len(ends), len(set(ends))), (calls, 1))

    def test_user_whose_insert_may_have_been_committed_is_not_added_again(self):
        for failure in (None, error('57P01'), error('08006')):
            with self.subTest(failure=failure):
                self.fail_times(1, failure)
                self.assertEqual(self.sent(self.post), (503, 1))

    def test_connection_that_was_closed_while_idle_is_replaced_before_it_is_used(self):
        self.server.respond = lambda sql: rows(ROW)
        self.assertEqual((self.get(), self.post()), (200, 201))
        for request, status in ((self.get, 200), (self.post, 201)):
            self.server.close_connections()
            self.assertEqual(self.sent(request), (status, 1))

    def test_unresponsive_database_costs_one_deadline_and_then_nothing(self):
        thawed = threading.Event()
        self.addCleanup(thawed.set)
        self.server.respond = lambda sql: rows(ROW)
        self.get()
        self.server.respond = lambda sql: thawed.wait() and rows(ROW)
        self.server.statements.clear()
        with mock.patch.object(connecting, 'CALL_SECONDS', SHORT):
            # In a thread, so that the test fails instead of waiting indefinitely if there is no deadline.
            self.assertEqual(self.check(Request(self.service.application, 'GET', '/users/7').ended()), 503)
        self.assertEqual(len(self.server.statements), 1)
        for request in (self.get, self.post, lambda: self.get('/users')):
            self.assertEqual(self.sent(request), (503, 0))
        thawed.set()
        self.now += OPEN_SECONDS
        self.assertEqual(self.get(), 200)

    def test_no_request_waits_behind_the_probe(self):
        for path in ('/users/7', '/users'):
            with self.subTest(probe=path):
                thawed = threading.Event()
                self.addCleanup(thawed.set)
                self.server.respond = lambda sql, thawed=thawed: thawed.wait() and rows(ROW)
                with mock.patch.object(connecting, 'CALL_SECONDS', SHORT):
                    self.assertEqual(self.get(), 503)
                self.now += OPEN_SECONDS
                self.server.statements.clear()
                probe = Request(self.service.application, 'GET', path)
                wait_until(lambda: self.server.statements, SLACK_SECONDS, 'the probe is sent')
                for request in (self.get, lambda: self.get('/users/8'), lambda: self.get('/users'), self.post):
                    self.assertEqual(request(), 503)
                self.assertIsNone(probe.response)
                thawed.set()
                self.assertEqual(probe.ended().status_code, 200)
                self.assertEqual(len(self.server.statements), 1)
                self.assertEqual(self.get(), 200)

    def test_batch_whose_outcome_is_unknown_is_a_503_for_each_of_its_requests(self):
        held = threading.Event()
        self.addCleanup(held.set)
        app = self.service.application
        for name, request, found in (
            ('read', lambda number: Request(app, 'GET', f'/users/{number}'), rows(ROW)),
            ('write', lambda number: post(app, f'{number}@example.com'), rows((7, 'ann', '7@example.com', *ROW[3:]))),
        ):
            with self.subTest(name):
                held.clear()
                self.server.statements.clear()
                self.server.respond = lambda sql, found=found: found if held.wait() and self.sent_once() else None
                first = request(7)
                wait_until(lambda: self.server.statements, SLACK_SECONDS, 'the first one is sent')
                batcher = app.extensions['database']._batcher
                others = [request(number) for number in range(1, 4)]
                wait_until(lambda: batcher.waiting == 3, SLACK_SECONDS, 'the others wait')  # noqa: B023
                held.set()
                self.assertLess(first.ended().status_code, 400)
                self.assertEqual([self.check(one.ended()) for one in others], [503] * 3)
                self.assertEqual(len(self.server.statements), 3 if name == 'read' else 2)  # a read is sent again

    def sent_once(self):
        """Return whether no more than one statement has been sent."""
        return len(self.server.statements) == 1

    def test_connections_in_use_are_none_after_reconnecting_has_failed(self):
        self.server.respond = lambda sql: rows(ROW)
        in_use = self.service.application.extensions['database'].connections_in_use
        for _ in range(3):
            self.assertEqual((self.get(), self.post()), (200, 201))
            self.server.close_connections()
            self.server.reject = fatal('57P03')
            for _ in range(3):
                self.assertEqual((self.get(), self.post(), self.get('/health')), (503,) * 3)
                self.assertEqual(in_use(), 0)
            self.server.reject = None

    def test_write_is_never_the_probe(self):
        thawed = threading.Event()
        self.addCleanup(thawed.set)
        self.server.respond = lambda sql: thawed.wait() and rows(ROW)
        for status in (503, 201):
            with self.subTest(status=status), mock.patch.object(connecting, 'CALL_SECONDS', SHORT):
                self.get()
                self.now += OPEN_SECONDS
                if status == 201:
                    thawed.set()
                self.server.statements.clear()
                self.assertEqual(self.post(), status)
                self.assertEqual(self.server.statements[0], 'SELECT 1')
                self.assertEqual(len(self.server.statements), 1 if status == 503 else 2)

    def test_long_list_is_read_through_a_cursor_in_one_transaction(self):
        self.enterContext(mock.patch('project.api.users.STREAM_ROWS', 1))
        parts = [rows(ROW), rows(ROW)]

        def respond(sql):
            if sql.startswith('FETCH'):
                return parts.pop() if parts else rows()
            return rows(ROW, ROW) if sql.startswith('SELECT') else rows()

        self.server.respond = respond
        self.assertEqual(len(self.service.get('/users').json['data']['users']), 2)
        kinds = [sql.split()[0] for sql in self.server.statements]
        self.assertEqual(kinds, ['SELECT', 'SET', 'DECLARE', *['FETCH'] * 3, 'CLOSE'])
        self.assertIn('idle_in_transaction_session_timeout', self.server.statements[1])
        parts[:] = [error('58030')]
        self.assertEqual(self.get('/users'), 503)

    def test_health_checks_that_wait_share_a_connection(self):
        held = threading.Event()
        self.addCleanup(held.set)
        ready = ('0004', 'UTF8', True)  # revision, encoding, and whether the columns exist
        self.server.respond = lambda sql: held.wait() and rows(ready)
        app = self.service.application
        first = Request(app, 'GET', '/health')
        wait_until(lambda: self.server.statements, SLACK_SECONDS, 'the first one is sent')
        others = [Request(app, 'GET', '/health') for _ in range(3)]
        wait_until(lambda: app.extensions['database']._batcher.waiting == 3, SLACK_SECONDS, 'the others wait')
        self.assertEqual(self.server.connected, 1)
        held.set()
        self.assertEqual([one.ended().status_code for one in (first, *others)], [200] * 4)
        self.assertEqual((len(self.server.statements), self.server.connected), (2, 1))

    def test_health_check_that_times_out_changes_nothing_for_other_requests(self):
        self.server.respond = lambda sql: rows(ROW)
        self.get()
        thawed = threading.Event()
        self.addCleanup(thawed.set)
        self.server.respond = lambda sql: thawed.wait() and rows(ROW)
        connected = self.server.connected
        with mock.patch('project.api.system.HEALTH_SECONDS', SHORT):
            self.assertEqual(self.get('/health'), 503)
        self.server.respond = lambda sql: rows(ROW)
        self.assertEqual(self.get(), 200)
        self.assertLessEqual(self.server.connected, connected + 1)  # the one that timed out is replaced

    def send_two(self, word, *requests):
        """Send two requests at the same time, and return the number of connections that this opened.

        :param word: a word of the statement. There is no response before both requests have sent that statement.
        """
        both, before = threading.Barrier(2, timeout=SLACK_SECONDS), self.server.connected
        self.server.respond = lambda sql: (word not in sql or both.wait() >= 0) and rows(ROW)
        headers = {'Authorization': 'Bearer ' + 't' * 32}
        sent = [Request(self.service.application, *one, json={'active': True}, headers=headers) for one in requests]
        self.assertEqual([one.ended().status_code for one in sent], [200, 200])
        return self.server.connected - before

    def test_health_check_that_times_out_keeps_the_connections(self):
        lists = ('GET', '/users?limit=1'), ('GET', '/users?limit=2')
        self.assertEqual(self.send_two('LIMIT', *lists), 2)
        thawed = threading.Event()
        self.addCleanup(thawed.set)
        self.server.respond = lambda sql: thawed.wait() and rows(ROW)
        with mock.patch('project.api.system.HEALTH_SECONDS', SHORT):
            self.assertEqual(self.get('/health'), 503)
        self.assertEqual(self.send_two('LIMIT', *lists), 1)  # replaces that of the check

    def test_write_that_times_out_keeps_the_connections(self):
        changes = ('PATCH', '/users/7'), ('PATCH', '/users/7')
        self.get()  # so that both changes find the user on this connection
        self.assertEqual(self.send_two('UPDATE', *changes), 2)
        thawed = threading.Event()
        self.addCleanup(thawed.set)
        self.server.respond = lambda sql: thawed.wait() and rows(ROW)
        with mock.patch.object(connecting, 'CALL_SECONDS', SHORT):
            self.assertEqual(self.post(), 503)
        self.assertEqual(self.send_two('UPDATE', *changes), 1)  # replaces that of the POST

    def test_slow_commit_costs_its_own_connection_only(self):
        thawed = threading.Event()
        self.addCleanup(thawed.set)
        self.server.respond = lambda sql: thawed.wait() and rows(ROW) if 'INSERT' in sql else rows(ROW)
        with mock.patch.object(connecting, 'CALL_SECONDS', SHORT):
            self.assertEqual(self.post(), 503)
        self.assertEqual(self.get(), 200)  # the breaker is closed
        thawed.set()
        self.assertEqual(self.post(), 201)

    def test_connecting_to_an_unresponsive_server_ends_at_its_deadline(self):
        self.server.frozen = True
        with mock.patch.object(hosts, 'CONNECT_SECONDS', SHORT):
            self.assertEqual(self.get(), 503)


class HostsTest(BaseTestCase):
    """URLs with several hosts; each is a fake server."""

    def setUp(self):
        super().setUp()
        self.servers = [self.enterContext(FakePostgres()) for _ in range(3)]
        for server in self.servers:
            server.respond = lambda sql: rows(ROW)
        hosts._timed_out.clear()
        self.enterContext(mock.patch.object(self.app.logger, 'disabled', True))
        self.enterContext(mock.patch.object(hosts, 'CONNECT_SECONDS', 2 * SHORT))
        self.enterContext(mock.patch.object(hosts, 'RETRY_SECONDS', SHORT))

    def get(self):
        """Return the response to a request to a new service that knows all servers."""
        return self.client_of(SQLALCHEMY_DATABASE_URI=self.url()).get('/users/7')

    def url(self):
        """Return the URL with the hosts of all servers."""
        hosts = '&'.join(f'host=127.0.0.1:{server.port}' for server in self.servers)
        return f'postgres://u:p@/users?{hosts}&sslmode=disable'

    def test_first_host_that_accepts_is_taken(self):
        self.assertEqual(self.get().status_code, 200)
        self.assertEqual([server.connected for server in self.servers], [1, 0, 0])

    def test_host_that_rejects_or_does_not_respond_is_skipped(self):
        self.servers[0].reject = fatal('57P03')
        self.servers[1].frozen = True
        self.assertEqual(self.get().status_code, 200)
        self.assertEqual([server.connected for server in self.servers], [1, 1, 1])

    def test_host_that_timed_out_is_tried_last(self):
        self.servers[0].frozen = True
        self.get()
        self.assertEqual(self.get().status_code, 200)
        self.assertEqual([server.connected for server in self.servers], [1, 2, 0])

    def test_health_check_does_not_change_the_order_of_the_hosts(self):
        self.servers[0].frozen = True
        with mock.patch('project.api.system.HEALTH_SECONDS', SHORT):
            self.assertEqual(self.client_of(SQLALCHEMY_DATABASE_URI=self.url()).get('/health').status_code, 503)
        self.assertEqual(hosts._timed_out, {})

    def test_host_that_timed_out_is_not_waited_for_long_while_others_respond(self):
        self.servers[0].frozen = True
        for server in self.servers[1:]:
            server.reject = fatal('57P03')
        with mock.patch.object(hosts, 'deadline', side_effect=hosts.deadline) as deadline:
            self.get()
            times = dict(hosts._timed_out)
            self.get()
            self.assertEqual(times, hosts._timed_out)
            self.servers[1].frozen = self.servers[2].frozen = True
            self.servers[1].reject = self.servers[2].reject = None
            with mock.patch.object(hosts, 'RETRY_SECONDS', 60):
                self.get()
        seconds = [call.args[0] for call in deadline.call_args_list]
        first = [hosts.CONNECT_SECONDS]
        self.assertEqual(first * 5 + [hosts.RETRY_SECONDS] + first * 3, seconds)

    def test_timeout_of_one_host_counts_more_than_the_rejection_of_another(self):
        self.servers[0].frozen = True
        for server in self.servers[1:]:
            server.reject = fatal('57P03')
        service = self.client_of(SQLALCHEMY_DATABASE_URI=self.url())
        self.assert_failure(service.get('/users/7'), 503)
        self.assertTrue(service.application.extensions['database'].breaker.is_open)

    def test_socket_that_does_not_exist_is_a_503(self):
        client = self.client_of(SQLALCHEMY_DATABASE_URI='postgres:///users?host=/nowhere')
        self.assert_failure(client.get('/users/7'), 503)

    def test_no_host_at_all_is_a_503(self):
        for server in self.servers:
            server.reject = fatal('57P03')
        self.assert_failure(self.get(), 503)

    def test_unknown_or_slow_name_is_a_503(self):
        answered = threading.Event()
        self.addCleanup(answered.set)
        for look_up in (socket.gaierror('secret'), lambda *_, **__: answered.wait(60) or []):
            client = self.client_of(SQLALCHEMY_DATABASE_URI='postgres://u:p@db.invalid/users')
            with self.subTest(), mock.patch('socket.getaddrinfo', side_effect=look_up):
                self.assert_failure(client.get('/users/7'), 503)

    def test_name_that_no_request_waits_for_any_more_is_not_looked_up(self):
        answered, looked_up = threading.Event(), []
        self.addCleanup(answered.set)
        resolver = self.enterContext(ThreadPoolExecutor(1))
        self.enterContext(mock.patch.object(hosts, '_resolver', resolver))
        self.enterContext(mock.patch.object(hosts, 'CONNECT_SECONDS', SHORT))
        look_up = lambda *_, **__: looked_up.append(1) or answered.wait(60) or []  # noqa: E731
        self.enterContext(mock.patch('socket.getaddrinfo', side_effect=look_up))
        for _ in range(3):
            self.assertRaises(psycopg2.OperationalError, hosts.addresses, {'host': 'db.invalid', 'port': '5432'})
        answered.set()
        resolver.submit(int).result(SLACK_SECONDS)
        self.assertEqual(len(looked_up), 1)


class IdleConnectionTest(unittest.TestCase):
    def test_connection_that_either_side_has_closed_is_stale(self):
        for close in ('close', 'server'):
            with self.subTest(close=close), FakePostgres() as server:
                connection = psycopg2.connect(server.url)
                self.assertFalse(connecting.is_stale(connection))
                connection.close() if close == 'close' else server.close_connections()
                wait_until(lambda connection=connection: connecting.is_stale(connection), SLACK_SECONDS, 'it is stale')
                connection.close()


class DeadlineTest(BaseTestCase):
    def test_inner_deadline_cannot_extend_the_outer_one(self):
        with connecting.deadline(1) as outer, connecting.deadline(2) as inner:
            self.assertEqual(inner, outer)
        with connecting.deadline(2) as outer, connecting.deadline(1) as inner:
            self.assertLess(inner, outer)

    def test_call_within_a_deadline_ends_by_it_and_others_need_not_end(self):
        self.assertEqual(connecting.end_of_call(), math.inf)
        with connecting.deadline(1) as end:
            self.assertEqual(connecting.end_of_call(), end)
        with connecting.deadline(60) as end:
            self.assertLess(connecting.end_of_call(), end)
