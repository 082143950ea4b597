"""Alembic's environment: it runs the migrations on the app's engine, one upgrade at a time."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from decimal import Decimal
from enum import Enum
from typing import Any, Literal

from alembic import context
from alembic.autogenerate.api import AutogenContext
from alembic.operations.ops import AddColumnOp, MigrationScript, ModifyTableOps
from alembic.runtime.migration import MigrationContext, MigrationInfo
from alembic.util import CommandError
from flask import current_app
from sqlalchemy import Column, Connection, Table, event, inspect, text
from sqlalchemy.exc import DBAPIError

from project import readiness
from project.timestamps import UTCDateTime

# The number is arbitrary; nothing else in the database may lock it.
LOCK = 'SELECT pg_advisory_xact_lock(7463921)'
# On SQLite, SQLAlchemy cannot read the expression of an index such as lower(email). On PostgreSQL it compares it.
warnings.filterwarnings('ignore', 'Skipped unsupported reflection of expression-based index')
warnings.filterwarnings('ignore', 'autogenerate skipping metadata-specified expression-based index')
extension = current_app.extensions['migrate']


# --- the files that "db migrate" writes


def render_item(kind: str, item: Any, autogen: AutogenContext) -> str | Literal[False]:
    """Return the code for a timestamp's type in a migration, and add its import; return False for all other items."""
    if kind == 'type' and isinstance(item, UTCDateTime):
        autogen.imports.add('from project.timestamps import UTCDateTime')
        return 'UTCDateTime'
    return False


def complete_script(migration: MigrationContext, revision: Any, scripts: list[MigrationScript]) -> None:
    """Write no file if the models have not changed. Give new columns a server default for the existing rows.

    :raises CommandError: a new column must not be NULL, and the model names no value for it.
    """
    # "db check" needs the script, even if it is empty.
    [upgrade] = scripts[0].upgrade_ops_list
    if getattr(context.config.cmd_opts, 'autogenerate', False) and upgrade.is_empty():
        scripts.clear()
        print('The models have not changed: no migration was written.')
        return
    for table in upgrade.ops:
        for operation in table.ops if isinstance(table, ModifyTableOps) else ():
            if isinstance(operation, AddColumnOp):
                operation.column = with_server_default(operation.table_name, operation.column)


def with_server_default(table: str, column: Column) -> Column:
    """Return ``column``, or a copy whose server default is the default of the model.

    :raises CommandError: the column must not be NULL, and has no default that can be written into a migration.
    """
    if column.nullable or column.server_default is not None:
        return column
    is_scalar = column.default is not None and column.default.is_scalar
    default = getattr(column.default, 'arg', None) if is_scalar else None
    # SQLAlchemy stores the name of an enumeration's member, not its value.
    if not isinstance(default, bool | int | float | Decimal | str) or isinstance(default, Enum):
        raise CommandError(
            f'the column {table}.{column.name} must not be NULL, so existing rows need a value: '
            "give it a default such as default=0, a server_default such as server_default='0', or nullable=True"
        )
    # Both databases read '0' and '1' as booleans.
    server_default = str(int(default)) if isinstance(default, bool) else str(default)
    return Column(column.name, column.type, server_default=server_default, nullable=False, comment=column.comment)


# --- SQLite's batch migrations, which copy a table, drop it and rename the copy

# The prefix that Alembic gives the copy.
COPY = '_alembic_tmp_'
# Of -2 as the number of its column, an index is on an expression.
INDEXES = text(
    'SELECT name, sql, EXISTS (SELECT 1 FROM pragma_index_xinfo(sqlite_master.name) WHERE cid = -2) FROM sqlite_master'
    " WHERE type = 'index' AND tbl_name = :table AND sql IS NOT NULL"
)


@contextmanager
def complete_copies(connection: Connection) -> Iterator[Callable[..., None]]:
    """Let a copy keep what SQLAlchemy does not reflect: AUTOINCREMENT, its counter, expressions and DESC in indexes.

    Without them a new user could get the id of a deleted one, or the email of another, and lists would be slow.

    :param connection: the connection that runs the migrations.
    :returns: a function that makes the indexes again, for Alembic's ``on_version_apply``.
    """
    indexes: dict[str, list[Any]] = {}  # SQL, and whether it is on an expression, by name

    def before_create(copy: Table, connection: Connection, **options: Any) -> None:
        if copy.name.startswith(COPY):
            table = {'table': copy.name.removeprefix(COPY)}
            sql = connection.scalar(text("SELECT sql FROM sqlite_master WHERE type = 'table' AND name = :table"), table)
            copy.dialect_options['sqlite']['autoincrement'] = 'AUTOINCREMENT' in sql
            indexes.update((name, rest) for name, *rest in connection.execute(INDEXES, table))

    def after_create(copy: Table, connection: Connection, **options: Any) -> None:
        if copy.name.startswith(COPY) and copy.dialect_options['sqlite']['autoincrement']:
            connection.execute(
                text('INSERT INTO sqlite_sequence SELECT :copy, seq FROM sqlite_sequence WHERE name = :table'),
                {'copy': copy.name, 'table': copy.name.removeprefix(COPY)},
            )

    def make_indexes(**options: Any) -> None:
        present = dict(connection.execute(text("SELECT name, sql FROM sqlite_master WHERE type = 'index'")).all())
        for name, (sql, on_expression) in indexes.items():
            if name in present and present[name] == sql.replace(' DESC', '') != sql:
                connection.exec_driver_sql(f'DROP INDEX "{name}"')
                connection.exec_driver_sql(sql)
            elif name not in present and on_expression:
                connection.exec_driver_sql(sql)
        indexes.clear()

    event.listen(Table, 'before_create', before_create)
    event.listen(Table, 'after_create', after_create)
    try:
        yield make_indexes
    finally:
        event.remove(Table, 'before_create', before_create)
        event.remove(Table, 'after_create', after_create)


# --- running


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
        # Of instances that start together, one upgrades. The others wait for its lock, and then have nothing to do.
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
