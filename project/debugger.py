"""Keeps Werkzeug's debugger off under ``flask run``: its page at ``/console`` runs any code that a client sends."""

import os

import click
from flask import Flask


def init_app(app: Flask) -> None:
    """Keep the debugger of the development server off, in this process and in those that the reloader starts.

    ``flask run --debug`` decides on the debugger before it loads the app, and has no hook for the app to change that.
    """
    if click.get_current_context(silent=True) is None:
        return  # not started by the flask command
    os.environ['FLASK_RUN_DEBUGGER'] = '0'  # for the process that the reloader starts, even if the app fails to load
    from werkzeug.debug import DebuggedApplication

    DebuggedApplication.__call__ = lambda self, environ, start_response: self.app(environ, start_response)
