"""Changing and removing users: tokens, preconditions, and changes at the same time."""

import json
from itertools import chain
from unittest import mock

from project import db
from project.api.models import User
from project.database import Database
from project.observability import TOKEN_KEY
from project.tests.base import BEARER, TOKEN, BaseTestCase
from project.tests.test_users import ANN, BAD_EMAILS, BAD_USERNAMES, JSON, NO_OBJECTS

CHANGED = 'The user has changed since it was read.'


class ChangeTestCase(BaseTestCase):
    settings = {'API_TOKENS': TOKEN}

    def setUp(self):
        super().setUp()
        self.ann = self.add_user()
        self.path = f'/users/{self.ann["id"]}'
        self.tag = self.client.get(self.path).headers['ETag']

    def patch(self, changes, path=None, **headers):
        headers = BEARER | {name.replace('_', '-'): value for name, value in headers.items()}
        return self.client.patch(path or self.path, json=changes, headers=headers)

    def delete(self, path=None, **headers):
        headers = BEARER | {name.replace('_', '-'): value for name, value in headers.items()}
        return self.client.delete(path or self.path, headers=headers)


class PatchTest(ChangeTestCase):
    def test_user_is_changed(self):
        for changes in (
            {'username': 'bee'},
            {'email': 'bee@example.com'},
            {'active': True},
            {'active': False},
            {'username': 'cat', 'email': 'cat@example.com', 'active': True},
            {},
        ):
            with self.subTest(changes=changes):
                before = self.client.get(self.path).json['data']
                response = self.patch(changes)
                self.assertEqual((response.status_code, response.content_type), (200, JSON))
                self.assertEqual(response.json, {'status': 'success', 'data': before | changes})
                got = self.client.get(self.path)
                self.assertEqual(got.json['data'], before | changes)
                self.assertEqual(response.headers['ETag'], got.headers['ETag'])

    def test_other_users_stay_as_they_are(self):
        bee = self.add_user('bee', 'bee@example.com')
        self.patch({'username': 'x', 'active': True})
        self.assertEqual(self.client.get(f'/users/{bee["id"]}').json['data'], bee)

    def test_merge_patch_is_a_content_type(self):
        response = self.client.patch(
            self.path, data=b'{"username": "bee"}', content_type='application/merge-patch+json', headers=BEARER
        )
        self.assertEqual((response.status_code, response.json['data']['username']), (200, 'bee'))

    def test_values_are_checked_as_for_a_new_user(self):
        actives = [
            (None, 'must not be null'),
            *((value, 'must be true or false') for value in (1, 0, 'true', '', [], {})),
        ]
        for field, values in (('username', BAD_USERNAMES), ('email', BAD_EMAILS), ('active', actives)):
            for value, reason in values:
                with self.subTest(field=field, value=value):
                    body = json.dumps({field: value})
                    response = self.client.patch(self.path, data=body, content_type=JSON, headers=BEARER)
                    self.assert_failure(response, 400, 'Invalid payload.', {field: reason})
        self.assertEqual(self.list_users(), [self.ann])

    def test_all_wrong_fields_are_named_and_nothing_is_changed(self):
        response = self.patch({'username': '', 'email': 'x', 'active': None})
        errors = {'username': 'must not be blank', 'email': 'must be an email address', 'active': 'must not be null'}
        self.assert_failure(response, 400, 'Invalid payload.', errors)
        response = self.patch({'username': 'bee', 'email': 'x'})
        self.assert_failure(response, 400, 'Invalid payload.', {'email': 'must be an email address'})
        self.assertEqual(self.list_users(), [self.ann])

    def test_body_that_is_not_an_object_is_rejected(self):
        for body in NO_OBJECTS:
            with self.subTest(body=body[:60]):
                response = self.client.patch(self.path, data=body, content_type=JSON, headers=BEARER)
                self.assert_failure(response, 400, 'Invalid payload.', {'body': 'must be a JSON object'})

    def test_id_and_created_at_cannot_be_changed(self):
        response = self.patch({'id': 77, 'created_at': '2000-01-01T00:00:00Z', 'x': 1})
        self.assertEqual((response.status_code, response.json['data']), (200, self.ann))

    def test_own_email_is_no_duplicate(self):
        for email in ('ann@example.com', 'Ann@Example.com', ' ANN@example.com '):
            with self.subTest(email=email):
                response = self.patch({'email': email})
                self.assertEqual((response.status_code, response.json['data']['email']), (200, email.strip()))

    def test_email_of_another_user_is_rejected(self):
        self.add_user('bee', 'bee@example.com')
        for email in ('bee@example.com', 'BEE@example.com', ' bee@example.com'):
            with self.subTest(email=email):
                response = self.patch({'email': email, 'username': 'x'})
                self.assert_failure(response, 400, 'Sorry. That email already exists.')
        self.assertEqual(self.client.get(self.path).json['data'], self.ann)

    def test_change_of_a_missing_user_is_a_404(self):
        for user_id in ('999999', 'x', '9' * 30, '-1'):
            with self.subTest(user_id=user_id):
                response = self.patch({'username': 'x'}, f'/users/{user_id}')
                self.assert_failure(response, 404, 'User does not exist')


