"""Export and import of all users: no user is lost, no file is incomplete, and rejected lines are reported."""

import contextlib
import gzip
import io
import json
import os
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from unittest import mock

from sqlalchemy import insert
from sqlalchemy.exc import OperationalError

from project import db, transfer
from project.api.models import User
from project.api.schemas import MAX_LOADED_ID
from project.tests.base import BaseTestCase, dispose, make_app, scratch_database
from project.transfer import dumping, loading

ANN = {
    'id': 7,
    'username': 'ann',
    'email': 'ann@example.com',
    'active': True,
    'created_at': '2026-11-22T16:13:51.482913Z',
}
WIDE = '\N{GRINNING FACE}'
# Users that no client may add today, but that an older service may have stored.
OLD_USERS = [
    ANN | {'username': '', 'email': '', 'created_at': '0001-01-01T00:00:00.000000Z'},
    ANN
    | {'id': MAX_LOADED_ID, 'username': ' \t\n', 'email': 'no address', 'created_at': '9999-12-31T23:59:59.999999Z'},
    ANN | {'id': 2**53 + 1, 'username': WIDE * 128, 'email': WIDE * 128, 'active': False},
    ANN | {'id': 1, 'username': 'A\u0308nn \u2028 \x1b[31m "\\', 'email': 'Ann@Example.com '},
]
OUT_OF_RANGE = f'id must be a whole number from 1 to {MAX_LOADED_ID}'
NO_USERS = [
    (b'x', 'it must be a JSON object'),
    (b'[]', 'it must be a JSON object'),
    (b'null', 'it must be a JSON object'),
    (b'\xff\xfe{}', 'it must be a JSON object'),
    (b'[' * 100_000, 'it has 65,536 bytes or more'),
    (json.dumps(ANN).encode()[:-1], 'it must be a JSON object'),
    *(
        (ANN | {'id': number}, OUT_OF_RANGE)
        for number in (0, -1, -(2**63), MAX_LOADED_ID + 1, 2**63 - 1, 2**63, 10**30)
    ),
    (ANN | {'id': '7'}, 'id must be a whole number'),
    (ANN | {'id': 7.0}, 'id must be a whole number'),
    (ANN | {'id': True}, 'id must be a whole number'),
    (ANN | {'id': None}, 'id must not be null'),
    (ANN | {'username': 5}, 'username must be a string'),
    (ANN | {'username': 'a' * 129}, 'username must have at most 128 characters'),
    (ANN | {'username': 'a\0'}, 'username must not contain control characters'),
    (ANN | {'email': '\ud800'}, 'it must be a JSON object'),
    (ANN | {'email': WIDE * 129}, 'email must have at most 128 characters'),
    (ANN | {'active': 1}, 'active must be true or false'),
    (ANN | {'created_at': 1795364031}, 'created_at must be a timestamp such as 2026-11-22T16:13:51.482913Z'),
    (
        ANN | {'created_at': '2026-11-22T16:13:51Z'},
        'created_at must be a timestamp such as 2026-11-22T16:13:51.482913Z',
    ),
    (
        ANN | {'created_at': '2026-02-30T16:13:51.482913Z'},
        'created_at must be a timestamp such as 2026-11-22T16:13:51.482913Z',
    ),
    (
        ANN | {'created_at': '2026-11-22T16:13:51.482913+01:00'},
        'created_at must be a timestamp such as 2026-11-22T16:13:51.482913Z',
    ),
    (ANN | {'\x1b[31m': 1}, "'\\x1b[31m' is not a field of a user"),
    (
        {'id': 7, 'username': 5},
        'username must be a string, email is required, active is required, created_at is required',
    ),
]


def numbered(number):
    """Return a user for a line, a different one for each number."""
    return ANN | {'id': number, 'username': f'user{number}', 'email': f'user{number}@example.com'}


def lines_of(users):
    """Return the lines of a dump with ``users``."""
    return b''.join(json.dumps(user).encode() + b'\n' for user in users)


class Terminal(io.StringIO):
    def isatty(self):
        return True


