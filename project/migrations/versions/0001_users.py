"""Make the table of users, and take over the one of the 2017 service if it exists.

That service stored naive local times in a table ``"user"`` without a unique email. This migration reads its timestamps
in the time zone of ``db upgrade -x zone=Europe/Berlin``, or by default in that of the machine that runs it.
"""

import re
import time
import unicodedata
from collections import Counter
from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import sqlalchemy as sa
from alembic import context, op
from alembic.util import CommandError

from project.timestamps import UTCDateTime, to_text

revision = '0001'
down_revision = None
branch_labels = None
depends_on = None

BATCH = 1000
OLD = sa.table(
    'user',
    sa.column('id', sa.Integer),
    sa.column('username', sa.String),
    sa.column('email', sa.String),
    sa.column('active', sa.Boolean),
    sa.column('created_at', sa.DateTime),
)
# As a text, because Python has no datetime for the infinities and for years before 1 and after 9999.
ROWS = sa.select(
    OLD.c.id, OLD.c.username, OLD.c.email, OLD.c.active, sa.cast(OLD.c.created_at, sa.String).label('created_at')
).order_by(OLD.c.id)
EARLIEST, LATEST = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)


def upgrade() -> None:
    """Make the table and its indexes, and move the users of the old table into it."""
    connection = op.get_bind()
    take_over = not context.is_offline_mode() and sa.inspect(connection).has_table('user')
    if take_over:
        reject_clashes(connection)
    users = op.create_table(
        'users',
        sa.Column('id', sa.BigInteger().with_variant(sa.Integer, 'sqlite'), primary_key=True),
        sa.Column('username', sa.String(128), nullable=False),
        sa.Column('email', sa.String(128), nullable=False),
        sa.Column('active', sa.Boolean, nullable=False, server_default=sa.false()),
        sa.Column('created_at', UTCDateTime, nullable=False),
        sqlite_autoincrement=True,
    )
    if take_over:
        copy(connection, users)
        continue_sequence(connection)
        op.drop_table('user')
    # In the locale of the database, lower() would make some letters equal that reject_clashes() distinguishes.
    lower = 'lower(email COLLATE "C")' if op.get_context().dialect.name == 'postgresql' else 'lower(email)'
    op.create_index('users_email_key', 'users', [sa.text(lower)], unique=True)
    newest_first = [sa.text('created_at DESC'), sa.text('id DESC')]
    op.create_index('users_created_at_id_idx', 'users', newest_first)
    op.create_index('users_username_idx', 'users', ['username', *newest_first])
    op.create_index('users_active_idx', 'users', ['active', *newest_first])


def downgrade() -> None:
    """Drop the table."""
    op.drop_table('users')


def reject_clashes(connection: sa.Connection) -> None:
    """Stop before anything is changed if two of the old users have the same email.

    :raises CommandError: naming up to ten of the emails.
    """
    old = sa.select(OLD.c.email).execution_options(yield_per=BATCH)
    counts = Counter(address(email).lower() for email in connection.scalars(old))
    clashes = sorted((email, count) for email, count in counts.items() if count > 1)
    if clashes:
        named = ', '.join(f'{email or "blank"} ({count} users)' for email, count in clashes[:10])
        more = f' and {len(clashes) - 10} more' if len(clashes) > 10 else ''
        raise CommandError(
            'nothing was changed: in the table "user" these emails belong to more than one user, '
            f'and each email must be unique: {named}{more}'
        )


def copy(connection: sa.Connection, users: sa.Table) -> None:
    """Copy every old user, with their local time converted to UTC.

    :raises CommandError: no time zone has the name that the command line gives.
    """
    name = context.get_x_argument(as_dictionary=True).get('zone')
    try:
        zone = ZoneInfo(name) if name else None
    except (ZoneInfoNotFoundError, ValueError):
        raise CommandError(f'there is no time zone {name!r}; one is named like Europe/Berlin') from None
    last = None
    while True:
        batch = ROWS.limit(BATCH)
        rows = connection.execute(batch if last is None else batch.where(OLD.c.id > last)).all()
        if not rows:
            break
        connection.execute(
            users.insert(),
            [row._asdict() | {'email': address(row.email), 'created_at': created_at(row, zone)} for row in rows],
        )
        last = rows[-1].id


def continue_sequence(connection: sa.Connection) -> None:
    """Continue the ids of the old table, including those of deleted users.

    SQLite remembers the ids of deleted users only in a table made with AUTOINCREMENT.
    """
    if connection.dialect.name == 'postgresql':
        sequence = connection.scalar(sa.text("SELECT pg_get_serial_sequence('\"user\"', 'id')"))
        # After setval(sequence, id, false) the next id is last_value itself. None if the column owns no sequence.
        # PostgreSQL returns the name quoted if it needs quotes.
        given = f'SELECT last_value - 1 + is_called::int FROM {sequence}'  # noqa: S608  # nosec B608
        given = given if sequence else 'SELECT 0'
        continuing = ["SELECT setval(pg_get_serial_sequence('users', 'id'), :last)"]
    else:  # users has AUTOINCREMENT, so the table sqlite_sequence exists
        given = "SELECT seq FROM sqlite_sequence WHERE name = 'user'"
        continuing = [
            "DELETE FROM sqlite_sequence WHERE name = 'users'",
            "INSERT INTO sqlite_sequence (name, seq) VALUES ('users', :last)",
        ]
    last = max(connection.scalar(sa.text(given)) or 0, connection.scalar(sa.select(sa.func.max(OLD.c.id))) or 0)
    if last:
        for statement in continuing:
            connection.execute(sa.text(statement), {'last': last})


def address(email: str) -> str:
    """Return an email as the service stores it: trimmed, and in lower case if it has letters outside ASCII."""
    email = email.strip()
    return email if email.isascii() else unicodedata.normalize('NFC', email).lower()


def created_at(row: Any, zone: ZoneInfo | None) -> datetime:
    """Return when an old user was created, in UTC. Outside the years 1 to 9999 it is the nearest one, and is printed.

    :param row: of ``ROWS``.
    :param zone: the zone of the local times; None for that of the machine.
    """
    try:
        return utc(datetime.fromisoformat(row.created_at).replace(tzinfo=zone))
    except (OverflowError, ValueError):
        nearest = LATEST if re.match('infinity|9999-|[0-9]{5,}-', row.created_at) else EARLIEST
        print(
            f'User {row.id}: created_at was {row.created_at}, which no response can express. '
            f'It is now {to_text(nearest)}.'
        )
        return nearest


def utc(local: datetime) -> datetime:
    """Return a local time in UTC.

    :param local: a time with its zone, or a naive one in the machine's zone.
    """
    try:
        return local.astimezone(UTC)
    except OSError:  # Windows has the machine's local times of the years 1970 to 3000 only
        return local.replace(tzinfo=timezone(timedelta(seconds=-time.timezone))).astimezone(UTC)
