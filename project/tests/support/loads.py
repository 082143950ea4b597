"""Clients in threads that send requests repeatedly while a test causes a fault."""

import http.client
import itertools
import threading
import time
from collections.abc import Callable
from math import inf
from typing import Any, Self

from project.tests.support.clients import SLACK_SECONDS, Response
from project.tests.support.servers import Server


class Load:
    """Clients that repeat a request while the ``with`` block runs.

    :param send: sends the request and returns its :class:`Response`.
    :param clients: the number of threads.
    :param pause: seconds between a response and the next request, so that the machine is not overloaded.
    :ivar responses: all responses, in the order of their ends.
    :ivar failures: for each request without a response, when it was sent and the exception.
    :raises Exception: at the end of the block, an exception of ``send`` that is not a missing response. It has ended
        its client.
    """

    def __init__(self, send: Callable[[], Response], clients: int = 1, pause: float = 0.02) -> None:
        self.send, self.pause = send, pause
        self.responses: list[Response] = []
        self.failures: list[tuple[float, Exception]] = []
        self._errors: list[Exception] = []
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run, daemon=True) for _ in range(clients)]

    def _run(self) -> None:
        while not self._stop.is_set():
            started = time.monotonic()
            try:
                self.responses.append(self.send())
            except (OSError, http.client.HTTPException, ValueError) as error:
                self.failures.append((started, error))
            except Exception as error:
                self._errors.append(error)
                return
            self._stop.wait(self.pause)

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(2 * SLACK_SECONDS)
        if self._errors:
            raise self._errors[0]

    def statuses(self, since: float = 0.0, until: float = inf) -> list[int]:
        """Return the statuses of the responses to requests that were sent within a time on the monotonic clock."""
        return [response.status for response in list(self.responses) if since <= response.started < until]


class Writers(Load):
    """Clients that add users, each with an email of its own.

    :ivar acknowledged: the emails whose response was 201.
    """

    def __init__(self, server: Server, clients: int = 4, pause: float = 0.02) -> None:
        super().__init__(self._post, clients, pause)
        self.server = server
        self.acknowledged: list[str] = []
        self._numbers, self._run_id = itertools.count(), time.monotonic_ns()

    def _post(self) -> Response:
        email = f'writer{next(self._numbers)}.{self._run_id}@example.com'
        response = self.server.post(email)
        if response.status == 201:
            self.acknowledged.append(email)
        return response
