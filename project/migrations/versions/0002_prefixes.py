"""Compare emails the same way in every locale, and index what a search by prefix reads.

On PostgreSQL ``lower()`` follows the locale of the database, so that ``I`` may not become ``i``. With ``COLLATE "C"``
it changes ASCII letters only, and the index is in the order of the character codes. SQLite does both already.

Earlier versions of migration 0001 made the index on emails without ``COLLATE "C"``.
"""

import sqlalchemy as sa
from alembic import context, op
from alembic.util import CommandError

revision = '0002'
down_revision = '0001'
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the index on usernames, and on PostgreSQL replace the one on emails."""
    if op.get_context().dialect.name == 'postgresql':
        if not context.is_offline_mode():
            reject_clashes(op.get_bind())
        op.drop_index('users_email_key', 'users')
        op.create_index('users_email_key', 'users', [sa.text('lower(email COLLATE "C")')], unique=True)
        op.create_index('users_username_prefix_idx', 'users', [sa.text('lower(username COLLATE "C")')])
    else:
        op.create_index('users_username_prefix_idx', 'users', [sa.text('lower(username)')])


def downgrade() -> None:
    """Remove the index on usernames. Keep the one on emails: in the locale of the database, some emails could clash."""
    op.drop_index('users_username_prefix_idx', 'users')


def reject_clashes(connection: sa.Connection) -> None:
    """Stop before anything is changed if emails that were different in the database's locale are now the same.

    :raises CommandError: naming up to ten of them.
    """
    statement = """
        SELECT lower(email COLLATE "C") AS folded, count(*) FROM users
        GROUP BY folded HAVING count(*) > 1 ORDER BY folded LIMIT 10
    """
    if clashes := connection.execute(sa.text(statement)).all():
        named = ', '.join(f'{email} ({count} users)' for email, count in clashes)
        raise CommandError(
            f'nothing was changed: these emails belong to more than one user, and each email must be unique: {named}'
        )
