"""Times of creation that a response cannot express: new ones are rejected, and existing ones break nothing."""

import contextlib
import io
import re
import tempfile
from pathlib import Path

import flask_migrate
from sqlalchemy import insert, text
from sqlalchemy.exc import IntegrityError

from project import db, transfer
from project.api.models import User
from project.tests.base import dispose, make_app
from project.tests.test_migrations import MigrationTestCase
from project.timestamps import RFC3339, parse

EARLIEST, LATEST = '0001-01-01T00:00:00.000000Z', '9999-12-31T23:59:59.999999Z'
# Values that SQL can store, and the timestamp that each becomes.
BAD = {
    'postgresql': {
        'infinity': LATEST,
        '-infinity': EARLIEST,
        '10000-01-01 00:00:00+00': LATEST,
        '294276-12-31 23:59:59.5+00': LATEST,
        '0044-03-15 00:00:00.1234+00 BC': EARLIEST,
        '0001-01-01 00:00:00+01': EARLIEST,
    },
    'sqlite': {
        'infinity': LATEST,
        '-infinity': EARLIEST,
        '10000-01-01T00:00:00.000000Z': LATEST,
        '0000-01-01T00:00:00.000000Z': EARLIEST,
        '9999-12-31T23:59:59.999999-01:00': LATEST,
        '0001-01-01T00:00:00.000000+01:00': EARLIEST,
        '2026-02-30T00:00:00.000000Z': EARLIEST,
        'yesterday': EARLIEST,
        '1764185623': EARLIEST,
        '2026-01-02 03:04:05': '2026-01-02T03:04:05.000000Z',
    },
}
GOOD = (EARLIEST, LATEST, '2024-02-29T23:59:59.999999Z', '2026-11-22T16:13:51.000000Z')
INSERT = text('INSERT INTO users (username, email, active, created_at) VALUES (:email, :email, false, :created_at)')


