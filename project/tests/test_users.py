"""Adding and reading users, and the defects of the service of 2017."""

import io
import json
from datetime import UTC, datetime, timedelta
from unittest import mock

from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from project import db
from project.api.models import User
from project.database.errors import Duplicate, translate
from project.tests.base import BaseTestCase

JSON = 'application/json'
ANN = {'username': 'ann', 'email': 'ann@example.com'}

# Values of one field, and the error for each.
BAD_TEXTS = [
    (None, 'must not be null'),
    (123, 'must be a string'),
    (1.5, 'must be a string'),
    (True, 'must be a string'),
    (['a'], 'must be a string'),
    ([], 'must be a string'),
    ({'a': 'b'}, 'must be a string'),
    ('', 'must not be blank'),
    (' \u3000\xa0', 'must not be blank'),
    ('\u200b', 'must not be blank'),
    ('a\0b', 'must not contain control characters'),
    ('a\x1bb', 'must not contain control characters'),
    ('a\x7fb', 'must not contain control characters'),
    ('a\u2028b', 'must not contain control characters'),
]
BAD_USERNAMES = [*BAD_TEXTS, ('a' * 129, 'must have at most 128 characters')]
BAD_EMAILS = [
    *BAD_TEXTS,
    ('a' * 117 + '@example.com', 'must have at most 128 characters'),
    ('ann@example.com\n', 'must not contain control characters'),
    ('ann\n@example.com', 'must not contain control characters'),
    ('ann', 'must be an email address'),
    ('ann@', 'must be an email address'),
    ('@example.com', 'must be an email address'),
    ('ann@example', 'must have a domain with a period, or localhost, after the @'),
    ('ann@local', 'must have a domain with a period, or localhost, after the @'),
    ('ann@internal', 'must have a domain with a period, or localhost, after the @'),
    ('ann@test', 'must have a domain with a period, or localhost, after the @'),
    ('ann@bücher', 'must have a domain with a period, or localhost, after the @'),
    ('ann@example.invalid', 'must be an email address'),
    ('"ann bee"@example.com', 'must not have quotes before the @'),
    ('"ann"@example.com', 'must not have quotes before the @'),
    ('"ann@bee"@[127.0.0.1]', 'must not have quotes before the @'),
    ('ann@[127.0.0.1]', 'must have a domain name after the @, not an IP address in brackets'),
    ('ann@[IPv6:::1]', 'must have a domain name after the @, not an IP address in brackets'),
    ('ann@127.0.0.1', 'must be an email address'),
    ('ann..b@LocalHost', 'must be an email address'),
    ('ann@@example.com', 'must be an email address'),
    ('ann bee@example.com', 'must be an email address'),
    ('Ann <ann@example.com>', 'must be an email address'),
    ('ann@example.com, bee@example.com', 'must be an email address'),
    ('ann@' + 'e' * 64 + '.com', 'must be an email address'),
    ('ann@-example.com', 'must be an email address'),
]
GOOD_USERNAMES = [
    'a',
    'a' * 128,
    '\U0001f600' * 128,
    'Ann Bee',
    "O'Neil; DROP TABLE users;--",
    '李小龙',
    '123',
    '%s %(a)s',
]
GOOD_EMAILS = [
    'ann@example.test',
    'ann@corp.local',
    'ann@db.internal',
    'ann@localhost',
    'ann@dev.localhost',
    "o'neil+tag@sub.example.co.uk",
    'a' * 60 + '@' + 'b' * 63 + '.com',
    'müller@example.com',
    'ann@bücher.example',
]
NO_OBJECTS = [
    b'',
    b' ',
    b'{',
    b'{"username": "ann", "email": "ann@example.com"',
    b'{"username": "ann", "email": "ann@example.com"} {}',
    b'{"username": "ann", "email": "ann@example.com",}',
    b"{'username': 'ann', 'email': 'ann@example.com'}",
    b'username=ann&email=ann@example.com',
    b'null',
    b'true',
    b'1',
    b'"text"',
    b'[]',
    b'[{"username": "ann", "email": "ann@example.com"}]',
    b'9' * 5000,
    b'[' * 60_000,
    b'{"a":' * 12_000,
    b'\xef\xbb\xbf{"username": "ann", "email": "ann@example.com"}',
    b'{"username": "\xff", "email": "ann@example.com"}',
    b'{"username": "\xed\xa0\x80", "email": "ann@example.com"}',
    b'{"username": "\\ud800", "email": "ann@example.com"}',
    b'{"username": "ann", "email": "\\udc00@example.com"}',
    '{"username": "ann", "email": "ann@example.com"}'.encode('utf-16'),
    b'{"username": "a\0b", "email": "ann@example.com"}',
]


