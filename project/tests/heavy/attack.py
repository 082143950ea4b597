"""Attacks on the service, each from real clients: on gunicorn alone, and with nginx in front.

``python manage.py test attack`` takes about two minutes, most of which is waiting for deadlines. It needs nginx
(on Debian ``apt-get install nginx-light``).
"""

import contextlib
import json
import re
import shutil
import tempfile
import time
import unittest
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from project.tests.support.nginx import Nginx
from project.tests.support.raw import RawClient
from project.tests.support.secrets import PLACES, SECRET
from project.tests.support.servers import Server, manage

PING = b'GET /ping HTTP/1.1\r\nHost: x\r\n'
DELETE = b'DELETE /users/1 HTTP/1.1\r\nHost: x\r\n'
POST = b'POST /users HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n'
CHUNKED = b'Transfer-Encoding: chunked\r\n\r\n'
LONG = b'Content-Length: 99999999999999\r\n\r\n'
PIECE = b'2000\r\n' + b'x' * 0x2000 + b'\r\n'
SECURITY_HEADERS = (
    'content-security-policy',
    'x-content-type-options',
    'x-frame-options',
    'referrer-policy',
    'x-request-id',
    'access-control-allow-origin',
)


class AttackCase(unittest.TestCase):
    """One worker on SQLite, and nginx in front of it.

    :cvar limits: variables for nginx.envsh.
    """

    limits = {'REQUESTS_PER_SECOND': '10000', 'ADDITIONS_PER_SECOND': '10000'}
    settings = {'LOG_LEVEL': 'DEBUG', 'WEB_CONCURRENCY': '1', 'PROXY_HOPS': '1'}

    @classmethod
    def setUpClass(cls):
        cls.folder = Path(tempfile.mkdtemp(prefix='users-attack-'))
        cls.addClassCleanup(shutil.rmtree, cls.folder)
        url = f'sqlite:///{cls.folder}/users.db'
        manage(url, 'db', 'upgrade')
        cls.server = Server(cls.folder, url, **cls.settings)
        cls.addClassCleanup(cls.server.kill)
        cls.server.start()
        cls.nginx = Nginx(cls.folder, cls.server.port, **cls.limits)
        cls.addClassCleanup(cls.nginx.stop)
        cls.nginx.start()
        cls.ports = {'gunicorn': cls.server.port, 'nginx': cls.nginx.port}

    def assert_envelope(self, response, status):
        """Check an error response."""
        code, headers, body = response
        self.assertEqual(code, status, body)
        self.assertEqual(headers['content-type'], 'application/json')
        self.assertEqual(body['status'], 'fail' if status < 500 else 'error')
        self.assertTrue(body['message'])
        for name in SECURITY_HEADERS:
            self.assertIn(name, headers)

    def exchange(self, port, *parts):
        """Send a request, and return the response."""
        with RawClient(port) as client:
            client.send(*parts)
            return client.receive()


class SlowTest(AttackCase):
    """All clients are slow at the same time, while others are served."""

    def test_slow_clients_are_cut_and_others_are_served(self):
        def attack(port, head, part, allowed):
            """Send a request slowly, and return what was not cut in time, if anything."""
            with RawClient(port) as client:
                client.socket.settimeout(1.0)
                started = time.monotonic()
                client.socket.sendall(head)
                while time.monotonic() < started + allowed + 4:
                    try:
                        client.socket.sendall(part)
                        if client.socket.recv(1000) == b'':
                            return None
                    except TimeoutError:
                        continue  # it is still served
                    except ConnectionError:
                        return None
            return f'{head!r} on port {port}'

        attacks = []
        for port in self.ports.values():
            attacks += [
                (port, b'GET /pi', b'n', 10),
                (port, PING, b'X: x\r\n', 10),
                (port, PING + b'\r\n' + b'GET /pi', b'n', 11),
                (port, POST + b'Content-Length: 60000\r\n\r\n', b' ', 30),
                (port, POST + CHUNKED, b'1\r\n \r\n', 30),
                (port, POST + CHUNKED, b'', 30),
            ]
        attacks += [
            (self.server.port, DELETE + b'Content-Length: 60000\r\n\r\n', b' ', 30),
            (self.server.port, PING + CHUNKED, b'1\r\n \r\n', 30),
        ]
        with ThreadPoolExecutor(len(attacks)) as pool:
            running = [pool.submit(attack, *arguments) for arguments in attacks]
            served = 0
            while not all(future.done() for future in running):
                for port in self.ports.values():
                    self.assertEqual(self.exchange(port, PING + b'\r\n')[0], 200)
                    served += 1
                time.sleep(0.2)
        self.assertGreater(served, 20)
        self.assertEqual([future.result() for future in running if future.result()], [])


