"""The headers that every answer carries: CORS, the request id, and what keeps a browser from guessing and framing.

They are added as WSGI middleware: so they are on whatever leaves the app, and a list takes a header in a
tenth of the time that a response object does.
"""

import re

from flask import Response, request
from werkzeug.middleware.proxy_fix import ProxyFix

from project.observability import ROUTE_KEY, request_id

ALLOWED_HEADERS = 'Authorization, Content-Type, If-Match, If-None-Match, X-Request-ID'
EXPOSED_HEADERS = 'ETag, Link, Location, Retry-After, X-Request-ID'
PREFLIGHT_SECONDS = '600'
HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110, 5.6.2: a token
# The answers are data: nothing in them is to be run, framed or sniffed. See the OWASP REST Security Cheat Sheet.
CONSTANT = [
    ('X-Content-Type-Options', 'nosniff'),
    ('X-Frame-Options', 'DENY'),
    ('Referrer-Policy', 'no-referrer'),
    ('Access-Control-Expose-Headers', EXPOSED_HEADERS),
]
# What a view may decide otherwise. The data are personal: no shared cache may keep them, and a browser
# asks before it uses its copy.
DEFAULT = [
    ('Content-Security-Policy', "default-src 'none'; frame-ancestors 'none'"),
    ('Cache-Control', 'private, no-cache'),
]


def init_app(app):
    """Add the headers to every answer of ``app``, errors included, and believe only configured proxies."""
    app.wsgi_app = Headers(app.wsgi_app, app.config['CORS_ORIGINS'])
    if hops := app.config['PROXY_HOPS']:
        app.wsgi_app = ProxyFix(app.wsgi_app, x_for=hops, x_proto=hops, x_host=hops)


def allow_preflight(response: Response, requested: str) -> None:
    """Add the CORS headers of a preflight to ``response``.

    :param response: the response to OPTIONS, with the methods of the route in ``Allow``.
    :param requested: the ``Access-Control-Request-Headers`` of the request. Each valid name in it is allowed;
        without one, the headers that this service reads are.
    """
    names = [name for item in requested.split(',') if HEADER_NAME.fullmatch(name := item.strip())]
    response.headers['Access-Control-Allow-Methods'] = response.headers['Allow']
    response.headers['Access-Control-Allow-Headers'] = ', '.join(names) or ALLOWED_HEADERS
    response.headers['Access-Control-Max-Age'] = PREFLIGHT_SECONDS
    response.headers['Vary'] = 'Access-Control-Request-Headers'


class Headers:
    """Middleware that adds the headers.

    :param app: the WSGI app.
    :param origins: the origins whose pages may read the answers; ``*`` for any, without credentials.
    """

    def __init__(self, app, origins):
        self._app = app
        self._origins = origins
        self._constant = [*CONSTANT, ('Access-Control-Allow-Origin', '*') if '*' in origins else ('Vary', 'Origin')]

    def __call__(self, environ, start_response):
        """Serve a request."""

        def start(status, headers, exc_info=None):
            rule = request.url_rule
            environ[ROUTE_KEY] = rule and rule.rule
            names = {name for name, _ in headers}
            headers += [header for header in DEFAULT if header[0] not in names]
            headers += self._constant
            headers.append(('X-Request-ID', request_id(environ)))
            if '*' not in self._origins and environ.get('HTTP_ORIGIN') in self._origins:
                headers.append(('Access-Control-Allow-Origin', environ['HTTP_ORIGIN']))
            return start_response(status, headers, exc_info)

        return self._app(environ, start)
