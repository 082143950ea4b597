"""The commands that change the schema of the database: ``recreate_db``, and those of ``db``."""

import re
import sys

import flask_migrate
from alembic.script import ScriptDirectory
from alembic.script.revision import RevisionError
from flask import current_app
from sqlalchemy import Connection, func, inspect, select, table, text
from sqlalchemy.exc import DBAPIError

from project import db, readiness
from project.commands.migrating import (
    print_nothing_to_do,
    recorded_revision,
    require_migrated,
    require_newest,
    require_suitable,
    run_migrations,
    run_upgrade,
    title,
)
from project.commands.script_compat import Command, Manager, Option
from project.commands.waiting import describe_database, require_standby, wait_for_database


class RecreateDb(Command):
    """Drop all tables, and make them again, without users."""

    option_list = [Option('--force', action='store_true', help='allow it in production')]

    def run(self, force: bool) -> None:
        """Drop the tables, all or none of them, and run the migrations.

        :param force: allow it in production.
        """
        wait_for_database()
        require_suitable(readiness.inspect_schema(readiness.read_patiently))
        count = _count_users()
        if _in_production() and not force:
            sys.exit(
                f'This would destroy the {count} users in {describe_database()}. In production that needs --force.'
            )
        require_standby()
        try:
            with db.engine.begin() as connection:
                if connection.dialect.name == 'sqlite' and (dependents := _sqlite_dependents(connection)):
                    sys.exit(f'Nothing was dropped: these depend on the tables: {", ".join(dependents)}.')
                db.metadata.drop_all(connection)
                for name in ('alembic_version', '"user"'):
                    connection.execute(text(f'DROP TABLE IF EXISTS {name}'))
        except DBAPIError as error:
            sys.exit(f'Nothing was dropped: {_reason(error)}.')
        print(f'Dropped the {count} users in {describe_database()}.')
        flask_migrate.upgrade()
        print('The tables are new and empty.')


def _sqlite_dependents(connection: Connection) -> list[str]:
    """Return the views that read the tables of the models, and the other tables with rows that refer to them.

    SQLite would not reject the DROP. It would delete the rows whose foreign keys have ON DELETE CASCADE.
    """
    ours = {name.lower() for name in db.metadata.tables}
    views = connection.execute(text("SELECT name, sql FROM sqlite_master WHERE type = 'view'"))
    dependents = [f'view {name}' for name, sql in views if ours.intersection(re.findall(r'\w+', sql.lower()))]
    references = connection.execute(
        text(
            'SELECT DISTINCT sqlite_master.name, lower("table") FROM sqlite_master, pragma_foreign_key_list(name)'
            " WHERE type = 'table'"
        )
    )
    others = {name for name, referred in references if referred in ours and name.lower() not in ours}
    filled = [name for name in others if connection.scalar(select(select(text('1')).select_from(table(name)).exists()))]
    return sorted([*dependents, *(f'table {name}' for name in filled)])


def _in_production() -> bool:
    return not (current_app.debug or current_app.testing)


def _count_users() -> int:
    """Return the number of users in the database, those of the 2017 service's table included."""
    with db.engine.connect() as connection:
        present = inspect(connection)
        return sum(
            connection.execute(select(func.count()).select_from(table(name))).scalar_one()
            for name in ('users', 'user')
            if present.has_table(name)
        )


def _reason(error: DBAPIError) -> str:
    """Return in one line why the database rejected a statement.

    PostgreSQL's details name the objects that depend on a table.
    """
    diagnostics = getattr(error.orig, 'diag', None)
    parts = (diagnostics.message_primary, diagnostics.message_detail) if diagnostics else (str(error.orig),)
    return ': '.join(' '.join(part.split()).rstrip('.') for part in parts if part)


db_manager = Manager(help='Change the schema of the database.')


@db_manager.command
def init() -> None:
    """Make a folder for migrations. This project has one already."""
    flask_migrate.init()