class DeleteTest(ChangeTestCase):
    def test_user_is_removed(self):
        bee = self.add_user('bee', 'bee@example.com')
        response = self.delete()
        self.assertEqual((response.status_code, response.data), (204, b''))
        self.assert_failure(self.client.get(self.path), 404, 'User does not exist')
        self.assertEqual(self.list_users(), [bee])

    def test_second_removal_is_a_404(self):
        self.assertEqual(self.delete().status_code, 204)
        self.assert_failure(self.delete(), 404, 'User does not exist')

    def test_removal_of_a_missing_user_is_a_404(self):
        for user_id in ('999999', 'x', '9' * 30):
            with self.subTest(user_id=user_id):
                self.assert_failure(self.delete(f'/users/{user_id}'), 404, 'User does not exist')

    def test_email_of_a_removed_user_can_be_added_again(self):
        self.delete()
        self.assertGreater(self.add_user()['id'], self.ann['id'])


class ConditionTest(ChangeTestCase):
    def test_tag_is_strong_and_changes_with_the_user(self):
        self.assertRegex(self.tag, r'\A"[0-9a-f]+"\Z')
        tags = {self.tag}
        for changes in ({'username': 'bee'}, {'email': 'bee@example.com'}, {'active': True}):
            self.patch(changes)
            tags.add(self.client.get(self.path).headers['ETag'])
        self.assertEqual(len(tags), 4)

    def test_tag_is_the_same_on_every_instance(self):
        self.assertEqual(self.client_of(SECRET_KEY='another').get(self.path).headers['ETag'], self.tag)

    def test_tags_of_different_users_differ(self):
        bee = self.add_user('ann', 'bee@example.com')
        self.assertNotEqual(self.client.get(f'/users/{bee["id"]}').headers['ETag'], self.tag)

    def test_unchanged_user_is_not_sent_again(self):
        for header in (self.tag, f'W/{self.tag}', f'"x", {self.tag}', '*'):
            for method in ('GET', 'HEAD'):
                with self.subTest(header=header, method=method):
                    response = self.client.open(self.path, method=method, headers={'If-None-Match': header})
                    self.assertEqual((response.status_code, response.data), (304, b''))
                    self.assertEqual(response.headers['ETag'], self.tag)
                    self.assertEqual(response.headers['Cache-Control'], 'private, no-cache')

    def test_changed_user_is_sent(self):
        self.patch({'active': True})
        for header in (self.tag, '"x"', '', 'x', '"'):
            with self.subTest(header=header):
                response = self.client.get(self.path, headers={'If-None-Match': header})
                self.assertEqual(response.status_code, 200)
                self.assertTrue(response.json['data']['active'])

    def test_unknown_user_is_a_404_with_any_precondition(self):
        for header in ('If-None-Match', 'If-Match'):
            self.assert_failure(self.client.get('/users/999999', headers={header: '*'}), 404)

    def test_change_with_a_matching_if_match_is_made(self):
        for header in (self.tag, f'"x", {self.tag}', '*'):
            with self.subTest(header=header):
                before = self.client.get(self.path).headers['ETag']
                response = self.patch({'active': True}, If_Match=header.replace(self.tag, before))
                self.assertEqual(response.status_code, 200, response.text)
        self.assertEqual(self.delete(If_Match=response.headers['ETag']).status_code, 204)

    def test_change_with_another_if_match_is_rejected(self):
        seen = self.client.get(self.path).json['data']
        # A weak tag never matches here: RFC 9110 section 13.1.1 requires the strong comparison.
        for header in ('"x"', '', 'x', f'W/{self.tag}', f'{self.tag}x'):
            with self.subTest(header=header):
                self.assert_failure(self.patch({'active': True}, If_Match=header), 412, CHANGED)
                self.assert_failure(self.patch({}, If_Match=header), 412, CHANGED)
                self.assert_failure(self.delete(If_Match=header), 412, CHANGED)
        self.assertEqual(self.client.get(self.path).json['data'], seen)

    def test_second_of_two_edits_of_one_version_is_a_412(self):
        self.assertEqual(self.patch({'username': 'first'}, If_Match=self.tag).status_code, 200)
        self.assert_failure(self.patch({'username': 'second'}, If_Match=self.tag), 412, CHANGED)
        self.assert_failure(self.delete(If_Match=self.tag), 412, CHANGED)
        self.assertEqual(self.client.get(self.path).json['data']['username'], 'first')

    def meanwhile(self, act):
        """Call ``act`` between the reading of the user and the writing."""
        real_write = Database.write

        def write(*args):
            with mock.patch.object(Database, 'write', real_write):
                act()
            return real_write(*args)

        return mock.patch.object(Database, 'write', write)

    def test_user_that_is_changed_between_reading_and_writing_is_a_412(self):
        for number, change in enumerate((lambda **h: self.patch({'username': 'second'}, **h), self.delete)):
            for changes in ({'username': f'{number}'}, {'email': f'{number}@example.com'}, {'active': not number}):
                with self.subTest(change=number, meanwhile=changes):
                    tag = self.client.get(self.path).headers['ETag']
                    with self.meanwhile(lambda: self.patch(changes)):  # noqa: B023, it is called in this iteration
                        self.assert_failure(change(If_Match=tag), 412, CHANGED)
                    user = self.client.get(self.path).json['data']
                    self.assertEqual(user, user | changes)

    def test_any_state_of_the_user_satisfies_an_asterisk(self):
        for change, status in ((lambda **h: self.patch({'username': 'second'}, **h), 200), (self.delete, 204)):
            with self.subTest(status=status), self.meanwhile(lambda: self.patch({'username': 'first'})):
                self.assertEqual(change(If_Match='*').status_code, status)

    def test_simultaneous_change_of_another_field_is_kept_without_if_match(self):
        with self.meanwhile(lambda: self.patch({'username': 'first'})):
            response = self.patch({'active': True})
        self.assertEqual(response.json['data'], self.ann | {'username': 'first', 'active': True})

    def test_user_that_is_removed_between_reading_and_writing_is_a_404(self):
        for headers in ({}, {'If_Match': '*'}):
            for change in (lambda **h: self.patch({'username': 'x'}, **h), self.delete):
                with self.subTest(headers=headers), self.meanwhile(self.delete):
                    self.assert_failure(change(**headers), 404, 'User does not exist')
                self.path = f'/users/{self.add_user()["id"]}'

    def test_email_that_is_taken_between_reading_and_writing_is_a_400(self):
        with self.meanwhile(lambda: self.add_user('bee', 'bee@example.com')):
            self.assert_failure(self.patch({'email': 'Bee@example.com'}), 400, 'Sorry. That email already exists.')
        self.assertEqual(self.client.get(self.path).json['data'], self.ann)


