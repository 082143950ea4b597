"""Flask-Script's `Manager, Server, Shell, Command, Option`, working on Flask 3.1 and Python 3.11 to 3.14.

Flask-Script 2.0.6 (2017, its last release) leans on four things that are gone. Each is lent to it here, and
neither `flask` nor the standard library stays changed:

* `flask._compat.text_type` (gone in Flask 2.0) and `flask._request_ctx_stack` (gone in Flask 2.3; the shell
  reads `.top.app`) are in place only while Flask-Script is imported, which keeps what it took;
* `inspect.getargspec` (gone in Python 3.11; `Command` reads a function's arguments with it) is in a copy of
  `inspect` that `flask_script.commands` alone sees;
* `parser._parse_known_args2` is Flask-Script's own name for the method it wraps to print the help when no
  command is given. Since Python 3.12.8 and 3.13.1 argparse has a method of that name (cpython issue 125355),
  and every command fails. `_Parser` prints the help through a public method instead.

As Flask-Script now makes each parser from `_Parser`, a wrong command line is one line on stderr and status 2.

Source: https://github.com/smurfix/flask-script/tree/v2.0.6/flask_script
"""

import argparse
import inspect
import os
import sys
from types import ModuleType, SimpleNamespace

import flask
from flask.globals import app_ctx

sys.modules['flask._compat'] = ModuleType('flask._compat')
sys.modules['flask._compat'].text_type = str
flask._request_ctx_stack = SimpleNamespace(top=app_ctx)
try:
    import flask_script
    from flask_script import Option, Shell, commands
finally:
    del sys.modules['flask._compat'], flask._request_ctx_stack

__all__ = ['Command', 'Manager', 'Option', 'Server', 'Shell']


class _Parser(argparse.ArgumentParser):
    needs_command = False

    def parse_known_args(self, args=None, namespace=None):
        if self.needs_command and not args:
            self.print_help()
            self.exit(2)
        namespace, unknown = super().parse_known_args(args, namespace)
        command = getattr(namespace, 'func_stack', [None])[-1]
        if unknown and not getattr(command, 'capture_all_args', False):
            # Flask-Script itself would only say 'too many arguments'.
            self.error(f'unrecognized arguments: {" ".join(unknown)}')
        return namespace, unknown

    def error(self, message):
        self.exit(2, f'{self.prog}: error: {message}\n')


class Command(commands.Command):
    """A command; the first paragraph of its docstring is its description, the first line of that its help."""

    @property
    def description(self):
        return inspect.cleandoc(self.__doc__ or '').split('\n\n')[0]

    @property
    def help(self):
        return self.description.split('\n')[0].replace('%', '%%')  # argparse expands %(prog)s and the like


class Server(commands.Server):
    """`runserver`: threaded unless several processes are asked for, and `-h` is the host as it always was."""

    help_args = ('-?', '--help')

    def __call__(self, app, port, threaded, processes, ssl_crt, ssl_key, **options):
        if not 0 <= port <= 65535:  # the resolver takes 99999 for 34463
            self.parser.error('argument -p/--port: must be 0 to 65535')
        files = [path for path in (ssl_crt, ssl_key) if path is not None]
        if len(files) == 1 or not all(map(os.path.isfile, files)):  # with one, it would serve plain HTTP
            self.parser.error('arguments --ssl-crt and --ssl-key: give both, each the path of a file')
        options.update(port=port, processes=processes, ssl_crt=ssl_crt, ssl_key=ssl_key)
        return super().__call__(app, threaded=processes == 1, **options)


class Manager(flask_script.Manager.mro()[-2]):  # Flask-Script's own, even when this module is imported anew
    """A set of commands, for an app, for a function that makes one, or (without one) for `add_command`."""

    help_args = ('-?', '-h', '--help')

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.help = self.help or ''  # rather than the docstring of this class
        self.description = self.description or self.help
        self.subparser_kwargs = {'title': 'commands', 'metavar': 'COMMAND'}

    def create_parser(self, prog, func_stack=(), parent=None):
        # 'manage.py db' rather than 'db', in the usage and in every error below it.
        self.prog = f'{parent.prog} {prog}' if parent else prog
        return super().create_parser(self.prog, func_stack, parent)

    def _patch_argparser(self, parser):
        parser.needs_command = True


commands.inspect = SimpleNamespace(**vars(inspect), getargspec=lambda func: inspect.getfullargspec(func)[:4])
commands.argparse = SimpleNamespace(**{**vars(argparse), 'ArgumentParser': _Parser})
flask_script.argparse = commands.argparse
flask_script.Command, flask_script.Manager, flask_script.Server = Command, Manager, Server
