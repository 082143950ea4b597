"""The choice among several primaries, each of which is a fake server."""

import socket
import threading
import time
from unittest import mock

from project.api import users
from project.database import connecting, hosts, leadership
from project.tests.base import BaseTestCase
from project.tests.support.fake_postgres import FakePostgres, error, rows

OLD = [7, 'old', 'ann@example.com', False, '2026-11-22 16:13:51.482913+00']
NEW = [7, 'new', *OLD[2:]]


class LeadershipTest(BaseTestCase):
    def setUp(self):
        super().setUp()
        self.old, self.new, self.standby = (self.enterContext(FakePostgres()) for _ in range(3))
        self.old.respond, self.new.respond = (lambda sql: rows(OLD)), (lambda sql: rows(NEW))
        self.standby.reject = error('25006')
        for state in (hosts._timed_out, leadership._checked, leadership._suspects, leadership._settled):
            state.clear()
        self.enterContext(mock.patch.object(self.app.logger, 'disabled', True))
        self.enterContext(mock.patch.object(leadership, 'CHECK_SECONDS', 0))
        self.enterContext(mock.patch.object(leadership, 'SETTLE_SECONDS', 0))
        self.enterContext(mock.patch.object(leadership, 'PROBE_SECONDS', 10))
        self.service = self.serve(self.old, self.standby, self.new)
        self.assertEqual('old', self.name())

    def serve(self, *servers, **settings):
        """Return a client of a service that knows these servers."""
        hosts = '&'.join(f'host=127.0.0.1:{server.port}' for server in servers)
        return self.client_of(SQLALCHEMY_DATABASE_URI=f'postgres://u:p@/users?{hosts}&sslmode=disable', **settings)

    def name(self):
        """Return the name of user 7, by which the servers differ."""
        response = self.service.get('/users/7')
        return response.json['data']['username'] if response.status_code == 200 else response.status_code

    def post(self):
        """Return the status of the response to a POST."""
        return self.service.post('/users', json={'username': 'ann', 'email': 'ann@example.com'}).status_code

    def promote(self, timeline='00000002'):
        """Let the new server be a primary that the standbys have joined."""
        self.old.check = lambda: rows(['00000001', False])
        self.new.check = lambda: rows([timeline, True])

    def test_primary_without_standbys_is_left_for_one_with_a_higher_timeline(self):
        self.promote()
        self.assertEqual('new', self.name())
        self.assertEqual(201, self.post())
        self.assertNotIn('INSERT', ' '.join(self.old.statements))

    def test_list_does_not_share_a_connection_to_the_last_leader(self):
        self.service = self.serve(self.old, self.standby, self.new, POOL_SIZE=1)
        self.enterContext(mock.patch.object(self.service.application.logger, 'disabled', True))
        self.enterContext(mock.patch.object(users, 'STREAM_ROWS', 1))
        self.old.respond, self.new.respond = (lambda sql: rows(OLD, OLD)), (lambda sql: rows(NEW, NEW))
        first, shared = self.service.get('/users'), self.service.get('/users')
        self.addCleanup(first.close)
        self.assertIn(b'"old"', next(shared.iter_encoded()))
        shared.close()
        self.promote()
        self.assertEqual(503, self.service.get('/users').status_code)
        first.close()
        later = self.service.get('/users')
        self.addCleanup(later.close)
        self.assertIn(b'"new"', next(later.iter_encoded()))

    def test_primary_with_a_standby_is_kept(self):
        self.new.check = lambda: rows(['00000002', True])
        self.assertEqual('old', self.name())
        self.assertEqual((0, 0), (self.new.connected, self.standby.connected))

    def test_primary_without_standbys_is_kept_while_no_other_has_a_higher_timeline(self):
        self.promote(timeline='00000001')
        for check in (self.new.check, lambda: rows(['', False]), lambda: error('42883'), lambda: None, rows):
            self.new.check = check
            self.assertEqual('old', self.name())
        self.assertEqual(5, self.new.checks)

    def test_new_leader_is_not_left_for_the_old_one(self):
        self.promote()
        self.assertEqual('new', self.name())
        self.new.check = lambda: rows(['00000002', False])
        hosts._timed_out.clear()
        checks = self.old.checks
        self.assertEqual('new', self.name())
        self.assertGreater(self.old.checks, checks)

    def test_write_that_times_out_lets_the_service_look_for_another_primary(self):
        self.promote()
        self.old.check = lambda: rows(['00000001', True])  # such as a backup
        held = threading.Event()
        self.addCleanup(held.set)
        self.old.respond = lambda sql: (held.wait(60) and None) if 'INSERT' in sql else rows(OLD)
        self.assertEqual('old', self.name())
        with mock.patch.object(connecting, 'CALL_SECONDS', 0.2):
            self.assertEqual(503, self.post())
        self.assertEqual(201, self.post())
        self.assertEqual('new', self.name())

    def test_server_that_does_not_respond_is_probed_seldom(self):
        self.promote()
        self.new.frozen = True
        with mock.patch.object(leadership, 'PROBE_SECONDS', 0.1):
            self.assertEqual(['old'] * 3, [self.name() for _ in range(3)])
        self.assertEqual(1, self.new.connected)

    def test_check_without_a_response_is_a_503_and_the_next_request_goes_elsewhere(self):
        self.promote()
        held = threading.Event()
        self.addCleanup(held.set)
        self.old.check = lambda: held.wait(60) and None
        with mock.patch.object(connecting, 'CALL_SECONDS', 0.2), mock.patch('project.database.breaker.OPEN_SECONDS', 0):
            self.assertEqual(503, self.name())
            self.assertEqual('new', self.name())

    def test_health_check_whose_leader_does_not_respond_changes_nothing(self):
        held = threading.Event()
        self.addCleanup(held.set)
        self.old.check = lambda: held.wait(60) and None
        with mock.patch('project.api.system.HEALTH_SECONDS', 0.1):
            self.assertEqual(503, self.service.get('/health').status_code)
        self.old.check = lambda: rows(['00000001', True])
        self.assertEqual('old', self.name())

    def test_connection_that_ends_during_its_check_is_replaced(self):
        self.assertEqual(201, self.post())
        self.old.check = lambda: None
        self.old.reject = error('57P03')
        self.assertEqual(201, self.post())
        self.assertEqual('new', self.name())

    def test_connections_that_all_end_in_their_check_are_a_503(self):
        self.old.check = self.new.check = lambda: None
        self.assertEqual((503, 503), (self.name(), self.post()))
        self.assertEqual(0, self.service.application.extensions['database'].connections_in_use())
        self.old.check = lambda: rows(['00000001', True])
        self.assertEqual(('old', 201), (self.name(), self.post()))

    def test_check_is_repeated_when_it_is_too_old(self):
        with mock.patch.object(leadership, 'CHECK_SECONDS', 60):
            self.name()
            checks = self.old.checks
            self.name()
            self.assertEqual(checks, self.old.checks)
        self.name()
        self.assertEqual(checks + 1, self.old.checks)

    def test_new_leader_is_shown_when_all_processes_have_checked_theirs(self):
        self.promote()
        with mock.patch.object(leadership, 'SETTLE_SECONDS', 0.3):
            for send in (self.name, self.post):
                leadership._settled.clear()
                started = time.monotonic()
                self.assertIn(send(), ('new', 201))
                self.assertGreaterEqual(time.monotonic(), started + 0.3)
            checks = self.new.checks
            self.name()
            self.assertEqual(checks + 1, self.new.checks)

    def test_new_leader_that_has_no_standby_yet_is_checked_for_each_request(self):
        self.promote()
        self.new.check = lambda: rows(['00000002', False])
        with mock.patch.object(leadership, 'CHECK_SECONDS', 60):
            leadership._checked.clear()
            self.assertEqual('new', self.name())
            checks = self.new.checks
            self.name()
            self.assertEqual(checks + 1, self.new.checks)
            self.assertEqual(201, self.post())
            self.name()
            checks = self.new.checks
            self.name()
            self.assertEqual(checks, self.new.checks)

    def test_leader_that_returns_is_a_new_leader(self):
        self.promote()
        self.assertEqual('new', self.name())
        self.new.check = lambda: rows(['00000002', False])
        self.old.check = lambda: rows(['00000003', True])
        hosts._timed_out.clear()
        with mock.patch.object(leadership, 'SETTLE_SECONDS', 0.3):
            started = time.monotonic()
            self.assertEqual('old', self.name())
            self.assertGreaterEqual(time.monotonic(), started + 0.3)

    def test_commit_of_a_new_leader_that_had_no_standby_is_acknowledged_late(self):
        self.promote()
        self.new.check = lambda: rows(['00000002', False])
        with mock.patch.object(leadership, 'settle', side_effect=leadership.settle) as settle:
            self.assertEqual('new', self.name())
            settle.assert_not_called()
            self.assertEqual(201, self.post())
            settle.assert_called_once()

    def test_host_whose_name_was_unknown_can_become_the_leader(self):
        hosts = f'host=127.0.0.1:{self.old.port}&host=new.example:{self.new.port}'
        self.service = self.client_of(SQLALCHEMY_DATABASE_URI=f'postgres://u:p@/users?{hosts}&sslmode=disable')
        leadership._checked.clear()
        address = [(None, None, None, '', ('127.0.0.1', 0))]
        known = {'127.0.0.1': address}

        def look_up(host, *_, **__):
            if host not in known:
                raise socket.gaierror
            return known[host]

        with mock.patch('socket.getaddrinfo', side_effect=look_up):
            self.assertEqual('old', self.name())
            self.promote()
            self.assertEqual('old', self.name())
            known['new.example'] = address
            self.assertEqual('new', self.name())

    def test_only_server_is_never_checked(self):
        self.service = self.serve(self.new)
        self.assertEqual('new', self.name())
        self.assertEqual(201, self.post())
        self.assertEqual(0, self.new.checks)
