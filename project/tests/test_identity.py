"""Each email is one user, however it is written, and names contain no invisible characters."""

# ruff: noqa: RUF001, since characters that look like others are tested

import contextlib
import importlib
import io

from alembic.migration import MigrationContext
from alembic.operations import Operations
from alembic.runtime.environment import EnvironmentContext
from sqlalchemy import insert

from project import db
from project.api.models import User
from project.tests.base import BaseTestCase

# Ways to write one email, the first one as it is stored.
SAME = [
    ('bob@bücher.de', 'bob@xn--bcher-kva.de', 'BOB@XN--BCHER-KVA.DE', 'Bob@BÜCHER.de', 'bob@bu\u0308cher.de'),
    ('josé@example.com', 'JOSÉ@Example.com', 'jose\u0301@example.com'),
    ('fiona@example.com', 'ﬁona@example.com', 'FIONA@EXAMPLE.COM', 'ﬁona@ＥＸＡＭＰＬＥ.com'),
    ('alice@example.com', 'ａlice@example.com', 'ａｌｉｃｅ＠example.com'),
    ('ann@xn--fiqs8s.example', 'ann@中国.example')[::-1],
]
# ß and ss are different domains since IDNA 2008.
DIFFERENT = ['ann@faß.de', 'ann@fass.de', 'ann@fäss.de']
VISIBLE = [
    'Zoë',
    'می\u200cخواهم',  # Persian: a non-joiner shapes the letter before it
    'क्\u200dष',  # Hindi: half a letter
    'ශ්\u200dරී',  # Sinhala
    'അവന്\u200d',  # Malayalam: a joiner at the end
    '👩\u200d💻',
    '👩🏽\u200d🚀',
    '🏳\ufe0f\u200d🌈',
    '❤\ufe0f',
    '1\ufe0f\u20e3',
    '🏴\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f',  # the flag of England
    '葛\U000e0100城',  # a variant of a character, as in Japanese names
    'שרה',
]
INVISIBLE = [
    *'\u00ad\u034f\u061c\u115f\u1160\u17b4\u180b\u180e\u200b\u200c\u200d\u200e\u200f\u202a\u202e\u2060\u2066\u2069\u206f',
    *'\u3164\ufe00\ufe0e\ufe0f\ufeff\uffa0\ufff0\U0001bca0\U0001d173\U000e0001\U000e0041\U000e0100\U000e0fff',
    '\u200d\u200d',
]


class IdentityTest(BaseTestCase):
    def post(self, email, username='ann'):
        return self.client.post('/users', json={'username': username, 'email': email})

    def test_each_email_is_one_user_however_it_is_written(self):
        for stored, *others in SAME:
            self.assertEqual(self.add_user(email=others[-1])['email'].lower(), stored)
            for email in (stored, *others):
                with self.subTest(email=email):
                    self.assert_failure(self.post(email), 400, 'Sorry. That email already exists.')
                    found = self.client.get('/users', query_string={'email': email}).json['data']['users']
                    self.assertEqual([user['email'].lower() for user in found], [stored])

    def test_change_to_another_spelling_is_no_way_around(self):
        self.add_user(email='bob@bücher.de')
        user = self.add_user(email='ann@example.com')
        client = self.client_of(API_TOKENS='x' * 32)
        bearer = {'Authorization': f'Bearer {"x" * 32}'}
        response = client.patch(f'/users/{user["id"]}', json={'email': 'bob@xn--bcher-kva.de'}, headers=bearer)
        self.assert_failure(response, 400, 'Sorry. That email already exists.')

    def test_ascii_email_is_stored_as_typed(self):
        self.assertEqual(self.add_user(email='Ann.Lee+x@Example.COM')['email'], 'Ann.Lee+x@Example.COM')

    def test_different_domains_are_different(self):
        for email in DIFFERENT:
            self.assertEqual(self.add_user(email=email)['email'], email)

    def test_local_part_has_at_most_64_bytes(self):
        self.add_user(email='é' * 32 + '@example.com')
        for email, reason in (
            ('é' * 33 + '@example.com', 'must have at most 64 bytes before the @'),
            ('a' * 65 + '@example.com', 'must have at most 64 bytes before the @'),
        ):
            self.assert_failure(self.post(email), 400, 'Invalid payload.', {'email': reason})

    def test_invisible_characters_are_rejected(self):
        reason = 'must not contain invisible characters'
        for character in INVISIBLE:
            for name in (f'al{character}ice', f'{character}alice', f'alice{character}', character):
                with self.subTest(name=ascii(name)):
                    errors = self.post('ann@example.com', name).json['errors']
                    self.assertEqual(list(errors), ['username'])
                    if name.isprintable() or len(name) > 3:
                        self.assertEqual(errors['username'], reason)
            with self.subTest(email=ascii(character)):
                errors = {'email': reason}
                self.assert_failure(self.post(f'al{character}ice@example.com'), 400, 'Invalid payload.', errors)
                response = self.post(f'alice@ex{character}ample.com')
                self.assert_failure(response, 400, 'Invalid payload.', errors)

    def test_names_written_with_joiners_are_accepted(self):
        for number, name in enumerate(VISIBLE):
            with self.subTest(name=ascii(name)):
                self.assertEqual(self.add_user(name, f'{number}@example.com')['username'], name)

    def test_users_of_older_rules_stay_and_are_found(self):
        old = {'username': 'a\u200bb', 'email': 'bob@xn--bcher-kva.de', 'active': False}
        other = {'username': 'a', 'email': 'ﬁona@example.com', 'active': False}
        db.session.execute(insert(User), [old, other])
        db.session.commit()
        for row in (old, other):
            (user,) = self.client.get('/users', query_string={'email': row['email']}).json['data']['users']
            self.assertEqual((user['username'], user['email']), (row['username'], row['email']))
            self.assertEqual(self.client.get(f'/users/{user["id"]}').json['data'], user)


class ReportTest(BaseTestCase):
    def report(self, emails):
        """Return the lines that the migration prints about users with these emails, whose ids begin with 1."""
        rows = [{'id': number, 'username': 'x', 'email': email} for number, email in enumerate(emails, 1)]
        db.session.execute(insert(User), rows)
        db.session.commit()
        migration = importlib.import_module('project.migrations.versions.0003_canonical_emails')
        output = io.StringIO()
        with db.engine.connect() as connection, contextlib.redirect_stdout(output):
            context = MigrationContext.configure(connection)
            with EnvironmentContext(None, None), Operations.context(context):
                migration.upgrade()
        return output.getvalue().splitlines()

    def test_migration_reports_and_changes_nothing(self):
        emails = ['bob@bücher.de', 'ann@example.com', 'bob@XN--bcher-kva.de', 'eve@xn--bcher-kva.de', 'not an email é']
        lines = self.report(emails)
        self.assertEqual(lines[0], 'These users have the same email, written differently: 1, 3.')
        self.assertIn('prevent that: 4.', lines[1])
        self.assertEqual(len(lines), 2)
        self.assertEqual(sorted(user['email'] for user in self.list_users()), sorted(emails))

    def test_migration_reports_each_user(self):
        pairs = [f'{number}@{domain}.de' for number in range(12) for domain in ('bücher', 'xn--bcher-kva')]
        lines = self.report([*pairs, *(f'{number}@xn--bcher-kva.de' for number in range(12, 24))])
        same = [f'These users have the same email, written differently: {id}, {id + 1}.' for id in range(1, 25, 2)]
        self.assertEqual(lines[:-1], same)
        self.assertIn(f'prevent that: {", ".join(map(str, range(25, 37)))}.', lines[-1])
