"""The users service."""

import threading
from collections.abc import Callable
from typing import Any, NoReturn

from flask import Flask, Request, Response, request
from flask.sessions import NullSession, SessionInterface

from project import config, database
from project.extensions import db, migrate
from project.headers import allow_preflight
from project.json_provider import OrjsonProvider

__version__ = '1.0.0'


NO_SESSIONS = (
    'This service keeps no sessions: it sets no cookies, and clients send a token with each request. '
    'To use sessions all the same, remove the line session_interface = NoSessions() from project/__init__.py.'
)


class NoSession(NullSession):
    """An empty session that rejects changes, and says why a key is missing."""

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


class Service(Flask):
    """Flask as this service uses it: JSON by orjson, and no sessions."""

    json_provider_class = OrjsonProvider
    session_interface = NoSessions()
    _event_loop = threading.RLock()

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


def create_app(settings=None):
    """Make the Flask app.

    :param settings: a configuration class or its import string; else the one that ``APP_SETTINGS`` names,
        else ``project.config.DevelopmentConfig``.
    :raises project.config.SettingsError: a setting is missing or wrong.
    """
    # These modules import db from this one.
    from project import debugger, errors, headers, observability
    from project.api import auth
    from project.api.system import system_blueprint
    from project.api.views import users_blueprint

    app = Service(__name__, static_folder=None)
    app.config.from_object(settings or config.default_settings())
    config.init_app(app)
    # 'docs//x' is an unknown path, not a redirect that answers HTML; slashes at the start the servers drop.
    app.url_map.merge_slashes = False
    db.init_app(app)
    migrate.init_app(app, db)
    for part in (database, observability, headers, errors, auth, debugger):
        part.init_app(app)
    app.register_blueprint(users_blueprint)
    app.register_blueprint(system_blueprint)
    if app.config['METRICS']:
        from project import metrics

        metrics.init_app(app)
    return app
