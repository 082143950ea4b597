"""Pages, look-ups, and lists that do not fit into memory."""

import contextlib
from datetime import UTC, datetime
from itertools import chain
from unittest import mock
from urllib.parse import parse_qs, urlsplit

from sqlalchemy import delete

from project import database, db
from project.api import views
from project.api.models import User
from project.tests.base import BaseTestCase, make_app

MOMENT = datetime(2026, 1, 1, tzinfo=UTC)


class PagingTest(BaseTestCase):
    def follow(self, path):
        """The pages from ``path`` on, as lists of users."""
        pages = []
        while path:
            response = self.client.get(path)
            self.assertEqual(response.status_code, 200, response.text)
            pages.append(response.json['data']['users'])
            path = response.json['data'].get('next')
            self.assertEqual(response.headers.get('Link'), path and f'<{path}>; rel="next"')
        return pages

    def test_pages_together_are_the_list(self):
        self.store_users(10)
        everybody = self.list_users()
        for limit, sizes in ((1, [1] * 10), (3, [3, 3, 3, 1]), (5, [5, 5]), (9, [9, 1]), (10, [10]), (1000, [10])):
            with self.subTest(limit=limit):
                pages = self.follow(f'/users?limit={limit}')
                self.assertEqual([len(page) for page in pages], sizes)
                self.assertEqual(list(chain(*pages)), everybody)

    def test_pages_of_nobody_are_one_empty_page(self):
        self.assertEqual(self.client.get('/users?limit=5').json, {'status': 'success', 'data': {'users': []}})

    def test_pages_of_users_of_one_moment_are_the_list(self):
        self.store_users(10, created_at=MOMENT)
        self.assertEqual(list(chain(*self.follow('/users?limit=3'))), self.list_users())

    def test_next_page_is_the_same_url_with_a_cursor(self):
        self.store_users(3, username='ann bee&co')
        path = '/users?limit=2&username=ann+bee%26co&email=&other=1'.replace('&email=', '')
        following = self.client.get(path).json['data']['next']
        self.assertTrue(following.startswith('/users?'))
        query = parse_qs(urlsplit(following).query)
        cursor = query.pop('after')
        self.assertRegex(cursor[0], r'\A[A-Za-z0-9._-]+\Z')  # nothing in it that a URL would have to escape
        self.assertEqual(query, {'limit': ['2'], 'username': ['ann bee&co'], 'other': ['1']})
        self.assertEqual(len(self.list_users(following)), 1)

    def test_next_page_is_below_the_prefix_that_the_service_is_mounted_at(self):
        self.store_users(2)
        response = self.client.get('/users?limit=1', environ_overrides={'SCRIPT_NAME': '/api'})
        self.assertTrue(response.json['data']['next'].startswith('/api/users?limit=1&after='))

    def test_users_that_come_and_go_are_neither_repeated_nor_make_others_skipped(self):
        self.store_users(9)
        everybody = self.list_users()
        first = self.client.get('/users?limit=3').json['data']
        self.add_user()
        removed = [everybody[0], first['users'][-1], everybody[4]]  # the second is the one that the cursor stands for
        db.session.execute(delete(User).where(User.id.in_([user['id'] for user in removed])))
        db.session.commit()
        rest = list(chain(*self.follow(first['next'])))
        self.assertEqual(rest, [user for user in everybody[3:] if user not in removed])

    def test_cursor_is_good_with_another_limit_and_without_one(self):
        self.store_users(5)
        everybody = self.list_users()
        following = self.client.get('/users?limit=2').json['data']['next']
        self.assertEqual(self.list_users(following.replace('limit=2', 'limit=3')), everybody[2:])
        self.assertEqual(self.list_users(following.replace('limit=2&', '')), everybody[2:])

    def test_cursor_is_good_on_another_instance(self):
        self.store_users(3)
        following = self.client.get('/users?limit=2').json['data']['next']
        self.assertEqual(len(self.client_of().get(following).json['data']['users']), 1)

    def test_wrong_limit_is_refused(self):
        for limit in (
            '0',
            '-1',
            '1001',
            '10000',
            '9' * 5000,
            '',
            'ten',
            '1.5',
            '1e2',
            '+5',
            ' 5',
            '5 ',
            '²',
            '\u0661',
            '%00',
        ):
            with self.subTest(limit=limit[:20]):
                response = self.client.get('/users', query_string={'limit': limit})
                errors = {'limit': 'must be a whole number from 1 to 1000'}
                self.assert_failure(response, 400, 'Invalid query.', errors)

    def test_parameter_that_is_given_twice_is_refused(self):
        for query in (
            'limit=1&limit=1',
            'after=x&after=y',
            'email=a&email=b',
            'username=&username=',
            'active=true&active=x',
        ):
            with self.subTest(query=query):
                name = query.partition('=')[0]
                response = self.client.get(f'/users?{query}')
                self.assert_failure(response, 400, 'Invalid query.', {name: 'must be given once'})

    def test_cursor_that_no_page_gave_is_refused(self):
        self.store_users(3)
        good = parse_qs(urlsplit(self.client.get('/users?limit=1').json['data']['next']).query)['after'][0]
        payload, _, signature = good.rpartition('.')
        with make_app(SECRET_KEY='another key').app_context():
            foreign = views.validation.cursor({'created_at': '2026-01-01T00:00:00.000000Z', 'id': 1})
        near = [good[:-1], good[1:], f'{good}x', f'{good} ', good.swapcase(), good * 100, f'{payload}x.{signature}']
        far = [
            '',
            'x',
            '.',
            '1',
            '-',
            '\0',
            '\xe9',
            '\U0001f600',
            payload,
            f'.{signature}',
            f'WzFd.{signature}',
            foreign,
        ]
        for cursor in (*near, *far):
            with self.subTest(cursor=cursor[:80]):
                response = self.client.get('/users', query_string={'after': cursor})
                self.assert_failure(response, 400, 'Invalid query.', {'after': 'must be the cursor of a page before'})

    def test_all_wrong_parameters_are_named_at_once(self):
        response = self.client.get('/users?limit=x&after=y&active=z&email=%00&username=a%00&other=1')
        nul = 'must not contain control characters'
        self.assert_failure(
            response,
            400,
            'Invalid query.',
            {
                'limit': 'must be a whole number from 1 to 1000',
                'after': 'must be the cursor of a page before',
                'active': 'must be true or false',
                'email': nul,
                'username': nul,
            },
        )

    def test_unknown_parameters_are_ignored(self):
        self.store_users(2)
        for query in ('x=1', 'Limit=x', 'created_at=now', '&&', '=', '%00=%00', '%FF', 'limit[]=1'):
            with self.subTest(query=query):
                self.assertEqual(len(self.list_users(f'/users?{query}')), 2)

    def test_head_of_a_page_has_its_link(self):
        self.store_users(3)
        got, head = self.client.get('/users?limit=2'), self.client.head('/users?limit=2')
        self.assertEqual((head.status_code, head.data), (200, b''))
        self.assertEqual(head.headers['Link'], got.headers['Link'])


