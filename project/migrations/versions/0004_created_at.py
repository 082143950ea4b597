"""Let the database reject times of creation that a response cannot express.

These are the infinities and the years before 1 and after 9999. In SQLite, whose columns take any text, they are also
texts in another form. Rows that have one get the nearest timestamp that a response can express, and are printed.
"""

import re
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from alembic import context, op
from alembic.util import CommandError

from project.timestamps import to_text

revision = '0004'
down_revision = '0003'
branch_labels = None
depends_on = None

NAME = 'users_created_at_check'
CONDITIONS = {
    'postgresql': "created_at >= '0001-01-01 00:00:00+00' AND created_at < '10000-01-01 00:00:00+00'",
    'sqlite': (
        "created_at GLOB '????-??-??T??:??:??.[0-9][0-9][0-9][0-9][0-9][0-9]Z' AND substr(created_at, 1, 4) >= '0001'"
        " AND strftime('%Y-%m-%dT%H:%M:%S', substr(created_at, 1, 19), '+0 days') IS substr(created_at, 1, 19)"
    ),
}
EARLIEST, LATEST = '0001-01-01T00:00:00.000000Z', '9999-12-31T23:59:59.999999Z'


def upgrade() -> None:
    """Change the rows that the constraint would reject, and add it.

    :raises CommandError: the statements for SQLite were to be printed.
    """
    dialect = op.get_context().dialect.name
    if dialect == 'postgresql':
        if context.is_offline_mode():
            wrong = f'NOT ({CONDITIONS[dialect]})'
            op.execute(f'UPDATE users SET created_at = {nearest()} WHERE {wrong}')  # noqa: S608  # nosec B608
        else:
            change_rows(op.get_bind(), "timezone('UTC', created_at)::text", nearest())
        op.create_check_constraint(NAME, 'users', CONDITIONS[dialect])
        return
    if context.is_offline_mode():
        raise CommandError('on SQLite this migration copies the table, so its statements cannot be printed')
    connection = op.get_bind()
    driver: Any = connection.connection.dbapi_connection
    driver.create_function('nearest', 1, nearest_text, deterministic=True)
    change_rows(connection, 'CAST(created_at AS TEXT)', 'nearest(created_at)')
    with op.batch_alter_table('users') as users:
        users.create_check_constraint(NAME, CONDITIONS[dialect])


def downgrade() -> None:
    """Remove the constraint. The rows stay as they are."""
    with op.batch_alter_table('users') as users:
        users.drop_constraint(NAME, type_='check')


def change_rows(connection: sa.Connection, text: str, value: str) -> None:
    """Set ``created_at`` of the rows that the constraint would reject, and print their old and new values.

    :param text: the SQL expression of the old value as a text.
    :param value: the SQL expression of the new value.
    """
    # Every part of these statements is a constant of this file.
    rejected = f'NOT ({CONDITIONS[connection.dialect.name]})'
    select = f'SELECT id, {text} FROM users WHERE {rejected} ORDER BY id'  # noqa: S608  # nosec B608
    rows = connection.execute(sa.text(select)).all()
    if not rows:
        return
    connection.execute(sa.text(f'UPDATE users SET created_at = {value} WHERE {rejected}'))  # noqa: S608  # nosec B608
    for user_id, old in rows:
        select = f'SELECT {text} FROM users WHERE id = :id'  # noqa: S608  # nosec B608
        new = connection.scalar(sa.text(select), {'id': user_id})
        print(f'User {user_id}: created_at was {old}, which no response can express. It is now {new}.')


def nearest() -> str:
    """Return PostgreSQL's expression for the nearest timestamp that a response can express."""
    return f"least(greatest(created_at, '{EARLIEST}'), '{LATEST}')"


def nearest_text(value: object) -> str:
    """Return the timestamp nearest to a value that SQLite has stored; the earliest one if the value is no time."""
    text = str(value)
    try:
        return to_text(datetime.fromisoformat(text))
    except (OverflowError, ValueError):
        return LATEST if re.match('infinity|9999-|[0-9]{5,}-', text, re.IGNORECASE) else EARLIEST