class EndlessTest(AttackCase):
    def test_endless_bodies_get_a_response_and_are_cut(self):
        port = self.server.port
        for head, status in (
            (PING + CHUNKED, 200),
            (PING + LONG, 200),
            (DELETE + CHUNKED, 401),
            (DELETE + LONG, 401),
            (POST + LONG, 413),
            (b'POST /nowhere HTTP/1.1\r\nHost: x\r\n' + CHUNKED, 404),
        ):
            with self.subTest(head=head), RawClient(port) as client:
                client.send(head)
                self.assertEqual(client.receive()[0], status)
                with ThreadPoolExecutor(1) as pool:
                    cut = pool.submit(client.is_cut, PIECE)
                    while not cut.done():
                        self.assertEqual(self.exchange(port, PING + b'\r\n')[0], 200)
                self.assertTrue(cut.result())

    def test_endless_bodies_behind_nginx_are_rejected(self):
        # nginx discards the rest for 30 s, at the cost of nobody else.
        for head, status in ((PING + CHUNKED, 200), (DELETE + CHUNKED, 401), (POST + CHUNKED, 413)):
            with self.subTest(head=head), RawClient(self.nginx.port) as client:
                client.send(head, *[PIECE] * 100)
                self.assertIn(client.receive()[0], (status, 413))
                self.assertEqual(self.exchange(self.nginx.port, PING + b'\r\n')[0], 200)
        for head in (PING + LONG, POST + LONG):
            self.assert_envelope(self.exchange(self.nginx.port, head), 413)


class CostTest(AttackCase):
    """No request within the limits costs much CPU: the kernel's account of the worker is asked, not a clock."""

    def test_costly_requests(self):
        user = json.dumps({'username': 'ann', 'email': 'ann@example.com'}).encode()
        self.exchange(self.server.port, POST + b'Content-Length: %d\r\n\r\n' % len(user) + user)
        one = b'GET /users/1 HTTP/1.1\r\nHost: x\r\n'
        (worker,) = self.server.workers()
        for name, data in {
            'If-None-Match': one + b'If-None-Match: %b\r\n' % (b',' * 8000) * 2 + b'\r\n',
            'If-None-Match, tags': one + b'If-None-Match: %b\r\n' % (b'"a",' * 1990) * 2 + b'\r\n',
            'If-None-Match, quotes': one + b'If-None-Match: %b\r\n' % (b'"' * 8000) * 2 + b'\r\n',
            'one-byte chunks': POST + CHUNKED + b'1\r\n \r\n' * 20_000,
            'one-byte chunks, unread': PING + CHUNKED + b'1\r\n \r\n' * 20_000,
            'commas in the query': b'GET /users?q=%b HTTP/1.1\r\nHost: x\r\n\r\n' % (b',' * 4000),
            'parameters': b'GET /users?%b HTTP/1.1\r\nHost: x\r\n\r\n' % (b'a&' * 2000),
            'limits': b'GET /users?%b HTTP/1.1\r\nHost: x\r\n\r\n' % (b'limit=1&' * 500),
            'brackets': POST + b'Content-Length: 65536\r\n\r\n' + b'[' * 65536,
            'keys': POST + b'Content-Length: 65530\r\n\r\n{' + b'"a":1,' * 10921 + b'}  ',
            'a long email': POST
            + b'Content-Length: 65536\r\n\r\n{"username": "a", "email": "'
            + b'a.' * 32752
            + b'"}  ',
            'domains': POST + b'Content-Length: 65536\r\n\r\n{"username": "a", "email": "a@' + b'a.' * 32751 + b'"}  ',
            'headers': PING + b'X-A: x\r\n' * 62 + b'\r\n',
            'preflight': b'OPTIONS /users HTTP/1.1\r\nHost: x\r\nAccess-Control-Request-Headers: %b\r\n\r\n'
            % (b'a,' * 4000),
        }.items():
            with self.subTest(name):
                costs = []
                for _ in range(5):
                    before = cpu_ms(worker)
                    for _ in range(4):
                        with RawClient(self.server.port) as client:
                            client.send(data)
                            client.receive()
                    costs.append((cpu_ms(worker) - before) / 4)
                print(f'  measured: {name}: {min(costs):.1f} ms of CPU', flush=True)
                self.assertLessEqual(min(costs), 20)


def cpu_ms(pid):
    """Return the CPU time that a process has used, in ms."""
    return int(Path(f'/proc/{pid}/schedstat').read_text().split()[0]) / 1e6


