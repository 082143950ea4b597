"""The service under gunicorn with several workers, and clients whose HTTP is malformed."""

import contextlib
import http.client
import json
import socket
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor

from project import config, db
from project.api import users
from project.tests.base import BaseTestCase
from project.tests.support.servers import HOST, SLACK_SECONDS, Server, needs_gunicorn

CLIENTS = 100


@needs_gunicorn
class ServerTestCase(BaseTestCase):
    served, workers, changes = 'manage:app', 2, ''

    @classmethod
    def setUpClass(cls):
        folder = cls.enterClassContext(tempfile.TemporaryDirectory())
        url = config.TestingConfig.SQLALCHEMY_DATABASE_URI
        environ = {'WEB_CONCURRENCY': str(cls.workers), 'LOG_LEVEL': 'CRITICAL'}
        cls.server = Server(folder, url, app=cls.served, config=cls.changes, **environ)
        cls.addClassCleanup(cls.server.kill)
        cls.server.start()

    def connect(self):
        """Return a socket to the server."""
        return socket.create_connection((HOST, self.server.port), SLACK_SECONDS)

    def raw(self, *parts, shut=False):
        """Send bytes; return status, headers and JSON of the response.

        :param shut: whether to close the sending half of the connection after the bytes.
        """
        with self.connect() as client:
            # A server that rejects a request may respond and close while the client is still sending.
            with contextlib.suppress(ConnectionError):
                for part in parts:
                    client.sendall(part)
                if shut:
                    client.shutdown(socket.SHUT_WR)
            response = http.client.HTTPResponse(client)
            response.begin()
            return response.status, response.headers, json.loads(response.read())


def post(body, length=None, content_type='application/json', more=''):
    """Return the bytes of a POST to /users."""
    length = len(body) if length is None else length
    head = f'POST /users HTTP/1.1\r\nHost: x\r\nContent-Type: {content_type}\r\nContent-Length: {length}\r\n{more}\r\n'
    return head.encode() + body


CHUNKED = post(b'', more='Transfer-Encoding: chunked\r\n').replace(b'Content-Length: 0\r\n', b'')