class AddUserTest(BaseTestCase):
    def test_ping_returns_pong(self):
        response = self.client.get('/ping')
        self.assertEqual((response.status_code, response.content_type), (200, JSON))
        self.assertEqual(response.json, {'status': 'success', 'message': 'pong!'})

    def test_user_is_added(self):
        before = datetime.now(UTC)
        response = self.client.post('/users', json=ANN)
        after = datetime.now(UTC)
        self.assertEqual((response.status_code, response.content_type), (201, JSON))
        self.assertEqual(response.json['status'], 'success')
        self.assertEqual(response.json['message'], 'ann@example.com was added!')
        user = response.json['data']
        self.assertEqual(set(user), {'id', 'username', 'email', 'active', 'created_at'})
        self.assertIs(type(user['id']), int)
        self.assertEqual((user['username'], user['email'], user['active']), ('ann', 'ann@example.com', False))
        self.assertRegex(user['created_at'], r'\A\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z\Z')
        self.assertTrue(before <= datetime.fromisoformat(user['created_at']) <= after)

    def test_location_is_the_path_of_the_new_user(self):
        response = self.client.post('/users', json=ANN)
        self.assertEqual(response.headers['Location'], f'/users/{response.json["data"]["id"]}')
        found = self.client.get(response.headers['Location'])
        self.assertEqual(found.json['data'], response.json['data'])
        self.assertEqual(found.headers['ETag'], response.headers['ETag'])

    def test_location_names_the_path_that_the_service_is_mounted_at(self):
        response = self.client.post('/users', json=ANN, environ_overrides={'SCRIPT_NAME': '/api'})
        self.assertEqual(response.headers['Location'], f'/api/users/{response.json["data"]["id"]}')

    def test_each_user_has_its_own_created_at(self):
        moments = [self.add_user(email=f'{number}@example.com')['created_at'] for number in range(5)]
        self.assertEqual(len(set(moments)), 5)
        self.assertEqual(moments, sorted(moments))

    def test_invalid_json_is_rejected(self):
        for body in NO_OBJECTS:
            with self.subTest(body=body[:60]):
                response = self.client.post('/users', data=body, content_type=JSON)
                self.assert_failure(response, 400, 'Invalid payload.', {'body': 'must be a JSON object'})
        self.assertEqual(self.count_users(), 0)

    def test_invalid_json_keys_are_rejected(self):
        required = 'is required'
        for payload, errors in [
            ({}, {'username': required, 'email': required}),
            ({'email': 'ann@example.com'}, {'username': required}),
            ({'username': 'ann'}, {'email': required}),
            ({'username': None, 'email': 'x'}, {'username': 'must not be null', 'email': 'must be an email address'}),
            ({'Username': 'ann', 'email': 'ann@example.com'}, {'username': required}),
            ({'username': 7}, {'username': 'must be a string', 'email': required}),
        ]:
            with self.subTest(payload=payload):
                self.assert_failure(self.client.post('/users', json=payload), 400, 'Invalid payload.', errors)
        self.assertEqual(self.count_users(), 0)

    def test_bad_values_are_rejected(self):
        for field, values in (('username', BAD_USERNAMES), ('email', BAD_EMAILS)):
            for value, reason in values:
                with self.subTest(field=field, value=value):
                    body = json.dumps(ANN | {field: value})
                    response = self.client.post('/users', data=body, content_type=JSON)
                    self.assert_failure(response, 400, 'Invalid payload.', {field: reason})
        self.assertEqual(self.count_users(), 0)

    def test_invalid_numbers_in_json_are_rejected(self):
        for number in ('NaN', 'Infinity', '-Infinity', '1e999', '9' * 5000):
            with self.subTest(number=number[:20]):
                body = f'{{"username": {number}, "email": "ann@example.com"}}'
                response = self.client.post('/users', data=body, content_type=JSON)
                self.assertEqual(response.json['message'], 'Invalid payload.')
                self.assert_failure(response, 400, errors=response.json['errors'])
        self.assertEqual(self.count_users(), 0)

    def test_unusual_values_are_accepted(self):
        for number, username in enumerate(GOOD_USERNAMES):
            with self.subTest(username=username):
                user = self.add_user(username, f'{number}@example.com')
                self.assertEqual(user['username'], username)
                self.assertEqual(self.client.get(f'/users/{user["id"]}').json['data'], user)
        for email in GOOD_EMAILS:
            with self.subTest(email=email):
                self.assertEqual(self.add_user(email=email)['email'], email)

    def test_blanks_around_values_are_trimmed(self):
        user = self.add_user(' \u3000ann bee ', '\xa0 ann@example.com ')
        self.assertEqual((user['username'], user['email']), ('ann bee', 'ann@example.com'))

    def test_length_is_counted_after_trimming(self):
        self.assertEqual(len(self.add_user(' ' + 'a' * 128 + ' ')['username']), 128)

    def test_length_is_counted_after_normalising(self):
        # In lower case this letter is two characters.
        email = '\u0130' * 32 + '@' + 'a' * 60 + '.example.com'
        response = self.client.post('/users', json=ANN | {'email': email})
        self.assert_failure(response, 400, 'Invalid payload.', {'email': 'must have at most 128 characters'})

    def test_content_type_must_be_json(self):
        body = json.dumps(ANN)
        for content_type in (None, '', 'text/plain', 'application/x-www-form-urlencoded', 'multipart/form-data', 'x'):
            with self.subTest(content_type=content_type):
                response = self.client.post('/users', data=body, content_type=content_type)
                errors = {'body': 'must have the Content-Type application/json'}
                self.assert_failure(response, 400, 'Invalid payload.', errors)
        self.assertEqual(self.count_users(), 0)

    def test_any_json_content_type_is_accepted(self):
        for number, content_type in enumerate(
            ['application/json; charset=utf-8', 'Application/JSON', 'application/vnd.api+json', f'{JSON}; charset=x-no']
        ):
            with self.subTest(content_type=content_type):
                body = json.dumps(ANN | {'email': f'{number}@example.com'})
                response = self.client.post('/users', data=body, content_type=content_type)
                self.assertEqual(response.status_code, 201, response.text)

    def test_other_keys_are_ignored(self):
        response = self.client.post('/users', json=ANN | {'id': 77, 'active': True, 'created_at': 0, 'x': {}})
        self.assertEqual(response.status_code, 201, response.text)
        self.assertNotEqual(response.json['data']['id'], 77)
        self.assertIs(response.json['data']['active'], False)

    def test_body_over_the_limit_is_rejected(self):
        for size, code in ((64 * 1024, 201), (64 * 1024 + 1, 413), (10 * 1024 * 1024, 413)):
            with self.subTest(size=size):
                body = json.dumps(ANN).encode().ljust(size)
                response = self.client.post('/users', data=body, content_type=JSON)
                self.assertEqual(response.status_code, code, response.text)
                if code == 413:
                    self.assert_failure(response, 413)

    def test_incomplete_body_is_rejected(self):
        body = json.dumps(ANN).encode()
        broken = mock.Mock(
            read=mock.Mock(side_effect=OSError('of the server')), readinto=mock.Mock(side_effect=OSError)
        )
        for stream, environ in (
            # As passed by Werkzeug's server, and as passed by gunicorn, which marks the end of the body.
            (io.BytesIO(body), {'CONTENT_LENGTH': str(len(body) + 1)}),
            (io.BytesIO(body), {'CONTENT_LENGTH': str(len(body) + 1), 'wsgi.input_terminated': True}),
            (broken, {'CONTENT_LENGTH': '10'}),
            (broken, {'wsgi.input_terminated': True, 'HTTP_TRANSFER_ENCODING': 'chunked'}),
        ):
            with self.subTest(environ=environ):
                environ |= {'wsgi.input': stream}
                response = self.client.post('/users', content_type=JSON, environ_overrides=environ)
                errors = {'body': 'could not be read to its end'}
                self.assert_failure(response, 400, 'Invalid payload.', errors)
        self.assertEqual(self.count_users(), 0)

    def test_body_without_a_length_is_limited_too(self):
        for size, code in ((64 * 1024 - 1, 201), (64 * 1024 + 1, 413), (1024 * 1024, 413)):
            with self.subTest(size=size):
                stream = io.BytesIO(json.dumps(ANN).encode().ljust(size))
                environ = {'wsgi.input': stream, 'wsgi.input_terminated': True, 'HTTP_TRANSFER_ENCODING': 'chunked'}
                response = self.client.post('/users', content_type=JSON, environ_overrides=environ)
                self.assertEqual(response.status_code, code, response.text)

    def test_duplicate_email_is_rejected(self):
        self.add_user()
        response = self.client.post('/users', json=ANN)
        self.assert_failure(response, 400, 'Sorry. That email already exists.')
        self.assertEqual(self.count_users(), 1)

    def test_email_that_differs_by_case_or_blanks_is_a_duplicate(self):
        for email, same in [
            ('Ann@Example.com', [' ann@example.com', 'ANN@EXAMPLE.COM ', 'ann@example.com\u2003']),
            ('MÜLLER@example.com', ['müller@example.com', 'Mu\u0308ller@Example.com']),
            ('bee@BÜCHER.example', ['bee@bücher.example']),
        ]:
            self.add_user(email=email)
            for other in same:
                with self.subTest(email=email, other=other):
                    response = self.client.post('/users', json=ANN | {'email': other})
                    self.assert_failure(response, 400, 'Sorry. That email already exists.')
        self.assertEqual(self.count_users(), 3)

    def test_email_is_kept_as_typed(self):
        self.assertEqual(self.add_user(email='Ann.Bee@Example.COM')['email'], 'Ann.Bee@Example.COM')

    def test_username_need_not_be_unique(self):
        self.add_user(email='1@example.com')
        self.add_user(email='2@example.com')
        self.assertEqual(self.count_users(), 2)

    def test_duplicate_that_only_the_database_knows_of_is_a_500(self):
        with db.engine.begin() as connection:
            connection.execute(text('CREATE UNIQUE INDEX by_hand ON users (username)'))
        self.addCleanup(self.drop_index)
        self.add_user()
        with self.assertLogs(self.app.logger):
            response = self.client.post('/users', json=ANN | {'email': 'other@example.com'})
        self.assert_failure(response, 500, 'Internal Server Error')

    def drop_index(self):
        with db.engine.begin() as connection:
            connection.execute(text('DROP INDEX by_hand'))

    def test_database_itself_rejects_a_duplicate(self):
        db.session.add_all([User('ann', 'ann@example.com'), User('ann', 'ANN@example.com')])
        with self.assertRaises(IntegrityError) as raised:
            db.session.commit()
        db.session.rollback()
        self.assertEqual(User.taken(translate(raised.exception)), ['email'])

    def duplicate(self, constraint=None, columns=()):
        """Return the error for a value that another user has."""
        error = Duplicate()
        error.constraint, error.columns = constraint, columns
        return error

    def test_columns_that_are_taken_are_known_by_the_errors_of_both_databases(self):
        for error, columns in (
            (self.duplicate(constraint='users_email_key'), ['email']),
            (self.duplicate(constraint='users_pkey'), []),
            (self.duplicate(), []),
            (self.duplicate(columns=('id',)), []),
        ):
            self.assertEqual(User.taken(error), columns)

    def test_other_unique_columns_are_named_in_errors(self):
        for name, columns in (('one', ['username']), ('two', ['username', 'active'])):
            with self.subTest(columns=columns), mock.patch.object(User, 'unique', return_value={name: columns}):
                for error in (self.duplicate(constraint=name), self.duplicate(columns=tuple(columns))):
                    with mock.patch('project.database.Database.write', side_effect=error):
                        response = self.client.post('/users', json=ANN)
                    self.assert_failure(response, 400, 'Invalid payload.', dict.fromkeys(columns, 'is already taken'))