class TransferTestCase(BaseTestCase):
    def setUp(self):
        super().setUp()
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        self.path = self.folder / 'users.jsonl'
        self.stderr = self.enterContext(contextlib.redirect_stderr(io.StringIO()))

    def dump(self, name='dumped.jsonl', **options):
        """Dump the database of the current app, and return the bytes of the file."""
        transfer.dump(str(self.folder / name), **options)
        return (self.folder / name).read_bytes()

    def load(self, users, **options):
        """Load a file of ``users``, or of these bytes; return the numbers of users added, existing and rejected."""
        self.path.write_bytes(users if isinstance(users, bytes) else lines_of(users))
        done = transfer.load(str(self.path), **options)
        return done.added, done.existing, done.rejected

    @contextlib.contextmanager
    def other_database(self, url, tables=True):
        """Make an app on the database at ``url`` the current one in the block, and give it."""
        app = make_app(SQLALCHEMY_DATABASE_URI=url)
        with app.app_context():
            if tables:
                db.create_all()
            try:
                yield app
            finally:
                dispose(app)

    @contextlib.contextmanager
    def scratch(self, **options):
        """Do the same with an empty database of the kind that is tested."""
        with scratch_database() as url, self.other_database(url, **options) as app:
            yield app

    @contextlib.contextmanager
    def assert_reports(self, *parts):
        """Check that the block raises a TransferError of one line that contains all ``parts``."""
        with self.assertRaises(transfer.TransferError) as caught:
            yield
        for part in parts:
            self.assertIn(part, str(caught.exception))
        self.assertNotIn('\n', str(caught.exception))


class RoundTripTest(TransferTestCase):
    def test_users_come_back_as_they_were_from_a_database_of_the_other_kind(self):
        start = datetime(2026, 3, 29, 1, 59, 59, 999_999, UTC)
        users = [
            {
                'username': f'user{number}',
                'email': f'User{number}@Example.com',
                'active': number % 3 == 0,
                'created_at': start - timedelta(microseconds=number * 7919),
                'id': number * 5 + 1000,
            }
            for number in range(301)
        ]
        with mock.patch.object(loading, 'BATCH', 100), mock.patch.object(dumping, 'BATCH', 100):
            with self.scratch() as app:
                self.load(OLD_USERS)
                with db.engine.begin() as connection:
                    connection.execute(insert(User), users)
                before, listed = self.dump('before.jsonl'), app.test_client().get('/users').data
            with self.other_database(f'sqlite:///{self.folder}/between.db'):
                self.assertEqual(transfer.load(str(self.folder / 'before.jsonl')).added, len(users) + len(OLD_USERS))
                between = self.dump('between.jsonl.gz')
                self.assertEqual(gzip.decompress(between), before)
                self.assertEqual(between[3:8], bytes(5))  # neither a name nor a time: RFC 1952 section 2.3
            with self.scratch() as app:
                transfer.load(str(self.folder / 'between.jsonl.gz'))
                self.assertEqual(self.dump('after.jsonl.gz'), (self.folder / 'between.jsonl.gz').read_bytes())
                self.assertEqual(app.test_client().get('/users').data, listed)

    def test_lines_are_users_as_in_responses_ordered_by_id(self):
        self.add_user()
        self.add_user('bee', 'bee@example.com')
        users = [json.loads(line) for line in self.dump().splitlines()]
        self.assertEqual(users, self.list_users()[::-1])

    def test_no_users_make_an_empty_file(self):
        self.assertEqual(self.dump(), b'')
        self.assertEqual(self.load(b''), (0, 0, 0))

    def test_dump_and_load_through_pipes(self):
        self.load([ANN])
        path = self.folder / 'stdout'
        with open(path, 'w+') as stdout, mock.patch('sys.stdout', stdout):
            self.assertEqual(transfer.dump('-'), 1)
        self.assertEqual(path.read_bytes(), self.dump())
        reader, writer = os.pipe()
        with open(writer, 'wb') as file:
            file.write(lines_of([ANN, numbered(8)]))
        with open(reader) as stdin, mock.patch('sys.stdin', stdin):
            self.assertEqual(transfer.load('-').added, 1)

    def test_new_users_get_ids_of_their_own_after_a_load(self):
        last = self.add_user()['id']
        self.load([numbered(last + 41), numbered(last + 40)])
        self.assertEqual(self.add_user('new', 'new@example.com')['id'], last + 42)
        self.load([numbered(last + 17)])
        self.assertEqual(self.add_user('newer', 'newer@example.com')['id'], last + 43)

    def test_highest_id_that_is_loaded_leaves_room_for_new_users(self):
        with self.scratch() as app:
            self.load([numbered(MAX_LOADED_ID)])
            client = app.test_client()
            added = client.post('/users', json={'username': 'new', 'email': 'new@example.com'})
            self.assertEqual(added.json['data']['id'], MAX_LOADED_ID + 1)
            self.assertEqual(client.get(f'/users/{MAX_LOADED_ID + 1}').status_code, 200)


