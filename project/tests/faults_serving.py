"""What clients see of other clients that misbehave, and of workers that are stopped, replaced and killed.

See :mod:`project.tests.processes` for how to run it.
"""

import contextlib
import http.client
import json
import os
import re
import resource
import signal
import socket
import struct
import threading
import time

from project.tests.processes import HOST, SLACK_SECONDS, FaultCase, Load, measured, wait_until

MANY = 60_000  # users: their list is more than the kernel takes for a client that doesn't read
POST = b'POST /users HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 60000\r\n\r\n'
PING = b'GET /ping HTTP/1.1\r\nHost: x\r\n\r\n'
GARBAGE = (
    b'\x00' * 100,
    b'\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03',
    b'GET\r\n\r\n',
    bytes(range(256)),
    b'\r\n' * 50,
    b'POST /users HTTP/1.1\r\nHost: x\r\nContent-Length: x\r\n\r\n',
)


class ServingTest(FaultCase):
    """The service with two workers on a database that is well."""

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
        self.service = self.start_service(self.cluster.dsn(), migrate=False, **kw)
        self.path = f'/users/{self.service.post("ann@example.com").body["data"]["id"]}'
        return self.service

    def open(self, data=b'', receive_buffer=None):
        """A socket to the service, on which ``data`` is sent, and which is closed after the test."""
        sock = self.stack.enter_context(socket.socket())
        if receive_buffer:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        sock.settimeout(SLACK_SECONDS)
        sock.connect((HOST, self.service.port))
        sock.sendall(data)
        return sock

    def assert_others_are_served(self, what):
        """While it is as it is, others are answered quickly."""
        with Load(lambda: self.service.get('/ping')) as pings, Load(lambda: self.service.get(self.path), 2) as readers:
            wait_until(lambda: len(pings.answers) > 150, SLACK_SECONDS, 'pings are answered')
        self.assertEqual({200}, set(pings.statuses() + readers.statuses()))
        self.assert_quick(pings, f'{what}, /ping')
        self.assert_quick(readers, f'{what}, one user')

    def test_slow_idle_and_senseless_clients_harm_nobody(self):
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
        # Those that closed their half have their answer, or the end of the connection, and nobody is mistaken.
        half = self.open(PING)
        half.shutdown(socket.SHUT_WR)
        self.assertTrue(read_all(half).startswith(b'HTTP/1.1 200'))
        for garbage in GARBAGE:
            sock = self.open(garbage)
            sock.shutdown(socket.SHUT_WR)
            answer = read_all(sock)
            if answer:
                self.assertTrue(answer.startswith(b'HTTP/1.1 400'), answer)
                self.assertEqual('fail', json.loads(answer.partition(b'\r\n\r\n')[2])['status'])
        for sock, _ in heads + bodies:
            sock.setblocking(False)
            self.assertRaises(BlockingIOError, sock.recv, 1)  # neither an answer nor the end

    def test_client_that_is_silent_for_too_long_is_left(self):
        self.serve(config='keepalive = 2')
        active, silent, slow = self.open(), self.open(), self.open(b'GET /ping HTTP/1.1\r\nX-Slow: ')
        since = time.monotonic()
        silent.sendall(PING)
        for _ in range(4):
            active.sendall(PING)
            self.assertTrue(active.recv(65536).startswith(b'HTTP/1.1 200'))
            slow.sendall(b'x')
            time.sleep(0.5)
        self.assertTrue(read_all(silent).startswith(b'HTTP/1.1 200'))
        self.assertEqual(b'', read_all(slow))
        took = time.monotonic() - since
        measured('a client who is silent for 2 s has been left', took)
        self.assertLess(took, 5)
        self.assertGreater(took, 2)
        active.sendall(PING)
        self.assertTrue(active.recv(65536).startswith(b'HTTP/1.1 200'))

    def test_client_that_asks_without_pause_keeps_nobody_waiting(self):
        self.serve(WEB_CONCURRENCY='1')
        first, greedy, last = (self.open(PING) for _ in range(3))
        for sock in (first, greedy, last):
            sock.recv(65536)
        (worker,) = self.service.workers()
        os.kill(worker, signal.SIGSTOP)  # so that it finds all at once; who is first is the kernel's to say
        for sock, names in ((first, ['first']), (greedy, [f'greedy{n}' for n in range(50)]), (last, ['last'])):
            sock.sendall(b''.join(PING[:-2] + f'X-Request-ID: {name}\r\n\r\n'.encode() for name in names))
        os.kill(worker, signal.SIGCONT)
        wait_until(lambda: '"greedy49"' in self.service.log(), 10, 'all are answered')
        served = re.findall('"request_id":"(greedy[0-9]+|first|last)"', self.service.log())
        self.assertLess(max(served.index('first'), served.index('last')), 5)

    def test_client_that_does_not_read_gets_no_answer_into_another(self):
        self.serve(config='SEND_SECONDS = 2.0')
        sock = self.open(receive_buffer=4096)
        sender = threading.Thread(target=send_all, args=(sock, PING.replace(b'GET', b'HEAD') * 20_000))
        sender.start()
        wait_until(lambda: self.service.log().count('"HEAD"') > 1000, 10, 'answers are on their way')
        time.sleep(4)  # the service has waited for the client for long enough
        answers = read_all(sock)
        sender.join(SLACK_SECONDS)
        self.assertNotIn(len(answers.split(b'HTTP/1.1 200 OK\r\n')), (0, 20_001))
        heads = answers.split(b'HTTP/1.1 200 OK\r\n')[1:-1]  # the last may be cut off
        self.assertEqual([], [head for head in heads if not head.endswith(b'\r\n\r\n')])

    def test_connections_that_are_lost_are_replaced_and_do_not_pile_up(self):
        self.serve(POOL_SIZE='2')
        self.cluster.add_users(2000)
        of_service = "FROM pg_stat_activity WHERE datname = 'users' AND pid <> pg_backend_pid()"
        lost = 0
        with Load(lambda: self.service.get('/users?limit=1000'), 8) as load:
            end = time.monotonic() + SLACK_SECONDS
            while lost < 50 and time.monotonic() < end:
                lost += len(
                    self.cluster.sql(f"SELECT pg_terminate_backend(pid) {of_service} AND state = 'active' LIMIT 1")
                )
                time.sleep(0.02)
        self.assertEqual(50, lost)
        self.assertEqual([], load.failures)
        self.assertLessEqual(set(load.statuses()), {200, 503})
        self.assertLessEqual(self.cluster.sql(f'SELECT count(*) {of_service}')[0][0], 2 * 2)
        self.assertNotIn('traceback', self.service.log())

    def ask_for_list(self):
        """A client that asks for all users and reads no more than the first bytes."""
        sock = self.open(b'GET /users HTTP/1.1\r\nHost: x\r\n\r\n', receive_buffer=4096)
        self.assertIn(sock.recv(12), (b'HTTP/1.1 200', b'HTTP/1.1 503'))
        return sock

    def in_use(self):
        """How many of the service's connections to the database are in the middle of something."""
        return self.cluster.sql(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = 'users' AND pid <> pg_backend_pid() "
            "AND state <> 'idle'"
        )[0][0]

    def test_slow_readers_of_the_list_starve_nobody(self):
        self.serve(POOL_SIZE='1', POOL_OVERFLOW='1', config='SEND_SECONDS = 4.0')
        self.cluster.add_users(MANY)
        for _ in range(20):
            self.ask_for_list()
        # Each has a connection of the lists' own pool, or the answer that none is free.
        wait_until(lambda: self.in_use() >= 2, 20, 'slow readers hold connections')
        self.assert_others_are_served('20 slow readers of the list')
        # They are not waited for, so others can read lists again.
        wait_until(lambda: self.in_use() == 0, 20, 'slow readers lose their connections')
        for _ in range(6):
            self.assertEqual(MANY + 1, len(self.service.get('/users').body['data']['users']))

    def test_client_that_goes_away_frees_its_connection(self):
        self.serve(POOL_SIZE='1', POOL_OVERFLOW='1')
        self.cluster.add_users(MANY)
        for _ in range(20):
            sock = self.ask_for_list()
            # It closes with a reset.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
            sock.close()
        wait_until(lambda: self.in_use() == 0, 10, 'the connections are free')
        for _ in range(6):
            self.assertEqual(MANY + 1, len(self.service.get('/users').body['data']['users']))
        self.assertNotIn('PoolTimeout', self.service.log())

    def test_failure_in_the_middle_of_the_list_cuts_the_connection(self):
        self.serve()
        self.cluster.add_users(MANY)
        sock = self.ask_for_list()
        wait_until(lambda: self.in_use() == 1, 10, 'the service waits for the client')
        self.cluster.stop(signal.SIGQUIT)
        rest = read_all(sock)
        self.assertGreater(len(rest), 100_000)
        self.assertNotIn(b']}}', rest)
        self.assertFalse(rest.endswith(b'0\r\n\r\n'))
        self.cluster.start()
        self.assertEqual(MANY + 1, len(self.service.get('/users').body['data']['users']))

    def keep_asking(self, path):
        """A function for :class:`Load` that asks over one kept connection, and a new one when it was closed."""
        local = threading.local()

        def ask():
            connection = getattr(local, 'connection', None)
            if connection is None:
                connection = local.connection = self.service.connect()
                self.addCleanup(connection.close)
            try:
                answer = self.service.get(path, connection)
            except Exception:
                local.connection = None
                raise
            if answer.headers.get('Connection') == 'close':
                local.connection = None
            return answer

        return ask

    def ask_slowly(self, count):
        """So many clients whose requests wait for the database; to be read with :func:`read_all`."""
        request = f'GET {self.path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n'.encode()
        waiting = [self.open(request) for _ in range(count)]
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
                waiting = self.ask_slowly(8)
                loads = [
                    running.enter_context(Load(ask, 4, 0.005))
                    for ask in (self.keep_asking('/ping'), lambda: self.service.get('/ping'))
                ]
                wait_until(lambda: min(len(load.answers) for load in loads) > 50, 10, 'pings are answered')
                told = time.monotonic()
                self.service.process.terminate()
                # They are still served while the service stops.
                wait_until(lambda: time.monotonic() > told + 1.5, 10, 'time passes')
            self.assertEqual(0, self.service.process.wait(SLACK_SECONDS))
            took = time.monotonic() - told
        measured('TERM with 8 requests that take 1.5 s, the service has ended', took)
        self.assertLess(took, 8)
        for sock in waiting:
            answer = read_all(sock)
            self.assertTrue(answer.startswith(b'HTTP/1.1 200'), answer)
            self.assertTrue(answer.endswith(b'}}'), answer)
        for load in loads:
            self.assertEqual({200}, set(load.statuses()))
            self.assertEqual([], [failure for failure in load.failures if failure[0] < told - 0.05])
            # Whoever comes later is refused or, on a connection that was closed meanwhile, hears nothing at all.
            for _, error in load.failures:
                self.assertIsInstance(error, ConnectionError | http.client.RemoteDisconnected)
        # Whoever was connected anew has been served.
        self.assertLessEqual({type(error) for _, error in loads[1].failures}, {ConnectionRefusedError})

    def test_hup_drops_no_request(self):
        self.serve(POOL_SIZE='10')  # either worker may get all requests that wait
        old = set(self.service.workers())
        with contextlib.ExitStack() as running:
            with self.cluster.locked('ACCESS EXCLUSIVE'):
                waiting = self.ask_slowly(8)
                kept, fresh = (
                    running.enter_context(Load(ask, 4, 0.005))
                    for ask in (self.keep_asking('/ping'), lambda: self.service.get('/ping'))
                )
                wait_until(lambda: min(len(kept.answers), len(fresh.answers)) > 50, 10, 'pings are answered')
                self.service.process.send_signal(signal.SIGHUP)
                told = time.monotonic()
                wait_until(lambda: set(self.service.workers()) - old, 10, 'new workers are there')
            wait_until(lambda: not set(self.service.workers()) & old, SLACK_SECONDS, 'the old workers are gone')
            measured('HUP, the old workers are gone', time.monotonic() - told)
            ended = time.monotonic()
            wait_until(lambda: len(fresh.statuses(ended)) > 50, 10, 'pings are answered')
        for sock in waiting:
            self.assertTrue(read_all(sock).startswith(b'HTTP/1.1 200'))
        self.assertEqual([], fresh.failures)
        self.assertEqual([], kept.failures)
        self.assertEqual({200}, set(fresh.statuses() + kept.statuses()))
        self.assertEqual(2, len(self.service.workers()))

    def test_killed_worker_costs_the_requests_it_held(self):
        self.serve()
        clients = 8
        with Load(lambda: self.service.get(self.path), clients, 0.005) as load:
            for _ in range(2):
                wait_until(lambda: len(self.service.workers()) == 2, 10, 'both workers are there')
                since = time.monotonic()
                wait_until(lambda since=since: len(load.statuses(since)) > 100, 10, 'the clients are answered')
                os.kill(self.service.workers()[0], signal.SIGKILL)
                killed = time.monotonic()
                wait_until(lambda killed=killed: len(load.statuses(killed + 0.5)) > 100, 10, 'the service goes on')
        print(f'  measured: two workers killed, failed requests of {clients} clients: {len(load.failures)}', flush=True)
        self.assertLessEqual(len(load.failures), 2 * clients)
        self.assertEqual([], [at for at, _ in load.failures if killed + 0.5 < at])
        self.assertEqual({200}, set(load.statuses()))
        wait_until(lambda: len(self.service.workers()) == 2, 10, 'both workers are there')


def send_all(sock, data):
    """Send until the other side does not want any more."""
    with contextlib.suppress(OSError):
        sock.sendall(data)


def read_all(sock):
    """What comes from a socket until the other side ends it."""
    parts = []
    with contextlib.suppress(ConnectionError):
        while part := sock.recv(65536):
            parts.append(part)
    return b''.join(parts)
