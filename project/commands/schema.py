"""The commands that change the schema of the database: ``recreate_db``, and those of ``db``."""

import sys
from collections.abc import Callable

import flask_migrate
from alembic.runtime.migration import MigrationInfo
from alembic.script import Script, ScriptDirectory
from alembic.script.revision import RevisionError
from flask import current_app
from sqlalchemy import func, inspect, select, table, text
from sqlalchemy.exc import DBAPIError

from project import db, readiness
from project.commands.script_compat import Command, Manager, Option
from project.commands.waiting import place, wait_for_database

UNRECORDED = (
    'The table of users exists, but the database records no revision, as after db.create_all(). '
    'If its tables are those of the code, "python manage.py db stamp head" records that.'
)


class RecreateDb(Command):
    """Drop all users, and make the tables anew."""

    option_list = [Option('--force', action='store_true', help='in production too')]

    def run(self, force: bool) -> None:
        """Drop the tables, all or none of them, and run the migrations.

        :param force: do so in production too.
        """
        wait_for_database()
        count = _count_users()
        if _in_production() and not force:
            sys.exit(f'This would destroy the {count} users in {place()}. In production that needs --force.')
        print(f'Dropping the {count} users in {place()}.')
        try:
            with db.engine.begin() as connection:
                db.metadata.drop_all(connection)
                for name in ('alembic_version', '"user"'):
                    connection.execute(text(f'DROP TABLE IF EXISTS {name}'))
        except DBAPIError as error:
            sys.exit(f'Nothing was dropped: {_reason(error)}.')
        flask_migrate.upgrade()
        print('The tables are new and empty.')


def _in_production() -> bool:
    return not (current_app.debug or current_app.testing)


def _count_users() -> int:
    """Return the number of users in the database, those of the 2017 service's table included."""
    with db.engine.connect() as connection:
        present = inspect(connection)
        return sum(
            connection.scalar(select(func.count()).select_from(table(name)))
            for name in ('users', 'user')
            if present.has_table(name)
        )


def _reason(error: DBAPIError) -> str:
    """Return in one line why the database rejected a statement; PostgreSQL's details name what depends on a table."""
    diagnostics = getattr(error.orig, 'diag', None)
    parts = (diagnostics.message_primary, diagnostics.message_detail) if diagnostics else (str(error.orig),)
    return ': '.join(' '.join(part.split()).rstrip('.') for part in parts if part)


db_manager = Manager(help='Change the schema of the database.')


@db_manager.command
def init() -> None:
    """Make a new folder of migrations; this project has one."""
    flask_migrate.init()


@db_manager.option('-m', '--message', help='what the migration does')
def migrate(message: str | None) -> None:
    """Write a migration for what has changed in the models, if anything has.

    :param message: what the migration does.
    """
    _require_newest()
    flask_migrate.migrate(message=message)


@db_manager.option('-m', '--message', help='what the migration does')
def revision(message: str | None) -> None:
    """Write an empty migration, to be filled in by hand.

    :param message: what the migration does.
    """
    flask_migrate.revision(message=message)


@db_manager.option('revision', nargs='?', default='head')
@db_manager.option('-x', '--x-arg', action='append', metavar='NAME=VALUE', help='for the migration, such as zone=UTC')
@db_manager.option('--sql', action='store_true', help='print the statements instead')
def upgrade(revision: str, x_arg: list[str] | None, sql: bool) -> None:
    """Bring the schema up to the newest migration, and print what was done.

    :param revision: the revision to upgrade to.
    :param x_arg: arguments for the migrations, each ``NAME=VALUE``.
    :param sql: print the statements instead.
    """
    if sql:
        flask_migrate.upgrade(revision=revision, x_arg=x_arg, sql=True)
    elif not run_upgrade(revision, x_arg):
        _print_nothing_to_do()


