"""A client's connection under gunicorn, with limits on what the client sends, and how slowly."""

import contextlib
import socket
import time
from math import inf
from typing import Any, NoReturn

import gevent
from gunicorn.http import errors as http_errors

HEAD_SECONDS = 10.0  # for the request line and the headers of a request
BODY_SECONDS = 30.0  # for the body, from the end of its headers
SEND_SECONDS = 60.0  # for a client to receive a part of a response
CLOSE_SECONDS = 2.0  # for a client to stop sending, before its connection is closed
IDLE_SECONDS = 1.0  # idle time before shutdown closes a connection
# Limits on CPU: no request within them costs more than 20 ms (heavy/attack_costs.py).
HEAD_BYTES = 16 * 1024
# MAX_CONTENT_LENGTH in project/config.py, which is 64 KiB, and 4 KiB for the framing of chunks.
BODY_BYTES = 68 * 1024
LINE_BYTES = 16  # added to the size of a chunked body for each line feed; every chunk has two
# The packets of a request that are received as they arrive. Each costs about 0.1 ms of CPU, so if a request has more,
# those that arrive within COLLECT_SECONDS are received together.
PACKETS = 32
COLLECT_SECONDS = 0.5
# Bytes of an unread body that are discarded to keep the connection, and again before it is closed.
DRAIN_BYTES = 32 * 1024
RECEIVE_BYTES = 8 * 1024  # at once


class Connection:
    """A client's socket as gunicorn sees it, which limits what a client may send, and how long it may take.

    * The headers of a request, and its body, each have a deadline and a limit in bytes. A request in many packets is
      received slowly.
    * ``100 Continue`` is sent only when the app reads the body: not before a 401 or 413.
    * The headers of a response are sent together with the start of its body, instead of in a packet of their own.
    * Closing the connection while the client is still sending would reset it, and the client would lose the response.
      So close() first shuts down the sending side, and discards a limited part of the rest.

    :param sock: the socket.
    :param keepalive: how long the client may take to begin its next request, in seconds.
    """

    def __init__(self, sock: Any, keepalive: float) -> None:
        self._sock = sock
        self._keepalive = keepalive
        self._headers: bytes | None = b''  # of a response: None before they are complete, b'' when they have been sent
        self._continue: bytes | None = None  # the response 100 Continue, until it is sent
        self._left = HEAD_BYTES  # how many bytes the client may still send of the headers, or of the body
        self._packets = 0  # of the request, so far
        self._in_body = self._is_chunked = False
        self._ended = False
        self._receiving = False
        self._idle_since = time.monotonic()  # inf from the end of the headers to the end of the response
        self._deadline = self._idle_since + HEAD_SECONDS
        self._between_requests = False
        self.settimeout = sock.settimeout
        self.gettimeout = sock.gettimeout

    def begin_request(self, is_chunked: bool) -> None:
        """Start the limits of a body, when the headers of a request have been received.

        :param is_chunked: whether the body is chunked.
        """
        self._headers = None
        self._in_body, self._is_chunked, self._left = True, is_chunked, BODY_BYTES
        self._idle_since = inf
        self._deadline = time.monotonic() + BODY_SECONDS
        self._sock.settimeout(SEND_SECONDS)

    def end_response(self) -> None:
        """Send the headers of a response without a body, and limit how much more of the request may be received."""
        if self._headers:
            self._sock.sendall(self._headers)
        self._headers, self._continue = b'', None
        self._left = min(self._left, DRAIN_BYTES)

    def begin_idle(self, started: bool) -> None:
        """Start the limits of the next request's headers.

        :param started: whether the first bytes of its headers have been received.
        """
        self._sock.settimeout(None)
        self._in_body, self._is_chunked, self._left, self._packets = False, False, HEAD_BYTES, 0
        self._between_requests = not started
        self._idle_since = time.monotonic()
        self._deadline = self._idle_since + (HEAD_SECONDS if started else self._keepalive)

    def recv(self, size: int) -> bytes:
        """Return bytes that the client has sent; none if it has ended its stream or exceeded a deadline.

        :param size: the maximum number of bytes.
        :raises LimitRequestHeaders: the headers are too large.
        :raises RequestEntityTooLarge: the body is too large, counting the framing of its chunks.
        """
        if self._packets >= PACKETS and not self._ended:
            gevent.sleep(COLLECT_SECONDS)
        if self._ended or time.monotonic() >= self._deadline:
            self._ended = True  # otherwise the rest of a body that came too late would be read as the next request
            return b''
        if self._left <= 0:
            self._reject()
        if self._continue:
            self._sock.sendall(self._continue)
            self._continue = None
        self._receiving = True
        data = self._sock.recv(min(size, RECEIVE_BYTES, self._left))
        self._receiving = False
        self._ended = not data
        self._packets += 1
        self._left -= len(data)
        if self._is_chunked:
            self._left -= LINE_BYTES * data.count(b'\n')
        if self._between_requests and data:
            self._between_requests = False
            self._deadline = time.monotonic() + HEAD_SECONDS
        if self._left < 0:
            self._reject()
        return data

    def _reject(self) -> NoReturn:
        if not self._in_body:
            raise http_errors.LimitRequestHeaders('the headers are too large')
        from werkzeug.exceptions import RequestEntityTooLarge  # not at the top: see serving/__init__.py

        raise RequestEntityTooLarge

    def send(self, data: bytes) -> None:
        """Keep ``100 Continue`` until the body is read. gunicorn uses this method for nothing else."""
        self._continue = data

    def sendall(self, data: bytes) -> None:
        """Send ``data``. Keep the headers of a response until its body is sent."""
        if self._headers is None:
            self._headers = data
            return
        data, self._headers = self._headers + data, b''
        # gevent's sendall() first reads the size of the kernel's buffer, which takes 2 % of a request.
        if (sent := self._sock.send(data)) < len(data):
            self._sock.sendall(memoryview(data)[sent:])

    def close(self) -> None:
        """Close the connection, after discarding a part of what the client is still sending."""
        if not self._between_requests and not self._ended:
            self._left = DRAIN_BYTES
            self._deadline = time.monotonic() + CLOSE_SECONDS
            with contextlib.suppress(Exception):  # exceeded limits, OSError
                self._sock.shutdown(socket.SHUT_WR)
                while self.recv(RECEIVE_BYTES):
                    pass
        self._sock.close()

    def end_late(self, now: float, stopping: bool) -> None:
        """End the client's stream if it is late, or if the worker is stopping and the connection is idle."""
        if self._receiving and (now >= self._deadline or (stopping and now >= self._idle_since + IDLE_SECONDS)):
            # shutdown() lets the reader finish what has arrived, and then find the end of the stream. It is called on a
            # duplicate, because on its own socket gevent would raise an error in the reader.
            sock = self._sock
            with contextlib.suppress(OSError), socket.fromfd(sock.fileno(), sock.family, sock.type) as duplicate:
                duplicate.shutdown(socket.SHUT_RD)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)
