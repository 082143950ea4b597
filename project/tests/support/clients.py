"""Clients of the service over HTTP."""

import http.client
import json
import time
from typing import Any

HOST = '127.0.0.1'
TOKEN = 'a-token-of-the-tests-for-servers-in-processes'
# Seconds after which a request, or the start or stop of a server, has failed, and fails its test.
SLACK_SECONDS = 20.0


class Response:
    """A response that has been read to its end.

    :ivar body: the parsed JSON; None if the body is empty.
    :ivar started: when its request was sent, in seconds on the monotonic clock.
    :ivar seconds: the time from then until the response was complete.
    :raises ValueError: the body is not JSON, or does not say so.
    """

    def __init__(self, started: float, response: http.client.HTTPResponse) -> None:
        text = response.read()
        self.started = started
        self.seconds = time.monotonic() - started
        self.status, self.headers = response.status, response.headers
        self.body: Any = json.loads(text) if text else None
        if text and response.headers['Content-Type'] != 'application/json':
            raise ValueError(f'the response is of type {response.headers["Content-Type"]}')


class Client:
    """A client of a server.

    :param port: where the server listens on the loopback address.
    """

    def __init__(self, port: int) -> None:
        self.port = port

    def connect(self) -> http.client.HTTPConnection:
        """Return a connection for several requests."""
        return http.client.HTTPConnection(HOST, self.port, timeout=SLACK_SECONDS)

    def get(self, path: str, connection: http.client.HTTPConnection | None = None) -> Response:
        """Send a GET; arguments, result and errors as for :meth:`request`."""
        return self.request('GET', path, connection=connection)

    def post(self, email: str, connection: http.client.HTTPConnection | None = None) -> Response:
        """Add a user with this email; the rest as for :meth:`request`."""
        return self.request('POST', '/users', {'username': 'ann', 'email': email}, connection)

    def request(
        self,
        method: str,
        path: str,
        payload: Any = None,
        connection: http.client.HTTPConnection | None = None,
        **headers: str,
    ) -> Response:
        """Send a request with the token, and return the response.

        :param payload: what the body has as JSON; no body if it is None.
        :param connection: one of :meth:`connect`; by default a new one, which is closed.
        :param headers: more headers; an underscore in a name stands for a hyphen.
        :raises OSError, http.client.HTTPException: the response did not come, or is incomplete.
        :raises ValueError: the response is not JSON.
        """
        body = None if payload is None else json.dumps(payload)
        sent = {'Authorization': f'Bearer {TOKEN}'} | ({'Content-Type': 'application/json'} if body else {})
        sent |= {name.replace('_', '-'): value for name, value in headers.items()}
        own = connection is None
        connection = connection or self.connect()
        started = time.monotonic()
        try:
            connection.request(method, path, body, sent)
            return Response(started, connection.getresponse())
        finally:
            if own:
                connection.close()
