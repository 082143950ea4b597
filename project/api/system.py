"""What is not about users: alive, ready, and the contract, for machines and for people."""

from importlib.util import find_spec
from pathlib import Path

from flask import Blueprint, abort, current_app, request

from project import database

HEALTH_SECONDS = 1.0
HERE = Path(__file__).parent
# Swagger UI as its PyPI package brings it. The package's own blueprint would make a page with a script in it.
SWAGGER_UI = Path(find_spec('flask_swagger_ui').origin).parent / 'dist'
DOCS_ASSETS = {
    'docs.js': (HERE / 'docs.js', 'text/javascript'),
    'favicon-32x32.png': (SWAGGER_UI / 'favicon-32x32.png', 'image/png'),
    'swagger-ui-bundle.js': (SWAGGER_UI / 'swagger-ui-bundle.js', 'text/javascript'),
    'swagger-ui.css': (SWAGGER_UI / 'swagger-ui.css', 'text/css'),
}
# Scripts, styles and requests of this service only.
DOCS_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

system_blueprint = Blueprint('system', __name__)


@system_blueprint.get('/ping')
def ping():
    """Alive: answers whatever the database does."""
    return {'status': 'success', 'message': 'pong!'}


@system_blueprint.get('/health')
def health():
    """Ready: 200 with the database's round trip in milliseconds, or 503 when it takes over a second."""
    milliseconds = database.round_trip(HEALTH_SECONDS) * 1000
    return {'status': 'success', 'data': {'database_ms': round(milliseconds, 1)}}


@system_blueprint.get('/openapi.yaml')
def openapi():
    """The contract of this service, as OpenAPI 3.1; the media type is that of RFC 9512."""
    return file_answer(HERE / 'openapi.yaml', 'application/yaml')


@system_blueprint.get('/docs')
def docs():
    """The contract as a page to try requests on. Its links are relative, so that it works behind a proxy's path."""
    response = file_answer(HERE / 'docs.html', 'text/html')
    response.headers['Content-Security-Policy'] = DOCS_POLICY
    return response


@system_blueprint.get('/docs/<name>')
def docs_asset(name):
    """A script, style or picture of that page."""
    if name not in DOCS_ASSETS:
        abort(404)
    return file_answer(*DOCS_ASSETS[name])


def file_answer(path, mimetype):
    """The answer with a file: 200, or 304 when the client has this version of it (``If-None-Match``).

    The tag is that of the content, and so the same on every instance.

    :param path: the file's ``Path``.
    :param mimetype: its media type; for text, without a charset, which is UTF-8.
    """
    response = current_app.response_class(path.read_bytes(), mimetype=mimetype)
    response.cache_control.no_cache = True
    response.add_etag()
    return response.make_conditional(request)
