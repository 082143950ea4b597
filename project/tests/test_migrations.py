"""The migrations: they make and undo the schema of the models, and move the users from the table of 2017."""

import contextlib
import io
import os
import time
import unittest
from datetime import UTC, datetime
from unittest import mock

import flask_migrate
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import (
    Boolean,
    Column,
    DateTime,
    Integer,
    MetaData,
    String,
    Table,
    delete,
    insert,
    inspect,
    select,
    text,
)

from project import db
from project.api.models import User
from project.tests.base import ROOT, dispose, make_app, scratch_database

# The table as SQLAlchemy made it in 2017, except for its name in the database.
OLD = Table(
    'user',
    MetaData(),
    Column('id', Integer, primary_key=True, autoincrement=True),
    Column('username', String(128), nullable=False),
    Column('email', String(128), nullable=False),
    Column('active', Boolean, default=False, nullable=False),
    Column('created_at', DateTime, nullable=False),
)
# The migrations of the project, the oldest first, and the newest revision.
MIGRATIONS = list(ScriptDirectory(str(ROOT / 'project' / 'migrations')).walk_revisions())[::-1]
HEAD = MIGRATIONS[-1].revision
NOON = datetime(2017, 7, 1, 12)  # noqa: DTZ001, local time is what that service kept


class MigrationTestCase(unittest.TestCase):
    def setUp(self):
        self.app = make_app(SQLALCHEMY_DATABASE_URI=self.enterContext(scratch_database()))
        self.addCleanup(dispose, self.app)
        self.enterContext(self.app.app_context())

    def run_migrations(self, function, **options):
        """Run a function of Flask-Migrate, which exits with 1 when it fails, and hide its output."""
        if function is flask_migrate.downgrade:
            options = {'x_arg': ['force=yes']} | options
        with mock.patch('alembic.config.Config.print_stdout'):
            function(**options)

    def upgrade(self, **options):
        self.run_migrations(flask_migrate.upgrade, **options)

    def tables(self):
        return set(inspect(db.engine).get_table_names()) - {'alembic_version', 'sqlite_sequence'}

    def revision(self):
        with db.engine.connect() as connection:
            return MigrationContext.configure(connection).get_current_revision()

    def schema(self):
        """Return the table of users as the database describes it."""
        inspector = inspect(db.engine)
        # SQLAlchemy reflects no index on an expression from SQLite.
        if db.engine.dialect.name == 'postgresql':
            statement = "SELECT indexdef FROM pg_indexes WHERE tablename = 'users' AND schemaname = current_schema"
        else:
            statement = "SELECT sql FROM sqlite_master WHERE tbl_name = 'users' AND sql IS NOT NULL AND type = 'index'"
        with db.engine.connect() as connection:
            indexes = sorted(connection.scalars(text(statement)))
        columns = [
            (column['name'], str(column['type']), column['nullable'], column['default'])
            for column in inspector.get_columns('users')
        ]
        return columns, inspector.get_pk_constraint('users')['constrained_columns'], indexes

    def store_old(self, *rows):
        """Make the table of 2017 with these users. Columns that they lack get values that do not matter."""
        with db.engine.begin() as connection:
            OLD.create(connection)
            users = [{'username': 'ann', 'active': True, 'created_at': NOON} | row for row in rows]
            if users:
                connection.execute(insert(OLD), users)

    def users(self):
        users = db.session.scalars(select(User).order_by(User.id)).all()
        db.session.expunge_all()
        db.session.rollback()
        return users


