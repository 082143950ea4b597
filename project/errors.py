"""JSON responses for exceptions."""

from flask import Flask, current_app, request
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from werkzeug.exceptions import HTTPException, ServiceUnavailable
from werkzeug.wrappers import Response

from project import readiness
from project.database import database
from project.database.errors import Unavailable, Undefined, translate


def init_app(app: Flask) -> None:
    """Register the error handlers of ``app``."""
    app.register_error_handler(HTTPException, envelope)
    app.register_error_handler(Unavailable, unavailable)
    app.register_error_handler(Undefined, undefined)
    for kind in (DBAPIError, PoolTimeout):
        app.register_error_handler(kind, session_error)


def envelope(error: HTTPException) -> Response:
    """Return the JSON response for an error: ``status``, ``message``, and ``errors`` where fields are wrong.

    :param error: its description is the message if it was raised with one, else its name: Werkzeug's default
        descriptions are for web pages. Its headers (``Allow``, ``Retry-After``, ``WWW-Authenticate``) are kept.
    """
    response = error.get_response()
    code = error.code or 500
    own = error.description != type(error).description and (code < 500 or isinstance(error, ServiceUnavailable))
    body = {'status': 'fail' if code < 500 else 'error', 'message': error.description if own else error.name}
    if errors := getattr(error, 'errors', None):
        body['errors'] = errors
    response.data = current_app.json.dumps(body)
    response.content_type = 'application/json'
    return response


def unavailable(error: Unavailable) -> Response:
    """Return 503 with ``Retry-After`` (RFC 9110 section 15.6.4)."""
    if current_app.config['METRICS']:
        from project import metrics

        metrics.DATABASE_ERRORS.labels(error.kind).inc()
    current_app.logger.error(
        'database_unavailable', extra={'fields': {'error': error.kind, 'sqlstate': error.sqlstate}}
    )
    message = 'The database is not available. Try again in a moment.'
    if request.method not in ('GET', 'HEAD'):
        message = 'The database is not available. Whether the change was made is unknown: look before trying again.'
    return envelope(ServiceUnavailable(message, retry_after=1))


def not_ready(problem: str) -> Response:
    """Log that the schema is not that of the code, and return 503 with ``Retry-After``.

    :param problem: the message, which names the command to run.
    """
    current_app.logger.error('schema_not_ready', extra={'fields': {'problem': problem}})
    return envelope(ServiceUnavailable(problem, retry_after=1))


def undefined(error: Undefined) -> Response:
    """Return 503 if the schema is not that of the code.

    :raises Undefined: the schema is right, so the statement is wrong, which is a 500.
    """
    try:
        problem = readiness.inspect_schema(database.read).problem()
    except Unavailable as reason:
        return unavailable(reason)
    if problem is None:
        raise error
    return not_ready(problem)


def session_error(error: DBAPIError | PoolTimeout) -> Response:
    """Return the response to an error of ``db.session``, which has not been translated.

    :raises SQLAlchemyError: the statement is wrong, which is a 500.
    """
    translated = translate(error)
    if isinstance(translated, Unavailable):
        return unavailable(translated)
    if isinstance(translated, Undefined):
        return undefined(translated)
    raise error
