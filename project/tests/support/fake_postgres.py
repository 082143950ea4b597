"""A fake PostgreSQL server that stops responding, closes connections and rejects statements as a test requires.

It speaks as much of the protocol as psycopg2 needs: PostgreSQL's manual, "Frontend/Backend Protocol".
"""

import contextlib
import socket
import struct
import threading
from collections.abc import Callable, Sequence
from typing import Self

from project.database import leadership

SSL_REQUEST, GSS_REQUEST = 80877103, 80877104
OIDS: dict[type, int] = {bool: 16, int: 20, str: 25}  # of PostgreSQL's types
SETTINGS = {
    'server_version': '17.0',
    'client_encoding': 'UTF8',
    'standard_conforming_strings': 'on',
    'DateStyle': 'ISO, MDY',
    'integer_datetimes': 'on',
}
READY = b'Z' + struct.pack('!i', 5) + b'I'


def message(kind: bytes, body: bytes) -> bytes:
    """Return a message of the protocol."""
    return kind + struct.pack('!i', 4 + len(body)) + body


def rows(*values: Sequence[bool | int | str]) -> bytes:
    """Return the response with these rows. All have as many columns, of the same types."""
    first = values[0] if values else ()
    columns = b''.join(b'column\0' + struct.pack('!ihihih', 0, 0, OIDS[type(value)], -1, -1, 0) for value in first)
    response = message(b'T', struct.pack('!h', len(first)) + columns)
    for row in values:
        texts = [str(value).encode() for value in row]
        cells = b''.join(struct.pack('!i', len(text)) + text for text in texts)
        response += message(b'D', struct.pack('!h', len(texts)) + cells)
    return response + message(b'C', b'SELECT\0') + READY


def error(sqlstate: str, text: str = 'secret text') -> bytes:
    """Return the error response to a statement."""
    return message(b'E', f'SERROR\0C{sqlstate}\0M{text}\0\0'.encode()) + READY


def fatal(sqlstate: str, text: bytes = b'secret text') -> bytes:
    """Return the error with which the server rejects a connection. The server then closes the connection.

    :param text: in the encoding of the server's messages, which need not be UTF-8.
    """
    return message(b'E', f'SFATAL\0C{sqlstate}\0M'.encode() + text + b'\0\0')


class FakePostgres:
    """The server, on a free port of the loopback address, from entering its context to leaving it.

    :ivar respond: takes a statement of the service. Returns the response; None to close the connection. It may block,
        so that this connection gets no response.
    :ivar reject: the message that a new connection gets; None to accept it.
    :ivar version: as ``version()`` returns it.
    :ivar frozen: whether new connections get no response at all.
    :ivar check: returns the response to a check of :mod:`project.database.leadership`.
    :ivar checks: the number of these checks so far.
    :ivar connected: the number of connections so far.
    :ivar startups: the parameters that each connection sent, such as ``user`` and ``database``.
    :ivar statements: those of the service, without SQLAlchemy's own at the start of the first connection.
    """

    def __init__(self) -> None:
        self.respond: Callable[[str], bytes | None] = lambda sql: rows()
        self.reject: bytes | None = None
        self.version = 'PostgreSQL 17.0'
        self.frozen = False
        self.check: Callable[[], bytes | None] = lambda: rows(['00000001', True])
        self.checks = 0
        self.connected = 0
        self.startups: list[dict[str, str]] = []
        self.statements: list[str] = []
        self._open: list[socket.socket] = []

    def __enter__(self) -> Self:
        self._listener = socket.create_server(('127.0.0.1', 0))
        self.port: int = self._listener.getsockname()[1]
        self.url = f'postgres://u:p@127.0.0.1:{self.port}/users?sslmode=disable&gssencmode=disable'
        self._acceptor = threading.Thread(target=self._accept, daemon=True)
        self._acceptor.start()
        return self

    def __exit__(self, *_: object) -> None:
        # Wakes the thread. If the socket were closed first, the thread could accept connections of the next server.
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._acceptor.join(1)
        self._listener.close()
        self.close_connections()

    def close_connections(self) -> None:
        """Close all connections, as a stopping server does."""
        while self._open:
            with contextlib.suppress(OSError), self._open.pop() as connection:
                connection.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self.connected += 1
                self._open.append(connection)
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError, struct.error, ValueError), connection.makefile('rb') as stream:
            (length,) = struct.unpack('!i', stream.read(4))
            words = stream.read(length - 4)[4:].decode().split('\0')
            self.startups.append(dict(zip(words[::2], words[1::2], strict=False)))
            if self.frozen:
                return
            if self.reject is not None:
                connection.sendall(self.reject)
                connection.shutdown(socket.SHUT_RDWR)
                return
            settings = b''.join(message(b'S', f'{name}\0{value}\0'.encode()) for name, value in SETTINGS.items())
            connection.sendall(message(b'R', struct.pack('!i', 0)) + settings + READY)
            while stream.read(1) == b'Q':
                (length,) = struct.unpack('!i', stream.read(4))
                response = self._answer(stream.read(length - 4).rstrip(b'\0').decode())
                if response is None:
                    connection.shutdown(socket.SHUT_RDWR)
                    return
                connection.sendall(response)

    def _answer(self, sql: str) -> bytes | None:
        if sql == 'select pg_catalog.version()':
            return rows([self.version])
        if sql == 'select current_schema()':
            return rows(['public'])
        if sql == leadership.POSITION:
            self.checks += 1
            return self.check()
        if sql.lower().startswith('show '):
            return rows(['on' if 'standard' in sql else 'read committed'])
        if sql.split(maxsplit=1)[0] in ('BEGIN', 'COMMIT', 'ROLLBACK'):
            return message(b'C', f'{sql.split(maxsplit=1)[0]}\0'.encode()) + READY
        self.statements.append(sql)
        return self.respond(sql)
