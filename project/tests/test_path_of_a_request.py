"""The files that a request passes on its way to the database, as docs/developing.md shows them."""

import os
import sys
from types import FrameType
from typing import Any
from unittest import mock

from project.api import users
from project.tests.base import BEARER, ROOT, TOKEN, BaseTestCase

# The files on the call stack of a statement. A request may skip some of them, but passes no other file.
STEPS = (
    {'headers.py'},
    {'api/users.py'},
    {'api/models.py', 'api/changes.py'},
    {'database/__init__.py'},
    {'database/batching.py'},
    {'database/reading.py', 'database/streams.py', 'database/engine.py', 'database/sqlite.py'},
)
PROJECT = f'{ROOT.as_posix()}/project/'
EXECUTE = {'execute', 'executemany'}  # methods of both drivers' cursors, which are written in C


class Paths:
    """Collects the call stack of each statement that the current thread sends.

    :ivar found: for each statement, the files of the project in the order in which they were entered.
    """

    def __init__(self) -> None:
        self.found: list[list[str]] = []

    def __enter__(self) -> 'Paths':
        sys.setprofile(self._profile)
        return self

    def __exit__(self, *_: Any) -> None:
        sys.setprofile(None)

    def _profile(self, frame: FrameType | None, event: str, function: Any) -> None:
        if event != 'c_call' or function.__name__ not in EXECUTE:
            return
        files = []
        while frame:
            file = frame.f_code.co_filename.replace(os.sep, '/')
            if file.startswith(PROJECT) and 'tests' not in file.removeprefix(PROJECT):
                files.append(file.removeprefix(PROJECT))
            frame = frame.f_back
        self.found.append(list(dict.fromkeys(reversed(files))))


class PathOfARequestTest(BaseTestCase):
    settings = {'API_TOKENS': [TOKEN]}

    def test_a_request_passes_these_files_on_its_way_to_the_database(self) -> None:
        self.enterContext(mock.patch.object(users, 'STREAM_ROWS', 1))  # two users are streamed
        self.add_user('bob', 'bob@example.com')
        path = f'/users/{self.add_user()["id"]}'
        for url in (path, '/users'):
            self.client.get(url)  # opens connections, which sends statements of its own
        for method, url, body in (
            ('GET', path, None),
            ('GET', '/users?limit=10&count=true', None),
            ('GET', '/users', None),
            ('POST', '/users', {'username': 'eve', 'email': 'eve@example.com'}),
            ('PATCH', path, {'username': 'Ann'}),
            ('DELETE', path, None),
        ):
            with self.subTest(f'{method} {url}'):
                with Paths() as paths:
                    response = self.client.open(url, method=method, json=body, headers=BEARER)
                self.assertLess(response.status_code, 300, response.text)
                self.assertEqual(paths.found[0][:2], ['headers.py', 'api/users.py'])
                for files in paths.found:
                    self.assertTrue(files)
                    steps = [number for file in files for number, step in enumerate(STEPS) if file in step]
                    self.assertEqual(len(steps), len(files), files)
                    self.assertEqual(steps, sorted(set(steps)), files)