class MigrationsTest(MigrationTestCase):
    def test_empty_database_gets_its_table(self):
        self.upgrade()
        self.assertEqual(self.tables(), {'users'})
        self.assertEqual(self.revision(), '0004')
        db.session.add(User('ann', 'ann@example.com'))
        db.session.commit()
        self.assertEqual(self.app.test_client().get('/users').json['data']['users'][0]['username'], 'ann')

    def test_upgrade_is_taken_back_and_made_again(self):
        for _ in range(2):
            self.upgrade()
            self.assertEqual(self.tables(), {'users'})
            self.run_migrations(flask_migrate.downgrade, revision='base')
            self.assertEqual(self.tables(), set())
            self.assertIsNone(self.revision())

    def test_upgrade_of_an_upgraded_database_changes_nothing(self):
        self.upgrade()
        db.session.add(User('ann', 'ann@example.com'))
        db.session.commit()
        self.upgrade()
        self.assertEqual(len(self.users()), 1)

    def test_downgrade_is_rejected_while_there_are_users(self):
        self.upgrade()
        for revision in ('base', '-1', '0001'):
            self.run_migrations(flask_migrate.downgrade, revision=revision, x_arg=[])
            self.upgrade()
        db.session.add(User('ann', 'ann@example.com'))
        db.session.commit()
        before = self.schema()
        for revision in ('base', '-1', '0001'):
            with (
                self.subTest(revision=revision),
                self.assertLogs('flask_migrate') as logs,
                self.assertRaises(SystemExit) as end,
            ):
                self.run_migrations(flask_migrate.downgrade, revision=revision, x_arg=[])
            self.assertEqual(end.exception.code, 1)
            self.assertIn('manage.py db downgrade --force', logs.output[0])
            self.assertEqual((self.schema(), self.revision(), len(self.users())), (before, '0004', 1))
        self.run_migrations(flask_migrate.stamp, revision='0001')
        self.assertEqual(self.revision(), '0001')

    def test_upgrade_of_dropped_tables_is_rejected(self):
        self.upgrade()
        db.drop_all()
        with self.assertLogs('flask_migrate') as logs, self.assertRaises(SystemExit) as end:
            self.upgrade()
        self.assertEqual(end.exception.code, 1)
        self.assertIn('python manage.py recreate_db', logs.output[0])
        for function in (flask_migrate.current, flask_migrate.heads):
            self.run_migrations(function)
        self.run_migrations(flask_migrate.stamp, revision='base')
        self.upgrade()
        self.assertEqual(self.tables(), {'users'})

    def test_models_and_migrations_make_the_same(self):
        self.upgrade()
        self.run_migrations(flask_migrate.check)
        migrated = self.schema()
        self.run_migrations(flask_migrate.downgrade, revision='base')
        db.create_all()
        self.assertEqual(self.schema(), migrated)

    def test_prefixes_are_taken_back_and_made_again(self):
        self.upgrade(revision='0001')
        before = self.schema()
        self.upgrade()
        after = self.schema()
        self.assertNotEqual(after, before)
        self.run_migrations(flask_migrate.downgrade, revision='0001')
        self.assertEqual(self.schema(), before)
        self.upgrade()
        self.assertEqual(self.schema(), after)

    def test_emails_that_only_a_locale_distinguished_are_named_before_anything_is_changed(self):
        self.upgrade(revision='0001')
        if db.engine.dialect.name != 'postgresql':
            self.skipTest('SQLite has no locales')
        with db.engine.begin() as connection:
            connection.execute(text('DROP INDEX users_email_key'))
            connection.execute(text('CREATE INDEX users_email_key ON users (lower(email))'))
            for email in ('i@example.com', 'I@example.com'):
                connection.execute(
                    text("INSERT INTO users (username, email, created_at) VALUES ('x', :email, now())"),
                    {'email': email},
                )
        with self.assertLogs('flask_migrate') as logs, self.assertRaises(SystemExit):
            self.upgrade()
        self.assertIn('i@example.com (2 users)', logs.output[0])
        self.assertEqual(self.revision(), '0001')

    def test_drift_is_noticed(self):
        self.upgrade()
        extra = Table('extra', db.metadata, Column('id', Integer, primary_key=True))
        self.addCleanup(db.metadata.remove, extra)
        with self.assertLogs('flask_migrate') as logs, self.assertRaises(SystemExit) as end:
            self.run_migrations(flask_migrate.check)
        self.assertEqual(end.exception.code, 1)
        self.assertIn('extra', ''.join(logs.output))

    def test_statements_can_be_printed_instead(self):
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            if db.engine.dialect.name == 'postgresql':
                flask_migrate.upgrade(sql=True)
                self.assertIn('ADD CONSTRAINT users_created_at_check', out.getvalue())
            else:
                with self.assertLogs('flask_migrate') as logs, self.assertRaises(SystemExit):
                    flask_migrate.upgrade(sql=True)
                self.assertIn('copies the table, so its statements cannot be printed', logs.output[0])
        self.assertIn('CREATE TABLE users', out.getvalue())
        self.assertIn('CREATE UNIQUE INDEX users_email_key ON users (lower(email', out.getvalue())
        self.assertIn('CREATE INDEX users_username_prefix_idx ON users', out.getvalue())
        self.assertEqual(self.tables(), set())


