"""The settings of the app, which come from the environment. The settings of gunicorn are in gunicorn.conf.py."""

import os
import re
from collections.abc import Iterable, Sequence

from flask import Config, Flask
from werkzeug.utils import import_string

PROTECT_CHOICES = ('changes', 'writes', 'all')
LOG_LEVELS = ('DEBUG', 'INFO', 'WARNING', 'ERROR', 'CRITICAL')
# Keys that tutorials publish, including the one of this project. They are not secret.
WELL_KNOWN_KEYS = ('my_precious', 'changeme', 'change_me', 'secret', 'dev', 'development')
MIN_KEY_LENGTH = MIN_TOKEN_LENGTH = 32
TOKEN_NAME = re.compile(r'[A-Za-z0-9._-]{0,32}')


class SettingsError(ValueError):
    """A setting is missing or wrong; the message names its variable."""


class BaseConfig:
    """The base of all configurations. A setting from an environment variable is text until :func:`init_app` parses it.

    ``SQLALCHEMY_DATABASE_URI`` stays text. ``database_urls.engine_url`` makes the URL of the engines from it.
    """

    DEBUG = False
    TESTING = False
    PRESERVE_CONTEXT_ON_EXCEPTION = False  # removed in Flask 3; tests written for older versions read it
    # The response to an unexpected exception is JSON in development and in tests, too.
    PROPAGATE_EXCEPTIONS = False
    SECRET_KEY = os.environ.get('SECRET_KEY') or 'my_precious'
    # The default is a file in Flask's instance folder, to which an SQLite path is relative.
    SQLALCHEMY_DATABASE_URI = os.environ.get('DATABASE_URL') or 'sqlite:///users.db'
    SQLALCHEMY_TRACK_MODIFICATIONS = False
    # The number of connections that one process keeps open, and of further ones that it may open under load.
    POOL_SIZE = os.environ.get('POOL_SIZE') or '5'
    POOL_OVERFLOW = os.environ.get('POOL_OVERFLOW') or '0'
    # Bytes. A user takes some 300. The limit also applies to a body without a Content-Length.
    MAX_CONTENT_LENGTH = 64 * 1024
    API_TOKENS = os.environ.get('API_TOKENS', '')
    PROTECT = os.environ.get('PROTECT') or 'changes'
    CORS_ORIGINS = os.environ.get('CORS_ORIGINS') or '*'
    TRUSTED_HOSTS = os.environ.get('TRUSTED_HOSTS', '')
    PROXY_HOPS = os.environ.get('PROXY_HOPS') or '0'
    LOG_LEVEL = os.environ.get('LOG_LEVEL') or 'INFO'
    METRICS = os.environ.get('METRICS') or '0'


class DevelopmentConfig(BaseConfig):
    """For development: every setting has a default, and the server reloads changed code."""

    DEBUG = True


class TestingConfig(BaseConfig):
    """For the tests: only the test database, and defaults that the environment does not change."""

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
    """For production: the service does not start without its required settings."""

    SQLALCHEMY_DATABASE_URI = os.environ.get('DATABASE_URL')


def default_settings() -> type:
    """Return the configuration class that APP_SETTINGS names, or the one for development.

    :raises SettingsError: no such class exists.
    """
    settings = import_string(os.environ.get('APP_SETTINGS') or 'project.config.DevelopmentConfig', silent=True)
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
    config['POOL_SIZE'] = _integer(config, 'POOL_SIZE', 1, 1000)
    config['POOL_OVERFLOW'] = _integer(config, 'POOL_OVERFLOW', 0, 1000)
    config['METRICS'] = _integer(config, 'METRICS', 0, 1) == 1
    config['PROXY_HOPS'] = _integer(config, 'PROXY_HOPS', 0, 10)
    config['PROTECT'] = _choice(config, 'PROTECT', PROTECT_CHOICES)
    config['LOG_LEVEL'] = _choice(config, 'LOG_LEVEL', LOG_LEVELS)
    config['CORS_ORIGINS'] = _items(config['CORS_ORIGINS'])
    # Flask itself reads TRUSTED_HOSTS. None allows every host name.
    config['TRUSTED_HOSTS'] = [host.lower() for host in _items(config['TRUSTED_HOSTS'])] or None
    config['API_TOKENS'] = _items(config['API_TOKENS'])
    if any(not TOKEN_NAME.fullmatch(name) for name, _ in map(name_and_token, config['API_TOKENS'])):
        raise SettingsError(
            'API_TOKENS: the name before a token, as in ops:TOKEN, has letters, digits, ".", "_" or "-".'
        )
    if any(
        len(token) < MIN_TOKEN_LENGTH or not token.isascii() for _, token in map(name_and_token, config['API_TOKENS'])
    ):
        raise SettingsError(
            f'API_TOKENS: each token needs at least {MIN_TOKEN_LENGTH} ASCII characters; '
            "make one with: python3 -c 'import secrets; print(secrets.token_urlsafe(32))'"
        )


def name_and_token(item: str) -> tuple[str, str]:
    """Return the name and the token of an item of API_TOKENS; the name of a bare token is empty."""
    name, _, token = item.rpartition(':')
    return name, token


def _check_production(config: Config) -> None:
    for setting, variable in (('SECRET_KEY', 'SECRET_KEY'), ('SQLALCHEMY_DATABASE_URI', 'DATABASE_URL')):
        if not config[setting]:
            raise SettingsError(f'{variable} must be set for production; see the settings table of the README.')
    if len(config['SECRET_KEY']) < MIN_KEY_LENGTH or config['SECRET_KEY'].lower().startswith(WELL_KNOWN_KEYS):
        raise SettingsError(
            f'SECRET_KEY must have at least {MIN_KEY_LENGTH} characters that cannot be guessed; '
            "make one with: python3 -c 'import secrets; print(secrets.token_hex(32))'"
        )


def _integer(config: Config, name: str, least: int, most: int) -> int:
    text = str(config[name])
    if text not in map(str, range(least, most + 1)):
        allowed = '0 or 1' if (least, most) == (0, 1) else f'a whole number from {least} to {most}'
        raise SettingsError(f'{name} must be {allowed}.')
    return int(text)


def _choice(config: Config, name: str, choices: Sequence[str]) -> str:
    value = next((choice for choice in choices if choice.lower() == str(config[name]).lower()), None)
    if value is None:
        raise SettingsError(f'{name} must be one of {", ".join(choices)}.')
    return value


def _items(value: str | Iterable[str] | None) -> list[str]:
    return [item.strip() for item in value.split(',') if item.strip()] if isinstance(value, str) else list(value or ())