class DumpTest(TransferTestCase):
    def test_dump_is_one_snapshot_and_does_not_block_writers(self):
        with mock.patch.object(loading, 'BATCH', 2), mock.patch.object(dumping, 'BATCH', 2):
            self.load([numbered(number) for number in range(1, 6)])
            with dumping._users() as (_, _, batches):
                dumped = list(next(batches))
                self.add_user('new', 'new@example.com')
                self.assertEqual(self.client.get('/users').json['data']['users'][0]['username'], 'new')
                dumped += [row for rows in batches for row in rows]
        self.assertEqual([row.id for row in dumped], [1, 2, 3, 4, 5])

    def test_existing_file_is_overwritten_only_with_force(self):
        path = self.folder / 'dumped.jsonl'
        path.write_text('precious')
        with self.assert_reports(str(path), '--force'):
            self.dump()
        self.assertEqual(path.read_text(), 'precious')
        self.assertEqual(self.dump(force=True), b'')

    def test_symbolic_link_is_kept(self):
        (self.folder / 'dumped.jsonl').symlink_to('real.jsonl')
        self.load([ANN])
        self.assertEqual(json.loads(self.dump()), ANN)
        self.assertTrue((self.folder / 'dumped.jsonl').is_symlink())
        self.assertEqual(json.loads((self.folder / 'real.jsonl').read_bytes()), ANN)

    def test_only_the_owner_may_read_a_dump(self):
        self.dump()
        self.assertEqual((self.folder / 'dumped.jsonl').stat().st_mode & 0o777, 0o600)

    def test_failed_dump_leaves_the_old_file_and_no_other(self):
        self.load([ANN])
        self.path.unlink()
        old = self.dump()
        for error, told in (
            (OSError(28, 'No space left on device'), 'No space left on device.'),
            (OperationalError('', {}, Exception('server closed\nthe connection')), 'Database error: server closed.'),
        ):
            with (
                self.subTest(told=told),
                mock.patch.object(dumping, 'to_dicts', side_effect=error),
                self.assert_reports(told),
            ):
                self.dump(force=True)
            self.assertEqual(os.listdir(self.folder), ['dumped.jsonl'])
            self.assertEqual((self.folder / 'dumped.jsonl').read_bytes(), old)

    def test_dump_gets_its_name_when_it_is_complete_and_synced(self):
        self.load([ANN])
        steps = []
        fsync, replace = os.fsync, os.replace
        with (
            mock.patch('os.fsync', lambda fd: steps.append(os.fstat(fd).st_size) or fsync(fd)),
            mock.patch('os.replace', lambda *names: steps.append('named') or replace(*names)),
        ):
            size = len(self.dump())
        self.assertEqual(steps[:2], [size, 'named'])
        self.assertEqual(len(steps), 3)  # the third one syncs the folder

    def test_names_that_cannot_be_written(self):
        for name, told in (
            (self.folder, f'{self.folder}: is not a file; use - to write to stdout.'),
            (self.folder / 'none' / 'users.jsonl', 'No such file or directory.'),
            (os.devnull, 'is not a file'),
        ):
            with self.subTest(name=name), self.assert_reports(told):
                transfer.dump(str(name), force=True)