@db_manager.option('-m', '--message', help='what the migration does')
def migrate(message: str | None) -> None:
    """Write a migration for the changes of the models, if they have changed.

    :param message: what the migration does.
    """
    require_newest()
    flask_migrate.migrate(message=message)


@db_manager.option('-m', '--message', help='what the migration does')
def revision(message: str | None) -> None:
    """Write an empty migration, for you to complete.

    :param message: what the migration does.
    """
    flask_migrate.revision(message=message)


@db_manager.option('revision', nargs='?', default='head')
@db_manager.option(
    '-x', '--x-arg', action='append', metavar='NAME=VALUE', help='argument of a migration, such as zone=UTC'
)
@db_manager.option('--sql', action='store_true', help='print the SQL statements, and run nothing')
def upgrade(revision: str, x_arg: list[str] | None, sql: bool) -> None:
    """Run the migrations that the database lacks, and print each of them.

    :param revision: the revision to upgrade to.
    :param x_arg: arguments for the migrations, each ``NAME=VALUE``.
    :param sql: print the SQL statements, and run nothing.
    """
    if sql:
        flask_migrate.upgrade(revision=revision, x_arg=x_arg, sql=True)
    elif not run_upgrade(revision, x_arg):
        print_nothing_to_do()


@db_manager.option('revision', nargs='?', default='-1')
@db_manager.option('--force', action='store_true', help='allow it in production, and if there are users')
def downgrade(revision: str, force: bool) -> None:
    """Undo the last migration, and destroy the tables and columns that it made.

    :param revision: the revision to downgrade to; ``-1`` is the previous one.
    :param force: allow it in production, and if there are users.
    """
    recorded = require_migrated().revisions
    if not recorded and revision == '-1':
        print_nothing_to_do()
        return
    scripts = ScriptDirectory(current_app.extensions['migrate'].directory)
    try:
        undone = list(scripts.iterate_revisions(tuple(recorded), revision, select_for_downgrade=True))
    except RevisionError as error:
        sys.exit(f'Error: {error}')
    count = _count_users()
    if undone and not force and (count or _in_production()):
        titles = ', '.join(map(title, undone))
        sys.exit(
            f'This would undo {titles}, and destroy what it made in {describe_database()}, with {count} users; '
            'use --force to do it.'
        )
    require_standby()
    x_arg = ['force=yes'] if force else None  # which the migrations check too
    if not run_migrations(flask_migrate.downgrade, 'Undid', revision=revision, x_arg=x_arg):
        print_nothing_to_do()


@db_manager.option('revision', nargs='?', default='head')
def stamp(revision: str) -> None:
    """Record a revision in the database, and run no migration.

    :param revision: the revision that the schema has.
    """
    wait_for_database()
    require_standby()
    flask_migrate.stamp(revision=revision)
    print(f'Recorded revision {recorded_revision()} in {describe_database()}.')


@db_manager.option('-v', '--verbose', action='store_true', help='show the file and the description of each revision')
def heads(verbose: bool) -> None:
    """Show the newest revision of the code.

    :param verbose: show its file and its description too.
    """
    flask_migrate.heads(verbose=verbose)


@db_manager.option('-v', '--verbose', action='store_true', help='show the file and the description of each revision')
@db_manager.option('-i', '--indicate-current', action='store_true', help='mark the revision of the database')
def history(verbose: bool, indicate_current: bool) -> None:
    """List the migrations, the newest first.

    :param verbose: show their files and descriptions too.
    :param indicate_current: mark the revision of the database.
    """
    if indicate_current:
        wait_for_database()
    flask_migrate.history(verbose=verbose, indicate_current=indicate_current)


@db_manager.command
def current() -> None:
    """Show the revision of the database."""
    wait_for_database()
    flask_migrate.current()


@db_manager.command
def check() -> None:
    """Exit with an error if models have changed without a migration."""
    require_newest()
    flask_migrate.check()
