"""A client that sends bytes as they are, for requests that no HTTP library would send."""

import contextlib
import json
import select
import socket
import time
from collections.abc import Iterator
from typing import Any

from project.tests.support.servers import HOST, SLACK_SECONDS

TOO_MUCH = 256 * 1024  # bytes: more than a server may discard


class RawClient:
    """A connection to a server.

    :param port: of the server, on the loopback address.
    :param receive_buffer: the size of the socket's receive buffer in bytes; None for the system's own.
    """

    def __init__(self, port: int, receive_buffer: int | None = None) -> None:
        self.socket = socket.socket()
        self.socket.settimeout(SLACK_SECONDS)
        if receive_buffer:  # before connecting, since the window is agreed on then
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.connect((HOST, port))
        self._stream = self.socket.makefile('rb')

    def __enter__(self) -> 'RawClient':
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()
        self.socket.close()

    def send(self, *parts: bytes, pause: float = 0.0) -> None:
        """Send bytes, with ``pause`` seconds after each part; stop if the server closes the connection."""
        with contextlib.suppress(ConnectionError):
            for part in parts:
                self.socket.sendall(part)
                time.sleep(pause)

    def dribble(self, data: bytes, size: int = 1) -> None:
        """Send ``data`` in packets of ``size`` bytes, until there is a response.

        Each packet is given time to arrive alone.
        """
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for start in range(0, len(data), size):
            self.send(data[start : start + size])
            if select.select([self.socket], [], [], 0.0005)[0]:
                return

    def receive(self) -> tuple[int, dict[str, str], Any]:
        """Return status, headers with names in lower case, and JSON (or bytes) of the next response.

        :raises EOFError: the server has closed the connection.
        """
        status, headers = self.receive_head()
        body = b''
        if 'content-length' in headers:
            body = self._stream.read(int(headers['content-length']))
        elif headers.get('transfer-encoding') == 'chunked':
            body = b''.join(self._chunks())
        is_json = headers.get('content-type') == 'application/json' and body
        return status, headers, json.loads(body) if is_json else body

    def receive_head(self) -> tuple[int, dict[str, str]]:
        """Return status and headers of the next response, 100 included.

        :raises EOFError: the server has closed the connection.
        """
        line = self._stream.readline()
        if not line:
            raise EOFError
        headers = {}
        while name := (header := self._stream.readline().decode('latin1').strip()).partition(':')[0]:
            headers[name.lower()] = header.partition(':')[2].strip()
        return int(line.split()[1]), headers

    def is_closed(self) -> bool:
        """Wait for the server, and return whether it closes the connection instead of sending a response."""
        try:
            return self._stream.read(1) == b''
        except ConnectionError:
            return True  # it was reset, because the client was still sending

    def is_cut(self, data: bytes) -> bool:
        """Send ``data`` until ``TOO_MUCH`` bytes are sent, and return whether the server closes the connection."""
        try:
            for number in range(TOO_MUCH // len(data)):
                self.socket.sendall(data)
                time.sleep(number * 0.004)  # so that the server reads it before more fills the buffers of the kernel
        except ConnectionError:
            return True
        return False

    def _chunks(self) -> Iterator[bytes]:
        while size := int(self._stream.readline(), 16):
            yield self._stream.read(size)
            self._stream.readline()
        self._stream.readline()
