"""The settings of the app, which come from the environment. The settings of gunicorn are in gunicorn.conf.py."""

import os

from flask import Config, Flask
from werkzeug.utils import import_string

from project import setting_values
from project.setting_values import SettingsError

__all__ = ['SettingsError']
PROTECT_CHOICES = ('changes', 'writes', 'all')
LOG_LEVELS = ('DEBUG', 'INFO', 'WARNING', 'ERROR', 'CRITICAL')
# Keys that tutorials publish, including the one of this project. They are not secret.
WELL_KNOWN_KEYS = ('my_precious', 'changeme', 'change_me', 'secret', 'dev', 'development')
MIN_KEY_LENGTH = 32


def variable(name: str, default: str = '') -> str:
    """Return an environment variable without white space around it, such as the newline at the end of a secret's file.

    :param default: the value when the variable is missing or blank.
    """
    return os.environ.get(name, '').strip() or default


class BaseConfig:
    """The base of all configurations. A setting from an environment variable is text until :func:`init_app` parses it.

    ``SQLALCHEMY_DATABASE_URI`` stays text. ``database_urls.engine_url`` makes the URL of the engines from it.
    """

    DEBUG = False
    TESTING = False
    PRESERVE_CONTEXT_ON_EXCEPTION = False  # removed in Flask 3, but tests written for older versions read it
    # The response to an unexpected exception is JSON in development and in tests, too.
    PROPAGATE_EXCEPTIONS = False
    SECRET_KEY = variable('SECRET_KEY', 'my_precious')
    # The default is a file in Flask's instance folder, to which an SQLite path is relative.
    SQLALCHEMY_DATABASE_URI = variable('DATABASE_URL', 'sqlite:///users.db')
    SQLALCHEMY_TRACK_MODIFICATIONS = False
    # The number of connections that one process keeps open, and of further ones that it may open under load.
    POOL_SIZE = variable('POOL_SIZE', '5')
    POOL_OVERFLOW = variable('POOL_OVERFLOW', '0')
    # Bytes. A user takes some 300. The limit also applies to a body without a Content-Length.
    MAX_CONTENT_LENGTH = 64 * 1024
    API_TOKENS = variable('API_TOKENS')
    PROTECT = variable('PROTECT', 'changes')
    CORS_ORIGINS = variable('CORS_ORIGINS', '*')
    TRUSTED_HOSTS = variable('TRUSTED_HOSTS')
    PROXY_HOPS = variable('PROXY_HOPS', '0')
    SCRIPT_NAME = variable('SCRIPT_NAME')  # gunicorn removes this prefix from paths
    LOG_LEVEL = variable('LOG_LEVEL', 'INFO')
    METRICS = variable('METRICS', '0')


class DevelopmentConfig(BaseConfig):
    """For development: every setting has a default, and the server reloads changed code."""

    DEBUG = True


class TestingConfig(BaseConfig):
    """For the tests: only the test database, and defaults that the environment does not change."""

    DEBUG = True
    TESTING = True
    SQLALCHEMY_DATABASE_URI = variable('DATABASE_TEST_URL', 'sqlite:///users_test.db')
    API_TOKENS = ''
    PROTECT = 'changes'
    CORS_ORIGINS = '*'
    TRUSTED_HOSTS = ''
    PROXY_HOPS = '0'
    SCRIPT_NAME = ''
    METRICS = '0'


class ProductionConfig(BaseConfig):
    """For production: the service does not start without its required settings."""

    SQLALCHEMY_DATABASE_URI = variable('DATABASE_URL') or None


def default_settings() -> type:
    """Return the configuration class that APP_SETTINGS names, or the one for development.

    :raises SettingsError: no such class exists.
    """
    settings = import_string(variable('APP_SETTINGS', 'project.config.DevelopmentConfig'), silent=True)
    if not (isinstance(settings, type) and issubclass(settings, BaseConfig)):
        raise SettingsError(
            'APP_SETTINGS must name a class derived from BaseConfig, such as project.config.ProductionConfig.'
        )
    return settings


def under_gunicorn() -> bool:
    """Return whether this process is a worker of gunicorn, which sets SERVER_SOFTWARE."""
    return os.environ.get('SERVER_SOFTWARE', '').startswith('gunicorn')


def init_app(app: Flask) -> None:
    """Check the settings of ``app``, and parse those that are text.

    :param app: the Flask app. Its ``config`` has been loaded from one of the classes above.
    :raises SettingsError: naming the variable that is missing or wrong. It never contains a value, which may be secret.
    """
    config = app.config
    if not (config['DEBUG'] or config['TESTING']):
        _check_production(config)
    if under_gunicorn():
        config['DEBUG'] = False
    config['POOL_SIZE'] = setting_values.integer('POOL_SIZE', config['POOL_SIZE'], 1, 1000, 5)
    config['POOL_OVERFLOW'] = setting_values.integer('POOL_OVERFLOW', config['POOL_OVERFLOW'], 0, 1000, 5)
    config['PROXY_HOPS'] = setting_values.integer('PROXY_HOPS', config['PROXY_HOPS'], 0, 10)
    config['METRICS'] = setting_values.integer('METRICS', config['METRICS'], 0, 1) == 1
    config['PROTECT'] = setting_values.choice('PROTECT', config['PROTECT'], PROTECT_CHOICES)
    config['LOG_LEVEL'] = setting_values.choice('LOG_LEVEL', config['LOG_LEVEL'], LOG_LEVELS)
    config['CORS_ORIGINS'] = setting_values.origins('CORS_ORIGINS', config['CORS_ORIGINS'])
    # Flask itself reads TRUSTED_HOSTS. None allows every host name.
    config['TRUSTED_HOSTS'] = setting_values.hosts('TRUSTED_HOSTS', config['TRUSTED_HOSTS']) or None
    config['SCRIPT_NAME'] = setting_values.path_prefix('SCRIPT_NAME', config['SCRIPT_NAME'])
    config['API_TOKENS'] = setting_values.tokens('API_TOKENS', config['API_TOKENS'])
    _check_gunicorn()
    _strip_libpq_variables()


def _check_production(config: Config) -> None:
    if not config['SQLALCHEMY_DATABASE_URI']:
        raise SettingsError(
            'DATABASE_URL must be set for production, such as to postgres://user:password@host:5432/users.'
        )
    key = config['SECRET_KEY'] or ''
    if len(key) < MIN_KEY_LENGTH or key.lower().startswith(WELL_KNOWN_KEYS):
        raise SettingsError(
            f'SECRET_KEY must be set for production, to at least {MIN_KEY_LENGTH} characters that cannot be guessed; '
            "make one with: python3 -c 'import secrets; print(secrets.token_hex(32))'"
        )


def _check_gunicorn() -> None:
    """Check the variables that gunicorn.conf.py reads, too, so that each command rejects them before gunicorn starts.

    gunicorn itself reads WEB_CONCURRENCY before its configuration, and fails with a traceback if it is no number.
    """
    setting_values.integer('WEB_CONCURRENCY', variable('WEB_CONCURRENCY', '2'), 1, 1000, 2)
    setting_values.integer('MAX_REQUESTS', variable('MAX_REQUESTS', '0'), 0, 10**9, 10_000)


def _strip_libpq_variables() -> None:
    """Remove the line ends around the values of libpq's variables, such as PGPASSWORD from a file."""
    for name in [name for name in os.environ if name.startswith('PG')]:
        os.environ[name] = os.environ[name].strip('\r\n')