class TokenTest(ChangeTestCase):
    second = 'another-token-so-that-one-can-be-rotated'
    settings = {'API_TOKENS': f'{TOKEN}, {second}'}

    def call(self, client, method, path, **headers):
        return client.open(
            path, method=method, json=ANN | {'email': 'x@example.com'} if method != 'GET' else None, headers=headers
        )

    def test_every_token_is_accepted(self):
        for token in (TOKEN, self.second):
            for header in (f'Bearer {token}', f'bearer {token}', f'BEARER  {token}'):
                with self.subTest(header=header):
                    response = self.call(self.client, 'PATCH', self.path, Authorization=header)
                    self.assertEqual(response.status_code, 200, response.text)

    def test_missing_or_wrong_token_is_rejected(self):
        for header in (
            None,
            '',
            'Bearer',
            'Bearer ',
            'Bearer x',
            'Bearer \xe9' * 20,
            TOKEN,
            f'Basic {TOKEN}',
            f'Bearer {TOKEN[:-1]}',
            f'Bearer {TOKEN}x',
            f'Bearer {TOKEN.upper()}',
            f'Bearer {TOKEN},{self.second}',
            f'Bearer {TOKEN}, {self.second}',
        ):
            for method in ('PATCH', 'DELETE'):
                with self.subTest(header=header, method=method):
                    headers = {} if header is None else {'Authorization': header}
                    response = self.call(self.client, method, self.path, **headers)
                    self.assert_failure(response, 401)
                    self.assertTrue(response.headers['WWW-Authenticate'].startswith('Bearer realm='))
                    self.assertNotIn(TOKEN, response.text + str(response.headers))
        self.assertEqual(self.list_users(), [self.ann])

    def test_method_in_lower_case_is_guarded_too(self):
        response = self.client.open(self.path, environ_overrides={'REQUEST_METHOD': 'delete'})
        self.assert_failure(response, 401)

    def test_challenge_distinguishes_a_wrong_token_from_none(self):
        response = self.call(self.client, 'DELETE', self.path)
        self.assertNotIn('error', response.headers['WWW-Authenticate'])
        response = self.call(self.client, 'DELETE', self.path, Authorization='Bearer x')
        self.assertIn('error="invalid_token"', response.headers['WWW-Authenticate'])

    def test_without_tokens_every_change_is_rejected(self):
        client = self.client_of(API_TOKENS='')
        for method in ('PATCH', 'DELETE'):
            for headers in ({}, BEARER, {'Authorization': 'Bearer '}):
                with self.subTest(method=method, headers=headers):
                    response = self.call(client, method, self.path, **headers)
                    self.assert_failure(response, 403)
                    self.assertIn('API_TOKENS', response.json['message'])
        self.assertEqual(self.list_users(), [self.ann])

    def test_protect_chooses_the_guarded_methods(self):
        requests = {
            'changes': [('PATCH', self.path), ('DELETE', self.path)],
            'writes': [('POST', '/users')],
            'all': [('GET', '/users'), ('GET', self.path), ('HEAD', '/users'), ('GET', '/users?limit=x')],
        }
        guarded = []
        for protect, more in requests.items():
            guarded += more
            client = self.client_of(API_TOKENS=TOKEN, PROTECT=protect)
            shut = self.client_of(API_TOKENS='', PROTECT=protect)
            for method, path in chain(*requests.values()):
                with self.subTest(protect=protect, method=method, path=path):
                    expected = (401, 403) if (method, path) in guarded else None
                    responses = self.call(client, method, path).status_code, self.call(shut, method, path).status_code
                    if expected:
                        self.assertEqual(responses, expected)
                    else:
                        self.assertTrue({401, 403}.isdisjoint(responses), responses)

    def test_token_is_accepted_for_all_guarded_methods(self):
        client = self.client_of(API_TOKENS=TOKEN, PROTECT='all')
        self.assertEqual(self.call(client, 'POST', '/users', **BEARER).status_code, 201)
        self.assertEqual(len(client.get('/users', headers=BEARER).json['data']['users']), 2)

    def test_health_checks_and_preflights_need_no_token(self):
        client = self.client_of(API_TOKENS=TOKEN, PROTECT='all')
        for method, path, code in (
            ('GET', '/ping', 200),
            ('HEAD', '/ping', 200),
            ('GET', '/health', 200),
            ('OPTIONS', '/users', 200),
            ('OPTIONS', self.path, 200),
            ('GET', '/nowhere', 404),
            ('PUT', '/users', 405),
        ):
            with self.subTest(method=method, path=path):
                self.assertEqual(client.open(path, method=method).status_code, code)

    def test_token_may_contain_colons(self):
        for item, valid, wrong in (
            (f':{TOKEN}', [TOKEN, f':{TOKEN}'], ['', ':']),
            (f'ops:{TOKEN}', [TOKEN, f'ops:{TOKEN}'], ['ops']),
            (f'ops:x:{TOKEN}', [f'x:{TOKEN}', f'ops:x:{TOKEN}'], [TOKEN]),
        ):
            client = self.client_of(API_TOKENS=item)
            for token in (*valid, *wrong):
                with self.subTest(item=item, token=token):
                    response = client.patch(self.path, json={}, headers={'Authorization': f'Bearer {token}'})
                    self.assertNotEqual(response.status_code == 401, token in valid)

    def test_name_of_a_token_is_logged_for_requests_that_need_none_too(self):
        client = self.client_of(API_TOKENS=f'ops:{TOKEN}, {self.second}', PROTECT='changes')
        environs = []
        app = client.application
        serve = app.wsgi_app
        app.wsgi_app = lambda *args: environs.append(args[0]) or serve(*args)
        for header, name in (
            (f'Bearer {TOKEN}', 'ops'),
            (f'Bearer {self.second}', ''),
            ('Bearer wrong', None),
            (f'Basic {TOKEN}', None),
            ('Bearer', None),
            ('', None),
        ):
            with self.subTest(header=header):
                user = {'username': 'ann', 'email': f'{name}{len(header)}@example.com'}
                response = client.post('/users', json=user, headers={'Authorization': header})
                self.assertEqual(response.status_code, 201, response.text)
                self.assertEqual(environs[-1].get(TOKEN_KEY), name)

    def test_token_is_checked_before_the_body(self):
        for method, path in (('DELETE', '/users/999999'), ('PATCH', '/users/x')):
            with self.subTest(method=method):
                self.assert_failure(self.client.open(path, method=method, data=b'x'), 401)

    def test_rejected_request_does_not_reach_the_database(self):
        with mock.patch.object(Database, 'read') as read, mock.patch.object(Database, 'write') as write:
            self.call(self.client, 'DELETE', self.path)
            read.assert_not_called()
            write.assert_not_called()
        self.assertIsNotNone(db.session.get(User, self.ann['id']))