class GetUsersTest(BaseTestCase):
    def test_single_user_is_returned(self):
        user = self.add_user('michael', 'michael@realpython.com')
        response = self.client.get(f'/users/{user["id"]}')
        self.assertEqual((response.status_code, response.content_type), (200, JSON))
        self.assertEqual(response.json, {'status': 'success', 'data': user})
        self.assertEqual(response.json['data']['username'], 'michael')
        self.assertEqual(response.json['data']['email'], 'michael@realpython.com')
        self.assertIn('created_at', response.json['data'])

    def test_id_that_is_no_number_is_not_found(self):
        user_id = self.add_user()['id']
        ids = "blah -1 +1 1.0 1e0 0x1 NaN None %20 %00 %FF \xb2 \u0661 1%0a 1; 1'--"
        for path in (*ids.split(), f'{user_id}x', f'%20{user_id}', f'{user_id}%20', f'{user_id}.json'):
            with self.subTest(path=path):
                self.assert_failure(self.client.get(f'/users/{path}'), 404, 'User does not exist')

    def test_unknown_id_is_not_found(self):
        for path in ('0', '999', 2**31, 2**63 - 1, 2**63, 2**64, '9' * 19, '9' * 20, '9' * 5000):
            with self.subTest(path=str(path)[:30]):
                self.assert_failure(self.client.get(f'/users/{path}'), 404, 'User does not exist')

    def test_id_may_have_leading_zeros(self):
        user = self.add_user()
        self.assertEqual(self.client.get(f'/users/000{user["id"]}').json['data'], user)

    def test_all_users_are_returned_newest_first(self):
        now = datetime.now(UTC)
        db.session.add(User('michael', 'michael@realpython.com', now - timedelta(days=30)))
        db.session.add(User('fletcher', 'fletcher@realpython.com'))
        db.session.commit()
        response = self.client.get('/users')
        self.assertEqual((response.status_code, response.content_type), (200, JSON))
        self.assertEqual(response.json['status'], 'success')
        fletcher, michael = response.json['data']['users']
        self.assertEqual((fletcher['username'], fletcher['email']), ('fletcher', 'fletcher@realpython.com'))
        self.assertEqual((michael['username'], michael['email']), ('michael', 'michael@realpython.com'))
        self.assertEqual(set(michael), {'id', 'username', 'email', 'active', 'created_at'})
        self.assertEqual(michael['created_at'], (now - timedelta(days=30)).strftime('%Y-%m-%dT%H:%M:%S.%fZ'))

    def test_users_added_over_http_come_newest_first(self):
        added = [self.add_user(email=f'{number}@example.com') for number in range(5)]
        self.assertEqual(self.list_users(), added[::-1])

    def test_users_with_equal_timestamps_come_by_id_descending(self):
        self.store_users(50, created_at=datetime(2026, 1, 1, tzinfo=UTC))
        ids = [user['id'] for user in self.list_users()]
        self.assertEqual(ids, sorted(ids, reverse=True))

    def test_database_sorts_the_users(self):
        # Without ORDER BY, the order would often be right by chance, because of an index.
        self.assertIn('ORDER BY users.created_at DESC, users.id DESC', str(User.newest_first().compile(db.engine)))

    def test_without_users_the_list_is_empty(self):
        self.assertEqual(self.client.get('/users').json, {'status': 'success', 'data': {'users': []}})

    def test_order_is_the_same_after_an_update(self):
        before = [self.add_user(email=f'{number}@example.com')['id'] for number in range(5)][::-1]
        db.session.get(User, before[2]).username = 'changed'
        db.session.commit()
        self.assertEqual([user['id'] for user in self.list_users()], before)

    def test_whole_microsecond_keeps_its_six_digits(self):
        self.store_users(1, created_at=datetime(2026, 11, 22, 16, 13, 51, tzinfo=UTC))
        user = self.list_users()[0]
        self.assertEqual(user['created_at'], '2026-11-22T16:13:51.000000Z')
        self.assertEqual(self.client.get(f'/users/{user["id"]}').json['data'], user)

    def test_one_id_looks_the_same_everywhere(self):
        user = self.add_user()
        self.assertEqual(self.list_users(), [user])
        self.assertEqual(self.list_users('/users?limit=1'), [user])

    def test_head_is_get_without_a_body(self):
        user_id = self.add_user()['id']
        for path in ('/ping', '/users', f'/users/{user_id}', '/users/999999'):
            with self.subTest(path=path):
                got, head = self.client.get(path), self.client.head(path)
                self.assertEqual((head.status_code, head.data), (got.status_code, b''))
                self.assertEqual(head.headers['Content-Length'], got.headers['Content-Length'])

    def test_id_of_a_removed_user_is_not_used_again(self):
        first = self.add_user()['id']
        db.session.delete(db.session.get(User, first))
        db.session.commit()
        self.assertGreater(self.add_user()['id'], first)
