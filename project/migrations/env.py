"""How Alembic reaches the database: through the app's engine, one upgrade at a time."""

import warnings

from alembic import context
from alembic.util import CommandError
from flask import current_app
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

# Any number will do that nothing else in the database locks.
LOCK = 'SELECT pg_advisory_xact_lock(7463921)'
# SQLite can't tell what an index on lower(email) is made of; on PostgreSQL it is compared.
warnings.filterwarnings('ignore', 'Skipped unsupported reflection of expression-based index')
warnings.filterwarnings('ignore', 'autogenerate skipping metadata-specified expression-based index')
extension = current_app.extensions['migrate']


def drop_empty(_context: object, _revision: object, directives: list) -> None:
    """Write no migration that ``db migrate`` found nothing for."""
    # Without the first condition "db check" would find nothing to compare.
    if getattr(context.config.cmd_opts, 'autogenerate', False) and directives[0].upgrade_ops.is_empty():
        directives.clear()
        print('The models have not changed: no migration was written.')


def run():
    with extension.db.engine.connect() as connection:
        context.configure(
            connection=connection,
            target_metadata=extension.db.metadata,
            process_revision_directives=drop_empty,
            **extension.configure_args,
        )
        with context.begin_transaction():
            if connection.dialect.name == 'postgresql':
                # Instances that start together all want to upgrade: the others wait, and find it done.
                connection.execute(text(LOCK))
            context.run_migrations()


if context.is_offline_mode():
    context.configure(
        url=extension.db.engine.url,
        target_metadata=extension.db.metadata,
        literal_binds=True,
        **extension.configure_args,
    )
    with context.begin_transaction():
        context.run_migrations()
else:
    try:
        run()
    except DBAPIError as error:
        raise CommandError(f'the database refused: {str(error.orig).strip().splitlines()[0]}') from None
