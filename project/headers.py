"""The headers that every answer carries: CORS, and what keeps a browser from guessing, framing and telling."""

from flask import request
from werkzeug.middleware.proxy_fix import ProxyFix

ALLOWED_HEADERS = 'Authorization, Content-Type, If-Match, If-None-Match, X-Request-ID'
EXPOSED_HEADERS = 'ETag, Link, Location, Retry-After, X-Request-ID'
PREFLIGHT_SECONDS = '600'
# The answers are data: nothing in them is to be run, framed or sniffed. See the OWASP REST Security Cheat Sheet.
SECURITY_HEADERS = {
    'Content-Security-Policy': "default-src 'none'; frame-ancestors 'none'",
    'Referrer-Policy': 'no-referrer',
    'X-Content-Type-Options': 'nosniff',
    'X-Frame-Options': 'DENY',
}


def init_app(app):
    """Add the headers to every answer of ``app``, errors included, and believe only configured proxies."""
    if hops := app.config['PROXY_HOPS']:
        app.wsgi_app = ProxyFix(app.wsgi_app, x_for=hops, x_proto=hops, x_host=hops)
    origins = app.config['CORS_ORIGINS']
    everybody = '*' in origins
    constant = [*SECURITY_HEADERS.items(), ('Access-Control-Expose-Headers', EXPOSED_HEADERS)]
    if everybody:
        constant.append(('Access-Control-Allow-Origin', '*'))
    else:
        constant.append(('Vary', 'Origin'))

    @app.after_request
    def add_headers(response):
        headers = response.headers
        for name, value in constant:
            if name not in headers:
                headers[name] = value
        if not everybody and request.headers.get('Origin') in origins:
            headers['Access-Control-Allow-Origin'] = request.headers['Origin']
        if request.method == 'OPTIONS' and response.allow:
            # The fetch standard's preflight. Flask has put the methods of the route into Allow.
            headers['Access-Control-Allow-Methods'] = headers['Allow']
            headers['Access-Control-Allow-Headers'] = ALLOWED_HEADERS
            headers['Access-Control-Max-Age'] = PREFLIGHT_SECONDS
        return response
