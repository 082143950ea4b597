"""Timestamps: in UTC on both databases, whatever the time zone of the machine, of the session and of a ``datetime``."""

import datetime as lesson_datetime
import os
import time
import unittest
from datetime import UTC, datetime, timedelta, timezone
from unittest import mock

from flask import Flask, jsonify
from sqlalchemy import insert, literal, select, text, update
from sqlalchemy.dialects import postgresql, sqlite

from project import db, timestamps
from project.api.models import User
from project.tests.base import BaseTestCase
from project.tests.test_users import ANN

TOKYO = timezone(timedelta(hours=9))
NOON = datetime(2026, 7, 1, 12, 0, 0, 5, tzinfo=UTC)
NAIVE = NOON.replace(tzinfo=None)
IN_TOKYO = NOON.astimezone(TOKYO)
TEXT = '2026-07-01T12:00:00.000005Z'


class TextTest(BaseTestCase):
    def test_text_has_six_digits_and_a_z(self):
        for value, expected in (
            (NOON, TEXT),
            (NAIVE, TEXT),
            (IN_TOKYO, TEXT),
            (datetime(2026, 7, 1, tzinfo=UTC), '2026-07-01T00:00:00.000000Z'),
            (datetime(1, 1, 1, tzinfo=UTC), '0001-01-01T00:00:00.000000Z'),
            (datetime.max.replace(tzinfo=UTC), '9999-12-31T23:59:59.999999Z'),
        ):
            with self.subTest(value=value):
                self.assertEqual(timestamps.to_text(value), expected)
                self.assertEqual(timestamps.parse(expected), timestamps.as_utc(value))

    def test_other_texts_are_rejected(self):
        for value in (
            '',
            '2026-07-01T12:00:00Z',
            '2026-07-01T12:00:00.000005',
            '2026-07-01 12:00:00.000005Z',
            '2026-07-01T12:00:00.000005+00:00',
            '2026-02-30T12:00:00.000005Z',
            '0000-01-01T12:00:00.000005Z',
            f'{TEXT}\n',
            TEXT.replace('1', '\u0661'),
        ):
            with self.subTest(value=value), self.assertRaises(ValueError):
                timestamps.parse(value)

    def test_year_beyond_9999_is_rejected(self):
        for value in (datetime.min.replace(tzinfo=TOKYO), datetime.max.replace(tzinfo=timezone(timedelta(hours=-1)))):
            with self.subTest(value=value), self.assertRaises(OverflowError):
                User('ann', 'ann@example.com', value)


class AttributeTest(BaseTestCase):
    """``user.created_at`` is always timezone-aware and in UTC."""

    def assert_noon(self, user):
        self.assertEqual((user.created_at, user.created_at.tzinfo), (NOON, UTC))

    def test_attribute_reads_the_same_before_and_after_it_is_stored(self):
        for number, value in enumerate((NAIVE, NOON, IN_TOKYO)):
            for how in ('constructor', 'assignment'):
                with self.subTest(value=value, how=how):
                    if how == 'constructor':
                        user = User('ann', f'{number}.{how}@example.com', created_at=value)
                    else:
                        user = User('ann', f'{number}.{how}@example.com')
                        user.created_at = value
                    self.assert_noon(user)
                    db.session.add(user)
                    db.session.flush()
                    self.assert_noon(user)
                    db.session.refresh(user)
                    self.assert_noon(user)
                    db.session.commit()
                    self.assert_noon(user)
                    self.assertEqual(self.client.get(f'/users/{user.id}').json['data']['created_at'], TEXT)

    def test_stored_user_can_be_assigned_another_time(self):
        user = User('ann', 'ann@example.com')
        db.session.add(user)
        db.session.commit()
        user.created_at = NAIVE
        self.assert_noon(user)
        db.session.commit()
        self.assert_noon(user)

    def test_sql_expression_can_be_assigned(self):
        user = User('ann', 'ann@example.com')
        user.created_at = select(literal(NAIVE, timestamps.UTCDateTime)).scalar_subquery()
        db.session.add(user)
        db.session.commit()
        self.assert_noon(user)

    def test_statements_take_naive_and_aware_datetimes(self):
        for number, value in enumerate((NAIVE, IN_TOKYO)):
            with self.subTest(value=value):
                values = {'username': 'ann', 'email': f'{number}@example.com', 'created_at': value}
                user_id = db.session.scalar(insert(User).values(values).returning(User.id))
                self.assert_noon(db.session.get(User, user_id))
                other = update(User).where(User.id == user_id).values(created_at=value + timedelta(days=1))
                db.session.execute(other)
                db.session.commit()
                self.assertEqual(db.session.get(User, user_id).created_at, NOON + timedelta(days=1))

    def test_default_is_now(self):
        for user in (User('ann', 'ann@example.com'), User('bee', 'bee@example.com', None)):
            self.assertLess(timestamps.utcnow() - user.created_at, timedelta(minutes=1))

    def test_microseconds_and_time_zones_survive(self):
        values = [
            datetime(2026, 7, 1, 12, 0, 0, 1, tzinfo=UTC),
            datetime(2026, 7, 1, 12, 0, tzinfo=TOKYO),
            datetime(2026, 12, 31, 23, 59, 59, 999999, tzinfo=timezone(-timedelta(hours=11, minutes=30))),
        ]
        db.session.add_all(User('ann', f'{n}@example.com', value) for n, value in enumerate(values))
        db.session.commit()
        found = db.session.scalars(select(User.created_at).order_by(User.id)).all()
        self.assertEqual(found, values)
        self.assertEqual({value.tzinfo for value in found}, {UTC})
        served = [user['created_at'] for user in self.list_users()]
        self.assertEqual(
            served, ['2027-01-01T11:29:59.999999Z', '2026-07-01T12:00:00.000001Z', '2026-07-01T03:00:00.000000Z']
        )