class ServerTest(ServerTestCase):
    def check(self, response, code, message, errors=None):
        status, headers, body = response
        self.assertEqual((status, body['message']), (code, message), body)
        self.assertEqual(body['status'], 'fail')
        self.assertEqual(body.get('errors'), errors)
        self.assertEqual(headers['Content-Type'], 'application/json')
        self.assertEqual(headers['Access-Control-Allow-Origin'], '*')
        self.assertTrue(headers['X-Request-ID'])

    def test_of_a_hundred_simultaneous_posts_of_one_email_one_adds_a_user(self):
        forms = ('ann@example.com', 'Ann@Example.com', ' ann@example.com', 'ANN@EXAMPLE.COM ')
        bodies = [json.dumps({'username': f'ann{n}', 'email': forms[n % len(forms)]}) for n in range(CLIENTS)]
        # All clients have connected and sent all but the last byte before the first request is complete.
        with contextlib.ExitStack() as stack:
            clients = [stack.enter_context(self.connect()) for _ in bodies]
            for client, body in zip(clients, bodies, strict=True):
                client.sendall(post(body.encode())[:-1])
            for client in clients:
                client.sendall(b'}')
            responses = []
            for client in clients:
                response = http.client.HTTPResponse(client)
                response.begin()
                responses.append((response.status, json.loads(response.read())['message']))
        self.assertEqual([status for status, _ in responses].count(201), 1, responses)
        rejected = (400, 'Sorry. That email already exists.')
        self.assertEqual(responses.count(rejected), CLIENTS - 1, set(responses))
        self.assertEqual(self.count_users(), 1)

    def test_all_users_of_simultaneous_posts_are_added(self):
        def add(number):
            response = self.server.post(f'{number}@example.com')
            return response.status, response.body['data']['id']

        with ThreadPoolExecutor(8) as pool:
            added = list(pool.map(add, range(40)))
        self.assertEqual({status for status, _ in added}, {201})
        self.assertEqual({user['id'] for user in self.list_users()}, {user_id for _, user_id in added})

    def test_bodies_that_are_not_json_are_rejected(self):
        user = b'{"username": "ann", "email": "ann@example.com"}'
        for body in (
            b'',
            b'{',
            b'\xef\xbb\xbf' + user,
            b'\xff\xfe',
            b'{"username": "\xff"}',
            user.decode().encode('utf-16'),
        ):
            with self.subTest(body=body):
                errors = {'body': 'must be a JSON object'}
                self.check(self.raw(post(body)), 400, 'Invalid payload.', errors)
        self.assertEqual(self.count_users(), 0)

    def test_chunked_body_is_accepted(self):
        parts = (b'{"username": "a', b'nn", "email": "ann@ex', b'ample.test"}', b'')
        status, _, body = self.raw(CHUNKED, *(b'%x\r\n%s\r\n' % (len(part), part) for part in parts))
        self.assertEqual((status, body['message']), (201, 'ann@example.test was added!'))
        self.assertEqual(self.list_users(), [body['data']])

    def test_malformed_chunked_body_is_rejected(self):
        for chunks in (b'zz\r\n{}\r\n0\r\n\r\n', b'5\r\n{}\r\n0\r\n\r\n', b'-1\r\n\r\n', b'2\r\n{}', b''):
            with self.subTest(chunks=chunks):
                status, headers, body = self.raw(CHUNKED + chunks, shut=True)
                self.assertEqual((status, body['status']), (400, 'fail'), body)
                self.assertEqual(headers['Content-Type'], 'application/json')
        self.assertEqual(self.count_users(), 0)

    def test_chunked_body_over_the_limit_is_rejected(self):
        chunk = b'8000\r\n' + b' ' * 0x8000 + b'\r\n'
        self.check(self.raw(CHUNKED + chunk * 4 + b'0\r\n\r\n'), 413, 'Request Entity Too Large')

    def test_body_shorter_than_its_length_is_rejected(self):
        for body in (b'', b'{"username": "ann", "em', b'{"username": "ann", "email": "ann@example.com"}'):
            with self.subTest(body=body):
                response = self.raw(post(body, len(body) + 10), shut=True)
                self.check(response, 400, 'Invalid payload.', {'body': 'could not be read to its end'})
        self.assertEqual(self.count_users(), 0)

    def test_body_of_ten_megabytes_is_rejected(self):
        self.check(self.raw(post(b' ' * 10_000_000)), 413, 'Request Entity Too Large')

    def test_body_with_a_large_content_length_is_rejected_before_it_arrives(self):
        self.check(self.raw(post(b'', 10_000_000)), 413, 'Request Entity Too Large')

    def test_malformed_http_is_rejected(self):
        for data in (
            b'\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03' + b'\xff' * 100 + b'\r\n\r\n',
            b'garbage\r\n\r\n',
            b'GET /users\r\n\r\n',
            b'GET / HTTP/9.9\r\n\r\n',
            b'GET /ping HTTP/1.1\r\nno header\r\n\r\n',
            b'GET /ping HTTP/1.1\r\nContent-Length: x\r\n\r\n',
            post(b'{}', more='Content-Length: 3\r\n'),
            post(b'{}', more='Transfer-Encoding: nonsense\r\n'),
            b'GET /' + b'x' * 5000 + b' HTTP/1.1\r\n\r\n',
            b'GET /ping HTTP/1.1\r\nX: ' + b'x' * 9000 + b'\r\n\r\n',
            b'GET /ping HTTP/1.1\r\n' + b'X: x\r\n' * 100 + b'\r\n',
        ):
            with self.subTest(data=data[:60]):
                status, headers, body = self.raw(data, shut=True)
                self.assertTrue(400 <= status < 600, status)
                self.assertEqual(headers['Content-Type'], 'application/json')
                self.assertEqual(headers['Access-Control-Allow-Origin'], '*')
                self.assertEqual(body['status'], 'fail' if status < 500 else 'error')
                self.assertTrue(body['message'])

    def test_clients_that_send_slowly_delay_no_other_client(self):
        with contextlib.ExitStack() as stack:
            for _ in range(30):
                client = stack.enter_context(self.connect())
                client.sendall(post(b'{"username": ', 100))
            for _ in range(10):
                self.assertEqual(self.server.get('/ping').status, 200)

    def test_several_requests_go_over_one_connection(self):
        with self.connect() as client:
            for status in (200, 404, 200):
                path = '/ping' if status == 200 else '/nowhere'
                client.sendall(f'GET {path} HTTP/1.1\r\nHost: x\r\n\r\n'.encode())
                response = http.client.HTTPResponse(client)
                response.begin()
                self.assertEqual((response.status, response.will_close), (status, False))
                response.read()

    def test_neither_debugger_nor_version_is_served(self):
        for path, code in (('/console', 404), ('/?__debugger__=yes&cmd=resource&f=style.css', 404), ('/ping', 200)):
            with self.subTest(path=path):
                response = self.server.get(path)  # an error unless it is JSON
                self.assertEqual(response.status, code)
                self.assertNotRegex(response.headers.get('Server') or '', r'\d|Python|Werkzeug')

    def test_streamed_list_is_complete(self):
        self.store_users(2 * users.STREAM_ROWS + 1)
        response = self.server.get('/users')
        self.assertEqual(response.status, 200)
        self.assertEqual(len(response.body['data']['users']), 2 * users.STREAM_ROWS + 1)

    def test_stale_connections_of_the_pool_cost_no_client_an_error(self):
        if not self.on_postgresql:
            self.skipTest('SQLite has no server that could close connections')
        idle = (
            'SELECT pid FROM pg_stat_activity '
            "WHERE datname = current_database() AND pid <> pg_backend_pid() AND state = 'idle'"
        )
        for number in range(2):
            for _ in range(6):
                self.assertEqual(self.server.get('/users').status, 200)
            with db.engines['reads'].connect() as connection:
                gone = connection.exec_driver_sql(idle).scalars().all()
                self.assertTrue(gone)
                connection.exec_driver_sql('SELECT pg_terminate_backend(unnest(%s))', (gone,))
                end = time.monotonic() + SLACK_SECONDS
                while connection.exec_driver_sql('SELECT 1 FROM pg_stat_activity WHERE pid = ANY(%s)', (gone,)).all():
                    self.assertLess(time.monotonic(), end)
            for email in (f'{number}a@example.com', f'{number}b@example.com'):
                self.assertEqual(self.server.post(email).status, 201)
            for _ in range(6):
                self.assertEqual(self.server.get('/users').status, 200)
