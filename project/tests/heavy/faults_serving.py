"""Responses while other clients misbehave, and while workers are stopped, replaced and killed.

Run by name: ``python manage.py test faults_serving``.
"""

import contextlib
import http.client
import itertools
import json
import os
import re
import resource
import signal
import socket
import struct
import threading
import time

from project.tests.support.fault_case import FaultCase, measured
from project.tests.support.loads import Load
from project.tests.support.servers import HOST, SLACK_SECONDS, wait_until

MANY = 60_000  # users: their list is larger than the kernel's buffers for a client that does not read
POST = b'POST /users HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 60000\r\n\r\n'
PING = b'GET /ping HTTP/1.1\r\nHost: x\r\n\r\n'
SEND = 'from serving import connection; connection.SEND_SECONDS = {}'
GARBAGE = (
    b'\x00' * 100,
    b'\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03',
    b'GET\r\n\r\n',
    bytes(range(256)),
    b'\r\n' * 50,
    b'POST /users HTTP/1.1\r\nHost: x\r\nContent-Length: x\r\n\r\n',
)


class ServingTest(FaultCase):
    """The service with two workers, on a database that works."""

    def setUp(self):
        super().setUp()
        self.cluster = self.shared_cluster('max_connections=60')
        self.stack = contextlib.ExitStack()
        self.addCleanup(self.stack.close)
        most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most[1], most[1]))
        self.addCleanup(resource.setrlimit, resource.RLIMIT_NOFILE, most)

    def serve(self, **kw):
        """Start the service, with one user."""
        self.server = self.start_server(self.cluster.dsn(), migrate=False, **kw)
        self.path = f'/users/{self.server.post("ann@example.com").body["data"]["id"]}'
        return self.server

    def open(self, data=b'', receive_buffer=None):
        """Return a socket to the service, on which ``data`` was sent. It is closed after the test."""
        sock = self.stack.enter_context(socket.socket())
        if receive_buffer:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        sock.settimeout(SLACK_SECONDS)
        sock.connect((HOST, self.server.port))
        sock.sendall(data)
        return sock

    def assert_others_are_served(self, what):
        """Check that other clients get quick responses now."""
        with Load(lambda: self.server.get('/ping')) as pings, Load(lambda: self.server.get(self.path), 2) as readers:
            wait_until(lambda: len(pings.responses) > 150, SLACK_SECONDS, 'pings get responses')
        self.assertEqual({200}, set(pings.statuses() + readers.statuses()))
        self.assert_quick(pings, f'{what}, /ping')
        self.assert_quick(readers, f'{what}, one user')

    def test_slow_idle_and_malformed_clients_delay_no_other_client(self):
        self.serve()
        heads = [(self.open(), iter(b'GET /ping HTTP/1.1\r\nX-Slow: ' + b'x' * 1000)) for _ in range(100)]
        bodies = [(self.open(POST), iter(b'{"username": "' + b'x' * 1000)) for _ in range(100)]
        for _ in range(2000):
            self.open()
        for number in range(50):
            half = self.open(PING if number % 2 else b'GET /pi')
            half.shutdown(socket.SHUT_WR)
            self.open(GARBAGE[number % len(GARBAGE)])
        stop = threading.Event()

        def drip():
            while not stop.wait(1):
                for sock, data in heads + bodies:
                    sock.send(bytes([next(data)]))

        thread = threading.Thread(target=drip)
        thread.start()
        try:
            self.assert_others_are_served('2,000 idle and 200 slow clients')
        finally:
            stop.set()
            thread.join()
        # A client that has closed its half of the connection gets its own response, or the end of the connection.
        half = self.open(PING)
        half.shutdown(socket.SHUT_WR)
        self.assertTrue(read_all(half).startswith(b'HTTP/1.1 200'))
        for garbage in GARBAGE:
            sock = self.open(garbage)
            sock.shutdown(socket.SHUT_WR)
            response = read_all(sock)
            if response:
                self.assertTrue(response.startswith(b'HTTP/1.1 400'), response)
                self.assertEqual('fail', json.loads(response.partition(b'\r\n\r\n')[2])['status'])
        for sock, _ in heads + bodies:
            sock.setblocking(False)
            self.assertRaises(BlockingIOError, sock.recv, 1)  # neither a response nor the end

    def test_client_that_is_idle_for_too_long_is_disconnected(self):
        self.serve(config='keepalive = 2')
        active, idle = self.open(), self.open()
        since = time.monotonic()
        idle.sendall(PING)
        for _ in range(4):
            active.sendall(PING)
            self.assertTrue(active.recv(65536).startswith(b'HTTP/1.1 200'))
            time.sleep(0.5)
        self.assertTrue(read_all(idle).startswith(b'HTTP/1.1 200'))
        took = time.monotonic() - since
        measured('a client that is idle for 2 s is disconnected after', took)
        self.assertLess(took, 5)
        self.assertGreater(took, 2)
        active.sendall(PING)
        self.assertTrue(active.recv(65536).startswith(b'HTTP/1.1 200'))

    def test_client_that_sends_without_pause_delays_no_other_client(self):
        self.serve(WEB_CONCURRENCY='1')
        first, greedy, last = (self.open(PING) for _ in range(3))
        for sock in (first, greedy, last):
            sock.recv(65536)
        (worker,) = self.server.workers()
        os.kill(worker, signal.SIGSTOP)  # so that it finds all at once, in an order that the kernel chooses
        for sock, names in ((first, ['first']), (greedy, [f'greedy{n}' for n in range(50)]), (last, ['last'])):
            sock.sendall(b''.join(PING[:-2] + f'X-Request-ID: {name}\r\n\r\n'.encode() for name in names))
        os.kill(worker, signal.SIGCONT)
        wait_until(lambda: '"greedy49"' in self.server.log(), 10, 'all get responses')
        served = re.findall('"request_id":"(greedy[0-9]+|first|last)"', self.server.log())
        self.assertLess(max(served.index('first'), served.index('last')), 5)

    def test_client_that_does_not_read_gets_no_response_inside_another(self):
        self.serve(config=SEND.format(2))
        sock = self.open(receive_buffer=4096)
        sender = threading.Thread(target=send_all, args=(sock, PING.replace(b'GET', b'HEAD') * 20_000))
        sender.start()
        # The kernel buffers some thousand responses. SEND_SECONDS after that the service closes the connection.
        wait_until(lambda: 'TimeoutError' in self.server.log(), SLACK_SECONDS, 'the service closes the connection')
        responses = read_all(sock)
        sender.join(SLACK_SECONDS)
        self.assertNotIn(len(responses.split(b'HTTP/1.1 200 OK\r\n')), (0, 20_001))
        heads = responses.split(b'HTTP/1.1 200 OK\r\n')[1:-1]  # the last may be cut off
        self.assertEqual([], [head for head in heads if not head.endswith(b'\r\n\r\n')])

    def test_connections_that_are_lost_are_replaced_and_do_not_pile_up(self):
        self.serve(POOL_SIZE='2')
        self.cluster.add_users(2000)
        of_service = "FROM pg_stat_activity WHERE datname = 'users' AND pid <> pg_backend_pid()"
        lost = 0
        numbers = itertools.count()  # different pages, since equal ones would share a SELECT
        with Load(lambda: self.server.get(f'/users?limit={1000 - next(numbers) % 8}'), 8) as load:
            end = time.monotonic() + SLACK_SECONDS
            while lost < 50 and time.monotonic() < end:
                lost += len(
                    self.cluster.sql(f"SELECT pg_terminate_backend(pid) {of_service} AND state = 'active' LIMIT 1")
                )
                time.sleep(0.02)
        self.assertEqual(50, lost)
        self.assertEqual([], load.failures)
        self.assertLessEqual(set(load.statuses()), {200, 503})
        # Two for reads in each of two workers, and one for the user that was added at the start.
        self.assertLessEqual(self.cluster.sql(f'SELECT count(*) {of_service}')[0][0], 2 * 2 + 1)
        self.assertNotIn('traceback', self.server.log())

    def request_list(self):
        """Return the socket of a client that requests all users and reads only the first bytes."""
        sock = self.open(b'GET /users HTTP/1.1\r\nHost: x\r\n\r\n', receive_buffer=4096)
        self.assertIn(sock.recv(12), (b'HTTP/1.1 200', b'HTTP/1.1 503'))
        return sock

    def in_use(self):
        """Return the number of the service's database connections that are not idle."""
        return self.cluster.sql(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = 'users' AND pid <> pg_backend_pid() "
            "AND state <> 'idle'"
        )[0][0]

    def test_slow_readers_of_the_list_delay_no_other_client(self):
        self.serve(POOL_SIZE='1', POOL_OVERFLOW='1', config=SEND.format(4))
        self.cluster.add_users(MANY)
        for _ in range(20):
            self.request_list()
        # They share the connections of the streams' pools: one in each worker.
        wait_until(lambda: self.in_use() == 2, 20, 'slow readers hold connections')
        self.assert_others_are_served('20 slow readers of the list')
        for _ in range(6):
            self.assertEqual(MANY + 1, len(self.server.get('/users').body['data']['users']))
        # After SEND_SECONDS they are disconnected.
        wait_until(lambda: self.in_use() == 0, 20, 'slow readers lose their connections')
        for _ in range(6):
            self.assertEqual(MANY + 1, len(self.server.get('/users').body['data']['users']))

    def test_client_that_goes_away_frees_its_connection(self):
        self.serve(POOL_SIZE='1', POOL_OVERFLOW='1')
        self.cluster.add_users(MANY)
        for _ in range(20):
            sock = self.request_list()
            # It closes with a reset.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
            sock.close()
        wait_until(lambda: self.in_use() == 0, 10, 'the connections are free')
        for _ in range(6):
            self.assertEqual(MANY + 1, len(self.server.get('/users').body['data']['users']))
        self.assertNotIn('PoolExhausted', self.server.log())

    def test_failure_in_the_middle_of_the_list_cuts_the_connection(self):
        self.serve()
        self.cluster.add_users(MANY)
        sock = self.request_list()
        wait_until(lambda: self.in_use() == 1, 10, 'the service waits for the client')
        self.cluster.stop(signal.SIGQUIT)
        rest = read_all(sock)
        self.assertGreater(len(rest), 100_000)
        self.assertNotIn(b']}}', rest)
        self.assertFalse(rest.endswith(b'0\r\n\r\n'))
        self.cluster.start()
        self.assertEqual(MANY + 1, len(self.server.get('/users').body['data']['users']))

    def keeping_connection(self, path):
        """Return a function for :class:`Load` that keeps its connection while the service does."""
        local = threading.local()

        def send():
            connection = getattr(local, 'connection', None)
            if connection is None:
                connection = local.connection = self.server.connect()
                self.addCleanup(connection.close)
            try:
                response = self.server.get(path, connection)
            except Exception:
                local.connection = None
                raise
            if response.headers.get('Connection') == 'close':
                local.connection = None
            return response

        return send

    def send_waiting(self, count):
        """Return sockets of ``count`` clients whose requests wait for the database; read them with :func:`read_all`."""
        # Of different lists, since equal ones would wait for one SELECT.
        request = 'GET /users?limit={} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n'
        waiting = [self.open(request.format(number + 1).encode()) for number in range(count)]
        wait_until(
            lambda: (
                self.cluster.sql("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'") == [(count,)]
            ),
            10,
            'the requests wait for the database',
        )
        return waiting

    def test_term_drops_no_request_and_does_not_wait_for_idle_clients(self):
        self.serve(POOL_SIZE='10')  # either worker may get all requests that wait
        for _ in range(50):
            self.open(PING)
        with contextlib.ExitStack() as running:
            with self.cluster.locked('ACCESS EXCLUSIVE'):
                waiting = self.send_waiting(8)
                loads = [
                    running.enter_context(Load(send, 4, 0.005))
                    for send in (self.keeping_connection('/ping'), lambda: self.server.get('/ping'))
                ]
                wait_until(lambda: min(len(load.responses) for load in loads) > 50, 10, 'pings get responses')
                signalled = time.monotonic()
                self.server.process.terminate()
                # They are still served while the service stops.
                wait_until(lambda: time.monotonic() > signalled + 1.5, 10, 'time passes')
            self.assertEqual(0, self.server.process.wait(SLACK_SECONDS))
            took = time.monotonic() - signalled
        measured('TERM with 8 requests that take 1.5 s, the service has ended', took)
        self.assertLess(took, 8)
        for sock in waiting:
            response = read_all(sock)
            self.assertTrue(response.startswith(b'HTTP/1.1 200'), response)
            self.assertTrue(response.endswith(b'}}'), response)
        for load in loads:
            self.assertEqual({200}, set(load.statuses()))
            self.assertEqual([], [failure for failure in load.failures if failure[0] < signalled - 0.05])
            # Later requests cannot connect, or get no response on a connection that was closed meanwhile.
            for _, error in load.failures:
                self.assertIsInstance(error, ConnectionError | http.client.RemoteDisconnected)
        # Each new connection that was accepted has been served.
        self.assertLessEqual({type(error) for _, error in loads[1].failures}, {ConnectionRefusedError})

    def test_hup_drops_no_request(self):
        self.serve(POOL_SIZE='10')  # either worker may get all requests that wait
        old = set(self.server.workers())
        with contextlib.ExitStack() as running:
            with self.cluster.locked('ACCESS EXCLUSIVE'):
                waiting = self.send_waiting(8)
                kept, fresh = (
                    running.enter_context(Load(send, 4, 0.005))
                    for send in (self.keeping_connection('/ping'), lambda: self.server.get('/ping'))
                )
                wait_until(lambda: min(len(kept.responses), len(fresh.responses)) > 50, 10, 'pings get responses')
                self.server.process.send_signal(signal.SIGHUP)
                signalled = time.monotonic()
                wait_until(lambda: set(self.server.workers()) - old, 10, 'new workers run')
            wait_until(lambda: not set(self.server.workers()) & old, SLACK_SECONDS, 'the old workers have ended')
            measured('HUP, the old workers have ended', time.monotonic() - signalled)
            ended = time.monotonic()
            wait_until(lambda: len(fresh.statuses(ended)) > 50, 10, 'pings get responses')
        for sock in waiting:
            self.assertTrue(read_all(sock).startswith(b'HTTP/1.1 200'))
        self.assertEqual([], fresh.failures)
        self.assertEqual([], kept.failures)
        self.assertEqual({200}, set(fresh.statuses() + kept.statuses()))
        self.assertEqual(2, len(self.server.workers()))

    def test_killed_worker_costs_the_requests_it_held(self):
        self.serve()
        clients = 8
        with Load(lambda: self.server.get(self.path), clients, 0.005) as load:
            for _ in range(2):
                wait_until(lambda: len(self.server.workers()) == 2, 10, 'both workers run')
                since = time.monotonic()
                wait_until(lambda since=since: len(load.statuses(since)) > 100, 10, 'the clients get responses')
                os.kill(self.server.workers()[0], signal.SIGKILL)
                killed = time.monotonic()
                wait_until(lambda killed=killed: len(load.statuses(killed + 0.5)) > 100, 10, 'the service continues')
        print(f'  measured: two workers killed, failed requests of {clients} clients: {len(load.failures)}', flush=True)
        self.assertLessEqual(len(load.failures), 2 * clients)
        self.assertEqual([], [at for at, _ in load.failures if killed + 0.5 < at])
        self.assertEqual({200}, set(load.statuses()))
        wait_until(lambda: len(self.server.workers()) == 2, 10, 'both workers run')


def send_all(sock, data):
    """Send data until the other side has closed the connection."""
    with contextlib.suppress(OSError):
        sock.sendall(data)


def read_all(sock):
    """Return the bytes that a socket receives until the other side closes it."""
    parts = []
    with contextlib.suppress(ConnectionError):
        while part := sock.recv(65536):
            parts.append(part)
    return b''.join(parts)