class ComparisonTest(BaseTestCase):
    def test_queries_compare_with_naive_and_aware_datetimes(self):
        db.session.add_all(
            User(name, f'{name}@example.com', NOON + timedelta(hours=hours))
            for name, hours in (('before', -1), ('noon', 0), ('after', 1))
        )
        db.session.commit()
        hour = timedelta(hours=1)
        for noon in (NAIVE, NOON, IN_TOKYO):
            for condition, expected in (
                (User.created_at == noon, ['noon']),
                (User.created_at != noon, ['before', 'after']),
                (User.created_at < noon, ['before']),
                (User.created_at >= noon, ['noon', 'after']),
                (noon < User.created_at, ['after']),
                (User.created_at.in_([noon, noon + hour]), ['noon', 'after']),
                (User.created_at.between(noon - hour, noon), ['before', 'noon']),
            ):
                with self.subTest(noon=noon, condition=str(condition)):
                    users = User.query.filter(condition).order_by(User.created_at).all()
                    self.assertEqual([user.username for user in users], expected)
            self.assertEqual(User.query.filter_by(created_at=noon).one().username, 'noon')


class LessonTest(BaseTestCase):
    """Code of the lesson. The module next_steps tests its constructor."""

    def test_helper_and_test_of_the_lesson(self):
        datetime = lesson_datetime

        def add_user(username, email, created_at=datetime.datetime.utcnow()):  # noqa: B008
            user = User(username=username, email=email, created_at=created_at)
            db.session.add(user)
            db.session.commit()
            return user

        created = datetime.datetime.utcnow() + datetime.timedelta(-30)
        add_user('michael', 'michael@realpython.com', created)
        fletcher = add_user('fletcher', 'fletcher@realpython.com')
        users = self.list_users()
        self.assertEqual([user['username'] for user in users], ['fletcher', 'michael'])
        self.assertEqual(users[1]['created_at'], f'{created.isoformat(timespec="microseconds")}Z')
        self.assertLess(timestamps.utcnow() - fletcher.created_at, timedelta(minutes=1))

    def test_view_of_the_lesson(self):
        @self.app.route('/lesson', methods=['GET'])
        def get_all_users():
            """Get all users"""
            users = User.query.order_by(User.created_at.desc()).all()
            users_list = []
            for user in users:
                user_object = {
                    'id': user.id,
                    'username': user.username,
                    'email': user.email,
                    'created_at': user.created_at,
                }
                users_list.append(user_object)
            response_object = {'status': 'success', 'data': {'users': users_list}}
            return jsonify(response_object), 200

        for number, fraction in enumerate((0, 100_000, 123_456)):
            db.session.add(User('ann', f'{number}@example.com', NOON.replace(microsecond=fraction)))
        db.session.commit()
        ours = self.client.get('/users')
        theirs = self.client.get('/lesson')
        self.assertEqual(theirs.content_type, ours.content_type)
        # The column active is an addition.
        self.assertEqual(theirs.text, ours.text.replace('"active":false,', ''))


