"""The users service."""

from flask import Flask

from project.extensions import db, migrate

# isort: split
# The modules below, and those of added blueprints, import db from here.
from project import config, database, debugger, errors, headers, observability
from project.api import auth
from project.api.system import system_blueprint
from project.api.users import users_blueprint
from project.service import Service

__all__ = ['__version__', 'create_app', 'db']
__version__ = '1.0.0'


def create_app(settings: type | str | None = None) -> Flask:
    """Make the Flask app.

    :param settings: a configuration class or its import string; by default the one that ``APP_SETTINGS`` names, and
        without that ``project.config.DevelopmentConfig``.
    :raises project.config.SettingsError: a setting is missing or wrong.
    """
    app = Service(__name__, static_folder=None)
    app.config.from_object(settings or config.default_settings())
    config.init_app(app)
    # 'docs//x' is an unknown path rather than a redirect in HTML.
    app.url_map.merge_slashes = False
    db.init_app(app)
    migrate.init_app(app, db)
    for part in (database, observability, headers, errors):
        part.init_app(app)
    if app.config['METRICS']:
        from project import metrics  # importing it makes files

        metrics.init_app(app)
    for part in (auth, debugger):
        part.init_app(app)
    app.register_blueprint(users_blueprint)
    app.register_blueprint(system_blueprint)
    return app
