"""Reads that wait at the same time: one SELECT for all look-ups by id, and one for all equal lists."""

import threading
from typing import Any
from unittest import mock

from sqlalchemy import update

from project import db
from project.api import models, users
from project.api.models import User
from project.database import Database, database
from project.tests.base import BEARER, TOKEN, BaseTestCase
from project.tests.support.concurrency import Request
from project.tests.support.servers import SLACK_SECONDS, wait_until


class SharingTest(BaseTestCase):
    """The first SELECT has been run, but its result is held back until the test releases it."""

    settings = {'API_TOKENS': TOKEN}

    def setUp(self) -> None:
        super().setUp()
        self.batcher = database._batcher
        self.released = threading.Event()
        self.addCleanup(self.released.set)
        self.selects: list[Any] = []
        real_read = Database.read

        def read(one: Database, statement: Any, parameters: Any = None) -> list[Any]:
            rows = real_read(one, statement, parameters)
            self.selects.append(statement)
            assert self.released.wait(SLACK_SECONDS)
            return rows

        self.store_users(5)
        self.ids = [user['id'] for user in self.list_users()]
        self.enterContext(mock.patch.object(Database, 'read', read))

    def get(self, path: str) -> Request:
        """Start a GET, and wait until its SELECT has run or it waits."""
        known = len(self.selects) + self.batcher.waiting
        request = Request(self.app, 'GET', path)
        self.wait_until(lambda: len(self.selects) + self.batcher.waiting > known)
        return request

    def wait_until(self, condition: Any) -> None:
        wait_until(condition, SLACK_SECONDS, 'the requests wait')

    def test_look_ups_that_wait_share_a_select(self) -> None:
        first = self.get(f'/users/{self.ids[0]}')
        expected = dict.fromkeys(self.ids, 200) | {10**18: 404}
        waiting = [self.get(f'/users/{user_id}') for user_id in (*expected, *expected)]
        self.assertEqual(len(self.selects), 1)
        self.released.set()
        self.assertEqual(first.ended().status_code, 200)
        for user_id, request in zip((*expected, *expected), waiting, strict=True):
            response = request.ended()
            self.assertEqual(response.status_code, expected[user_id])
            if response.status_code == 200:
                self.assertEqual(response.json['data']['id'], user_id)
        self.assertEqual(len(self.selects), 2)

    def test_look_ups_of_changes_share_it_too(self) -> None:
        first = self.get(f'/users/{self.ids[0]}')
        waiting = [
            Request(self.app, 'PATCH', f'/users/{self.ids[1]}', json={'active': True}, headers=BEARER),
            Request(self.app, 'DELETE', f'/users/{self.ids[2]}', headers=BEARER),
        ]
        self.wait_until(lambda: self.batcher.waiting == 2)
        self.released.set()
        self.assertEqual([one.ended().status_code for one in (first, *waiting)], [200, 200, 204])
        self.assertEqual(len(self.selects), 2)

    def test_equal_lists_that_wait_are_read_and_encoded_once(self) -> None:
        for path in ('/users', '/users?limit=3', '/users?q=user&active=false'):
            with self.subTest(path=path), mock.patch.object(users, 'to_dicts', wraps=models.to_dicts) as encode:
                self.released.clear()
                self.selects.clear()
                requests = [self.get(path) for _ in range(6)]
                self.assertEqual(len(self.selects), 1)
                self.released.set()
                self.assertEqual(len({request.ended().data for request in requests}), 1)
                self.assertEqual((len(self.selects), encode.call_count), (2, 2))

    def test_counts_that_wait_are_counted_once(self) -> None:
        requests = [self.get(f'/users?count=true&limit={limit}') for limit in range(1, 5)]
        self.released.set()
        self.assertEqual([request.ended().json['data']['total'] for request in requests], [5] * 4)
        self.assertEqual(len([one for one in self.selects if one is User.counting()]), 2)

    def test_different_lists_run_beside_each_other(self) -> None:
        paths = ['/users', '/users?limit=2', '/users?limit=3', '/users?active=true', '/users?active=false&limit=2']
        requests = [self.get(path) for path in paths]
        self.assertEqual((len(self.selects), self.batcher.waiting), (len(paths), 0))
        self.released.set()
        self.assertEqual([len(request.ended().json['data']['users']) for request in requests], [5, 2, 3, 0, 2])

    def test_no_response_comes_from_a_select_that_ran_before_its_request(self) -> None:
        for path in (f'/users/{self.ids[0]}', '/users?limit=1'):
            with self.subTest(path=path):
                self.released.clear()
                self.selects.clear()
                before = self.get(path)
                with db.engine.begin() as connection:
                    connection.execute(update(User).values(username=f'changed for {path}'))
                after = self.get(path)
                self.released.set()
                self.assertNotIn('changed for ' + path, before.ended().text)
                self.assertIn('changed for ' + path, after.ended().text)


class Unchangeable(dict):
    """A user that raises an error when it is changed."""

    def _reject(self, *_: Any, **__: Any) -> None:
        raise TypeError('a shared result was changed')

    __setitem__ = __delitem__ = __ior__ = clear = pop = popitem = setdefault = update = _reject


class SharedResultTest(BaseTestCase):
    settings = {'API_TOKENS': TOKEN}

    def test_no_request_changes_a_result_that_others_may_share(self) -> None:
        path = f'/users/{self.add_user()["id"]}'
        real = models.to_dicts
        self.enterContext(mock.patch.object(models, 'to_dicts', lambda rows: list(map(Unchangeable, real(rows)))))
        tag = self.client.get(path).headers['ETag']
        for method, headers, status in (
            ('GET', {}, 200),
            ('HEAD', {}, 200),
            ('GET', {'If-None-Match': tag}, 304),
            ('PATCH', {'If-Match': tag}, 200),
            ('PATCH', {'If-Match': tag}, 412),
            ('DELETE', {'If-Match': tag}, 412),
            ('DELETE', {}, 204),
        ):
            with self.subTest(method=method, headers=headers):
                body = {'json': {'username': 'bee'}} if method == 'PATCH' else {}
                response = self.client.open(path, method=method, headers=BEARER | headers, **body)
                self.assertEqual(response.status_code, status)