class NginxTest(AttackCase):
    """What nginx responds by itself."""

    limits = {'ADDITIONS_PER_SECOND': '1', 'ADDITIONS_BURST': '5', 'REQUESTS_PER_SECOND': '10000'}

    def test_errors_of_nginx_have_the_envelope(self):
        get = b'GET / HTTP/1.1\r\nHost: x\r\n'
        for data, status in (
            (b'GET / HTTP/9.9\r\nHost: x\r\n\r\n', 505),
            (b'POST /users HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: nonsense\r\n\r\n', 501),
            (get + b'If-Match: "x"\r\n\r\n', 412),
            (get + b'If-Unmodified-Since: Mon, 01 Jan 2001 00:00:00 GMT\r\n\r\n', 412),
            (b'GET /assets/a.js HTTP/1.1\r\nHost: x\r\nIf-Match: "x"\r\n\r\n', 412),
            (b'GET /nowhere HTTP/1.1\r\nHost: x\r\n\r\n', 404),
            (b'POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n', 405),
            (b'GET /users HTTP/1.1\r\n\r\n', 400),
            (b'GET /users HTTP/1.1\r\nHost: a b\r\n\r\n', 400),
            (b'garbage\r\n\r\n', 400),
        ):
            with self.subTest(data=data):
                self.assert_envelope(self.exchange(self.nginx.port, data), status)

    def test_ranges_are_ignored(self):
        for path in (b'/', b'/assets/a.js'):
            for value in (b'bytes=5-9', b'bytes=99999-', b'bytes=0-1,3-4'):
                with self.subTest(path=path, value=value):
                    request = b'GET %b HTTP/1.1\r\nHost: x\r\nRange: %b\r\n\r\n' % (path, value)
                    status, headers, _ = self.exchange(self.nginx.port, request)
                    self.assertEqual(status, 200)
                    self.assertIn('x-content-type-options', headers)

    def test_flood_of_new_users_is_limited(self):
        statuses = []
        for number in range(12):
            user = b'{"username": "ann", "email": "flood%d@example.com"}' % number
            response = self.exchange(self.nginx.port, POST + b'Content-Length: %d\r\n\r\n' % len(user) + user)
            statuses.append(response[0])
            if response[0] == 429:
                self.assert_envelope(response, 429)
                self.assertEqual(response[1]['retry-after'], '1')
                self.assertEqual(response[2]['message'], 'Too many requests. Wait a moment and try again.')
        self.assertEqual(set(statuses), {201, 429})
        self.assertGreaterEqual(statuses.count(201), 6)  # the burst, and the rate
        self.assertEqual(self.exchange(self.nginx.port, b'GET /users HTTP/1.1\r\nHost: x\r\n\r\n')[0], 200)


class ConnectionsTest(AttackCase):
    limits = {'REQUESTS_PER_SECOND': '1', 'REQUESTS_BURST': '20', 'CONNECTIONS_PER_CLIENT': '5'}

    def test_many_connections_and_many_requests_are_limited(self):
        with contextlib.ExitStack() as stack:
            for _ in range(5):
                client = stack.enter_context(RawClient(self.nginx.port))
                client.send(POST + b'Content-Length: 1000\r\n\r\n{')
            time.sleep(0.5)
            self.assert_envelope(self.exchange(self.nginx.port, PING + b'\r\n'), 429)
        time.sleep(0.5)
        statuses = [self.exchange(self.nginx.port, PING + b'\r\n')[0] for _ in range(60)]
        self.assertEqual(set(statuses), {200, 429})


class SecretsTest(AttackCase):
    def test_no_log_contains_what_a_client_sent(self):
        for port in self.ports.values():
            for data in PLACES.values():
                with RawClient(port) as client:
                    client.send(data)
                    with contextlib.suppress(OSError):
                        client.socket.shutdown(1)
                        while client.socket.recv(10_000):
                            pass
        # An upstream that is gone is an error of nginx.
        self.server.stop()
        self.exchange(self.nginx.port, PLACES['the query'])
        logs = self.server.log() + self.nginx.log()
        self.assertIn('request_rejected', logs)
        self.assertRegex(self.nginx.log(), r'"route": "/users", "status": 50[24]')
        self.assertNotIn(SECRET.decode().lower(), logs.lower())


