"""The base of the attacks: the service with one worker, nginx in front of it, and the beginnings of requests."""

import shutil
import tempfile
import unittest
from pathlib import Path
from typing import Any

from project.tests.support.nginx import Nginx
from project.tests.support.raw import RawClient
from project.tests.support.servers import Server, manage

PING = b'GET /ping HTTP/1.1\r\nHost: x\r\n'
LIST = b'GET /users HTTP/1.1\r\nHost: x\r\n'
DELETE = b'DELETE /users/1 HTTP/1.1\r\nHost: x\r\n'
POST = b'POST /users HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n'
PAGE = b'GET / HTTP/1.1\r\nHost: x\r\nIf-Match: "x"\r\n'  # nginx sends it to itself again
CHUNKED = b'Transfer-Encoding: chunked\r\n\r\n'
SECURITY_HEADERS = (
    'content-security-policy',
    'x-content-type-options',
    'x-frame-options',
    'referrer-policy',
    'x-request-id',
    'access-control-allow-origin',
)


class AttackCase(unittest.TestCase):
    """One worker, and nginx in front of it.

    :cvar limits: variables for nginx.envsh.
    :cvar settings: environment variables of the service.
    """

    limits = {'REQUESTS_PER_SECOND': '9999', 'ADDITIONS_PER_SECOND': '9999'}
    settings = {'LOG_LEVEL': 'DEBUG', 'WEB_CONCURRENCY': '1', 'PROXY_HOPS': '1'}
    folder: Path

    @classmethod
    def database_url(cls) -> str:
        """Return the URL of an empty database for the class: a file."""
        return f'sqlite:///{cls.folder}/users.db'

    @classmethod
    def setUpClass(cls) -> None:
        """Start both."""
        cls.folder = Path(tempfile.mkdtemp(prefix='users-attack-'))
        cls.addClassCleanup(shutil.rmtree, cls.folder)
        cls.url = cls.database_url()
        manage(cls.url, 'db', 'upgrade')
        cls.server = Server(cls.folder, cls.url, **cls.settings)
        cls.addClassCleanup(cls.server.kill)
        cls.server.start()
        cls.nginx = Nginx(cls.folder, cls.server.port, **cls.limits)
        cls.addClassCleanup(cls.nginx.stop)
        cls.nginx.start()
        cls.ports = {'gunicorn': cls.server.port, 'nginx': cls.nginx.port}

    def assert_envelope(self, response: tuple[int, dict[str, str], Any], status: int) -> None:
        """Check an error response."""
        code, headers, body = response
        self.assertEqual(code, status, body)
        self.assertEqual(headers['content-type'], 'application/json')
        self.assertEqual(body['status'], 'fail' if status < 500 else 'error')
        self.assertTrue(body['message'])
        for name in SECURITY_HEADERS:
            self.assertIn(name, headers)

    def exchange(self, port: int, *parts: bytes) -> tuple[int, dict[str, str], Any]:
        """Send a request, and return the response."""
        with RawClient(port) as client:
            client.send(*parts)
            return client.receive()
