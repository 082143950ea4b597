"""Alembic's environment: it runs the migrations on the app's engine, one upgrade at a time."""

import warnings
from collections.abc import Callable
from typing import Any

from alembic import context
from alembic.runtime.migration import MigrationInfo
from alembic.util import CommandError
from flask import current_app
from sqlalchemy import Connection, inspect, text
from sqlalchemy.exc import DBAPIError

from project import readiness
from project.migrations.copying import complete_copies
from project.migrations.writing import complete_script, render_item

# The number is arbitrary. Nothing else in the database may lock it.
LOCK = 'SELECT pg_advisory_xact_lock(7463921)'
# On SQLite, SQLAlchemy cannot read the expression of an index such as lower(email). On PostgreSQL it compares it.
warnings.filterwarnings('ignore', 'Skipped unsupported reflection of expression-based index')
warnings.filterwarnings('ignore', 'autogenerate skipping metadata-specified expression-based index')
extension = current_app.extensions['migrate']


def configure(*on_version_apply: Callable[..., None], **options: Any) -> None:
    """Configure Alembic for the models of the app.

    :param on_version_apply: functions to call after each migration, besides the one that a command has set.
    """
    arguments = dict(extension.configure_args)
    if callback := arguments.get('on_version_apply'):
        on_version_apply += (callback,)
    arguments['on_version_apply'] = on_version_apply
    context.configure(
        target_metadata=extension.db.metadata,
        process_revision_directives=complete_script,
        render_item=render_item,
        **options,
        **arguments,
    )


def reject_encoding(connection: Connection) -> Callable[..., None]:
    """Return a function that rejects an upgrade in a database whose encoding cannot hold every name.

    :param connection: the connection that runs the migrations.
    :returns: a function for Alembic's ``on_version_apply``. Its error rolls the whole upgrade back.
    """

    def reject(step: MigrationInfo, **options: Any) -> None:
        schema = readiness.Schema(frozenset(), encoding=str(connection.scalar(readiness.CURRENT_ENCODING)))
        if step.is_upgrade and not step.is_stamp and (unsuitable := schema.unsuitable()):
            raise CommandError(unsuitable)

    return reject


def reject_loss(connection: Connection) -> Callable[..., None]:
    """Return a function that rejects a downgrade where there are users, unless ``-x force=yes`` is given.

    :param connection: the connection that runs the migrations, before the first of them.
    :returns: a function for Alembic's ``on_version_apply``. Its error rolls the migration back.
    """
    is_forced = context.get_x_argument(as_dictionary=True).get('force') == 'yes'
    has_users = inspect(connection).has_table('users') and connection.scalar(
        text('SELECT EXISTS (SELECT 1 FROM users)')
    )
    connection.rollback()  # Alembic begins the transactions

    def reject(step: MigrationInfo, **options: Any) -> None:
        if has_users and not is_forced and step.is_migration and not step.is_upgrade:
            raise CommandError(
                'a downgrade may destroy data of users, and there are some: nothing was changed. '
                'Use "python manage.py db downgrade --force" or "flask db downgrade -x force=yes" to do it.'
            )

    return reject


def reject_dropped() -> None:
    """Report a missing table of users, as after ``db.drop_all()``, which the migrations do not create again.

    :raises CommandError: naming the command that helps.
    """
    schema = readiness.inspect_schema(readiness.read_patiently)
    if schema.is_dropped:
        raise CommandError(str(schema.outdated()))


def has_destination() -> bool:
    """Return whether the command is one that changes the schema or the revision, such as ``upgrade``."""
    try:
        context.get_revision_argument()
    except KeyError:
        return False
    return True


def run_on_postgresql(connection: Connection, *on_version_apply: Callable[..., None]) -> None:
    """Run the migrations in one transaction."""
    configure(reject_encoding(connection), *on_version_apply, connection=connection)
    with context.begin_transaction():
        # If several instances start together, one upgrades. The others wait for its lock, and then have nothing to do.
        connection.execute(text(LOCK))
        context.run_migrations()


def run_on_sqlite(connection: Connection, *on_version_apply: Callable[..., None]) -> None:
    """Run each migration in a transaction."""
    # Dropping a table whose foreign keys are enforced would delete or reject the rows that refer to it. Within
    # a transaction the pragma does nothing, so the driver runs it, on a connection that does not return to the pool.
    connection.detach()
    connection.connection.cursor().execute('PRAGMA foreign_keys=OFF')
    with complete_copies(connection) as make_indexes:
        configure(make_indexes, *on_version_apply, connection=connection)
        with context.begin_transaction():
            context.run_migrations()


if context.is_offline_mode():
    configure(url=extension.db.engine.url, literal_binds=True)
    with context.begin_transaction():
        context.run_migrations()
else:
    steps: list[object] = []
    try:
        with extension.db.engine.connect() as connection:
            run = run_on_postgresql if connection.dialect.name == 'postgresql' else run_on_sqlite
            run(connection, reject_loss(connection), lambda **options: steps.append(options))
        if not steps and has_destination():
            reject_dropped()
    except DBAPIError as error:
        raise CommandError(f'the database returned an error: {str(error.orig).strip().splitlines()[0]}') from None
