"""A client that records the history of its requests, for :func:`project.tests.support.histories.check`."""

import contextlib
import itertools
import random
import time
from typing import Any, Literal

from project.tests.support.clients import Client, Response
from project.tests.support.histories import Operation, Seen


class Recorder:
    """Sends requests and records each as an :class:`Operation`. Threads may share one.

    Each method returns the response. If there is none, it raises ``OSError``, ``http.client.HTTPException`` or
    ``ValueError``, as :meth:`Client.request` does; the operation is recorded then, too.

    :param clients: of the instances of the service. Each request goes to any of them.
    :ivar history: the operations so far.
    :ivar existing: the ids of users whose add was acknowledged, and whose removal was not requested.
    """

    def __init__(self, *clients: Client) -> None:
        self.clients = clients
        self.history: list[Operation] = []
        self.existing: list[int] = []
        self._numbers = itertools.count()
        self._run_id = time.monotonic_ns() % 10**9  # users of several recorders differ

    def add(self, email: str | None = None) -> Response:
        """Add a user, by default with an email of its own."""
        username = self._username()
        email = email or f'{username}@example.com'
        response = self._write('add', 'POST', '/users', {'username': username, 'email': email})
        if response.status == 201:
            self.existing.append(response.body['data']['id'])
        return response

    def contest(self) -> Response:
        """Add a user with one of three emails. If it is taken, change its owner's, so that it becomes free."""
        email = f'contested{random.randrange(3)}.{self._run_id}@example.com'
        response = self.add(email)
        if response.status == 400:
            for user in seen(self.page(f'q={email}')):
                self.change(user.id, f'{user.username}@example.com')
        return response

    def change(self, user_id: int | None = None, email: str | None = None) -> Response:
        """Change a user's name, and their email if one is given; by default of any user."""
        payload = {'username': self._username()} | ({'email': email} if email else {})
        return self._write('change', 'PATCH', user_id or random.choice(self.existing[:]), payload)

    def remove(self, user_id: int | None = None) -> Response:
        """Remove a user, by default any one."""
        user_id = user_id or random.choice(self.existing[:])
        with contextlib.suppress(ValueError):  # it does not exist, or another thread removes it
            self.existing.remove(user_id)
        return self._write('remove', 'DELETE', user_id, None)

    def read(self, user_id: int | None = None) -> Response:
        """Read a user, by default one of the latest, since these are missing on a server that lags."""
        user_id = user_id or random.choice(self.existing[-20:])
        return self._read(f'/users/{user_id}', user_id, complete=False)

    def page(self, query: str = 'limit=20') -> Response:
        """Read a part of the list of users."""
        return self._read(f'/users?{query}', None, complete=False)

    def read_all(self) -> Response:
        """Read all users. This is expensive, so call it at the end of a history."""
        return self._read('/users', None, complete=True)

    def _username(self) -> str:
        return f'u{next(self._numbers)}.{self._run_id}'

    def _write(self, kind: Literal['add', 'change', 'remove'], method: str, target: Any, payload: Any) -> Response:
        user_id = target if isinstance(target, int) else None
        path = target if user_id is None else f'/users/{user_id}'
        values = payload or {}
        start, outcome, users = time.monotonic(), 'unknown', ()
        try:
            response = random.choice(self.clients).request(method, path, payload)
            if response.status < 300:
                outcome, users = 'acknowledged', seen(response)
            elif response.status < 500:
                outcome = 'rejected'
            if response.status == 404:
                self._note('read', 'acknowledged', start, user_id=user_id)
            return response
        finally:
            self._note(
                kind, outcome, start, user_id=user_id, username=values.get('username'), email=values.get('email'),
                users=users,
            )  # fmt: skip

    def _read(self, path: str, user_id: int | None, complete: bool) -> Response:
        start, outcome, users = time.monotonic(), 'unknown', ()
        try:
            response = random.choice(self.clients).request('GET', path)
            if response.status in (200, 404):
                outcome, users = 'acknowledged', seen(response)
            return response
        finally:
            self._note('read', outcome, start, user_id=user_id, users=users, complete=complete)

    def _note(self, kind: Any, outcome: Any, start: float, **values: Any) -> None:
        self.history.append(Operation(kind, outcome, start, time.monotonic(), **values))


def seen(response: Response) -> tuple[Seen, ...]:
    """Return the users in a response."""
    data = (response.body or {}).get('data', {})
    users = data.get('users', [data] if data else [])
    return tuple(Seen(user['id'], user['username'], user['email']) for user in users)
