"""The command ``recreate_db``."""

import re
import sys

import flask_migrate
from sqlalchemy import Connection, select, table, text
from sqlalchemy.exc import DBAPIError

from project import db, readiness
from project.commands.migrating import count_users, in_production, require_suitable
from project.commands.script_compat import Command, Option
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
        count = count_users()
        if in_production() and not force:
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


def _reason(error: DBAPIError) -> str:
    """Return the reason why the database rejected a statement, in one line.

    PostgreSQL's details name the objects that depend on a table.
    """
    diagnostics = getattr(error.orig, 'diag', None)
    parts = (diagnostics.message_primary, diagnostics.message_detail) if diagnostics else (str(error.orig),)
    return ': '.join(' '.join(part.split()).rstrip('.') for part in parts if part)
