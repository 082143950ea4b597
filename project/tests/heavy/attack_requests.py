"""Attacks by requests: missing and wrong tokens, ambiguous framing, floods, and data that must not be logged."""

import contextlib
import re
import time

import yaml

from project.tests.base import ROOT
from project.tests.support.attack_case import CHUNKED, DELETE, PAGE, PING, POST, AttackCase
from project.tests.support.raw import RawClient
from project.tests.support.secrets import PLACES, SECRET
from project.tests.support.servers import TOKEN


class NginxTest(AttackCase):
    """The responses that nginx makes itself, its limits and its log."""

    limits = {'ADDITIONS_PER_SECOND': '1', 'ADDITIONS_BURST': '5', 'REQUESTS_PER_SECOND': '9999'}

    def test_errors_of_nginx_have_the_envelope(self):
        for data, status in (
            (b'GET / HTTP/9.9\r\nHost: x\r\n\r\n', 505),
            (b'POST /users HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: nonsense\r\n\r\n', 501),
            (b'GET /nowhere HTTP/1.1\r\nHost: x\r\n\r\n', 404),
            (b'POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n', 405),
            (b'GET /users HTTP/1.1\r\n\r\n', 400),
            (b'GET /users HTTP/1.1\r\nHost: a b\r\n\r\n', 400),
            (b'garbage\r\n\r\n', 400),
            (b'GET / HTTP/1.1\r\nHost: x\r\nIf-Match:\r\n\r\n', 412),
            (b'GET /' + b'x' * 9000 + b' HTTP/1.1\r\nHost: x\r\n\r\n', 414),
            (PING + b'X: ' + b'x' * 9000 + b'\r\n\r\n', 431),
            (PAGE + CHUNKED + b'zz\r\n', 400),
            (PAGE + CHUNKED + (b'2000\r\n' + b'x' * 0x2000 + b'\r\n') * 9, 413),
        ):
            with self.subTest(data=data):
                self.assert_envelope(self.exchange(self.nginx.port, data), status)

    def test_405_of_nginx_has_the_methods_of_the_service(self):
        for path in (b'/users', b'/users/1', b'/ping', b'/health', b'/docs', b'/docs/docs.js', b'/openapi.yaml'):
            with self.subTest(path=path):
                allowed = [
                    self.exchange(port, method + path + b' HTTP/1.1\r\nHost: x\r\n\r\n')[1]['allow']
                    for port, method in ((self.nginx.port, b'TRACE '), (self.server.port, b'OPTIONS '))
                ]
                self.assertEqual(*(set(methods.split(', ')) for methods in allowed))
        status, headers, _ = self.exchange(self.nginx.port, b'TRACE / HTTP/1.1\r\nHost: x\r\n\r\n')
        self.assertEqual((status, headers['allow']), (405, 'GET, HEAD'))

    def test_other_versions_of_http_are_served(self):
        for port in self.ports.values():
            for data in (b'GET /ping HTTP/1.0\r\n\r\n', b'GET /ping HTTP/1.9\r\nHost: x\r\n\r\n'):
                with self.subTest(port=port, data=data):
                    self.assertEqual(self.exchange(port, data)[0], 200)

    def test_ranges_and_preconditions_of_changes_are_ignored(self):
        since = b'If-Unmodified-Since: Mon, 01 Jan 2001 00:00:00 GMT'
        ranges = (b'Range: bytes=5-9', b'Range: bytes=99999-', b'Range: bytes=0-1,3-4')
        for path in (b'/', b'/assets/a.js'):
            plain = self.exchange(self.nginx.port, b'GET ' + path + b' HTTP/1.1\r\nHost: x\r\n\r\n')
            self.assertEqual(plain[0], 200)
            self.assertIn('x-content-type-options', plain[1])
            for header in (*ranges, since, b'If-Match: "x"', b'If-Match: "x"\r\n' + since):
                with self.subTest(path=path, header=header):
                    request = b'GET %b HTTP/1.1\r\nHost: x\r\n%b\r\n\r\n' % (path, header)
                    status, headers, content = self.exchange(self.nginx.port, request)
                    self.assertEqual((status, content), (200, plain[2]))
                    self.assertEqual({**headers, 'date': ''}, {**plain[1], 'date': ''})

    def test_flood_of_new_users_is_limited(self):
        contract = yaml.safe_load((ROOT / 'project' / 'api' / 'openapi.yaml').read_text())
        described = contract['components']['responses']['TooManyRequests']['content']['application/json']
        documented = described['examples']['tooMany']['value']
        statuses = []
        for number in range(12):
            user = b'{"username": "ann", "email": "flood%d@example.com"}' % number
            response = self.exchange(self.nginx.port, POST + b'Content-Length: %d\r\n\r\n' % len(user) + user)
            statuses.append(response[0])
            if response[0] == 429:
                self.assert_envelope(response, 429)
                self.assertEqual(response[1]['retry-after'], '1')
                self.assertEqual(response[2], documented)
        self.assertEqual(set(statuses), {201, 429})
        self.assertGreaterEqual(statuses.count(201), 6)  # the burst, and the rate
        self.assertEqual(self.exchange(self.nginx.port, b'GET /users HTTP/1.1\r\nHost: x\r\n\r\n')[0], 200)


class HostTest(AttackCase):
    settings = AttackCase.settings | {'TRUSTED_HOSTS': '127.0.0.1,Good.example'}

    def test_request_is_for_the_host_of_its_target_or_else_of_its_header(self):
        good, evil = b'gOOd.example', b'evil.example'
        for target, host, status in (
            (b'/ping', good, 200),
            (b'/ping', good + b':8080', 200),
            (b'/ping', evil, 400),
            (b'http://' + good + b'/ping', evil, 200),
            (b'http://' + evil + b'/ping', good, 400),
        ):
            for port in self.ports.values():
                with self.subTest(target=target, host=host, port=port):
                    request = b'GET %b HTTP/1.1\r\nHost: %b\r\n\r\n' % (target, host)
                    self.assertEqual(self.exchange(port, request)[0], status)


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
        # nginx logs an error for an upstream that has ended.
        self.server.stop()
        self.exchange(self.nginx.port, PLACES['the query'])
        self.nginx.stop()  # it writes the line of a request after the response
        logs = self.server.log() + self.nginx.log()
        self.assertIn('request_rejected', logs)
        self.assertRegex(self.nginx.log(), r'"route": "/users", "status": 50[24]')
        self.assertNotIn(SECRET.decode().lower(), logs.lower())


class TokensTest(AttackCase):
    def test_guarded_requests_need_a_valid_token(self):
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
    """Request smuggling: no request with an ambiguous end hides a second request."""

    def test_no_framing_hides_a_request(self):
        hidden = b'GET /hidden HTTP/1.1\r\nHost: x\r\n\r\n'
        lengths = [*b'+5|-5|0x5|5,5|5, 6|5;| 5|5 5||\xb25|5.0|1e1'.split(b'|'), b'9' * 30]
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
                    # Either the body is complete and each hidden request gets a response, or there is one response.
                    self.assertTrue(statuses, (head, body))
                    if len(statuses) > 1:
                        self.assertTrue(is_plain(head), (port, head, body, statuses))


def is_plain(head):
    """Return whether all servers see the same end of a request; they ignore names with an underscore."""
    lines = [line for line in head.lower().split(b'\r\n')[:-1] if not line.startswith(b'transfer_encoding')]
    plain = re.compile(rb'transfer-encoding:[ \t]*chunked|content-length: *\d+')
    return not lines or (len(lines) == 1 and plain.fullmatch(lines[0].strip()) is not None)
