"""The limits on the size of requests, and which host a request is for, in real processes.

The tests of deadlines, which take time, are in heavy/attack.py.
"""

import tempfile

from project import config
from project.tests.base import BaseTestCase
from project.tests.support.raw import RawClient
from project.tests.support.servers import Server, needs_gunicorn

PING = b'GET /ping HTTP/1.1\r\nHost: x\r\n'
DELETE = b'DELETE /users/1 HTTP/1.1\r\nHost: x\r\n'
POST = b'POST /users HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n'
CHUNKED = b'Transfer-Encoding: chunked\r\n\r\n'


@needs_gunicorn
class LimitsTest(BaseTestCase):
    @classmethod
    def setUpClass(cls):
        folder = cls.enterClassContext(tempfile.TemporaryDirectory())
        url = config.TestingConfig.SQLALCHEMY_DATABASE_URI
        cls.server = Server(
            folder,
            url,
            WEB_CONCURRENCY='1',
            LOG_LEVEL='CRITICAL',
            TRUSTED_HOSTS='x,Good.Example,127.0.0.1',
            CORS_ORIGINS='https://Shop.example, http://localhost:3000',
        )
        cls.addClassCleanup(cls.server.kill)
        cls.server.start()

    def test_connection_is_kept_after_a_small_unread_body(self):
        for body in (b'Content-Length: 5\r\n\r\nhello', CHUNKED + b'5\r\nhello\r\n0\r\n\r\n'):
            with self.subTest(body=body), RawClient(self.server.port) as client:
                client.send(DELETE + body + PING + b'\r\n')
                self.assertEqual([client.receive()[0] for _ in range(2)], [401, 200])

    def test_endless_unread_body_gets_a_response_and_is_cut(self):
        for head in (CHUNKED, b'Content-Length: 99999999999999\r\n\r\n'):
            with self.subTest(head=head), RawClient(self.server.port) as client:
                client.send(DELETE + head)
                self.assertEqual(client.receive()[0], 401)
                self.assertTrue(client.is_cut(b'2000\r\n' + b'x' * 0x2000 + b'\r\n'))

    def test_chunks_count_with_their_framing(self):
        for body in (b'1\r\n \r\n' * 20_000, b'4000\r\n' + b'\n' * 0x4000 + b'\r\n0\r\n\r\n'):
            with self.subTest(body=body[:20]), RawClient(self.server.port) as client:
                client.send(POST + CHUNKED, body)
                self.assertEqual(client.receive()[0], 413)

    def test_request_in_packets_of_one_byte_is_served(self):
        body = b'{"username": "", "email": ""}'.ljust(300)
        chunks = b''.join(b'1\r\n%c\r\n' % byte for byte in body) + b'0\r\n\r\n'
        with RawClient(self.server.port) as client:
            for request, status in (
                (PING + b'X: ' + b'x' * 300 + b'\r\n\r\n', 200),
                (POST + b'Content-Length: 300\r\n\r\n' + body, 400),
                (POST + CHUNKED + chunks, 400),
            ):
                with self.subTest(request=request[:20]):
                    client.dribble(request)
                    self.assertEqual(client.receive()[0], status)

    def test_headers_are_limited_together(self):
        with RawClient(self.server.port) as client:
            client.send(PING, b'X: %b\r\n' % (b'x' * 8000) * 3)
            status, headers, body = client.receive()
            self.assertEqual((status, body['message']), (431, 'Request Header Fields Too Large'))
            self.assertEqual(headers['vary'], 'Origin')

    def test_large_headers_and_a_body_may_arrive_together(self):
        with RawClient(self.server.port) as client:
            client.send(POST + b'Content-Length: 9000\r\n', b'X: %b\r\n' % (b'x' * 6800) * 2 + b'\r\n' + b' ' * 9000)
            self.assertEqual(client.receive()[0], 400)  # the body is no JSON

    def test_rejected_request_of_an_allowed_origin_has_the_cors_headers(self):
        twice = b'Content-Length: 1\r\nContent-Length: 2\r\nOrigin: https://%b.example\r\n\r\n'
        for name, allowed in ((b'shop', 'https://shop.example'), (b'evil', None)):
            with self.subTest(name=name), RawClient(self.server.port) as client:
                client.send(POST + twice % name)
                status, headers, _ = client.receive()
                self.assertEqual((status, headers['vary']), (400, 'Origin'))
                self.assertEqual(headers.get('access-control-allow-origin'), allowed)

    def test_headers_and_body_of_a_response_arrive_together(self):
        with RawClient(self.server.port) as client:
            for _ in range(50):
                client.send(PING + b'\r\n')
                self.assertIn(b'pong!', client.socket.recv(10_000))

    def test_continue_is_sent_only_when_the_body_is_read(self):
        expect = b'Expect: 100-continue\r\nContent-Length: %d\r\n\r\n'
        for head, length, statuses in ((DELETE, 2, [401]), (POST, 99_999, [413]), (POST, 2, [100, 400])):
            with self.subTest(head=head), RawClient(self.server.port) as client:
                client.send(head + expect % length)
                received = [client.receive_head()[0]]
                if received == [100]:
                    client.send(b'{}')
                    received.append(client.receive()[0])
                self.assertEqual(received, statuses)

    def test_host_that_a_request_is_for(self):
        good, bad = b'GOOD.example:5000', b'evil.example'
        for line, host, status in (
            (b'GET /ping HTTP/1.1', good, 200),
            (b'GET /ping HTTP/1.1', bad, 400),
            (b'GET /ping HTTP/1.1', None, 400),
            (b'GET /ping HTTP/1.0', None, 200),  # for the server's own address
            # The target of a request, if it names a host, replaces the header.
            (b'GET http://good.example/ping HTTP/1.1', bad, 200),
            (b'GET http://evil.example/ping HTTP/1.1', good, 400),
            (b'GET http://evil.example/ping HTTP/1.0', None, 400),
            (b'GET http://user@good.example/ping HTTP/1.1', good, 400),
            (b'GET http://good.example/ping HTTP/1.1', None, 400),
            # It must be well-formed all the same.
            (b'GET http://good.example/ping HTTP/1.1', b'a b', 400),
            (b'GET http://good.example/ping HTTP/1.0', b'good.example:x', 400),
            # A URL elsewhere in the target is none.
            (b'GET /ping?x=http://good.example/ HTTP/1.1', bad, 400),
            (b'GET /ping?x=http://evil.example/ HTTP/1.1', good, 200),
            (b'GET /ping?x=:// HTTP/1.1', good, 200),
        ):
            with self.subTest(line=line, host=host), RawClient(self.server.port) as client:
                client.send(line + b'\r\n' + (b'Host: %b\r\n' % host if host else b'') + b'\r\n')
                self.assertEqual(client.receive()[0], status)

    def test_minor_version_of_a_response_is_one_that_exists(self):
        with RawClient(self.server.port) as client:
            client.send(b'GET /ping HTTP/1.9\r\nHost: x\r\n\r\n')
            self.assertTrue(client.socket.recv(100).startswith(b'HTTP/1.1 200 '))


