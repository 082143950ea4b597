"""Flask-Script's `Manager, Server, Shell, Command, Option`, working on Flask 3.1 and Python 3.11 to 3.14.

Flask-Script 2.0.6 (2017, its last release) needs four things that Flask and Python no longer have. This module
provides each of them, and leaves `flask` and the standard library unchanged:

* `flask._compat.text_type` (removed in Flask 2.0) and `flask._request_ctx_stack` (removed in Flask 2.3; the shell
  reads `.top.app`) exist only while Flask-Script is imported, which keeps its references to them.
* `inspect.getargspec` (removed in Python 3.11; `Command` reads a function's arguments with it) is in a copy of
  `inspect` that only `flask_script.commands` uses.
* `parser._parse_known_args2` is Flask-Script's own name for the method that it wraps to print the help when no
  command is given. Since Python 3.12.8 and 3.13.1 argparse has a method of that name (cpython issue 125355),
  and every command fails. `_Parser` prints the help through a public method instead.

Because Flask-Script makes each parser from `_Parser`, a wrong command line is one line on stderr and status 2.

Source: https://github.com/smurfix/flask-script/tree/v2.0.6/flask_script
"""

import argparse
import inspect
import os
import sys
from collections.abc import Callable, Sequence
from types import ModuleType, SimpleNamespace
from typing import Any, NoReturn

import flask
from flask.globals import app_ctx

sys.modules['flask._compat'] = ModuleType('flask._compat')
vars(sys.modules['flask._compat'])['text_type'] = str
vars(sys.modules['flask'])['_request_ctx_stack'] = SimpleNamespace(top=app_ctx)
try:
    import flask_script
    from flask_script import Option, Shell, commands
finally:
    del sys.modules['flask._compat'], vars(sys.modules['flask'])['_request_ctx_stack']

__all__ = ['Command', 'Manager', 'Option', 'Server', 'Shell']


class _Parser(argparse.ArgumentParser):
    needs_command = False

    # typeshed declares three overloads; argparse and Flask-Script call this one function in every form of them.
    def parse_known_args(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, args: Sequence[str] | None = None, namespace: Any = None
    ) -> tuple[Any, list[str]]:
        if self.needs_command and not args:
            self.print_help()
            self.exit(2)
        namespace, unknown = super().parse_known_args(args, namespace)
        command = getattr(namespace, 'func_stack', [None])[-1]
        if unknown and not getattr(command, 'capture_all_args', False):
            # Flask-Script's own message is only 'too many arguments'.
            self.error(f'unrecognized arguments: {" ".join(unknown)}')
        return namespace, unknown

    def error(self, message: str) -> NoReturn:
        self.exit(2, f'{self.prog}: error: {message}\n')


class Command(commands.Command):
    """A command; the first paragraph of its docstring is its description, the first line of that its help."""

    run: Callable[..., int | str | None]  # with the options as arguments; returns what sys.exit() takes

    @property
    def description(self) -> str:
        """Return the first paragraph of the docstring."""
        return inspect.cleandoc(self.__doc__ or '').split('\n\n')[0]

    @property
    def help(self) -> str:
        """Return the first line of the description."""
        return self.description.split('\n')[0].replace('%', '%%')  # argparse expands %(prog)s and the like


class Server(commands.Server):
    """`runserver`: threaded unless `--processes` is more than 1; `-h` is the host, as in Flask-Script."""

    help_args = ('-?', '--help')

    def __call__(self, app: flask.Flask, *args: Any, **options: Any) -> None:
        """Serve until interrupted.

        :param app: the app to serve.
        :param options: the command-line options, by name.
        """
        if not 0 <= options['port'] <= 65535:  # getaddrinfo() would use port 34463 for 99999
            self.parser.error('argument -p/--port: must be 0 to 65535')
        files = [options[name] for name in ('ssl_crt', 'ssl_key') if options[name] is not None]
        if len(files) == 1 or not all(map(os.path.isfile, files)):  # with only one of them, it would serve plain HTTP
            self.parser.error('arguments --ssl-crt and --ssl-key: give both, each the path of a file')
        super().__call__(app, *args, **options | {'threaded': options['processes'] == 1})


class Manager(flask_script.Manager.mro()[-2]):  # Flask-Script's own, even when this module is imported again
    """A set of commands, for an app, for a function that makes one, or (without one) for `add_command`."""

    help_args = ('-?', '-h', '--help')

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.help = self.help or ''  # rather than the docstring of this class
        self.description = self.description or self.help
        self.subparser_kwargs = {'title': 'commands', 'metavar': 'COMMAND'}

    def create_parser(self, prog: str, func_stack: tuple[Any, ...] = (), parent: Any = None) -> argparse.ArgumentParser:
        """Return the parser of this set of commands."""
        # The usage and the errors of a subcommand begin with 'manage.py db' instead of 'db'.
        self.prog = f'{parent.prog} {prog}' if parent else prog
        return super().create_parser(self.prog, func_stack, parent)

    def _patch_argparser(self, parser: _Parser) -> None:
        parser.needs_command = True


commands.inspect = SimpleNamespace(**vars(inspect), getargspec=lambda func: inspect.getfullargspec(func)[:4])
commands.argparse = SimpleNamespace(**{**vars(argparse), 'ArgumentParser': _Parser})
flask_script.argparse = commands.argparse
flask_script.Command, flask_script.Manager, flask_script.Server = Command, Manager, Server
