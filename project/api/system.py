"""The routes that are not about users: liveness, readiness, the OpenAPI document and the documentation page."""

import time
from pathlib import Path

import flask_swagger_ui
from flask import Blueprint, Response, abort, current_app, request
from flask.typing import ResponseReturnValue
from werkzeug.exceptions import NotFound
from werkzeug.wrappers import Response as WSGIResponse

import project
from project import errors, readiness
from project.database import database, deadline

HEALTH_SECONDS = 1.0
HERE = Path(__file__).parent
# openapi.yaml describes the default, PROTECT=changes. Under each value, these groups of operations need a token too.
GUARDED_GROUPS = {'changes': (), 'writes': ('writes',), 'all': ('writes', 'reads')}
# The files of Swagger UI in its PyPI package. The package's own page has an inline script.
SWAGGER_UI = Path(flask_swagger_ui.__file__).parent / 'dist'
DOCS_ASSETS = {
    'docs.css': (HERE / 'docs.css', 'text/css'),
    'docs.js': (HERE / 'docs.js', 'text/javascript'),
    'favicon-32x32.png': (SWAGGER_UI / 'favicon-32x32.png', 'image/png'),
    'swagger-ui-bundle.js': (SWAGGER_UI / 'swagger-ui-bundle.js', 'text/javascript'),
    'swagger-ui.css': (SWAGGER_UI / 'swagger-ui.css', 'text/css'),
}
# Allows scripts, styles and requests of this service only.
DOCS_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

system_blueprint = Blueprint('system', __name__)


@system_blueprint.get('/ping')
def ping() -> ResponseReturnValue:
    """Return 200 while the process is alive. It does not use the database."""
    return {'status': 'success', 'message': 'pong!'}


@system_blueprint.get('/health')
def health() -> ResponseReturnValue:
    """Return 200 with the version of the service and the database's response time in milliseconds, or 503.

    It is 503 when the database takes over a second, or when its schema is not that of the code.
    """
    started = time.perf_counter()
    with deadline(HEALTH_SECONDS):
        schema = readiness.inspect_schema(database.probe)
    milliseconds = (time.perf_counter() - started) * 1000
    if problem := schema.problem():
        return errors.not_ready(problem)
    return {'status': 'success', 'data': {'version': project.__version__, 'database_ms': round(milliseconds, 1)}}


@system_blueprint.app_errorhandler(404)
def not_found(error: NotFound) -> WSGIResponse:
    """Return the JSON response for a 404. For ``/`` it names the paths of the users and the documentation."""
    if request.path == '/':
        error.description = (
            f'The users are at {request.script_root}/users, the documentation at {request.script_root}/docs.'
        )
    return errors.envelope(error)


@system_blueprint.get('/openapi.yaml')
def openapi() -> Response:
    """Return the OpenAPI document, with the security of each operation as ``PROTECT`` sets it.

    RFC 9512 defines the media type.
    """
    document = (HERE / 'openapi.yaml').read_text(encoding='utf-8')
    for group in GUARDED_GROUPS[current_app.config['PROTECT']]:
        document = document.replace(f'security: &{group} []', f'security: &{group} [{{bearer: []}}]')
    return file_response(document.encode(), 'application/yaml')


@system_blueprint.get('/docs')
def docs() -> Response:
    """Return the documentation page. Its links are relative, so that it works behind the path prefix of a proxy."""
    response = file_response((HERE / 'docs.html').read_bytes(), 'text/html')
    response.headers['Content-Security-Policy'] = DOCS_POLICY
    return response


@system_blueprint.get('/docs/<name>')
def docs_asset(name: str) -> Response:
    """Return the script, style or picture ``name`` of the documentation page."""
    if name not in DOCS_ASSETS:
        abort(404)
    path, mimetype = DOCS_ASSETS[name]
    return file_response(path.read_bytes(), mimetype)


def file_response(content: bytes, mimetype: str) -> Response:
    """Return the response with a file: 200, or 304 if the client has this version of it (``If-None-Match``).

    The entity tag depends on the content only, so it is the same on every instance.

    :param content: the content of the file; text is UTF-8.
    :param mimetype: the media type, without a charset.
    """
    response = current_app.response_class(content, mimetype=mimetype)
    response.cache_control.no_cache = True
    response.add_etag()
    response.make_conditional(request)
    return response
