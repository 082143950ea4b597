"""The settings of the app, from the environment; nothing else happens on import. gunicorn's own are in its file."""

import os

from werkzeug.utils import import_string

PROTECT_CHOICES = ('changes', 'writes', 'all')
LOG_LEVELS = ('DEBUG', 'INFO', 'WARNING', 'ERROR', 'CRITICAL')
# Keys that stand in tutorials, this project's own among them: everybody knows them, so they keep nothing secret.
WELL_KNOWN_KEYS = ('my_precious', 'changeme', 'change_me', 'secret', 'dev', 'development')
MIN_KEY_LENGTH = MIN_TOKEN_LENGTH = 32


class SettingsError(ValueError):
    """A setting is missing or wrong; the message names its variable."""


class BaseConfig:
    """What every configuration shares. A setting from a variable is text until :func:`init_app` reads it.

    ``SQLALCHEMY_DATABASE_URI`` stays the text; ``database_urls.engine_url`` is what the engines get.
    """

    DEBUG = False
    TESTING = False
    PRESERVE_CONTEXT_ON_EXCEPTION = False  # gone from Flask 3; tests written for older versions read it
    # An unexpected exception is answered as JSON, in development and in tests as in production.
    PROPAGATE_EXCEPTIONS = False
    SECRET_KEY = os.environ.get('SECRET_KEY') or 'my_precious'
    # Without DATABASE_URL: a file in Flask's instance folder, where a relative SQLite path is looked for.
    SQLALCHEMY_DATABASE_URI = os.environ.get('DATABASE_URL') or 'sqlite:///users.db'
    SQLALCHEMY_TRACK_MODIFICATIONS = False
    # Connections that one process keeps open, and how many more it may open under load.
    POOL_SIZE = os.environ.get('POOL_SIZE') or '5'
    POOL_OVERFLOW = os.environ.get('POOL_OVERFLOW') or '0'
    # Bytes. A user takes some 300; the limit holds for every body, whatever its Content-Length says.
    MAX_CONTENT_LENGTH = 64 * 1024
    API_TOKENS = os.environ.get('API_TOKENS', '')
    PROTECT = os.environ.get('PROTECT') or 'changes'
    CORS_ORIGINS = os.environ.get('CORS_ORIGINS') or '*'
    TRUSTED_HOSTS = os.environ.get('TRUSTED_HOSTS', '')
    PROXY_HOPS = os.environ.get('PROXY_HOPS') or '0'
    LOG_LEVEL = os.environ.get('LOG_LEVEL') or 'INFO'
    METRICS = os.environ.get('METRICS') or '0'


class DevelopmentConfig(BaseConfig):
    """One laptop: what is missing is made up, and code is reloaded when it changes."""

    DEBUG = True


class TestingConfig(BaseConfig):
    """The tests: only ever the test database, whatever else the environment says."""

    DEBUG = True
    TESTING = True
    SQLALCHEMY_DATABASE_URI = os.environ.get('DATABASE_TEST_URL') or 'sqlite:///users_test.db'
    API_TOKENS = ''
    PROTECT = 'changes'
    CORS_ORIGINS = '*'
    TRUSTED_HOSTS = ''
    PROXY_HOPS = '0'
    METRICS = '0'


class ProductionConfig(BaseConfig):
    """Behind gunicorn: nothing is assumed, so what is missing stops the start."""

    SQLALCHEMY_DATABASE_URI = os.environ.get('DATABASE_URL')


def default_settings():
    """The configuration to use: the class that APP_SETTINGS names, else development's.

    :raises SettingsError: there is no such class.
    """
    settings = import_string(os.environ.get('APP_SETTINGS') or 'project.config.DevelopmentConfig', silent=True)
    if not isinstance(settings, type):
        raise SettingsError('APP_SETTINGS must name a class such as project.config.ProductionConfig.')
    return settings


def under_gunicorn():
    """Whether this process is served by gunicorn, which names itself in the environment of its workers."""
    return os.environ.get('SERVER_SOFTWARE', '').startswith('gunicorn')


def init_app(app):
    """Check the app's settings and turn their texts into values.

    :param app: the Flask app, its ``config`` loaded from one of the classes above.
    :raises SettingsError: naming the variable that is missing or wrong. Values are not repeated: some are secret.
    """
    config = app.config
    if not (config['DEBUG'] or config['TESTING']):
        _check_production(config)
    if under_gunicorn():
        config['DEBUG'] = False
    config['POOL_SIZE'] = _integer(config, 'POOL_SIZE', 1, 1000)
    config['POOL_OVERFLOW'] = _integer(config, 'POOL_OVERFLOW', 0, 1000)
    config['METRICS'] = _integer(config, 'METRICS', 0, 1) == 1
    config['PROXY_HOPS'] = _integer(config, 'PROXY_HOPS', 0, 10)
    config['PROTECT'] = _choice(config, 'PROTECT', PROTECT_CHOICES)
    config['LOG_LEVEL'] = _choice(config, 'LOG_LEVEL', LOG_LEVELS)
    config['CORS_ORIGINS'] = _items(config['CORS_ORIGINS'])
    # Flask reads TRUSTED_HOSTS itself; None lets every host name pass.
    config['TRUSTED_HOSTS'] = _items(config['TRUSTED_HOSTS']) or None
    config['API_TOKENS'] = _items(config['API_TOKENS'])
    if any(len(token) < MIN_TOKEN_LENGTH or not token.isascii() for token in config['API_TOKENS']):
        raise SettingsError(
            f'API_TOKENS: each token needs at least {MIN_TOKEN_LENGTH} ASCII characters; '
            "make one with: python3 -c 'import secrets; print(secrets.token_urlsafe(32))'"
        )


def _check_production(config):
    for setting, variable in (('SECRET_KEY', 'SECRET_KEY'), ('SQLALCHEMY_DATABASE_URI', 'DATABASE_URL')):
        if not config[setting]:
            raise SettingsError(f'{variable} must be set for production; see the settings table of the README.')
    if len(config['SECRET_KEY']) < MIN_KEY_LENGTH or config['SECRET_KEY'].lower().startswith(WELL_KNOWN_KEYS):
        raise SettingsError(
            f'SECRET_KEY must have at least {MIN_KEY_LENGTH} characters that nobody can guess; '
            "make one with: python3 -c 'import secrets; print(secrets.token_hex(32))'"
        )


def _integer(config, name, least, most):
    text = str(config[name])
    if text not in map(str, range(least, most + 1)):
        raise SettingsError(f'{name} must be a whole number from {least} to {most}.')
    return int(text)


def _choice(config, name, choices):
    value = next((choice for choice in choices if choice.lower() == str(config[name]).lower()), None)
    if value is None:
        raise SettingsError(f'{name} must be one of {", ".join(choices)}.')
    return value


def _items(value):
    return [item.strip() for item in value.split(',') if item.strip()] if isinstance(value, str) else list(value or ())
