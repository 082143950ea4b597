"""What the commands that run migrations share."""

import sys
from collections.abc import Callable

import flask_migrate
from alembic.runtime.migration import MigrationInfo
from alembic.script import Script
from flask import current_app

from project import readiness
from project.commands.waiting import place, wait_for_database

UNRECORDED = (
    'The table of users exists, but the database records no revision, as after db.create_all(). '
    'If its tables are those of the code, "python manage.py db stamp head" records that.'
)


def require_migrated() -> readiness.Schema:
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


def require_newest() -> None:
    """Exit unless the database is at the newest revision, with which the models can be compared."""
    if outdated := require_migrated().outdated():
        sys.exit(outdated)


def run_upgrade(revision: str = 'head', x_arg: list[str] | None = None) -> bool:
    """Run the migrations that the database lacks, print each, and return whether there were any.

    :param revision: the revision to upgrade to.
    :param x_arg: arguments for the migrations, each ``NAME=VALUE``.
    """
    require_migrated()
    return run_migrations(flask_migrate.upgrade, 'Applied', revision=revision, x_arg=x_arg)


def run_migrations(function: Callable[..., None], verb: str, **options: object) -> bool:
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
        print(f'{verb} {title(step.up_revision)}.')
    return bool(steps)


def title(script: Script) -> str:
    """Return the revision of a migration, and the first sentence of its docstring."""
    return f'{script.revision} ({" ".join(script.doc.split()).rstrip(".")})'


def recorded_revision() -> str:
    """Return the revision that the database records, for people."""
    return ', '.join(sorted(readiness.inspect_schema(patient=True).revisions)) or 'base'


def print_nothing_to_do() -> None:
    print(f'Nothing to do: {place()} is at revision {recorded_revision()}.')
