"""Checks that the database has the tables and columns that the code needs, and names the command that makes them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from alembic.script import ScriptDirectory
from flask import current_app
from sqlalchemy import Select, Table, column, exists, false, literal_column, select, table
from sqlalchemy.exc import DBAPIError

from project.database.errors import Undefined, translate
from project.database.functions import encoding
from project.extensions import db

REVISIONS = select(column('version_num')).select_from(table('alembic_version'))
REVISIONS_AND_ENCODING = REVISIONS.add_columns(encoding())
CURRENT_ENCODING = select(encoding())
USERS = select(literal_column('1')).select_from(table('users')).where(false())  # the table of the first migration

NO_TABLES = 'The database has no table of users. Run "python manage.py db upgrade" to make it.'
DROPPED = (
    'The table of users is missing, although the database records revision {}. '
    'Run "python manage.py recreate_db" to make it; "db upgrade" would do nothing.'
)
OLDER = 'The schema of the database is older than the code. Run "python manage.py db upgrade".'
UNRECORDED = (
    'The tables are older than the code, and the database records no revision. '
    'Run "python manage.py db stamp REVISION" with the revision that they have, then "python manage.py db upgrade".'
)
UNSTAMPED = (
    'The table of users exists, but the database records no revision, as after db.create_all(). '
    'If its tables are those of the code, "python manage.py db stamp head" records that.'
)
UNKNOWN = (
    'The database records revision {}, which the code does not have. Use the code that has it; or, if there is none, '
    'run "flask --app manage db stamp --purge REVISION" with the revision of the code that the tables have.'
)
NO_MIGRATION = (
    'The models have changed without a migration. '
    'Run "python manage.py db migrate", then "python manage.py db upgrade".'
)
NEWER = (
    'The schema of the database is newer than the code, and lacks columns that the code reads. Start the newer code.'
)


ENCODING = (
    'The encoding of the database is {}, which cannot hold every name. Create another database with '
    '"createdb -T template0 -E UTF8 -l C NAME", and copy the data with pg_dump and psql.'
)


@dataclass(frozen=True)
class Schema:
    """The state of the schema.

    :ivar revisions: those that the database records, one unless the migrations have branches; none when
        the tables were made by ``db.create_all()``.
    :ivar has_users: whether the table of users exists.
    :ivar is_complete: whether every table and column of the models exists.
    :ivar encoding: the encoding of the database, by PostgreSQL's names.
    """

    revisions: frozenset[str]
    has_users: bool = True
    is_complete: bool = True
    encoding: str = 'UTF8'

    @property
    def is_dropped(self) -> bool:
        """Whether the table is missing and ``db upgrade`` would do nothing, as after ``db.drop_all()``."""
        return bool(self.revisions) and not self.has_users

    @property
    def is_unrecorded(self) -> bool:
        """Whether the table exists without a revision, as after ``db.create_all()``."""
        return self.has_users and not self.revisions

    def unsuitable(self) -> str | None:
        """Return why the database itself cannot be used and what to do, or None if it can."""
        # SQL_ASCII holds bytes of any encoding, and counts them instead of characters.
        return None if self.encoding == 'UTF8' else ENCODING.format(self.encoding)

    def unknown(self) -> str | None:
        """Return what to do about recorded revisions that the code does not have, or None if it has all of them."""
        known, _ = _migrations(current_app.extensions['migrate'].directory)
        missing = self.revisions - known
        return UNKNOWN.format(', '.join(sorted(missing))) if missing else None

    def outdated(self) -> str | None:
        """Return the command that upgrades the database to the newest revision.

        :returns: None if the database is up to date or newer.
        """
        known, heads = _migrations(current_app.extensions['migrate'].directory)
        if not self.has_users:
            return DROPPED.format(', '.join(sorted(self.revisions))) if self.revisions else NO_TABLES
        return OLDER if self.revisions and self.revisions <= known and self.revisions != heads else None

    def problem(self) -> str | None:
        """Return what the database lacks and which command helps, or None if the database is ready."""
        if unsuitable := self.unsuitable():
            return unsuitable
        if (outdated := self.outdated()) or self.is_complete:
            return outdated
        if not self.revisions:
            return UNRECORDED
        known, _ = _migrations(current_app.extensions['migrate'].directory)
        return NO_MIGRATION if self.revisions <= known else NEWER


Read = Callable[[Select[Any]], Sequence[Any]]


def inspect_schema(read: Read) -> Schema:
    """Return the state of the schema: in one round trip when it is complete and its revision recorded, else in five.

    :param read: runs a SELECT and returns its rows.
    :raises DatabaseError: the database is unavailable.
    """
    tables = tuple(db.metadata.tables.values())
    rows = _try(read, _complete(REVISIONS_AND_ENCODING, *tables))
    if rows:
        return Schema(frozenset(revision for revision, *_ in rows), encoding=rows[0][1])
    revisions = frozenset(revision for (revision,) in _try(read, REVISIONS) or ())
    is_complete = _try(read, _complete(CURRENT_ENCODING, *tables)) is not None
    return Schema(revisions, _try(read, USERS) is not None, is_complete, read(CURRENT_ENCODING)[0][0])


def read_patiently(statement: Select[Any]) -> Sequence[Any]:
    """Run a SELECT without a deadline and return its rows: a command may wait for the lock of another one.

    :raises Undefined: a table or a column does not exist.
    :raises sqlalchemy.exc.DBAPIError: any other error.
    """
    try:
        with db.engines['reads'].connect() as connection:
            return connection.execute(statement).all()
    except DBAPIError as error:
        if isinstance(undefined := translate(error), Undefined):
            raise undefined from None
        raise


@cache
def _complete(statement: Select[Any], *tables: Table) -> Select[Any]:
    """Return ``statement`` with columns that fail unless all columns of ``tables`` exist. They read no rows."""
    return statement.add_columns(*(exists(select(*each.c).where(false())) for each in tables))


def _try(read: Read, statement: Select[Any]) -> Sequence[Any] | None:
    """Return the rows of a SELECT, or None if a table or a column of it does not exist."""
    try:
        return read(statement)
    except Undefined:
        return None


@cache
def _migrations(directory: str) -> tuple[frozenset[str], frozenset[str]]:
    """Return the revisions of the migrations in ``directory``, and those of them that no other follows."""
    scripts = ScriptDirectory(directory)
    return frozenset(script.revision for script in scripts.walk_revisions()), frozenset(scripts.get_heads())
