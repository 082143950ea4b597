"""Functions for the commands that change the schema."""

import sys
from collections.abc import Callable
from typing import cast

import flask_migrate
from alembic.runtime.migration import MigrationInfo
from alembic.script import Script
from flask import current_app
from sqlalchemy import func, inspect, select, table

from project import db, readiness
from project.commands.waiting import describe_database, require_standby, wait_for_database


def require_migrated() -> readiness.Schema:
    """Return the state of the schema. If its revision is wrong, exit with a message that names the command to run."""
    wait_for_database()
    schema = readiness.inspect_schema(readiness.read_patiently)
    if schema.is_dropped or schema.is_unrecorded:
        # Another process may have committed its upgrade between two of the statements.
        schema = readiness.inspect_schema(readiness.read_patiently)
    if schema.is_dropped:
        sys.exit(schema.problem())
    if schema.is_unrecorded:
        sys.exit(readiness.UNSTAMPED)
    if unknown := schema.unknown():
        sys.exit(unknown)
    return schema


def require_suitable(schema: readiness.Schema) -> None:
    """Exit with a message that says what to do, unless the database itself can be used."""
    if unsuitable := schema.unsuitable():
        sys.exit(unsuitable)


def require_newest() -> None:
    """Exit unless the database is at the newest revision, with which the models can be compared."""
    if outdated := require_migrated().outdated():
        sys.exit(outdated)


def run_upgrade(revision: str = 'head', x_arg: list[str] | None = None) -> bool:
    """Run the migrations that the database lacks, print each, and return whether any ran.

    :param revision: the revision to upgrade to.
    :param x_arg: arguments for the migrations, each ``NAME=VALUE``.
    """
    schema = require_migrated()
    require_suitable(schema)
    if schema.outdated():
        require_standby()
    return run_migrations(flask_migrate.upgrade, 'Applied', revision=revision, x_arg=x_arg)


def run_migrations(function: Callable[..., None], verb: str, **options: object) -> bool:
    """Run migrations, print each of them after the commit, and return whether any ran.

    :param function: Flask-Migrate's ``upgrade`` or ``downgrade``, which exits with 1 after printing an error.
    :param verb: the first word of each printed line, such as ``Applied``.
    :param options: the arguments of ``function``.
    """
    steps: list[MigrationInfo] = []
    # Flask-Migrate passes these arguments to Alembic, which calls the function after each migration of this process.
    # A comparison of the revisions before and after would include the migrations of other processes.
    arguments = current_app.extensions['migrate'].configure_args
    arguments['on_version_apply'] = lambda step, **_: steps.append(step)
    try:
        function(**options)
    finally:
        del arguments['on_version_apply']
    for step in steps:
        print(f'{verb} {title(cast(Script, step.up_revision))}.')  # a step of these commands is one file
    return bool(steps)


def title(script: Script) -> str:
    """Return the revision of a migration, and the first sentence of its docstring."""
    return f'{script.revision} ({" ".join(script.doc.split()).rstrip(".")})'


def recorded_revision() -> str:
    """Return the revision that the database records, or ``base``, for messages."""
    return ', '.join(sorted(readiness.inspect_schema(readiness.read_patiently).revisions)) or 'base'


def print_nothing_to_do() -> None:
    """Print that the database needs no migration."""
    print(f'Nothing to do: {describe_database()} is at revision {recorded_revision()}.')


def count_users() -> int:
    """Return the number of users in the database, including those in the table of the 2017 service."""
    with db.engine.connect() as connection:
        present = inspect(connection)
        return sum(
            connection.execute(select(func.count()).select_from(table(name))).scalar_one()
            for name in ('users', 'user')
            if present.has_table(name)
        )


def in_production() -> bool:
    """Return whether the app has the settings of production."""
    return not (current_app.debug or current_app.testing)