class RangeTest(MigrationTestCase):
    def setUp(self):
        super().setUp()
        self.client = self.app.test_client()
        self.bad = BAD[db.engine.dialect.name]

    def store(self, *values):
        """Store a user with each of these values of ``created_at``, by SQL."""
        rows = [{'email': f'{number}@example.com', 'created_at': value} for number, value in enumerate(values)]
        with db.engine.begin() as connection:
            connection.execute(INSERT, rows)

    def listed(self):
        """Return ``created_at`` by email, in the order of the list; check that pages have the same users."""
        users = self.client.get('/users').json['data']['users']
        url, paged = '/users?limit=1', []
        while url:
            response = self.client.get(url)
            self.assertEqual(response.status_code, 200, response.text)
            paged += response.json['data']['users']
            url = response.json['data'].get('next')
        self.assertEqual(paged, users)
        return {user['email']: user['created_at'] for user in users}

    def test_new_rows_are_rejected(self):
        for make in (self.upgrade, db.create_all):
            with self.subTest(make=make.__name__):
                make()
                for value in self.bad:
                    with self.subTest(value=value), self.assertRaises(IntegrityError):
                        self.store(value)
                self.store(*GOOD)
                with self.assertRaises(IntegrityError), db.engine.begin() as connection:
                    connection.execute(text('UPDATE users SET created_at = :value'), {'value': 'infinity'})
                self.assertEqual(set(self.listed().values()), set(GOOD))
                db.drop_all()

    def test_existing_rows_are_printed_and_break_nothing(self):
        self.upgrade(revision='0002')
        values = [*GOOD, *self.bad]
        self.store(*values)
        with contextlib.redirect_stdout(io.StringIO()) as out:
            self.upgrade()
        for user_id, value in enumerate(self.bad, len(GOOD) + 1):
            if db.engine.dialect.name == 'sqlite':
                self.assertIn(f'User {user_id}: created_at was {value}, ', out.getvalue())
        reported = [int(number) for number in re.findall(r'^User (\d+): created_at was ', out.getvalue(), re.MULTILINE)]
        self.assertEqual(reported, list(range(len(GOOD) + 1, len(values) + 1)))

        expected = dict(zip(values, [*GOOD, *self.bad.values()], strict=True))
        listed = self.listed()
        self.assertEqual(list(listed.values()), sorted(expected.values(), reverse=True))
        for number, created_at in enumerate(expected.values()):
            self.assertRegex(created_at, RFC3339)
            self.assertEqual(listed[f'{number}@example.com'], created_at)
        self.assertEqual({user.created_at for user in self.users()}, set(map(parse, expected.values())))
        self.check_transfer()

    def check_transfer(self):
        """Dump all users, and load them twice, the second time over themselves."""
        with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stderr(io.StringIO()):
            first, second = f'{folder}/first', f'{folder}/second'
            count = transfer.dump(first)
            for added in (0, count):
                if added:
                    with db.engine.begin() as connection:
                        connection.execute(text('DELETE FROM users'))
                done = transfer.load(first)
                self.assertEqual((done.added, done.existing, done.rejected), (added, count - added, 0))
            transfer.dump(second)
            self.assertEqual(Path(first).read_bytes(), Path(second).read_bytes())
            self.assertEqual(len(Path(first).read_text().splitlines()), count)

    def test_table_of_2017_is_taken_over_with_any_time(self):
        values = {
            'infinity': LATEST,
            '-infinity': EARLIEST,
            '10000-01-01 00:00:00': LATEST,
            '9999-12-31 23:59:59.5': LATEST,
            '2017-07-01 12:00:00.5': '2017-07-01T16:00:00.500000Z',
        }
        self.store_old()
        statement = text('INSERT INTO "user" VALUES (:id, \'x\', :email, true, :created_at)')
        for user_id, value in enumerate(values, 1):
            with db.engine.begin() as connection:
                user = {'id': user_id, 'email': f'{user_id}@example.com', 'created_at': value}
                connection.execute(statement, user)
        with contextlib.redirect_stdout(io.StringIO()) as out:
            self.upgrade(x_arg=['zone=America/New_York'])
        self.assertEqual([user.created_at for user in self.users()], list(map(parse, values.values())))
        for user_id, value in enumerate(list(values)[:-1], 1):
            self.assertIn(f'User {user_id}: created_at was {value}, ', out.getvalue())
        self.assertEqual(len(out.getvalue().splitlines()), len(values) - 1)

    def test_nothing_is_printed_if_all_timestamps_are_valid(self):
        self.upgrade(revision='0002')
        self.store(*GOOD)
        with contextlib.redirect_stdout(io.StringIO()) as out:
            self.upgrade()
        self.assertEqual(out.getvalue(), '')

    def test_constraint_is_taken_back_and_made_again(self):
        self.upgrade(revision='0002')
        before = self.schema()
        self.upgrade()
        self.assertEqual(self.schema(), before)  # indexes and columns
        self.run_migrations(flask_migrate.downgrade, revision='0002')
        self.assertEqual(self.schema(), before)
        self.store('infinity')

    def test_extremes_are_read_whatever_the_time_zone_of_the_session(self):
        self.upgrade()
        if db.engine.dialect.name != 'postgresql':
            self.skipTest('SQLite has no sessions with a time zone')
        db.session.execute(insert(User), [{'username': 'x', 'email': v, 'created_at': parse(v)} for v in GOOD])
        db.session.commit()
        url = db.engine.url
        for zone in ('Asia/Tokyo', 'America/New_York'):
            options = f'{url.query["options"]} -c TimeZone={zone}'
            there = url.update_query_dict({'options': options}).render_as_string(hide_password=False)
            app = make_app(SQLALCHEMY_DATABASE_URI=there)
            self.addCleanup(dispose, app)
            with self.subTest(zone=zone), app.app_context():
                self.assertEqual({user.created_at for user in self.users()}, set(map(parse, GOOD)))
                self.check_transfer()
