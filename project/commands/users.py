"""The commands that add, export and import users."""

import secrets
import sys
from datetime import timedelta

import click
from sqlalchemy import insert, select

from project import db, readiness, transfer
from project.api.models import User
from project.commands.script_compat import Command, Option
from project.commands.waiting import require_standby, wait_for_database
from project.database.functions import folded
from project.timestamps import utcnow

BATCH = 1000
ORIGINAL = (('michael', 'michael@realpython.com'), ('michaelherman', 'michael@mherman.org'))


class SeedDb(Command):
    """Add sample users."""

    option_list = [Option('--count', type=int, help='number of users; default: the two users of the original lesson')]

    def run(self, count: int | None) -> None:
        """Add users, and print the number of them.

        :param count: the number of users; None for the two users of the original lesson.
        """
        if count is not None and count < 1:
            sys.exit('--count must be at least 1.')
        wait_for_database()
        require_standby()
        if problem := readiness.inspect_schema(readiness.read_patiently).problem():
            sys.exit(problem)
        if count is None:
            added = seed_original()
            existing = len(ORIGINAL) - added
        else:
            added, existing = seed_many(count), 0
        done = [f'Added {_users(added)}'] if added else []
        if existing:
            done.append(f'{_users(existing)} already existed')
        print(f'{"; ".join(done)}.')


def _users(count: int) -> str:
    return '1 user' if count == 1 else f'{count} users'


def seed_original() -> int:
    """Add the two users of the original lesson, unless they exist.

    :returns: the number of users added.
    """
    added = 0
    for username, email in ORIGINAL:
        if not db.session.scalar(select(User.id).where(folded(User.email) == email)):
            db.session.add(User(username, email))
            added += 1
    db.session.commit()
    return added


def seed_many(count: int) -> int:
    """Add ``count`` users, all different and each created a minute before the next, with a progress bar.

    :param count: the number of users. Each batch is a transaction, so that no reader waits for all of them.
    :returns: the number of users added.
    """
    run, now = secrets.token_hex(4), utcnow()  # a second run makes other emails
    with click.progressbar(length=count, label='Adding users', show_pos=True) as bar:
        for start in range(0, count, BATCH):
            numbers = range(start, min(start + BATCH, count))
            db.session.execute(
                insert(User),
                [
                    {
                        'username': f'user{number}',
                        'email': f'user{number}.{run}@example.com',
                        'active': number % 2 == 0,
                        'created_at': now - timedelta(minutes=count - number),
                    }
                    for number in numbers
                ],
            )
            db.session.commit()
            bar.update(len(numbers))
    return count


class DumpUsers(Command):
    """Export all users to a file, one JSON object a line."""

    option_list = [
        Option('file', metavar='FILE', help='compressed if it ends in .gz; - is stdout'),
        Option('--force', action='store_true', help='overwrite FILE if it exists'),
    ]

    def run(self, file: str, force: bool) -> None:
        """Write the file, and print the number of users in it.

        :param file: its path, or ``-`` for stdout.
        :param force: overwrite an existing file.
        """
        wait_for_database()
        try:
            count = transfer.dump(file, force)
        except transfer.TransferError as error:
            sys.exit(str(error))
        print(f'Wrote {count} users.', file=sys.stderr if file == '-' else sys.stdout)


class LoadUsers(Command):
    """Import users from a file."""

    option_list = [
        Option('file', metavar='FILE', help='as dump_users made it; - is stdin'),
        Option('--stop', action='store_true', help='stop at the first line that is rejected'),
    ]

    def run(self, file: str, stop: bool) -> int:
        """Import the users, and print the number of users added and of lines rejected.

        :param file: its path, or ``-`` for stdin.
        :param stop: stop at the first line that is rejected.
        :returns: 0, or 1 when lines were rejected.
        """
        wait_for_database()
        require_standby()
        try:
            done = transfer.load(file, stop)
        except transfer.TransferError as error:
            sys.exit(str(error))
        print(f'Added {done.added} users; {done.existing} already existed; rejected {done.rejected} lines.')
        return 1 if done.rejected else 0