class NowTest(BaseTestCase):
    """``created_at`` of a POST."""

    def check_now(self, client):
        before = datetime.now(UTC)
        response = client.post('/users', json=ANN | {'email': f'{time.monotonic_ns()}@example.com'})
        after = datetime.now(UTC)
        self.assertEqual(response.status_code, 201, response.text)
        user = response.json['data']
        self.assertTrue(before <= datetime.fromisoformat(user['created_at']) <= after, user)
        self.assertEqual(client.get(f'/users/{user["id"]}').json['data'], user)
        self.assertEqual(client.get('/users').json['data']['users'][0], user)

    @unittest.skipUnless(hasattr(time, 'tzset'), 'Windows has no tzset()')
    def test_time_zone_of_the_machine_makes_no_difference(self):
        self.addCleanup(time.tzset)
        for zone in ('Asia/Tokyo', 'America/Los_Angeles', 'UTC'):
            with self.subTest(zone=zone), mock.patch.dict(os.environ, TZ=zone):
                time.tzset()
                self.check_now(self.client_of())
                self.assertEqual(timestamps.to_text(NAIVE), TEXT)

    def test_time_zone_of_the_session_makes_no_difference(self):
        if not self.on_postgresql:
            self.skipTest('SQLite has no time zones')
        url = db.engine.url
        for zone in ('Asia/Tokyo', 'America/Los_Angeles'):
            with self.subTest(zone=zone):
                options = {'options': f'-ctimezone={zone}'}
                client = self.client_of(SQLALCHEMY_DATABASE_URI=url.update_query_dict(options))
                with client.application.app_context():
                    self.assertEqual(db.session.scalar(text('SHOW timezone')), zone)
                    user = User('bee', f'{zone}@example.com', NAIVE)
                    db.session.add(user)
                    db.session.commit()
                    self.assertEqual(user.created_at, NOON)
                self.check_now(client)


class ColumnTypeTest(BaseTestCase):
    def test_databases_write_the_text_themselves(self):
        for number, fraction in enumerate(('.000000', '.100000', '.120000', '.123400', '.000001', '.123456')):
            expected = f'2026-07-01T12:00:00{fraction}Z'
            with self.subTest(expected=expected):
                user = User('ann', f'{number}@example.com', datetime.fromisoformat(expected))
                db.session.add(user)
                db.session.commit()
                self.assertEqual(self.client.get(f'/users/{user.id}').json['data']['created_at'], expected)
                # As SQLite and as PostgreSQL write it.
                for stored in (expected, f'2026-07-01 12:00:00{fraction.rstrip("0").rstrip(".")}'):
                    self.assertEqual(timestamps.rfc3339(stored), expected)

    def test_select_of_the_text(self):
        column = timestamps.as_text(User.created_at)
        self.assertEqual(str(column.compile(dialect=sqlite.dialect())), 'users.created_at')
        self.assertEqual(
            str(column.compile(dialect=postgresql.dialect())), "timezone('UTC'::text, users.created_at)::text"
        )

    def test_null_stays_none_and_both_databases_return_utc(self):
        column = timestamps.UTCDateTime()
        for dialect in (sqlite.dialect(), postgresql.dialect()):
            with self.subTest(dialect=dialect.name):
                self.assertIsNotNone(column.dialect_impl(dialect))
                self.assertIsNone(column.process_bind_param(None, dialect))
                self.assertIsNone(column.process_result_value(None, dialect))
                for value in (NAIVE, IN_TOKYO):
                    self.assertEqual(column.process_result_value(value, dialect), NOON)


class JSONTest(BaseTestCase):
    """``jsonify`` and returned dicts: a ``datetime`` as the contract says."""

    def test_every_datetime_is_rfc_3339(self):
        for value in (NOON, NAIVE, IN_TOKYO):
            with self.subTest(value=value):
                self.assertEqual(jsonify({'at': [value]}).get_data(as_text=True), f'{{"at":["{TEXT}"]}}')
                # A key that is a number is written by the standard library.
                self.assertEqual(jsonify({1: value}).json, {'1': TEXT})
                self.assertEqual(self.app.make_response({'at': value}).json, {'at': TEXT})
                self.assertEqual(self.app.json.dumps(value), f'"{TEXT}"')
                self.assertEqual(self.app.json.dumps([value], indent=1), f'[\n "{TEXT}"\n]')
        self.assertIn('GMT', Flask('other').json.dumps(NOON))  # which this project does differently