class TokensTest(AttackCase):
    def test_only_the_token_opens_anything(self):
        from project.tests.support.servers import TOKEN

        token = TOKEN.encode()
        wrong = [
            b'', b'Bearer', b'Bearer ', b'bearer x', b'Basic ' + token, token, b'Bearer ' + token[:-1],
            b'Bearer ' + token + b'x', b'Bearer ' + token.upper(), b'Bearer "' + token + b'"',
            b'Bearer ' + token + b',',
            b'Bearer ' + token + b' x', b'Bearer x ' + token, b'Bearer=' + token, b'Token ' + token,
            b'Bearer \xff' + token, b'Bearer *', b'Bearer null', b'Bearer ' + b'x' * 8000, b'Bearer\t\x0b' + token,
        ]  # fmt: skip
        for port in self.ports.values():
            for value in wrong:
                with self.subTest(value=value[:60]):
                    status, headers, _ = self.exchange(port, DELETE + b'Authorization: ' + value + b'\r\n\r\n')
                    self.assertIn(status, (400, 401))
                    if status == 401:
                        self.assertRegex(headers['www-authenticate'], '^Bearer realm="users"')
            twice = b'Authorization: x\r\nAuthorization: Bearer ' + token + b'\r\n\r\n'
            self.assertIn(self.exchange(port, DELETE + twice)[0], (400, 401))
            for method in (b'delete', b'Delete'):
                self.assertIn(self.exchange(port, DELETE.replace(b'DELETE', method) + b'\r\n')[0], (400, 405))
            override = (
                b'POST /users/1 HTTP/1.1\r\nHost: x\r\nX-HTTP-Method-Override: DELETE\r\nContent-Length: 0\r\n\r\n'
            )
            self.assertEqual(self.exchange(port, override)[0], 405)
            right = DELETE + b'Authorization: Bearer ' + token + b'\r\n\r\n'
            self.assertEqual(self.exchange(port, right)[0], 404)


class FramingTest(AttackCase):
    """Requests whose end two servers could see in different places: none hides a second request."""

    def test_no_framing_hides_a_request(self):
        hidden = b'GET /hidden HTTP/1.1\r\nHost: x\r\n\r\n'
        lengths = [
            b'+5',
            b'-5',
            b'0x5',
            b'5,5',
            b'5, 6',
            b'5;',
            b' 5',
            b'5 5',
            b'',
            b'\xb25',
            b'5.0',
            b'1e1',
            b'9' * 30,
        ]
        codings = [
            b'chunked, chunked', b'identity', b'chunked, identity', b'gzip', b'xchunked', b'chunked\x0b', b' chunked',
            b'"chunked"', b'chunked;q=1', b',chunked', b'chunked,', b'Chunked', b'\tchunked',
        ]  # fmt: skip
        heads = [b'Content-Length: ' + value + b'\r\n' for value in lengths]
        heads += [b'Content-Length: 5\r\nContent-Length: %d\r\n' % length for length in (5, 6)]
        for coding in codings:
            heads.append(b'Transfer-Encoding: ' + coding + b'\r\n')
            heads.append(b'Transfer-Encoding: ' + coding + b'\r\nContent-Length: %d\r\n' % (len(hidden) + 5))
            heads.append(b'Content-Length: 5\r\nTransfer-Encoding: ' + coding + b'\r\n')
        heads += [
            head + ending
            for head in (
                b'Transfer-Encoding : chunked',
                b'Transfer-Encoding\r\n : chunked',
                b'Transfer_Encoding: chunked',
            )
            for ending in (b'\r\n', b'\r\nContent-Length: 5\r\n', b'\n')
        ]
        self.assertGreater(len(heads), 60)
        bodies = (b'0\r\n\r\n' + hidden, b'5\r\nhello\r\n0\r\n\r\n' + hidden, b'0\r\n' + hidden, b'0\n\n' + hidden)
        for port in self.ports.values():
            for head in heads:
                for body in bodies:
                    with RawClient(port) as client:
                        client.send(b'POST /nowhere HTTP/1.1\r\nHost: x\r\n' + head + b'\r\n' + body + hidden)
                        client.socket.shutdown(1)
                        received = b''
                        with contextlib.suppress(ConnectionError):
                            while data := client.socket.recv(10_000):
                                received += data
                    statuses = re.findall(rb'HTTP/1\.[01] (\d+)', received)
                    # The body is whole and each hidden request is one: or the first response is the last.
                    self.assertTrue(statuses, (head, body))
                    if len(statuses) > 1:
                        self.assertTrue(is_plain(head), (port, head, body, statuses))


def is_plain(head):
    """Return whether all servers see the same end of a request; they ignore names with an underscore."""
    lines = [line for line in head.lower().split(b'\r\n')[:-1] if not line.startswith(b'transfer_encoding')]
    plain = re.compile(rb'transfer-encoding:[ \t]*chunked|content-length: *\d+')
    return not lines or (len(lines) == 1 and plain.fullmatch(lines[0].strip()) is not None)