class LookUpTest(BaseTestCase):
    def setUp(self):
        super().setUp()
        self.ann = self.add_user('ann', 'Ann@example.com')
        self.bee = self.add_user('bee', 'bee@example.com')
        self.ann2 = self.add_user('ann', 'ann2@example.com')
        user = db.session.get(User, self.bee['id'])
        user.active = self.bee['active'] = True
        db.session.commit()

    def test_users_are_found(self):
        ann, bee, ann2 = self.ann, self.bee, self.ann2
        for query, found in [
            ('email=Ann@example.com', [ann]),
            ('email=aNN@EXAMPLE.com', [ann]),
            ('email=%20ann@example.com%20', [ann]),
            ('email=ann@example', []),
            ('email=%25', []),
            ('email=', []),
            ('username=ann', [ann2, ann]),
            ('username=Ann', []),
            ('username=an', []),
            ('username=a_n', []),
            ('username=', []),
            ('username=%FF', []),
            ('active=true', [bee]),
            ('active=false', [ann2, ann]),
            ('username=ann&email=ann@example.com', [ann]),
            ('username=bee&email=ann@example.com', []),
            ('username=bee&active=true', [bee]),
            ('username=bee&active=false', []),
            ('username=ann&limit=1', [ann2]),
            ('email=ann@example.com&limit=1', [ann]),
        ]:
            with self.subTest(query=query):
                self.assertEqual(self.list_users(f'/users?{query}'), found)

    def test_look_up_is_paged(self):
        first = self.client.get('/users?username=ann&limit=1').json['data']
        self.assertEqual(first['users'], [self.ann2])
        second = self.client.get(first['next']).json['data']
        self.assertEqual(second, {'users': [self.ann]})

    def test_address_with_other_letters_is_found_whatever_its_case(self):
        user = self.add_user('müller', 'MÜLLER@example.com')
        for email in ('müller@example.com', 'MÜLLER@example.com', 'Mu\u0308ller@Example.com'):
            with self.subTest(email=email):
                response = self.client.get('/users', query_string={'email': email})
                self.assertEqual(response.json['data']['users'], [user])

    def test_active_must_be_true_or_false(self):
        for value in ('', '1', 'True', 'yes', 'true ', 'null'):
            with self.subTest(value=value):
                response = self.client.get('/users', query_string={'active': value})
                self.assert_failure(response, 400, 'Invalid query.', {'active': 'must be true or false'})


