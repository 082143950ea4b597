"""The commands of ``db``, which change the schema of the database."""

import sys

import flask_migrate
from alembic.script import ScriptDirectory
from alembic.script.revision import RevisionError
from flask import current_app

from project.commands.migrating import (
    count_users,
    in_production,
    print_nothing_to_do,
    recorded_revision,
    require_migrated,
    require_newest,
    run_migrations,
    run_upgrade,
    title,
)
from project.commands.script_compat import Manager
from project.commands.waiting import describe_database, require_standby, wait_for_database

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
    """Undo the last migration, and drop the tables and columns that it made.

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
    count = count_users()
    if undone and not force and (count or in_production()):
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
