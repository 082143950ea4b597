"""The commands that change the schema of the database: ``recreate_db``, and those of ``db``."""

import sys

import flask_migrate
from flask import current_app
from sqlalchemy import func, inspect, select, table, text

from project import db
from project.commands.script_compat import Command, Manager, Option
from project.commands.waiting import wait_for_database


class RecreateDb(Command):
    """Drop all users, and make the tables anew."""

    option_list = [Option('--force', action='store_true', help='in production too')]

    def run(self, force: bool) -> None:
        """Drop the tables and run the migrations.

        :param force: do so in production too.
        """
        production = not (current_app.debug or current_app.testing)
        wait_for_database()
        where = db.engine.url.render_as_string(hide_password=True)
        present = inspect(db.engine)
        # The second is the table of the 2017 service, whose users the migrations would else carry over.
        tables = [table(name) for name in ('users', 'user') if present.has_table(name)]
        count = sum(db.session.scalar(select(func.count()).select_from(old)) for old in tables)
        db.session.rollback()
        if production and not force:
            sys.exit(f'This would destroy the {count} users in {where}. In production that needs --force.')
        print(f'Dropping the {count} users in {where}.')
        db.drop_all()
        with db.engine.begin() as connection:
            for name in ('alembic_version', '"user"'):
                connection.execute(text(f'DROP TABLE IF EXISTS {name}'))
        flask_migrate.upgrade()
        print('The tables are new and empty.')


db_manager = Manager(help='Change the schema of the database.')


@db_manager.command
def init() -> None:
    """Make a new folder of migrations; this project has one."""
    flask_migrate.init()


@db_manager.option('-m', '--message', help='what the migration does')
def migrate(message: str | None) -> None:
    """Write a migration for what has changed in the models.

    :param message: what the migration does.
    """
    flask_migrate.migrate(message=message)


@db_manager.option('revision', nargs='?', default='head')
@db_manager.option('-x', '--x-arg', action='append', metavar='NAME=VALUE', help='for the migration, such as zone=UTC')
@db_manager.option('--sql', action='store_true', help='print the statements instead')
def upgrade(revision: str, x_arg: list[str] | None, sql: bool) -> None:
    """Bring the schema up to the newest migration.

    :param revision: the revision to upgrade to.
    :param x_arg: arguments for the migrations, each ``NAME=VALUE``.
    :param sql: print the statements instead.
    """
    if not sql:
        wait_for_database()
    flask_migrate.upgrade(revision=revision, x_arg=x_arg, sql=sql)


@db_manager.option('revision', nargs='?', default='-1')
@db_manager.option('--force', action='store_true', help='in production too')
def downgrade(revision: str, force: bool) -> None:
    """Undo the last migration, and destroy what it made.

    :param revision: the revision to downgrade to; ``-1`` is the previous one.
    :param force: do so in production too.
    """
    if not (current_app.debug or current_app.testing or force):
        sys.exit(f'This destroys data in {db.engine.url.render_as_string()}. In production that needs --force.')
    flask_migrate.downgrade(revision=revision)


@db_manager.command
def current() -> None:
    """Show the revision of the database."""
    flask_migrate.current()


@db_manager.command
def check() -> None:
    """Fail when models have changed without a migration."""
    flask_migrate.check()
