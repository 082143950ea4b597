"""Request ids, trace ids, and the configuration of the app's logger."""

import logging
import random
import re
import sys
from typing import Any

from flask import Flask, has_request_context, request

from project import config

REQUEST_ID = re.compile(r'[A-Za-z0-9._:/+=-]{1,128}')
# W3C Trace Context, section 3.2: version, trace id, parent id, flags. Version ff and ids of zeros are invalid.
# Version 00 has no more fields; later versions may have.
TRACEPARENT = re.compile(
    r'(?!ff|00.{53}.)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(?:-.*)?'
)
# Keys of the WSGI environment. serving/logs.py repeats them, since it cannot import this module.
ID_KEY, ROUTE_KEY, TOKEN_KEY, USER_KEY = 'users.request_id', 'users.route', 'users.token', 'users.user_id'
TRACE_KEY = 'users.trace_id'


def init_app(app: Flask) -> None:
    """Configure the logger of ``app``: to gunicorn's handlers under gunicorn, else to stdout, at ``LOG_LEVEL``."""
    if config.under_gunicorn():
        app.logger.handlers = logging.getLogger('gunicorn.error').handlers
    else:
        app.logger.handlers = [logging.StreamHandler(sys.stdout)]
        app.logger.handlers[0].setFormatter(
            logging.Formatter('%(levelname)s %(message)s %(fields)s', defaults={'fields': ''})
        )
    app.logger.setLevel(app.config['LOG_LEVEL'])
    app.logger.propagate = False
    app.logger.addFilter(add_request_id)


def request_id(environ: dict[str, Any]) -> str:
    """Return the id of a request: the client's ``X-Request-ID`` if it is valid, else a random one.

    :param environ: the WSGI environment, in which the first call stores the id.
    """
    if ID_KEY not in environ:
        sent = environ.get('HTTP_X_REQUEST_ID', '')
        environ[ID_KEY] = sent if REQUEST_ID.fullmatch(sent) else f'{random.getrandbits(128):032x}'
    return environ[ID_KEY]


def read_trace_id(environ: dict[str, Any]) -> None:
    """Store the trace id of a request's ``traceparent``, if it has a valid one, in its WSGI environment."""
    if 'HTTP_TRACEPARENT' in environ and (match := TRACEPARENT.fullmatch(environ['HTTP_TRACEPARENT'])):
        environ[TRACE_KEY] = match[1]


def add_request_id(record: logging.LogRecord) -> bool:
    """Add the ids of the current request and its trace to the ``fields`` of a log record. Return True, to log it."""
    if has_request_context():
        ids = {'request_id': request_id(request.environ)}
        if TRACE_KEY in request.environ:
            ids['trace_id'] = request.environ[TRACE_KEY]
        record.fields = {**ids, **getattr(record, 'fields', {})}
    return True
