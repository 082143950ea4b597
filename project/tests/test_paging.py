"""Pages, searches, and streamed lists."""

import contextlib
from datetime import UTC, datetime
from itertools import chain
from unittest import mock
from urllib.parse import parse_qs, urlsplit

from sqlalchemy import delete, update

from project import db
from project.api import users
from project.api.models import User
from project.database import Database
from project.tests.base import BaseTestCase, make_app

NOON = datetime(2026, 1, 1, tzinfo=UTC)


class PagingTest(BaseTestCase):
    def follow(self, path):
        """Return the pages from ``path`` on, as lists of users."""
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
        all_users = self.list_users()
        for limit, sizes in ((1, [1] * 10), (3, [3, 3, 3, 1]), (5, [5, 5]), (9, [9, 1]), (10, [10]), (1000, [10])):
            with self.subTest(limit=limit):
                pages = self.follow(f'/users?limit={limit}')
                self.assertEqual([len(page) for page in pages], sizes)
                self.assertEqual(list(chain(*pages)), all_users)

    def test_without_users_there_is_one_empty_page(self):
        self.assertEqual(self.client.get('/users?limit=5').json, {'status': 'success', 'data': {'users': []}})

    def test_pages_of_users_with_equal_timestamps_are_the_list(self):
        self.store_users(10, created_at=NOON)
        self.assertEqual(list(chain(*self.follow('/users?limit=3'))), self.list_users())

    def test_next_page_is_the_same_url_with_a_cursor(self):
        self.store_users(3, username='ann bee&co')
        path = '/users?limit=2&username=ann+bee%26co&email=&other=1'.replace('&email=', '')
        following = self.client.get(path).json['data']['next']
        self.assertTrue(following.startswith('/users?'))
        query = parse_qs(urlsplit(following).query)
        cursor = query.pop('after')
        self.assertRegex(cursor[0], r'\A[A-Za-z0-9._-]+\Z')  # no character that a URL would have to escape
        self.assertEqual(query, {'limit': ['2'], 'username': ['ann bee&co'], 'other': ['1']})
        self.assertEqual(len(self.list_users(following)), 1)

    def test_next_page_has_the_prefix_of_the_proxy(self):
        self.store_users(2)
        response = self.client.get('/users?limit=1', environ_overrides={'SCRIPT_NAME': '/api'})
        self.assertTrue(response.json['data']['next'].startswith('/api/users?limit=1&after='))

    def test_added_and_removed_users_make_pages_neither_repeat_nor_skip_users(self):
        self.store_users(9)
        all_users = self.list_users()
        first = self.client.get('/users?limit=3').json['data']
        self.add_user()
        removed = [all_users[0], first['users'][-1], all_users[4]]  # the second is the one in the cursor
        db.session.execute(delete(User).where(User.id.in_([user['id'] for user in removed])))
        db.session.commit()
        rest = list(chain(*self.follow(first['next'])))
        self.assertEqual(rest, [user for user in all_users[3:] if user not in removed])

    def test_cursor_is_valid_with_another_limit_and_without_one(self):
        self.store_users(5)
        all_users = self.list_users()
        following = self.client.get('/users?limit=2').json['data']['next']
        self.assertEqual(self.list_users(following.replace('limit=2', 'limit=3')), all_users[2:])
        self.assertEqual(self.list_users(following.replace('limit=2&', '')), all_users[2:])

    def test_cursor_is_valid_on_another_instance(self):
        self.store_users(3)
        following = self.client.get('/users?limit=2').json['data']['next']
        self.assertEqual(len(self.client_of().get(following).json['data']['users']), 1)

    def test_invalid_limit_is_rejected(self):
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

    def test_parameter_that_is_given_twice_is_rejected(self):
        for query in (
            'limit=1&limit=1',
            'after=x&after=y',
            'email=a&email=b',
            'username=&username=',
            'active=true&active=x',
            'q=an&q=an',
            'count=true&count=true',
        ):
            with self.subTest(query=query):
                name = query.partition('=')[0]
                response = self.client.get(f'/users?{query}')
                self.assert_failure(response, 400, 'Invalid query.', {name: 'must be given once'})

    def test_invalid_cursor_is_rejected(self):
        self.store_users(3)
        good = parse_qs(urlsplit(self.client.get('/users?limit=1').json['data']['next']).query)['after'][0]
        payload, _, signature = good.rpartition('.')
        with make_app(SECRET_KEY='another key').app_context():
            foreign = users.paging.cursor({'created_at': '2026-01-01T00:00:00.000000Z', 'id': 1})
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
                self.assert_failure(response, 400, 'Invalid query.', {'after': 'is not a valid cursor'})

    def test_all_invalid_parameters_are_named_at_once(self):
        response = self.client.get('/users?limit=x&after=y&active=z&email=%00&username=a%00&other=1')
        nul = 'must not contain control characters'
        self.assert_failure(
            response,
            400,
            'Invalid query.',
            {
                'limit': 'must be a whole number from 1 to 1000',
                'after': 'is not a valid cursor',
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

    def test_email_with_other_letters_than_ascii_is_found_in_any_case(self):
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


class SearchTest(BaseTestCase):
    """``?q=`` finds users whose username or email begins with it."""

    def setUp(self):
        super().setUp()
        for username, email in (
            ('Annabel', 'first@example.com'),
            ('bee', 'ANNA@example.com'),
            ('joanna', 'joanna@example.com'),
            ('50%_\\off', 'sale@example.com'),
            ('Ünal', 'ünal@example.com'),
            ('zz\U0010ffffz', 'last@example.com'),
        ):
            self.add_user(username, email)

    def found(self, q, **parameters):
        """Return the usernames that a search finds."""
        response = self.client.get('/users', query_string={'q': q, **parameters})
        self.assertEqual(response.status_code, 200, response.text)
        return [user['username'] for user in response.json['data']['users']]

    def test_users_are_found_by_the_beginning_of_username_and_email(self):
        for q, usernames in (
            ('ann', ['bee', 'Annabel']),
            ('ANN', ['bee', 'Annabel']),
            ('  annA\t', ['bee', 'Annabel']),
            ('annab', ['Annabel']),
            ('anna@EXAMPLE.com', ['bee']),
            ('oanna', []),
            ('example', []),
            ('50', ['50%_\\off']),
            ('50%', ['50%_\\off']),
            ('50%_\\', ['50%_\\off']),
            ('5%', []),
            ('5_', []),
            ('__', []),
            ('%%', []),
            ('\\%', []),
            ('50%\\', []),
            ("' OR", []),
            ('ün', ['Ünal']),
            ('Ün', ['Ünal']),
            ('zz', ['zz\U0010ffffz']),
            ('zz\U0010ffff', ['zz\U0010ffffz']),
            ('\U0010ffff' * 2, []),
            ('an' * 500, []),
        ):
            with self.subTest(q=q[:20]):
                self.assertEqual(self.found(q), usernames)

    def test_only_ascii_letters_are_folded(self):
        self.assertEqual(self.found('ÜNA'), ['Ünal'])
        self.assertEqual(self.found('üna'), ['Ünal'])  # by the email, which is stored in lower case

    def test_search_combines_with_the_other_parameters(self):
        for number in range(5):
            self.add_user(f'anna{number}', f'x{number}@example.com')
        user = db.session.scalar(db.select(User).where(User.username == 'anna3'))
        user.active = True
        db.session.commit()
        self.assertEqual(self.found('ann', active='true'), ['anna3'])
        self.assertEqual(self.found('ann', username='anna4'), ['anna4'])
        names, path = [], '/users?q=ann&limit=3'
        while path:
            data = self.client.get(path).json['data']
            names += [user['username'] for user in data['users']]
            path = data.get('next')
        self.assertEqual(names, ['anna4', 'anna3', 'anna2', 'anna1', 'anna0', 'bee', 'Annabel'])

    def test_long_result_is_streamed(self):
        self.enterContext(mock.patch.object(users, 'STREAM_ROWS', 2))
        self.store_users(9, username='Anna')
        self.assertEqual(len(self.found('anna')), 11)
        data = self.client.get('/users?q=anna&count=true').json['data']
        self.assertEqual((len(data['users']), data['total']), (11, 11))

    def test_search_needs_two_characters(self):
        for q in ('', 'a', ' a ', '\xa0', 'ü'):
            with self.subTest(q=q):
                response = self.client.get('/users', query_string={'q': q})
                self.assert_failure(response, 400, 'Invalid query.', {'q': 'must have at least 2 characters'})

    def test_search_for_what_no_database_stores_is_rejected(self):
        response = self.client.get('/users?q=an%00')
        self.assert_failure(response, 400, 'Invalid query.', {'q': 'must not contain control characters'})


class CountTest(BaseTestCase):
    """``?count=true`` adds the number of users that match."""

    def setUp(self):
        super().setUp()
        self.store_users(7)
        self.add_user('Ann')

    def data(self, query):
        response = self.client.get(f'/users?{query}')
        self.assertEqual(response.status_code, 200, response.text)
        return response.json['data']

    def test_total_is_the_number_of_users_that_match(self):
        for query, total in (
            ('', 8),
            ('limit=1', 8),
            ('limit=100', 8),
            ('q=user', 7),
            ('q=user&limit=2', 7),
            ('q=nobody', 0),
            ('active=false', 8),
            ('active=true&limit=5', 0),
            ('username=user3', 1),
            ('email=ANN@example.com', 1),
        ):
            with self.subTest(query=query):
                self.assertEqual(self.data(f'{query}&count=true')['total'], total)
                self.assertNotIn('total', self.data(query))
                self.assertNotIn('total', self.data(f'{query}&count=false'))

    def test_total_is_the_same_on_every_page(self):
        first = self.data('limit=3&count=true')
        second = self.client.get(first['next']).json['data']
        self.assertEqual((len(second['users']), second['total']), (3, 8))

    def test_count_must_be_true_or_false(self):
        for value in ('', '1', 'True', 'yes'):
            with self.subTest(value=value):
                response = self.client.get('/users', query_string={'count': value})
                self.assert_failure(response, 400, 'Invalid query.', {'count': 'must be true or false'})


class StreamTest(BaseTestCase):
    def setUp(self):
        super().setUp()
        # Instead of 2,000.
        self.enterContext(mock.patch.object(users, 'STREAM_ROWS', 4))

    def test_list_of_any_length_is_complete(self):
        for count in (1, 3, 4, 5, 7, 8, 9, 12, 13):
            with self.subTest(count=count):
                super().setUp()
                self.store_users(count)
                response = self.client.get('/users')
                self.assertEqual(response.content_type, 'application/json')
                self.assertEqual(response.json.keys(), {'status', 'data'})
                names = [user['username'] for user in response.json['data']['users']]
                self.assertEqual(names, [f'user{number}' for number in reversed(range(count))])

    def test_streamed_user_has_the_same_fields(self):
        self.store_users(10)
        self.assertEqual(self.list_users(), self.list_users('/users?limit=10'))

    def test_look_up_is_streamed(self):
        self.store_users(10, username='ann')
        self.add_user('bee')
        self.assertEqual(len(self.list_users('/users?username=ann')), 10)
        after = self.client.get('/users?limit=2').json['data']['next'].replace('limit=2&', '')
        self.assertEqual(len(self.list_users(after)), 9)
        self.assertEqual(len(self.list_users(f'{after}&username=ann')), 9)

    def test_list_that_fails_in_the_middle_does_not_look_complete(self):
        self.store_users(10)

        def break_off(*args):
            with contextlib.closing(self.real_stream(*args)) as parts:
                yield next(parts)
                yield next(parts)
            raise RuntimeError('in the middle')

        self.real_stream = Database.stream
        with mock.patch.object(Database, 'stream', break_off):
            response = self.client.get('/users')
            parts = []
            with self.assertRaisesRegex(RuntimeError, 'in the middle'):
                for part in response.iter_encoded():
                    parts.append(part)
        self.assertEqual(len(parts), 2)
        self.assertNotIn(b']', b''.join(parts))

    def test_client_that_disconnects_frees_its_connection(self):
        self.store_users(20)
        response = self.client.get('/users')
        parts = response.iter_encoded()
        next(parts), next(parts)
        self.assertEqual(sum(engine.pool.checkedout() for engine in db.engines.values()), 1)
        self.assertEqual(db.engines['reads'].pool.checkedout(), 0)  # a stream has a pool of its own
        response.close()
        self.assertEqual(sum(engine.pool.checkedout() for engine in db.engines.values()), 0)

    def test_head_of_a_long_list_reads_no_more_than_its_start(self):
        self.store_users(10)
        with mock.patch.object(Database, 'stream') as stream:
            response = self.client.head('/users')
            self.assertEqual((response.status_code, response.data), (200, b''))
            stream.assert_not_called()
        self.assertEqual(len(self.list_users()), 10)

    def test_long_list_is_one_snapshot_while_users_are_added_changed_and_removed(self):
        self.store_users(40)
        before = self.list_users()
        parts = self.client.get('/users').iter_encoded()
        body = next(parts)
        for number, part in enumerate(parts):
            # The next part, which has not been sent yet, would have it otherwise.
            self.add_user(f'new{number}', f'new{number}@example.com')
            oldest = before[-1 - 2 * number]['id'], before[-2 - 2 * number]['id']
            with db.engine.begin() as connection:
                connection.execute(delete(User).where(User.id == oldest[0]))
                connection.execute(update(User).where(User.id == oldest[1]).values(username='changed'))
            body += part
        self.assertEqual(self.app.json.loads(body)['data']['users'], before)
        self.assertNotEqual(self.list_users(), before)


class LongListTest(BaseTestCase):
    def test_streamed_list_is_complete(self):
        self.store_users(2 * users.STREAM_ROWS + 1)
        listed = self.list_users()
        self.assertEqual(len({user['id'] for user in listed}), 2 * users.STREAM_ROWS + 1)
        timestamps = [user['created_at'] for user in listed]
        self.assertEqual(timestamps, sorted(timestamps, reverse=True))