class TakeOverTest(MigrationTestCase):
    """A database that has the table of 2017."""

    def test_every_user_is_carried_over(self):
        rows = [
            {'id': 7, 'username': 'michael', 'email': 'Michael@RealPython.com', 'active': True},
            {'id': 3, 'username': ' 123 ', 'email': ' blanks@example.com ', 'active': False},
            {'id': 12, 'username': '', 'email': 'no address', 'active': True},
            {'id': 13, 'username': 'x' * 128, 'email': 'x' * 128, 'active': True},
        ]
        self.store_old(*rows)
        self.upgrade(x_arg=['zone=UTC'])
        self.assertEqual(self.tables(), {'users'})
        self.assertEqual(
            [(user.id, user.username, user.email, user.active) for user in self.users()],
            [
                (3, ' 123 ', 'blanks@example.com', False),
                (7, 'michael', 'Michael@RealPython.com', True),
                (12, '', 'no address', True),
                (13, 'x' * 128, 'x' * 128, True),
            ],
        )
        self.assertEqual({user.created_at for user in self.users()}, {NOON.replace(tzinfo=UTC)})

    def test_users_are_as_many_as_before(self):
        self.store_old(*({'email': f'{number}@example.com'} for number in range(2345)))
        self.upgrade()
        self.assertEqual(len(self.users()), 2345)

    def test_new_users_come_after_the_old(self):
        self.store_old({'id': 41, 'email': 'ann@example.com'})
        self.upgrade()
        response = self.app.test_client().post('/users', json={'username': 'bee', 'email': 'bee@example.com'})
        self.assertEqual((response.status_code, response.json['data']['id']), (201, 42))

    def test_next_id_continues_the_sequence_of_the_old_table(self):
        """So it is even if its last user, or all users, had been deleted; in SQLite this needs AUTOINCREMENT."""
        old = OLD
        if db.engine.dialect.name == 'sqlite':
            old = OLD.to_metadata(MetaData())
            old.dialect_options['sqlite']['autoincrement'] = True
        for kept in (999, 0):
            with self.subTest(kept=kept):
                with db.engine.begin() as connection:
                    old.create(connection)
                    users = [
                        {'username': 'ann', 'email': f'{number}@example.com', 'active': True, 'created_at': NOON}
                        for number in range(1000)
                    ]
                    connection.execute(insert(old), users)
                    connection.execute(delete(old).where(old.c.id > kept))
                self.upgrade()
                response = self.app.test_client().post('/users', json={'username': 'bee', 'email': 'bee@example.com'})
                self.assertEqual((response.status_code, response.json['data']['id']), (201, 1001))
                self.run_migrations(flask_migrate.downgrade, revision='base')

    def test_next_id_that_was_set_by_hand_is_kept(self):
        if db.engine.dialect.name != 'postgresql':
            self.skipTest('SQLite has no sequences')
        for statement, expected in (
            ("SELECT setval('user_id_seq', 5000, false)", 5000),
            ("SELECT setval('user_id_seq', 5000)", 5001),
            ("SELECT setval('user_id_seq', 1, false)", 42),
            ('ALTER SEQUENCE user_id_seq OWNED BY NONE', 42),
        ):
            with self.subTest(statement=statement):
                self.store_old({'id': 41, 'email': 'ann@example.com'})
                with db.engine.begin() as connection:
                    connection.execute(text(statement))
                self.upgrade()
                response = self.app.test_client().post('/users', json={'username': 'bee', 'email': 'bee@example.com'})
                self.assertEqual((response.status_code, response.json['data']['id']), (201, expected))
                self.run_migrations(flask_migrate.downgrade, revision='base')

    def test_table_without_users_is_taken_over(self):
        self.store_old()
        self.upgrade()
        self.assertEqual((self.tables(), self.users()), ({'users'}, []))
        response = self.app.test_client().post('/users', json={'username': 'bee', 'email': 'bee@example.com'})
        self.assertEqual(response.json['data']['id'], 1)

    def test_local_times_are_read_in_the_zone_that_is_named(self):
        moments = {
            'Europe/Berlin': [
                ('2017-01-01T00:30', '2016-12-31T23:30:00.000000Z'),
                ('2017-07-01T12:00:00.123456', '2017-07-01T10:00:00.123456Z'),
                # This local time occurs twice in that night; the first one is meant.
                ('2017-10-29T02:30', '2017-10-29T00:30:00.000000Z'),
            ],
            'America/New_York': [('2017-07-01T12:00', '2017-07-01T16:00:00.000000Z')],
            'Asia/Kathmandu': [('2017-07-01T12:00', '2017-07-01T06:15:00.000000Z')],
        }
        for zone, pairs in moments.items():
            with self.subTest(zone=zone):
                self.store_old(
                    *(
                        {'email': f'{number}@example.com', 'created_at': datetime.fromisoformat(old)}
                        for number, (old, _) in enumerate(pairs)
                    )
                )
                self.upgrade(x_arg=[f'zone={zone}'])
                users = self.app.test_client().get('/users').json['data']['users']
                self.assertEqual({user['created_at'] for user in users}, {new for _, new in pairs})
                self.run_migrations(flask_migrate.downgrade, revision='base')

    @unittest.skipUnless(hasattr(time, 'tzset'), 'Windows has no tzset()')
    def test_local_times_are_read_in_the_zone_of_the_machine_unless_one_is_named(self):
        self.addCleanup(time.tzset)
        for zone, expected in (('Asia/Tokyo', 3), ('America/New_York', 16), ('UTC', 12)):
            with self.subTest(zone=zone), mock.patch.dict(os.environ, TZ=zone):
                time.tzset()
                self.store_old({'email': 'ann@example.com'})
                self.upgrade()
                self.assertEqual(self.users()[0].created_at, NOON.replace(hour=expected, tzinfo=UTC))
                self.run_migrations(flask_migrate.downgrade, revision='base')

    def rejected(self, *words, **options):
        """Check that an upgrade is rejected with these words, and changes nothing."""
        with db.engine.connect() as connection:
            before = connection.execute(select(OLD).order_by(OLD.c.id)).all()
        with self.assertLogs('flask_migrate') as logs, self.assertRaises(SystemExit) as end:
            self.upgrade(**options)
        self.assertEqual(end.exception.code, 1)
        for word in words:
            self.assertIn(word, logs.output[0])
        self.assertNotIn('Traceback', logs.output[0])
        self.assertEqual(self.tables(), {'user'})
        self.assertIsNone(self.revision())
        with db.engine.connect() as connection:
            self.assertEqual(connection.execute(select(OLD).order_by(OLD.c.id)).all(), before)

    def test_unknown_zone_is_rejected_before_anything_is_changed(self):
        self.store_old({'email': 'ann@example.com'})
        for zone in ('Mars/Olympus', '../etc/passwd', 'CET ', 'x\0'):
            with self.subTest(zone=zone):
                self.rejected(repr(zone), x_arg=[f'zone={zone}'])

    def test_emails_that_clash_are_named_before_anything_is_changed(self):
        self.store_old(
            *({'email': email} for email in ('ann@example.com', 'Ann@Example.com', ' ann@example.com ')),
            *({'email': email} for email in ('bee@example.com', 'BEE@example.com', 'cat@example.com')),
        )
        self.rejected('ann@example.com (3 users)', 'bee@example.com (2 users)')

    def test_blank_emails_that_clash_are_reported_as_blank(self):
        self.store_old(*({'email': email} for email in ('', ' \t', 'ann@example.com')))
        self.rejected('must be unique: blank (2 users)')

    def test_message_about_many_clashes_is_short(self):
        self.store_old(*({'email': f'{number:02}@example.com'} for number in [*range(14), *range(14)]))
        self.rejected('00@example.com (2 users)', '09@example.com (2 users) and 4 more')

    def test_emails_that_differ_by_any_blank_clash(self):
        for blank in ('\n', '\t', '\xa0', '\u3000'):
            with self.subTest(blank=blank):
                OLD.drop(db.engine, checkfirst=True)
                self.store_old({'email': 'ann@example.com'}, {'email': f'ann@example.com{blank}'})
                self.rejected('ann@example.com (2 users)')

    def test_emails_with_other_letters_clash_whatever_their_case(self):
        self.store_old({'email': 'müller@example.com'}, {'email': 'MÜLLER@example.com'})
        self.rejected('müller@example.com (2 users)')

    def test_email_with_other_letters_is_unique_afterwards(self):
        self.store_old({'email': 'MÜLLER@example.com'})
        self.upgrade()
        response = self.app.test_client().post('/users', json={'username': 'x', 'email': 'müller@example.com'})
        self.assertEqual(response.status_code, 400)

    def test_failure_in_the_middle_changes_nothing(self):
        self.store_old({'email': 'ann@example.com'})
        with mock.patch('alembic.op.create_index', side_effect=RuntimeError('in the middle')):
            self.rejected('in the middle')

    def test_missing_database_is_reported_in_one_line(self):
        dispose(self.app)
        app = make_app(SQLALCHEMY_DATABASE_URI='postgres://u:p@127.0.0.1:1/none')
        self.addCleanup(dispose, app)
        with app.app_context(), self.assertLogs('flask_migrate') as logs, self.assertRaises(SystemExit) as end:
            self.upgrade()
        self.assertEqual(end.exception.code, 1)
        self.assertEqual(len(logs.output[0].splitlines()), 1)
        self.assertIn('the database returned an error', logs.output[0])
