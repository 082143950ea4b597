"""The service as it is served: real gunicorn with several workers, and clients that speak HTTP badly."""

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from unittest import mock

from project import config, create_app, db
from project.api import views
from project.tests.base import ROOT, BaseTestCase

SECONDS = 20  # a server that has not answered by then never will
CLIENTS = 100


class Server:
    """gunicorn, as gunicorn.conf.py has it, on a port of its own.

    :param app: what it serves.
    :param workers: with how many processes.
    """

    def __init__(self, app, workers):
        environment = {name: value for name, value in os.environ.items() if name != 'API_TOKENS'}
        url = config.TestingConfig.SQLALCHEMY_DATABASE_URI
        environment |= {
            'APP_SETTINGS': 'project.config.ProductionConfig',
            'DATABASE_URL': url,
            'SECRET_KEY': 'a-key-of-the-tests-that-nobody-can-guess',
            'WEB_CONCURRENCY': str(workers),
            'LOG_LEVEL': 'CRITICAL',
        }
        # Connections wait at the socket until the workers are there: nobody has to ask whether they are.
        with socket.create_server(('127.0.0.1', 0), backlog=200) as listener:
            self.address = listener.getsockname()
            command = [sys.executable, '-m', 'gunicorn', '-b', f'fd://{listener.fileno()}', app]
            self.process = subprocess.Popen(
                command, cwd=ROOT, env=environment, pass_fds=[listener.fileno()], start_new_session=True
            )

    def stop(self):
        """Stop it, at once: how it goes in peace is not what is tested here."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def connect(self):
        """A socket to it."""
        return socket.create_connection(self.address, SECONDS)

    def request(self, method, path, body=None, headers=None):
        """The answer to a request of a well-behaved client, and its body."""
        with contextlib.closing(http.client.HTTPConnection(*self.address, timeout=SECONDS)) as connection:
            connection.request(method, path, body, headers or {})
            response = connection.getresponse()
            return response, response.read()

    def raw(self, *parts, shut=False):
        """The answer to these bytes: its status, headers and JSON; ``shut`` ends the sending first."""
        with self.connect() as client:
            # A server that has seen enough may answer and close while we are still sending.
            with contextlib.suppress(ConnectionError):
                for part in parts:
                    client.sendall(part)
                if shut:
                    client.shutdown(socket.SHUT_WR)
            response = http.client.HTTPResponse(client)
            response.begin()
            return response.status, response.headers, json.loads(response.read())


def broken_app():
    """An app whose database fails while it sends a long list; gunicorn is given this function's name."""

    def stream(*args):
        yield [(1, 'first', 'first@example.com', False, '2026-01-01T00:00:00.000000Z')]
        raise RuntimeError('in the middle')

    mock.patch('project.database.stream', stream).start()
    mock.patch.object(views, 'CHUNK', 2).start()
    return create_app()


class ServerTestCase(BaseTestCase):
    served, workers = 'manage:app', 3

    @classmethod
    def setUpClass(cls):
        cls.server = Server(cls.served, cls.workers)
        cls.addClassCleanup(cls.server.stop)


def post(body, length=None, content_type='application/json', more=''):
    """The bytes of a POST to /users."""
    length = len(body) if length is None else length
    head = f'POST /users HTTP/1.1\r\nHost: x\r\nContent-Type: {content_type}\r\nContent-Length: {length}\r\n{more}\r\n'
    return head.encode() + body


CHUNKED = post(b'', more='Transfer-Encoding: chunked\r\n').replace(b'Content-Length: 0\r\n', b'')


