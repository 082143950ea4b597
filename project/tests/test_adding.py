"""Users that are added at the same time: one INSERT adds all that wait, and each POST gets its own outcome."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

from flask import Flask
from sqlalchemy import create_engine, event, text
from sqlalchemy.pool import NullPool

from project import db
from project.api import changes
from project.database import Database, database
from project.tests.base import BEARER, TOKEN, BaseTestCase, dispose, make_app
from project.tests.support.concurrency import Request, post
from project.tests.support.servers import SLACK_SECONDS, wait_until

LOCK = 'LOCK TABLE users IN SHARE ROW EXCLUSIVE MODE'
TAKEN = 'Sorry. That email already exists.'


class AddingTest(BaseTestCase):
    settings = {'POOL_SIZE': 10}

    def setUp(self):
        super().setUp()
        self.inserts = []
        event.listen(db.engines['writes'], 'before_cursor_execute', self.count_insert)
        self.other = create_engine(db.engine.url, poolclass=NullPool, isolation_level='AUTOCOMMIT').connect()
        self.addCleanup(self.other.close)
        self.batcher = database._batcher

    def count_insert(self, connection, cursor, statement, parameters, context, executemany):
        if 'INSERT' in statement:
            self.inserts.append(statement)

    def wait_until(self, condition: Callable[[], Any]) -> None:
        """Wait until the requests have come as far as ``condition`` says."""
        wait_until(condition, SLACK_SECONDS, 'the requests wait')

    def execute(self, *statements: str) -> None:
        """Run statements in the session of another program."""
        for statement in statements:
            self.other.execute(text(statement))

    @contextlib.contextmanager
    def writes_blocked(self) -> Iterator[None]:
        """Block all writes of users, so that a first POST waits for the database."""
        patch = mock.patch.object(changes, 'LOCK_MILLISECONDS', SLACK_SECONDS * 1000)
        patch.start()
        self.addCleanup(mock.patch.stopall)
        self.block()
        self.inserts.clear()
        first = post(self.app, 'first@example.com')
        # SQLite waits before the INSERT, when the transaction begins.
        self.wait_until(lambda: self.inserts if self.on_postgresql else self.batcher.running)
        yield
        patch.stop()
        self.release()
        self.assertEqual(first.ended().status_code, 201)

    def block(self) -> None:
        """Lock the table, in a transaction of the other session."""
        if self.on_postgresql:
            self.execute('BEGIN', LOCK)
        else:
            self.execute('BEGIN IMMEDIATE')

    def release(self) -> None:
        """Unlock the table."""
        self.execute('ROLLBACK')

    def post_while_blocked(self, *emails: str, app: Flask | None = None) -> list[Request]:
        """Return POSTs that wait in this order, and will run in one batch."""
        app = app or self.app
        batcher = app.extensions['database']._batcher
        posts: list[Request] = []
        for email in emails:
            posts.append(post(app, email))
            self.wait_until(lambda: batcher.waiting == len(posts))
        return posts

    def test_users_that_wait_are_added_by_one_statement(self):
        with self.writes_blocked():
            posts = self.post_while_blocked(*(f'{number}@example.com' for number in range(8)))
            self.inserts.clear()
        for number, one in enumerate(posts):
            response = one.ended()
            self.assertEqual((response.status_code, response.json['data']['email']), (201, f'{number}@example.com'))
            self.assertEqual(self.client.get(response.headers['Location']).json['data'], response.json['data'])
        self.assertEqual(len(self.inserts), 1 if self.on_postgresql else 2)  # on SQLite the first one's comes after

    def test_of_equal_emails_that_wait_together_one_is_added_and_each_other_is_rejected(self):
        with self.writes_blocked():
            posts = self.post_while_blocked('bee@example.com', 'Bee@example.com', 'BEE@EXAMPLE.COM', 'cat@example.com')
        codes = [one.ended().status_code for one in posts]
        self.assertEqual(codes, [201, 400, 400, 201])
        self.assertEqual({one.ended().json['message'] for one in posts[1:3]}, {TAKEN})
        self.assertEqual(self.count_users(), 3)

    def test_taken_email_does_not_fail_the_others_of_its_batch(self):
        self.add_user('dan', 'dan@example.com')
        with self.writes_blocked():
            posts = self.post_while_blocked('a@example.com', 'DAN@example.com', 'b@example.com')
        self.assertEqual([one.ended().status_code for one in posts], [201, 400, 201])

    def test_email_that_another_session_is_adding_delays_only_its_own_user(self) -> None:
        if not self.on_postgresql:
            self.skipTest('SQLite locks the whole database')
        # Rolling back to the savepoint unlocks the table, and keeps the row.
        self.block = lambda: self.insert_poison() or self.execute('SAVEPOINT unlocked', LOCK)
        self.release = lambda: self.execute('ROLLBACK TO unlocked')
        with self.writes_blocked():
            emails = ('a@example.com', 'poison@example.com', *(f'{number}@example.com' for number in range(7)))
            first, poisoned, *others = self.post_while_blocked(*emails)
        self.assertEqual({one.ended().status_code for one in (first, *others)}, {201})
        self.assertIsNone(poisoned.response)
        self.execute('COMMIT')
        self.assertEqual(poisoned.ended().json['message'], TAKEN)

    def insert_poison(self) -> None:
        """Add a user in the other session, without a commit."""
        self.execute(
            'BEGIN', "INSERT INTO users (username, email, created_at) VALUES ('x', 'poison@example.com', now())"
        )

    def test_email_that_becomes_free_while_its_user_waits_is_added(self) -> None:
        if not self.on_postgresql:
            self.skipTest('SQLite locks the whole database')
        self.insert_poison()
        poisoned = post(self.app, 'poison@example.com')
        self.wait_until(lambda: not self.batcher.running and self.inserts)
        self.execute('ROLLBACK')
        self.assertEqual(poisoned.ended().status_code, 201)

    def test_error_of_one_row_fails_only_its_own_user(self) -> None:
        self.reject_rows("NEW.email = 'bad@example.com'")
        self.enterContext(mock.patch.object(self.app.logger, 'disabled', True))
        with self.writes_blocked():
            posts = self.post_while_blocked('a@example.com', 'bad@example.com', 'b@example.com')
        self.assertEqual([one.ended().status_code for one in posts], [201, 500, 201])
        self.assertEqual(self.count_users(), 3)

    def reject_rows(self, condition: str) -> None:
        """Let a trigger raise an error for the new rows that satisfy a condition."""
        if not self.on_postgresql:
            self.execute(
                f'CREATE TRIGGER reject BEFORE INSERT ON users WHEN {condition} '
                "BEGIN SELECT RAISE(ABORT, 'rejected'); END"
            )
            self.addCleanup(self.execute, 'DROP TRIGGER reject')
            return
        self.execute(
            "CREATE OR REPLACE FUNCTION reject() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'rejected'; END $$",
            f'CREATE TRIGGER reject BEFORE INSERT ON users FOR EACH ROW WHEN ({condition}) EXECUTE FUNCTION reject()',
        )
        self.addCleanup(self.execute, 'DROP FUNCTION reject CASCADE')

    def test_two_workers_that_add_the_same_emails_in_opposite_order_do_not_deadlock(self) -> None:
        if not self.on_postgresql:
            self.skipTest('SQLite locks the whole database')
        worker = make_app(**self.settings)
        self.addCleanup(dispose, worker)
        # Each row takes long enough for the other worker to insert one as well.
        self.execute(
            'CREATE OR REPLACE FUNCTION pause() RETURNS trigger LANGUAGE plpgsql AS '
            '$$ BEGIN PERFORM pg_sleep(0.02); RETURN NEW; END $$',
            'CREATE TRIGGER pause BEFORE INSERT ON users FOR EACH ROW EXECUTE FUNCTION pause()',
        )
        self.addCleanup(self.execute, 'DROP FUNCTION pause CASCADE')
        codes: list[str | None] = []
        engines = [db.engines['writes']]
        with worker.app_context():
            engines.append(db.engines['writes'])
        for engine in engines:
            event.listen(engine, 'handle_error', lambda context: codes.append(context.original_exception.pgcode))
        emails = [f'{number}@example.com' for number in range(4)]
        real_write, patient = Database.write, SLACK_SECONDS * 1000

        def write(one: Database, statement: Any, parameters: Any, lock_milliseconds: int | None = None) -> Any:
            return real_write(one, statement, parameters, lock_milliseconds and patient)

        self.enterContext(mock.patch.object(Database, 'write', write))
        with self.writes_blocked():
            second = post(worker, 'second@example.com')
            self.wait_until(lambda: worker.extensions['database']._batcher.running)
            posts = self.post_while_blocked(*emails)
            posts += self.post_while_blocked(*reversed(emails), app=worker)
        self.assertEqual(second.ended().status_code, 201)
        self.assertEqual(sorted(one.ended().status_code for one in posts), [201] * 4 + [400] * 4)
        self.assertEqual(set(codes), {'23505'})  # no deadlock, 40P01

    def test_lone_user_is_added_by_one_statement(self) -> None:
        self.add_user()
        self.assertEqual(len(self.inserts), 1)


class WritesTest(BaseTestCase):
    settings = {'API_TOKENS': TOKEN, 'POOL_SIZE': 1}

    def test_reads_go_on_while_all_connections_for_writes_are_in_use(self) -> None:
        path = f'/users/{self.add_user()["id"]}'
        with create_engine(db.engine.url, poolclass=NullPool, isolation_level='AUTOCOMMIT').connect() as other:
            other.execute(text('BEGIN' if self.on_postgresql else 'BEGIN IMMEDIATE'))
            if self.on_postgresql:
                other.execute(text(LOCK))
            change = Request(self.app, 'PATCH', path, json={'active': True}, headers=BEARER)
            wait_until(
                lambda: database.connections_in_use() == 1 and not database._batcher.running,
                SLACK_SECONDS,
                'the change waits for the lock',
            )
            self.assertEqual(self.client.get(path).status_code, 200)
            self.assertEqual(len(self.list_users()), 1)
            self.assertIsNone(change.response)
            other.execute(text('ROLLBACK'))
        self.assertEqual(change.ended().status_code, 200)
