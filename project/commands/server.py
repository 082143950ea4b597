"""The commands around the running app: its development server, its shell and its routes."""

from flask import Flask, current_app

from project import db
from project.api.models import User
from project.commands.migrating import run_upgrade
from project.commands.script_compat import Command, Server, Shell


class RunServer(Server):
    """Serve for development, reloading changed code."""

    help = description = __doc__

    def __call__(self, app: Flask, **options: object) -> None:
        """Serve until interrupted; an SQLite database is upgraded first.

        :param app: the app to serve.
        :param options: those of Flask-Script's ``Server``.
        """
        with app.app_context():
            if db.engine.dialect.name == 'sqlite':
                run_upgrade()
        # The debugger would run any code that a visitor types into its page.
        return super().__call__(app, **options | {'use_debugger': False})


class AppShell(Shell):
    """A Python shell with app, db and User."""

    help = description = __doc__

    def get_context(self) -> dict[str, object]:
        """Return the names that the shell starts with."""
        return {'app': current_app._get_current_object(), 'db': db, 'User': User}


class Routes(Command):
    """List the routes."""

    def run(self) -> None:
        """Print a line for each route: its methods and its path."""
        for rule in sorted(current_app.url_map.iter_rules(), key=lambda rule: rule.rule):
            print(f'{",".join(sorted(rule.methods - {"HEAD", "OPTIONS"})):8} {rule.rule}')
