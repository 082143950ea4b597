"""Requests in threads, for tests of requests that wait for the database at the same time."""

import threading
from typing import Any

from flask import Flask
from werkzeug.test import TestResponse

from project.tests.support.servers import SLACK_SECONDS


class Request(threading.Thread):
    """A request in a thread of its own.

    :param app: which serves it.
    :param options: as for Flask's test client.
    :ivar response: the response; None until there is one.
    """

    def __init__(self, app: Flask, method: str, path: str, **options: Any) -> None:
        super().__init__(daemon=True)
        self._send = lambda: app.test_client().open(path, method=method, **options)
        self.response: TestResponse | None = None
        self.start()

    def run(self) -> None:
        """Send the request."""
        self.response = self._send()

    def ended(self) -> TestResponse:
        """Wait for the response, and return it.

        :raises AssertionError: there was none.
        """
        self.join(SLACK_SECONDS)
        assert self.response, 'the request got no response'
        return self.response


def post(app: Flask, email: str, username: str = 'ann') -> Request:
    """Start a POST that adds a user."""
    return Request(app, 'POST', '/users', json={'username': username, 'email': email})
