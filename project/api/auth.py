"""Authorization: requests that ``PROTECT`` selects need a bearer token (RFC 6750)."""

import hmac
from collections.abc import Sequence

from flask import Flask, abort, request
from werkzeug.datastructures import WWWAuthenticate
from werkzeug.exceptions import Unauthorized

from project.observability import TOKEN_KEY
from project.setting_values import name_and_token

GUARDED = {
    'changes': {'PATCH', 'DELETE'},
    'writes': {'PATCH', 'DELETE', 'POST'},
    'all': {'PATCH', 'DELETE', 'POST', 'GET', 'HEAD'},
}
# The routes that need no token under any setting: those of load balancers and of the documentation.
PUBLIC = {'system.ping', 'system.health', 'system.openapi', 'system.docs', 'system.docs_asset'}

# RFC 9110 section 11.5 requires quotes around the realm. Werkzeug omits them around a single word, except in a token.
REALM = 'realm="users"'


def init_app(app: Flask) -> None:
    """Require a token for the requests to ``app`` that its ``PROTECT`` selects.

    If another request has a valid token, its log line has the name of the token, too.
    """
    guarded = GUARDED[app.config['PROTECT']]

    @app.before_request
    def require_token() -> None:
        if request.method in guarded and request.endpoint not in (None, *PUBLIC):
            check_token(app.config['API_TOKENS'])
        elif 'HTTP_AUTHORIZATION' in request.environ and (sent := _bearer_token()):
            _log_name(sent, app.config['API_TOKENS'])


def check_token(tokens: Sequence[str]) -> None:
    """Check that the current request has one of ``tokens``. The name of the token is then in its log line.

    :raises Forbidden: ``tokens`` is empty.
    :raises Unauthorized: the request has no token, or one that is not valid.
    """
    if not tokens:
        abort(403, 'This needs a token, and the service has none: set API_TOKENS to open it.')
    sent = _bearer_token()
    if sent is None:
        raise Unauthorized('A bearer token is required.', www_authenticate=WWWAuthenticate('bearer', token=REALM))
    if not _log_name(sent, tokens):
        challenge = WWWAuthenticate('bearer', token=f'{REALM}, error="invalid_token"')
        raise Unauthorized('The token is not valid.', www_authenticate=challenge)


def _bearer_token() -> str | None:
    """Return the bearer token of the current request; None if it has no ``Authorization`` of this scheme."""
    scheme, _, token = request.headers.get('Authorization', '').partition(' ')
    return token.strip() if scheme.lower() == 'bearer' else None


def _log_name(sent: str, tokens: Sequence[str]) -> bool:
    """Return whether a token is one of ``tokens``. If so, add its name to the log line of the current request."""
    # Every token is compared, each in constant time, so that the response time reveals nothing.
    names = [
        name
        for item in tokens
        for name, token in (name_and_token(item), (name_and_token(item)[0], item))
        if hmac.compare_digest(sent.encode(), token.encode())
    ]
    if names:
        request.environ[TOKEN_KEY] = names[0]
    return bool(names)