class HostTest(BaseTestCase):
    def test_missing_or_malformed_host_is_rejected(self):
        for host in ('', ' ', 'a b', 'a/b', 'user@a', 'a:999999', 'a:b', '[::1', 'é', 'a,b', 'a\\b', 'a?b', None):
            for settings in ({}, {'TRUSTED_HOSTS': 'a'}):
                with self.subTest(host=host, settings=settings):
                    response = self.client_of(**settings).get('/ping', environ_overrides={'HTTP_HOST': host})
                    self.assert_failure(response, 400, 'The Host header is missing or malformed.')
        for host in ('a', 'A.b.', 'a:80', '127.0.0.1', '[::1]:5000', 'a_b'):
            with self.subTest(host=host):
                response = self.client.get('/ping', environ_overrides={'HTTP_HOST': host})
                self.assertEqual(response.status_code, 200)

    def test_http_1_0_needs_no_host(self):
        environ = {'SERVER_PROTOCOL': 'HTTP/1.0', 'HTTP_HOST': None}
        self.assertEqual(self.client.get('/ping', environ_overrides=environ).status_code, 200)

    def test_trusted_hosts_have_no_case(self):
        client = self.client_of(TRUSTED_HOSTS='Example.com, .EXAMPLE.org')
        for host, status in (('EXAMPLE.com', 200), ('a.example.ORG:80', 200), ('example.net', 400)):
            with self.subTest(host=host):
                self.assertEqual(client.get('/ping', headers={'Host': host}).status_code, status)
