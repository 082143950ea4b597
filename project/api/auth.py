"""Who may do what: a bearer token (RFC 6750) guards what ``PROTECT`` says."""

import hmac

from flask import abort, request
from werkzeug.exceptions import Unauthorized

GUARDED = {
    'changes': {'PATCH', 'DELETE'},
    'writes': {'PATCH', 'DELETE', 'POST'},
    'all': {'PATCH', 'DELETE', 'POST', 'GET', 'HEAD'},
}
# What load balancers and newcomers ask stays open to them.
PUBLIC = {'system.ping', 'system.health', 'system.openapi', 'system.docs', 'system.docs_asset'}

# RFC 9110 section 11.5 has the realm in quotes always, which werkzeug leaves away around a single word.
CHALLENGE = 'Bearer realm="users"'


def init_app(app):
    """Ask for a token before every guarded request of ``app``."""
    guarded = GUARDED[app.config['PROTECT']]

    @app.before_request
    def require_token():
        if request.method in guarded and request.endpoint not in (None, *PUBLIC):
            check_token(app.config['API_TOKENS'])


def check_token(tokens):
    """Let the request pass if it has one of ``tokens``.

    :raises Forbidden: there are none. :raises Unauthorized: the request has none, or a wrong one.
    """
    if not tokens:
        abort(403, 'This needs a token, and the service has none: set API_TOKENS to open it.')
    scheme, _, token = request.headers.get('Authorization', '').partition(' ')
    # All are compared, each in constant time, so that the time taken tells nothing.
    matches = [hmac.compare_digest(token.strip().encode(), known.encode()) for known in tokens]
    if scheme.lower() != 'bearer':
        raise Unauthorized('A bearer token is required.', www_authenticate=(CHALLENGE,))
    if not any(matches):
        raise Unauthorized('The token is not valid.', www_authenticate=(f'{CHALLENGE}, error="invalid_token"',))
