"""Flask as this service uses it: JSON by orjson, CORS preflights, and no sessions."""

import re
import threading
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

from flask import Flask, Request, Response, request
from flask.sessions import NullSession, SessionInterface
from werkzeug.datastructures import Headers
from werkzeug.exceptions import BadRequest
from werkzeug.routing import MapAdapter

from project.headers import allow_preflight
from project.json_provider import OrjsonProvider

NO_SESSIONS = (
    'This service keeps no sessions: it sets no cookies, and clients send a token with each request. '
    'To use sessions all the same, remove the line session_interface = NoSessions() from project/service.py.'
)


class NoSession(NullSession):
    """An empty session. A change or a missing key raises an error that explains why."""

    def _reject(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise RuntimeError(NO_SESSIONS)

    __setitem__ = __delitem__ = clear = pop = popitem = update = setdefault = _reject

    def __missing__(self, key: str) -> NoReturn:
        raise KeyError(key, NO_SESSIONS)


class NoSessions(SessionInterface):
    """Gives each request the same empty session, so that no request pays for reading a cookie."""

    def open_session(self, app: Flask, request: Request) -> NoSession:
        """Return the empty session."""
        return EMPTY_SESSION


EMPTY_SESSION = NoSession()
# A name, where names of containers may have underscores, or an IPv6 address in brackets, and perhaps a port.
HOST = re.compile(r'(?:[a-z0-9._-]+|\[[a-f0-9:.]+\])(?::[0-9]{0,5})?', re.ASCII | re.IGNORECASE)


class EncodedJSON(Response):
    """A response whose body is JSON already, and whose headers are sent as they are.

    :param body: the JSON.
    :param headers: without Content-Type and Content-Length. ``Location`` must be a URI, since it is not encoded.
    """

    def __init__(self, body: bytes, status: int = 200, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(body, status, headers, content_type='application/json')

    def get_wsgi_headers(self, environ: Any) -> Headers:
        """Return the headers. Werkzeug would copy, search and convert them, which takes 3 % of a request."""
        return self.headers


class Service(Flask):
    """The class of the app."""

    json_provider_class = OrjsonProvider
    session_interface = NoSessions()
    _event_loop = threading.RLock()

    def create_url_adapter(self, request: Request | None) -> MapAdapter | None:
        """Return the URL adapter of a request, without Flask's parsing of the host, on which no route depends.

        This saves 8 % of a request's time. With TRUSTED_HOSTS, Flask has to check the host.

        :raises BadRequest: the Host header is malformed, or missing from HTTP/1.1 (RFC 9112 section 3.2).
        :raises SecurityError: the host is not one of TRUSTED_HOSTS, which is a 400, too.
        """
        if request is None:
            return super().create_url_adapter(request)
        host = request.environ.get('HTTP_HOST')
        if not HOST.fullmatch(host or '') and (host or request.environ.get('SERVER_PROTOCOL') != 'HTTP/1.0'):
            raise BadRequest('The Host header is missing or malformed.')
        if self.config['TRUSTED_HOSTS']:
            if host:
                request.environ['HTTP_HOST'] = host.lower()  # config.py converts TRUSTED_HOSTS to lower case
            return super().create_url_adapter(request)
        return self.url_map.bind('', request.root_path, None, request.scheme, request.method, request.path)

    def log_exception(self, exc_info: Any) -> None:
        """Log an unexpected exception. Flask's own line contains the path, which may be personal data."""
        fields = {'route': request.url_rule and request.url_rule.rule}
        self.logger.error('exception', exc_info=exc_info, extra={'fields': fields})

    def async_to_sync(self, func: Callable[..., Any]) -> Callable[..., Any]:
        """Return a function that runs an ``async`` one; it needs asgiref, as Flask's error message says.

        A thread runs one event loop at a time, and gunicorn's gevent worker is one thread: other ``async`` views
        of the worker wait, all other requests don't.
        """
        run = super().async_to_sync(func)

        def run_alone(*args: Any, **kwargs: Any) -> Any:
            with self._event_loop:
                return run(*args, **kwargs)

        return run_alone

    def make_default_options_response(self) -> Response:
        """Return the response to OPTIONS, which allows a CORS preflight (Fetch standard) the methods of the route."""
        response = super().make_default_options_response()
        response.mimetype = 'application/json'
        allow_preflight(response, request.headers.get('Access-Control-Request-Headers', ''))
        return response