class LoadTest(TransferTestCase):
    def test_second_run_adds_the_missing_users(self):
        self.assertEqual(self.load([numbered(1), numbered(2)]), (2, 0, 0))
        self.assertEqual(self.load([numbered(1), numbered(2), numbered(3)]), (1, 2, 0))
        self.assertEqual(self.load([numbered(1), numbered(2), numbered(3)]), (0, 3, 0))
        self.assertEqual(self.count_users(), 3)

    def test_lines_that_are_no_users_are_reported_and_the_others_added(self):
        lines = [line if isinstance(line, bytes) else json.dumps(line).encode() for line, _ in NO_USERS]
        good = lines_of([numbered(8), numbered(9)])
        self.assertEqual(self.load(b'\n'.join((*lines, b'', good))), (2, 0, len(NO_USERS)))
        self.assertEqual(
            self.stderr.getvalue().splitlines(),
            [f'Line {number}: {reason}.' for number, (_, reason) in enumerate(NO_USERS, 1)],
        )

    def test_conflicting_lines_are_reported_and_the_others_added(self):
        self.load([numbered(1), numbered(2)])
        bee = ANN | {'username': 'bee'}
        lines = [
            (numbered(1), None),
            (numbered(2) | {'username': 'x', 'active': False}, 'with another username and active'),
            (numbered(3) | {'email': 'USER1@example.com'}, 'another user has its email'),
            (ANN, None),
            (ANN, None),
            (bee, 'the user with the id 7 already exists, with another username'),
            (bee | {'id': 8}, 'another user has its email'),
            (numbered(9) | {'email': 'user2@example.com'}, 'the user with the id 9 already exists'),
            (numbered(9), None),
        ]
        self.assertEqual(self.load([user for user, _ in lines]), (2, 2, 5))
        told = iter(self.stderr.getvalue().splitlines())
        for number, (_, reason) in enumerate(lines, 1):
            if reason:
                line = next(told)
                self.assertTrue(line.startswith(f'Line {number}: '), line)
                self.assertIn(reason, line)
        self.assertEqual([user['id'] for user in map(json.loads, self.dump().splitlines())], [1, 2, 7, 9])

    def test_load_with_stop_ends_at_the_first_rejected_line(self):
        users = [numbered(1), numbered(2), numbered(3), numbered(4) | {'email': 'user1@example.com'}, {}]
        with (
            mock.patch.object(loading, 'BATCH', 2),
            self.assert_reports('Line 4: another', 'The first 2 lines are done'),
        ):
            self.load(users, stop=True)
        self.assertEqual(self.count_users(), 2)
        self.assertEqual(self.load(users[:3], stop=True), (1, 2, 0))

    def test_readable_lines_of_a_damaged_file_are_added(self):
        path = self.folder / 'users.jsonl.gz'
        whole = gzip.compress(lines_of(map(numbered, range(1, 3001))))
        for damaged in (whole[: len(whole) // 2], whole[:-8] + bytes(8), whole + b'x' * 9):
            with self.subTest(end=damaged[-9:]):
                path.write_bytes(damaged)
                with self.assert_reports('The file is damaged: ', ' lines are done'):
                    transfer.load(str(path))
                self.assertGreater(self.count_users(), 1000)
        self.assertEqual(self.count_users(), 3000)

    def test_files_that_cannot_be_read(self):
        plain, packed = self.folder / 'plain.gz', self.folder / 'packed'
        plain.write_bytes(lines_of([ANN]))
        packed.write_bytes(gzip.compress(lines_of([ANN])))
        for name, told in (
            (self.folder / 'none', f'{self.folder / "none"}: No such file or directory.'),
            (self.folder, f'{self.folder}: Is a directory.'),
            (plain, 'is not a gzip file'),
            (packed, 'is compressed'),
        ):
            with self.subTest(name=name), self.assert_reports(told):
                transfer.load(str(name))

    def test_database_without_the_table_is_reported(self):
        with self.scratch(tables=False):
            for command in (transfer.dump, transfer.load):
                with (
                    self.subTest(command=command),
                    self.assert_reports('has no table of users', 'manage.py db upgrade'),
                ):
                    command(str(self.path))

    def test_database_error_is_reported_with_the_number_of_lines_done(self):
        add = loading._add

        def fail(connection, users):
            if 3 in users:
                raise OperationalError('', {}, Exception('server closed\nthe connection'))
            return add(connection, users)

        with (
            mock.patch.object(loading, 'BATCH', 2),
            mock.patch.object(loading, '_add', fail),
            self.assert_reports('Database error: server closed. The first 2 lines are done; a second run skips them.'),
        ):
            self.load([numbered(1), numbered(2), numbered(3)])

    def test_progress_is_shown_on_a_terminal(self):
        with contextlib.redirect_stderr(Terminal()) as stderr:
            self.load([ANN, {}])
            self.dump()
        for text in ('Adding users', 'Writing users', '100%', '\r\x1b[KLine 2: '):
            self.assertIn(text, stderr.getvalue())
        self.assertEqual(self.stderr.getvalue(), '')
