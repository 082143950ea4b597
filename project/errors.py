"""The JSON envelope of every failure."""

from flask import current_app, request
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from werkzeug.exceptions import HTTPException, ServiceUnavailable

from project import database


def init_app(app):
    """Answer every failure of ``app`` in the envelope."""
    app.register_error_handler(HTTPException, envelope)
    for kind in (DBAPIError, PoolTimeout, database.FrozenError):
        app.register_error_handler(kind, database_error)


def envelope(error):
    """The answer to an error: ``status``, ``message``, and ``errors`` where fields are wrong.

    :param error: a werkzeug ``HTTPException``. One that was raised with a description of its own shows it,
        the others their name: werkzeug's descriptions speak to the reader of a browser. Its headers
        (``Allow``, ``Retry-After``, ``WWW-Authenticate``) are kept.
    """
    response = error.get_response()
    told = error.code < 500 or isinstance(error, ServiceUnavailable)
    body = {
        'status': 'fail' if error.code < 500 else 'error',
        'message': error.description if told and error.description != type(error).description else error.name,
    }
    if errors := getattr(error, 'errors', None):
        body['errors'] = errors
    response.data = current_app.json.dumps(body)
    response.content_type = 'application/json'
    return response


def database_error(error):
    """503 with ``Retry-After`` for a database in trouble, as RFC 9110 section 15.6.4 has it; else a 500.

    The database's own words go to the log only.
    """
    if not database.in_trouble(error):
        raise error
    original = getattr(error, 'orig', error)
    if current_app.config['METRICS']:
        from project import metrics

        metrics.DATABASE_ERRORS.labels(type(original).__name__).inc()
    current_app.logger.error(
        'database_unavailable',
        extra={'fields': {'error': type(original).__name__, 'sqlstate': getattr(original, 'pgcode', None)}},
    )
    message = 'The database is not available. Try again in a moment.'
    if request.method not in ('GET', 'HEAD'):
        message = 'The database is not available. Whether the change was made is unknown: look before trying again.'
    return envelope(ServiceUnavailable(message, retry_after=1))
