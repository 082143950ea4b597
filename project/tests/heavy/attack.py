"""Attacks on resources, on gunicorn alone and behind nginx: slow and endless requests, slow readers.

``python manage.py test attack attack_costs attack_requests`` takes about a minute, most of which is waiting for
deadlines. It needs nginx (on Debian ``apt-get install nginx-light``). ``docs/security.md`` lists the protections
without which each test fails.
"""

import contextlib
import time
from concurrent.futures import ThreadPoolExecutor

from sqlalchemy import create_engine, insert
from sqlalchemy.pool import NullPool

from project.api.models import User
from project.tests.support.attack_case import CHUNKED, DELETE, LIST, PAGE, PING, POST, AttackCase
from project.tests.support.databases import other_database
from project.tests.support.raw import RawClient

MANY = 60_000  # users: their list is larger than the buffers of the kernel and of nginx for a client that reads slowly
LONG = b'Content-Length: 99999999999999\r\n\r\n'
PIECE = b'2000\r\n' + b'x' * 0x2000 + b'\r\n'


class SlowTest(AttackCase):
    """All clients are slow at the same time, while others are served."""

    def test_slow_clients_are_cut_and_others_are_served(self):
        def attack(port, head, part, allowed):
            """Send a request slowly; return its name if the server did not close the connection in time."""
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
            (self.nginx.port, PAGE + b'Content-Length: 60000\r\n\r\n', b' ', 30),
            (self.nginx.port, PAGE + CHUNKED, b'1\r\n \r\n', 30),
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
        # nginx discards the rest for 30 s, which delays no other client.
        for head, status in ((PING + CHUNKED, 200), (DELETE + CHUNKED, 401), (POST + CHUNKED, 413)):
            with self.subTest(head=head), RawClient(self.nginx.port) as client:
                client.send(head, *[PIECE] * 100)
                self.assertIn(client.receive()[0], (status, 413))
                self.assertEqual(self.exchange(self.nginx.port, PING + b'\r\n')[0], 200)
        for head in (PING + LONG, POST + LONG):
            self.assert_envelope(self.exchange(self.nginx.port, head), 413)


class SlowReadersTest(AttackCase):
    """More clients than the service has connections to the database read the unpaginated list at 4 KB/s."""

    settings = AttackCase.settings | {'POOL_SIZE': '2'}

    def test_slow_readers_do_not_block_other_lists(self):
        users = [{'username': f'user{n}', 'email': f'user{n}@example.com'} for n in range(MANY)]
        engine = create_engine(self.url, poolclass=NullPool)
        with engine.begin() as connection:
            connection.execute(insert(User), users)
        for port in self.ports.values():
            with self.subTest(port=port), contextlib.ExitStack() as stack:
                readers = [stack.enter_context(RawClient(port, receive_buffer=8192)) for _ in range(14)]
                for reader in readers:
                    reader.send(LIST + b'Connection: close\r\n\r\n')
                    self.assertEqual(reader.receive_head()[0], 200)
                for _ in range(4):
                    for reader in readers:
                        self.assertEqual(len(reader.socket.recv(4096)), 4096)
                    status, _, content = self.exchange(port, LIST + b'\r\n')
                    self.assertEqual((status, len(content['data']['users'])), (200, MANY))
                    self.assertEqual(self.exchange(port, LIST.replace(b'users', b'users?limit=1') + b'\r\n')[0], 200)
                for reader in readers:
                    reader.socket.setblocking(False)
                    self.assertTrue(reader.socket.recv(1))  # it is still served


class SlowReadersOnPostgresTest(SlowReadersTest):
    @classmethod
    def database_url(cls):
        return cls.enterClassContext(other_database("ENCODING 'UTF8'"))