class StreamTest(BaseTestCase):
    def setUp(self):
        super().setUp()
        # As with 2,000: some are read at once, then parts of so many.
        self.enterContext(mock.patch.object(views, 'CHUNK', 4))

    def test_list_is_whole_whatever_its_length(self):
        for count in (1, 3, 4, 5, 7, 8, 9, 12, 13):
            with self.subTest(count=count):
                super().setUp()
                self.store_users(count)
                response = self.client.get('/users')
                self.assertEqual(response.content_type, 'application/json')
                self.assertEqual(response.json.keys(), {'status', 'data'})
                names = [user['username'] for user in response.json['data']['users']]
                self.assertEqual(names, [f'user{number}' for number in reversed(range(count))])

    def test_streamed_user_looks_as_the_others(self):
        self.store_users(10)
        self.assertEqual(self.list_users(), self.list_users('/users?limit=10'))

    def test_look_up_is_streamed(self):
        self.store_users(10, username='ann')
        self.add_user('bee')
        self.assertEqual(len(self.list_users('/users?username=ann')), 10)
        after = self.client.get('/users?limit=2').json['data']['next'].replace('limit=2&', '')
        self.assertEqual(len(self.list_users(after)), 9)
        self.assertEqual(len(self.list_users(f'{after}&username=ann')), 9)

    def test_failure_in_the_middle_breaks_off_instead_of_ending_as_if_whole(self):
        self.store_users(10)

        def break_off(*args):
            with contextlib.closing(self.real_stream(*args)) as parts:
                yield next(parts)
            raise RuntimeError('in the middle')

        self.real_stream = database.stream
        with mock.patch.object(database, 'stream', break_off):
            response = self.client.get('/users')
            parts = []
            with self.assertRaisesRegex(RuntimeError, 'in the middle'):
                for part in response.iter_encoded():
                    parts.append(part)
        self.assertEqual(len(parts), 2)
        self.assertNotIn(b']', b''.join(parts))

    def test_client_that_goes_away_frees_its_connection(self):
        self.store_users(20)
        response = self.client.get('/users')
        parts = response.iter_encoded()
        next(parts), next(parts)
        self.assertEqual(sum(engine.pool.checkedout() for engine in db.engines.values()), 1)
        self.assertEqual(db.engines['autocommit'].pool.checkedout(), 0)  # the requests' own: none of theirs is taken
        response.close()
        self.assertEqual(sum(engine.pool.checkedout() for engine in db.engines.values()), 0)

    def test_head_of_a_long_list_reads_no_more_than_its_start(self):
        self.store_users(10)
        with mock.patch.object(database, 'stream') as stream:
            response = self.client.head('/users')
            self.assertEqual((response.status_code, response.data), (200, b''))
            stream.assert_not_called()
        self.assertEqual(len(self.list_users()), 10)

    def test_users_who_come_meanwhile_do_not_disturb(self):
        self.store_users(10)
        response = self.client.get('/users')
        parts = response.iter_encoded()
        body = next(parts)
        self.add_user()
        body += b''.join(parts)
        self.assertEqual(len(self.app.json.loads(body)['data']['users']), 10)


class LongListTest(BaseTestCase):
    def test_list_of_more_users_than_are_read_at_once_is_whole(self):
        self.store_users(2 * views.CHUNK + 1)
        users = self.list_users()
        self.assertEqual(len({user['id'] for user in users}), 2 * views.CHUNK + 1)
        moments = [user['created_at'] for user in users]
        self.assertEqual(moments, sorted(moments, reverse=True))
