"""A client that keeps connections busy, and reports the latency of each response.

It is a program that imports nothing of the project, so that it starts fast. Several of them run at the same time,
because one Python process cannot keep several workers busy. It reads a job from stdin, one line of JSON::

    {"port": 5000, "connections": 8, "seconds": 5, "kind": "get", "path": "/ping", "users": 0, "run": "a1"}

``kind`` is the kind of request:

* ``get``: a GET of ``path``
* ``one``: a GET of a user with a random id up to ``users``
* ``post``: a POST of a new user, whose name begins with ``run``
* ``mixed``: nine times ``one``, then ``post``

It connects, prints a line, waits for a line, and starts. Each connection sends at least one request, and the next one
as soon as it has the response. At the end it prints a line of JSON: the duration in ``seconds``, the number of
``failed`` requests, and for all others the microseconds to the first byte (``first``) and to the end (``whole``).
"""

import itertools
import json
import random
import re
import selectors
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any

PATIENCE = 60  # seconds without a byte on any connection, after which the requests have failed
LENGTH = re.compile(rb'\r\ncontent-length: *([0-9]+)', re.IGNORECASE)


def get(path: str) -> bytes:
    """Return the bytes of a GET."""
    return f'GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n'.encode()


def post(name: str) -> bytes:
    """Return the bytes of a POST of a user."""
    body = json.dumps({'username': name, 'email': f'{name}@example.com'})
    head = 'POST /users HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n'
    return f'{head}Content-Length: {len(body)}\r\n\r\n{body}'.encode()


def requests(job: dict[str, Any]) -> Iterator[bytes]:
    """Yield the requests of a job, infinitely many."""
    for number in itertools.count(1):
        if job['kind'] == 'get':
            yield get(job['path'])
        elif job['kind'] == 'post' or (job['kind'] == 'mixed' and number % 10 == 0):
            yield post(f'{job["run"]}.{number}')
        else:
            yield get(f'/users/{random.randint(1, job["users"])}')  # noqa: S311, not a secret


class Connection:
    """A keep-alive connection, and the response that it is receiving."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.socket = self._connect()

    def _connect(self) -> socket.socket:
        connected = socket.create_connection(('127.0.0.1', self._port), timeout=PATIENCE)
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connected

    def send(self, request: bytes) -> None:
        """Send a request, and start with an empty response."""
        self._head, self._missing, self._tail = b'', None, b''
        self.failed, self.first = False, 0.0
        self.started = time.perf_counter()
        self.socket.sendall(request)

    def receive(self) -> bool:
        """Receive what has arrived, and return whether the response is complete."""
        try:
            data = self.socket.recv(1 << 18)
        except OSError:
            data = b''
        if not data:
            self.failed = True
            return True
        self.first = self.first or time.perf_counter()
        if self._missing is None:
            self._head += data
            head, end, data = self._head.partition(b'\r\n\r\n')
            if not end:
                return False
            self.failed = not head.startswith(b'HTTP/1.1 2')
            length = LENGTH.search(head)
            self._missing = int(length[1]) if length else -1
        if self._missing < 0:
            # Chunked. The JSON contains no line break, so these bytes can only be the last chunk.
            self._tail = (self._tail + data)[-5:]
            return self._tail == b'0\r\n\r\n'
        self._missing -= len(data)
        return self._missing == 0

    def again(self) -> None:
        """Connect again after the service has closed the connection or has not responded in time."""
        self.socket.close()
        self.socket = self._connect()


def work(job: dict[str, Any], connections: Sequence[Connection]) -> dict[str, Any]:
    """Do the job, and return its result."""
    selector = selectors.DefaultSelector()
    result: dict[str, Any] = {'failed': 0, 'first': [], 'whole': []}
    following = requests(job)
    started = time.perf_counter()
    end = started + job['seconds']
    for connection in connections:
        connection.send(next(following))
        selector.register(connection.socket, selectors.EVENT_READ, connection)
    while selector.get_map():
        ready = selector.select(PATIENCE)
        if not ready:
            result['failed'] += len(selector.get_map())
            break
        for key, _ in ready:
            connection = key.data
            if not connection.receive():
                continue
            now = time.perf_counter()
            selector.unregister(key.fileobj)
            if connection.failed:
                result['failed'] += 1
                connection.again()
            else:
                result['first'].append(round((connection.first - connection.started) * 1e6))
                result['whole'].append(round((now - connection.started) * 1e6))
            if now < end:
                connection.send(next(following))
                selector.register(connection.socket, selectors.EVENT_READ, connection)
    return result | {'seconds': time.perf_counter() - started}


if __name__ == '__main__':
    job = json.loads(sys.stdin.readline())
    try:
        connections = [Connection(job['port']) for _ in range(job['connections'])]
        print('ready', flush=True)
        sys.stdin.readline()
        print(json.dumps(work(job, connections)))
    except OSError as error:
        sys.exit(f'the connection to the service failed: {error}')