class ExpressionTest(BaseTestCase):
    """SQL expressions as timestamps."""

    def test_assigned_expression_reads_and_sorts_as_other_timestamps(self):
        for number, expression in enumerate((db.func.now(), db.func.current_timestamp(), text('CURRENT_TIMESTAMP'))):
            user = User('ann', f'{number}@example.com')
            user.created_at = expression
            db.session.add(user)
            db.session.commit()
            self.assertLess(abs(user.created_at - timestamps.utcnow()), timedelta(minutes=1))
        other = User('bee', 'bee@example.com', NOON)
        later = User('cat', 'cat@example.com', timestamps.utcnow() + timedelta(seconds=5))
        db.session.add_all([other, later])
        db.session.flush()
        later.created_at = User.created_at  # keeps the microseconds
        first = db.session.query(User).order_by(User.id).first()
        before = first.created_at
        first.created_at = select(User.created_at).where(User.id == other.id).scalar_subquery()
        db.session.commit()
        self.assertNotEqual(before, NOON)
        self.assertEqual(first.created_at, NOON)
        listed = self.list_users()
        self.assertEqual(listed[0]['username'], 'cat')
        for user in listed:
            self.assertRegex(user['created_at'], timestamps.RFC3339)
        if not self.on_postgresql:
            for stored in db.session.scalars(text('SELECT created_at FROM users')):
                self.assertRegex(stored, timestamps.RFC3339)

    def test_other_values_than_a_datetime_are_rejected(self):
        for value in (timedelta(1), NOON.date(), TEXT, 1):
            for calculate in (lambda value: User.created_at + value, lambda value: User.created_at > value):
                words = f'compared with a datetime, not with a {type(value).__name__}'
                with self.subTest(value=value), self.assertRaisesRegex(TypeError, words):
                    calculate(value)
        with self.assertRaises(TypeError):
            User.created_at.in_([TEXT])
        db.session.add(User('ann', 'ann@example.com', NOON))
        for criterion, count in (
            (User.created_at.in_([NAIVE, IN_TOKYO]), 1),
            (User.created_at.in_([]), 0),
            (User.created_at.is_(None), 0),
            (User.created_at.between(NAIVE, NOON + timedelta(1)), 1),
        ):
            with self.subTest(criterion=criterion):
                self.assertEqual(db.session.query(User).filter(criterion).count(), count)

    def test_stored_texts_of_other_forms_are_read(self):
        if self.on_postgresql:
            self.skipTest('PostgreSQL has a type for timestamps')
        for number, (stored, expected) in enumerate((
            ('2026-07-01 12:00:00', '2026-07-01T12:00:00.000000Z'),
            ('2026-07-01T12:00:00Z', '2026-07-01T12:00:00.000000Z'),
            ('2026-07-01 12:00:00.123', '2026-07-01T12:00:00.123000Z'),
            ('2026-07-01T12:00:00.123Z', '2026-07-01T12:00:00.123000Z'),
            (TEXT, TEXT),
)):  # fmt: skip
            with self.subTest(stored=stored):
                row = {'username': 'ann', 'email': f'{number}@example.com', 'created_at': literal(stored, db.Text)}
                # As a row that was stored before the table had its constraint.
                db.session.execute(text('PRAGMA ignore_check_constraints=ON'))
                db.session.execute(insert(User).values(**row))
                db.session.execute(text('PRAGMA ignore_check_constraints=OFF'))
                db.session.commit()
                (user,) = (user for user in self.list_users() if user['email'] == row['email'])
                self.assertEqual(user['created_at'], expected)
                self.assertEqual(timestamps.to_text(db.session.get(User, user['id']).created_at), expected)

    def test_defaults_of_a_column_are_expressions(self):
        class Visit(db.Model):
            id = db.Column(db.Integer, primary_key=True)
            begun_at = db.Column(timestamps.UTCDateTime, default=db.func.now(), onupdate=db.func.now())
            stored_at = db.Column(timestamps.UTCDateTime, server_default=db.func.now())

        self.addCleanup(db.metadata.remove, Visit.__table__)
        self.addCleanup(Visit.__table__.drop, db.engine)
        self.addCleanup(db.session.remove)
        Visit.__table__.create(db.engine)
        db.session.add(Visit())
        db.session.commit()
        visit = db.session.scalar(select(Visit).where(Visit.begun_at > timestamps.utcnow() - timedelta(minutes=1)))
        self.assertLess(abs(visit.begun_at - visit.stored_at), timedelta(minutes=1))
        visit.id = 7
        db.session.commit()
        self.assertEqual(visit.begun_at.tzinfo, UTC)
