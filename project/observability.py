"""Request ids, and where the app's log lines go."""

import logging
import os
import re
import sys

from flask import has_request_context, request

from project import config

SANE_ID = re.compile(r'[A-Za-z0-9._:/+=-]{1,128}')
ID_KEY, ROUTE_KEY = 'users.request_id', 'users.route'  # in the WSGI environment, where gunicorn.conf.py looks


def init_app(app):
    """Log as the settings say."""
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


def request_id(environ):
    """The id of a request: the client's ``X-Request-ID`` when it is sane, else one made now.

    :param environ: the WSGI environment, which keeps the id from then on.
    """
    if ID_KEY not in environ:
        sent = environ.get('HTTP_X_REQUEST_ID', '')
        environ[ID_KEY] = sent if SANE_ID.fullmatch(sent) else os.urandom(16).hex()
    return environ[ID_KEY]


def add_request_id(record):
    """Put the id of the request that is being served into the ``fields`` of a log record."""
    if has_request_context():
        record.fields = {'request_id': request_id(request.environ), **getattr(record, 'fields', {})}
    return True
