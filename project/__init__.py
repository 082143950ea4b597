"""The users service."""

from flask import Flask, Response, request
from flask.sessions import NullSession, SessionInterface

from project import config, database
from project.extensions import db, migrate
from project.headers import allow_preflight
from project.json_provider import OrjsonProvider

__version__ = '1.0.0'


class NoSession(SessionInterface):
    """No route keeps anything in a cookie, so no request pays for reading one."""

    def open_session(self, app, request):
        """The same empty session for every request; it refuses to be written to."""
        return EMPTY_SESSION


EMPTY_SESSION = NullSession()


class Service(Flask):
    """Flask as this service uses it: JSON, no cookies, no ``async`` views."""

    json_provider_class = OrjsonProvider
    session_interface = NoSession()

    def ensure_sync(self, func):
        """``func`` as it is; Flask would look at each function that a request goes through whether it is ``async``."""
        return func

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
