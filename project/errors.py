"""The JSON envelope of every failure."""

from flask import Response, current_app, request
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from werkzeug.exceptions import HTTPException, ServiceUnavailable

from project import database, readiness

DATABASE_ERRORS = (DBAPIError, PoolTimeout, database.FrozenError)


def init_app(app):
    """Answer every failure of ``app`` in the envelope."""
    app.register_error_handler(HTTPException, envelope)
    for kind in DATABASE_ERRORS:
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


def not_ready(problem: str) -> Response:
    """Log that the schema is not that of the code, and return 503 with ``Retry-After``.

    :param problem: the message, which names the command that helps.
    """
    current_app.logger.error('schema_not_ready', extra={'fields': {'problem': problem}})
    return envelope(ServiceUnavailable(problem, retry_after=1))


def database_error(error: Exception) -> Response:
    """Return 503 with ``Retry-After`` (RFC 9110 section 15.6.4) if the database is unavailable or its schema not ready.

    The response never contains the text of the database.

    :param error: any of those that the handler is registered for.
    :raises Exception: ``error`` itself, which becomes a 500, when the statement is wrong.
    """
    if database.is_schema_error(error):
        try:
            problem = readiness.inspect_schema().problem()
        except DATABASE_ERRORS as reason:
            error = reason
        else:
            if problem is None:
                raise error
            return not_ready(problem)
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