class ServerTest(ServerTestCase):
    def check(self, answer, code, message, errors=None):
        status, headers, body = answer
        self.assertEqual((status, body['message']), (code, message), body)
        self.assertEqual(body['status'], 'fail')
        self.assertEqual(body.get('errors'), errors)
        self.assertEqual(headers['Content-Type'], 'application/json')
        self.assertEqual(headers['Access-Control-Allow-Origin'], '*')
        self.assertTrue(headers['X-Request-ID'])

    def test_hundred_posts_of_one_address_at_once_make_one_user(self):
        forms = ('ann@example.com', 'Ann@Example.com', ' ann@example.com', 'ANN@EXAMPLE.COM ')
        bodies = [json.dumps({'username': f'ann{n}', 'email': forms[n % len(forms)]}) for n in range(CLIENTS)]
        # All are connected, and have sent all but the last byte, before the first of them is done.
        with contextlib.ExitStack() as stack:
            clients = [stack.enter_context(self.server.connect()) for _ in bodies]
            for client, body in zip(clients, bodies, strict=True):
                client.sendall(post(body.encode())[:-1])
            for client in clients:
                client.sendall(b'}')
            answers = []
            for client in clients:
                response = http.client.HTTPResponse(client)
                response.begin()
                answers.append((response.status, json.loads(response.read())['message']))
        self.assertEqual([status for status, _ in answers].count(201), 1, answers)
        refused = (400, 'Sorry. That email already exists.')
        self.assertEqual(answers.count(refused), CLIENTS - 1, set(answers))
        self.assertEqual(self.count_users(), 1)

    def test_users_posted_at_once_are_all_there(self):
        def add(number):
            body = json.dumps({'username': 'ann', 'email': f'{number}@example.com'})
            response, answer = self.server.request('POST', '/users', body, {'Content-Type': 'application/json'})
            return response.status, json.loads(answer)['data']['id']

        with ThreadPoolExecutor(8) as pool:
            added = list(pool.map(add, range(40)))
        self.assertEqual({status for status, _ in added}, {201})
        self.assertEqual({user['id'] for user in self.list_users()}, {user_id for _, user_id in added})

    def test_bodies_that_are_no_json_are_refused(self):
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
                self.check(self.server.raw(post(body)), 400, 'Invalid payload.', errors)
        self.assertEqual(self.count_users(), 0)

    def test_chunked_body_is_taken(self):
        parts = (b'{"username": "a', b'nn", "email": "ann@ex', b'ample.test"}', b'')
        status, _, body = self.server.raw(CHUNKED, *(b'%x\r\n%s\r\n' % (len(part), part) for part in parts))
        self.assertEqual((status, body['message']), (201, 'ann@example.test was added!'))
        self.assertEqual(self.list_users(), [body['data']])

    def test_chunked_body_that_is_wrong_is_refused(self):
        for chunks in (b'zz\r\n{}\r\n0\r\n\r\n', b'5\r\n{}\r\n0\r\n\r\n', b'-1\r\n\r\n', b'2\r\n{}', b''):
            with self.subTest(chunks=chunks):
                status, headers, body = self.server.raw(CHUNKED + chunks, shut=True)
                self.assertEqual((status, body['status']), (400, 'fail'), body)
                self.assertEqual(headers['Content-Type'], 'application/json')
        self.assertEqual(self.count_users(), 0)

    def test_chunked_body_over_the_limit_is_refused(self):
        chunk = b'8000\r\n' + b' ' * 0x8000 + b'\r\n'
        self.check(self.server.raw(CHUNKED + chunk * 4 + b'0\r\n\r\n'), 413, 'Request Entity Too Large')

    def test_body_shorter_than_its_length_is_refused(self):
        for body in (b'', b'{"username": "ann", "em', b'{"username": "ann", "email": "ann@example.com"}'):
            with self.subTest(body=body):
                answer = self.server.raw(post(body, len(body) + 10), shut=True)
                self.check(answer, 400, 'Invalid payload.', {'body': 'could not be read to its end'})
        self.assertEqual(self.count_users(), 0)

    def test_body_of_ten_megabytes_is_refused(self):
        self.check(self.server.raw(post(b' ' * 10_000_000)), 413, 'Request Entity Too Large')

    def test_body_that_only_claims_to_be_big_is_refused_before_it_comes(self):
        self.check(self.server.raw(post(b'', 10_000_000)), 413, 'Request Entity Too Large')

    def test_what_is_no_http_is_refused(self):
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
                status, headers, body = self.server.raw(data, shut=True)
                self.assertTrue(400 <= status < 600, status)
                self.assertEqual(headers['Content-Type'], 'application/json')
                self.assertEqual(headers['Access-Control-Allow-Origin'], '*')
                self.assertEqual(body['status'], 'fail' if status < 500 else 'error')
                self.assertTrue(body['message'])

    def test_clients_that_send_slowly_keep_nobody_waiting(self):
        with contextlib.ExitStack() as stack:
            for _ in range(30):
                client = stack.enter_context(self.server.connect())
                client.sendall(post(b'{"username": ', 100))
            for _ in range(10):
                self.assertEqual(self.server.request('GET', '/ping')[0].status, 200)

    def test_several_requests_go_over_one_connection(self):
        with self.server.connect() as client:
            for status in (200, 404, 200):
                path = '/ping' if status == 200 else '/nowhere'
                client.sendall(f'GET {path} HTTP/1.1\r\nHost: x\r\n\r\n'.encode())
                response = http.client.HTTPResponse(client)
                response.begin()
                self.assertEqual((response.status, response.will_close), (status, False))
                response.read()

    def test_no_debugger_and_no_version_is_served(self):
        for path, code in (('/console', 404), ('/?__debugger__=yes&cmd=resource&f=style.css', 404), ('/ping', 200)):
            with self.subTest(path=path):
                response, body = self.server.request('GET', path)
                self.assertEqual((response.status, response.headers['Content-Type']), (code, 'application/json'))
                json.loads(body)
                self.assertNotRegex(response.headers.get('Server') or '', r'\d|Python|Werkzeug')

    def test_list_that_does_not_fit_into_memory_at_once_arrives_whole(self):
        self.store_users(2 * views.CHUNK + 1)
        response, body = self.server.request('GET', '/users')
        self.assertEqual((response.status, response.headers['Content-Type']), (200, 'application/json'))
        self.assertEqual(len(json.loads(body)['data']['users']), 2 * views.CHUNK + 1)

    def test_connections_that_died_in_the_pool_cost_no_client_an_error(self):
        if not self.on_postgresql:
            self.skipTest('an SQLite file has no connections that could die')
        idle = (
            'SELECT pid FROM pg_stat_activity '
            "WHERE datname = current_database() AND pid <> pg_backend_pid() AND state = 'idle'"
        )
        headers = {'Content-Type': 'application/json'}
        for number in range(2):
            for _ in range(6):
                self.assertEqual(self.server.request('GET', '/users')[0].status, 200)
            with db.engines['autocommit'].connect() as connection:
                gone = connection.exec_driver_sql(idle).scalars().all()
                self.assertTrue(gone)
                connection.exec_driver_sql('SELECT pg_terminate_backend(unnest(%s))', (gone,))
                end = time.monotonic() + SECONDS
                while connection.exec_driver_sql('SELECT 1 FROM pg_stat_activity WHERE pid = ANY(%s)', (gone,)).all():
                    self.assertLess(time.monotonic(), end)
            for email in (f'{number}a@example.com', f'{number}b@example.com'):
                body = json.dumps({'username': 'ann', 'email': email})
                self.assertEqual(self.server.request('POST', '/users', body, headers)[0].status, 201)
            for _ in range(6):
                self.assertEqual(self.server.request('GET', '/users')[0].status, 200)


class BrokenServerTest(ServerTestCase):
    served, workers = 'project.tests.test_server:broken_app()', 1

    def test_list_that_breaks_off_does_not_end_as_if_it_were_whole(self):
        self.store_users(4)
        with self.assertRaises(http.client.IncompleteRead) as raised:
            self.server.request('GET', '/users')
        self.assertIn(b'user3', raised.exception.partial)
        self.assertIn(b'first', raised.exception.partial)
        with self.assertRaises(ValueError):
            json.loads(raised.exception.partial)
        self.assertEqual(self.server.request('GET', '/ping')[0].status, 200)