def run_upgrade(revision: str = 'head', x_arg: list[str] | None = None) -> bool:
    """Run the migrations that the database lacks, print each, and return whether there were any.

    :param revision: the revision to upgrade to.
    :param x_arg: arguments for the migrations, each ``NAME=VALUE``.
    """
    _require_migrated()
    return _run(flask_migrate.upgrade, 'Applied', revision=revision, x_arg=x_arg)


@db_manager.option('revision', nargs='?', default='-1')
@db_manager.option('--force', action='store_true', help='where there are users, and in production')
def downgrade(revision: str, force: bool) -> None:
    """Undo the last migration, and destroy what it made.

    :param revision: the revision to downgrade to; ``-1`` is the previous one.
    :param force: do so even where there are users, and in production.
    """
    recorded = _require_migrated().revisions
    scripts = ScriptDirectory(current_app.extensions['migrate'].directory)
    try:
        undone = list(scripts.iterate_revisions(tuple(recorded), revision, select_for_downgrade=True))
    except RevisionError as error:
        sys.exit(f'Error: {error}')
    count = _count_users()
    if undone and not force and (count or _in_production()):
        titles = ', '.join(map(_title, undone))
        sys.exit(
            f'This would undo {titles}, and destroy what it made in {place()}, with {count} users; '
            'use --force to do it.'
        )
    if not _run(flask_migrate.downgrade, 'Undid', revision=revision):
        _print_nothing_to_do()


@db_manager.option('revision', nargs='?', default='head')
def stamp(revision: str) -> None:
    """Record a revision in the database, and run no migration.

    :param revision: the revision that the schema has.
    """
    wait_for_database()
    flask_migrate.stamp(revision=revision)
    print(f'Recorded revision {_recorded()} in {place()}.')


@db_manager.option('-v', '--verbose', action='store_true', help='more of each')
def heads(verbose: bool) -> None:
    """Show the newest revision of the code.

    :param verbose: show its file and its description too.
    """
    flask_migrate.heads(verbose=verbose)


@db_manager.option('-v', '--verbose', action='store_true', help='more of each')
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
    """Fail when models have changed without a migration."""
    _require_newest()
    flask_migrate.check()


def _require_migrated() -> readiness.Schema:
    """Return the state of the schema, or exit with the command that helps if its tables do not fit its revision."""
    wait_for_database()
    schema = readiness.inspect_schema(patient=True)
    if schema.is_dropped or schema.is_unrecorded:
        # Another process may have committed its upgrade between two of the statements.
        schema = readiness.inspect_schema(patient=True)
    if schema.is_dropped:
        sys.exit(schema.problem())
    if schema.is_unrecorded:
        sys.exit(UNRECORDED)
    return schema


def _require_newest() -> None:
    """Exit unless the database is at the newest revision, with which the models can be compared."""
    if outdated := _require_migrated().outdated():
        sys.exit(outdated)


def _run(function: Callable[..., None], verb: str, **options: object) -> bool:
    """Run migrations, print each with what was done once they are committed, and return whether there were any.

    :param function: Flask-Migrate's ``upgrade`` or ``downgrade``, which exits with 1 after printing an error.
    :param verb: what it does with a migration.
    :param options: the arguments of ``function``.
    """
    steps: list[MigrationInfo] = []
    # Flask-Migrate passes these to Alembic, which calls back for each migration that this process runs. Comparing
    # the revisions before and after would count those of other processes.
    arguments = current_app.extensions['migrate'].configure_args
    arguments['on_version_apply'] = lambda step, **_: steps.append(step)
    try:
        function(**options)
    finally:
        del arguments['on_version_apply']
    for step in steps:
        print(f'{verb} {_title(step.up_revision)}.')
    return bool(steps)


def _title(script: Script) -> str:
    """Return the revision of a migration, and the first sentence of its docstring."""
    return f'{script.revision} ({" ".join(script.doc.split()).rstrip(".")})'


def _recorded() -> str:
    """Return the revision that the database records, for people."""
    return ', '.join(sorted(readiness.inspect_schema(patient=True).revisions)) or 'base'


def _print_nothing_to_do() -> None:
    print(f'Nothing to do: {place()} is at revision {_recorded()}.')
