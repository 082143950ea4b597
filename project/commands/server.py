"""The commands that run the development server, open a shell, check the settings and list the routes."""

from typing import Any

from flask import Flask, current_app
from flask.globals import app_ctx
from werkzeug.serving import is_running_from_reloader

from project import db
from project.api.models import User
from project.commands.migrating import run_upgrade
from project.commands.script_compat import Command, Server, Shell


class RunServer(Server):
    """Serve for development, reloading changed code."""

    help = description = __doc__

    def __call__(self, app: Flask, *args: Any, **options: Any) -> None:
        """Serve until interrupted; an SQLite database is upgraded first.

        :param app: the app to serve.
        :param options: the options of Flask-Script's ``Server``, by name.
        """
        with app.app_context():
            if db.engine.dialect.name == 'sqlite':
                run_upgrade()
        if options['port'] and not is_running_from_reloader():  # for port 0, only the server knows the port
            scheme = 'https' if options['ssl_crt'] else 'http'
            host = {'0.0.0.0': '127.0.0.1', '::': '::1'}.get(options['host']) or options['host']  # noqa: S104, not bound
            address = f'{scheme}://{f"[{host}]" if ":" in host else host}:{options["port"]}'
            print(f'Users: {address}/users', f'Documentation: {address}/docs', sep='\n')
        # The debugger would run any code that a client sends to its page.
        super().__call__(app, *args, **options | {'use_debugger': False})


class AppShell(Shell):
    """A Python shell with app, db and User."""

    help = description = __doc__

    def get_context(self) -> dict[str, object]:
        """Return the names that the shell defines."""
        return {'app': app_ctx.app, 'db': db, 'User': User}


class CheckSettings(Command):
    """Check the settings, as every command does, and do nothing else."""

    def run(self) -> None:
        """Print that the settings are valid. With wrong ones, manage.py has ended with one line on stderr."""
        print('The settings are valid.')


class Routes(Command):
    """List the routes."""

    def run(self) -> None:
        """Print a line for each route: its methods and its path."""
        for rule in sorted(current_app.url_map.iter_rules(), key=lambda rule: rule.rule):
            print(f'{",".join(sorted((rule.methods or set()) - {"HEAD", "OPTIONS"})):8} {rule.rule}')
