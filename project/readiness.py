"""Whether the database has the tables and columns that the code needs, and which command makes them."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from alembic.script import ScriptDirectory
from flask import current_app
from sqlalchemy import Select, Table, column, exists, false, literal_column, select, table
from sqlalchemy.exc import DBAPIError

from project import database, db

REVISIONS = select(column('version_num')).select_from(table('alembic_version'))
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
NO_MIGRATION = (
    'The models have changed without a migration. '
    'Run "python manage.py db migrate", then "python manage.py db upgrade".'
)
NEWER = (
    'The schema of the database is newer than the code, and lacks columns that the code reads. Start the newer code.'
)


@dataclass(frozen=True)
class Schema:
    """The state of the schema.

    :ivar revisions: those that the database records, one unless the migrations have branches; none when
        the tables were made by ``db.create_all()``.
    :ivar has_users: whether the table of users exists.
    :ivar is_complete: whether every table and column of the models exists.
    """

    revisions: frozenset[str]
    has_users: bool = True
    is_complete: bool = True

    @property
    def is_dropped(self) -> bool:
        """Whether the table is missing and ``db upgrade`` would do nothing, as after ``db.drop_all()``."""
        return bool(self.revisions) and not self.has_users

    @property
    def is_unrecorded(self) -> bool:
        """Whether the table exists without a revision, as after ``db.create_all()``."""
        return self.has_users and not self.revisions

    def outdated(self) -> str | None:
        """Return which command brings the database to the newest revision, or None if it is there or beyond."""
        known, heads = _migrations(current_app.extensions['migrate'].directory)
        if not self.has_users:
            return DROPPED.format(', '.join(sorted(self.revisions))) if self.revisions else NO_TABLES
        return OLDER if self.revisions and self.revisions <= known and self.revisions != heads else None

    def problem(self) -> str | None:
        """Return what the code lacks and which command helps, or None if the database is ready."""
        if (outdated := self.outdated()) or self.is_complete:
            return outdated
        if not self.revisions:
            return UNRECORDED
        known, _ = _migrations(current_app.extensions['migrate'].directory)
        return NO_MIGRATION if self.revisions <= known else NEWER


def inspect_schema(patient: bool = False) -> Schema:
    """Return the state of the schema: in one round trip when it is complete and its revision recorded, else in four.

    :param patient: wait as long as the database takes, as commands do, instead of as long as a request may.
    :raises sqlalchemy.exc.SQLAlchemyError, project.database.FrozenError: the database is unavailable.
    """
    tables = tuple(db.metadata.tables.values())
    rows = _read(_complete(REVISIONS, *tables), patient)
    if rows is not None:
        return Schema(frozenset(revision for revision, *_ in rows))
    revisions = frozenset(revision for (revision,) in _read(REVISIONS, patient) or ())
    complete = _complete(select(literal_column('1')), *tables)
    return Schema(revisions, _read(USERS, patient) is not None, _read(complete, patient) is not None)


@cache
def _complete(statement: Select, *tables: Table) -> Select:
    """Return ``statement`` with columns that fail unless all columns of ``tables`` exist. They read no rows."""
    return statement.add_columns(*(exists(select(*each.c).where(false())) for each in tables))


def _read(statement: Select, patient: bool) -> Sequence[tuple] | None:
    """Return the rows of a select, or None if a table or a column of it does not exist."""
    try:
        if not patient:
            return database.read(statement)
        with db.engines['autocommit'].connect() as connection:
            return connection.execute(statement).all()
    except DBAPIError as error:
        if not database.is_schema_error(error):
            raise
        return None


@cache
def _migrations(directory: str) -> tuple[frozenset[str], frozenset[str]]:
    """Return the revisions of the migrations in ``directory``, and those of them that no other follows."""
    scripts = ScriptDirectory(directory)
    return frozenset(script.revision for script in scripts.walk_revisions()), frozenset(scripts.get_heads())
