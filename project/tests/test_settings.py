"""The values of each setting: those that are accepted, and those that are rejected at start in one line."""

import os
from typing import NamedTuple
from unittest import mock

from project import config, database_urls
from project.tests.base import ROOT, dispose, make_app
from project.tests.test_config import KEY, PRODUCTION, VARIABLES, ConfigTestCase

URL = 'postgres://user:password@host:5432/users'


class Values(NamedTuple):
    """The values of a setting.

    :ivar taken: values that are valid.
    :ivar rejected: values that are not.
    :ivar shown: a valid value that each message shows, as a regular expression.
    """

    taken: tuple[str, ...]
    rejected: tuple[str, ...]
    shown: str


NOT_NUMBERS = ('x', '-1', '1.5', '+1', '1 2', '01', '0x1', '1e3', '\u0661', '\xb2', '9' * 5000, 'true', '1,2')
DATABASES = Values(
    taken=(
        URL,
        'postgresql://host/users',
        'postgresql+psycopg2://u:p%40s%2Fs@host/users?sslmode=require',
        'postgres:///users?host=/run/postgresql',
        'postgres://a:1,b:2/users',
        'sqlite:///users.db',
        'sqlite+pysqlite:///users.db',
        f'sqlite:///{ROOT}/x.db',
    ),
    rejected=(
        'x',
        '://',
        'postgres',
        'postgres:/u:p@h/d',
        'postgres://u:p@h:port/d',
        'postgres://u:p@h/d?colour=blue',
        'postgres://u:p@h:99999/d',
        'postgres://u:p@h/d?port=x',
        'postgres://u:p@h/d?sslmode=requird',
        'postgres://u:p@h/d?target_session_attrs=primry',
        'postgres://u:p@/d?host=a:1,b:2&load_balance_hosts=x',
        'postgres://u:p@/d?hostaddr=127.0.0.1&gssencmode=x',
        'postgres://u:p@h/d?keepalives_idle=x',
        'postgres://u:p@h/d?sslmode=a%22b',
        'postgres://u:p@h/d?sslmode=a%0Ab',
        'postgres://u:p%00@h/d',
        'postgres://u:p@h/\udcff',
        'postgres://u:p@h/d?sslnegotiation=direct&sslmode=prefer',
        'postgresql+asyncpg://u:p@h/d',
        'postgresql+nodriver://u:p@h/d',
        'mysql://u:p@h/d',
        'http://u:p@h/d',
        'sqlite://',
        'sqlite:///',
        'sqlite:///:memory:',
        'sqlite:///file:x.db?uri=true',
        'sqlite:///x.db?mode=ro',
        'sqlite:///x.db?timeout=x',
        'sqlite://x.db',
        'sqlite://folder/x.db',
        'sqlite+aiosqlite:///x.db',
        f'sqlite:///{ROOT}/no/such/folder/x.db',
        'sqlite:///no_such_folder/x.db',
    ),
    shown='such as ',
)
# Read by the service, its commands and gunicorn. README and docs/settings.md describe them.
SERVICE = {
    'APP_SETTINGS': Values(
        ('project.config.DevelopmentConfig', 'project.config.ProductionConfig'),
        (
            'x',
            'nowhere.Config',
            'project.config',
            'project.config.',
            'project..config',
            'project.config.NoConfig',
            'os.path.join',
            'builtins.dict',
            'ProductionConfig',
        ),
        'project.config.ProductionConfig',
    ),
    'DATABASE_URL': DATABASES,
    'DATABASE_TEST_URL': DATABASES,
    'SECRET_KEY': Values(
        (KEY, f'{KEY} with blanks'),
        ('x', 'my_precious', 'x' * 31, 'my_precious' * 4, 'Changeme' + 'x' * 32, 'secret' * 10, 'dev' + 'x' * 40),
        r'token_hex\(32\)',
    ),
    'API_TOKENS': Values(
        (
            *(KEY, f'{KEY},{KEY}2', f'{KEY}, ops:{KEY}2,', f'ops:{KEY}', f'{KEY}+/=~'),
            *(f':{KEY}', f'ops:{KEY}:x', f'ops::{KEY}'),
        ),
        (
            *('x', 'x' * 31, f'{KEY},short', 'ops:short', '\xe9' * 32, f'{KEY} {KEY}', f'{KEY}\n{KEY}', f'a b:{KEY}'),
            *(f'ops:{"x" * 31}', f'ops@home:{KEY}', f'{"x" * 33}:{KEY}', f'{KEY}:'),
        ),
        r'ops:TOKEN.*token_urlsafe\(32\)',
    ),
    'PROTECT': Values(
        ('changes', 'writes', 'all', 'ALL'), ('x', 'none', 'changes,writes', '1'), 'changes, writes, all'
    ),
    'CORS_ORIGINS': Values(
        (
            '*',
            'http://localhost:3000',
            'http://localhost',
            'https://a.example,http://b.example:8080',
            'HTTPS://A.Example',
            'http://127.0.0.1:3000',
            'http://[::1]:3000',
            'null',
            'capacitor://localhost',
            'http://xn--bcher-kva.example',
            'http://a:65535',
            'http://a:9999',
        ),
        (
            'http://localhost:3000/',
            'localhost:3000',
            'localhost',
            'http://',
            'http://a/b',
            'http://a?b',
            'http://a:',
            'http://*.example.com',
            'http://a:80',
            'https://a:443',
            'http://u@a',
            'http://bücher.example',
            'http://a http://b',
            'http://a;http://b',
            'http://a,x',
            '"http://a"',
            'http://a:port',
            'http://a:0',
            'http://a:65536',
            'http://a:70000',
            'http://a:99999',
        ),
        'http://localhost:3000',
    ),
    'TRUSTED_HOSTS': Values(
        (
            'localhost',
            'users.example.com',
            '.example.org',
            'A.Example',
            '10.0.0.1',
            'a,b',
            'localhost:5000',
            'bücher.example',
            'xn--bcher-kva.example',
        ),
        (
            'http://localhost',
            'localhost/',
            '*',
            '*.example.com',
            'a b',
            'a;b',
            '[::1]',
            '::1',
            '..a',
            'a..b',
            'a_b',
            'a:b',
            'x' * 64 + '.example',
        ),
        'users.example.com',
    ),
    'PROXY_HOPS': Values(('0', '1', '10'), (*NOT_NUMBERS, '11'), 'from 0 to 10, such as 1'),
    'SCRIPT_NAME': Values(
        ('/api', '/api/v1', '/a.b~c_d-e', '/...'),
        (
            'api',
            '/',
            '/api/',
            '//api',
            '/a//b',
            '/a b',
            '/a/../b',
            '/.',
            '/..',
            '/a?b',
            '/a%20b',
            '/é',
            '/a"',
            "/a'",
            'http://a/b',
            '/' + 'a' * 300,
        ),
        '/api',
    ),
    'LOG_LEVEL': Values(('DEBUG', 'INFO', 'WARNING', 'ERROR', 'CRITICAL', 'info'), ('x', 'TRACE', '10'), 'INFO'),
    'METRICS': Values(('0', '1'), (*NOT_NUMBERS, '2', 'on'), '0 or 1'),
    'POOL_SIZE': Values(('1', '5', '1000'), (*NOT_NUMBERS, '0', '1001'), 'from 1 to 1000, such as 5'),
    'POOL_OVERFLOW': Values(('0', '1000'), (*NOT_NUMBERS, '1001'), 'from 0 to 1000, such as 5'),
    'WEB_CONCURRENCY': Values(('1', '2', '1000'), (*NOT_NUMBERS, '0', '1001'), 'from 1 to 1000, such as 2'),
    'MAX_REQUESTS': Values(('0', '1', '1000000'), (*NOT_NUMBERS, '10000000000'), 'from 0 to 1000000000, such as 10000'),
}
# Read by nginx.envsh, when the container of the page starts.
NOT_RATES = ('x', '0', '-1', '1.5', '01', '1 2', '10000', '1;', '$(id)', '*', '\u0661')
NGINX = {
    'REQUESTS_PER_SECOND': Values(('1', '100', '9999'), NOT_RATES, '100'),
    'REQUESTS_BURST': Values(('1', '200', '9999'), NOT_RATES, '200'),
    'ADDITIONS_PER_SECOND': Values(('1', '10', '9999'), NOT_RATES, '10'),
    'ADDITIONS_BURST': Values(('1', '50', '9999'), NOT_RATES, '50'),
    'CONNECTIONS_PER_CLIENT': Values(('1', '100', '9999'), NOT_RATES, '100'),
    'PATH_PREFIX': Values(
        ('/users-page', '/a/b', '/a.b~c_d-e', '/' + 'a' * 255),
        (*SERVICE['SCRIPT_NAME'].rejected, '/' + 'a' * 256),
        '/users-page',
    ),
}
# Read by vite.config.ts, when the page is built.
PAGE = {
    'REACT_APP_USERS_SERVICE_URL': Values(
        ('http://localhost:5001', 'https://users.example.com/api', 'http://localhost:5001/'),
        ('localhost:5001', 'x', '/api', 'ftp://a', 'http://u:p@a', 'http://a?b', 'http://a#b'),
        'http://localhost:5001',
    )
}
SECRET = ('DATABASE_URL', 'DATABASE_TEST_URL', 'SECRET_KEY', 'API_TOKENS')
# Where the value of a setting is in the app's configuration, when it has another name there.
CONFIGURED = {'DATABASE_URL': 'SQLALCHEMY_DATABASE_URI', 'DATABASE_TEST_URL': 'SQLALCHEMY_DATABASE_URI'}


class ServiceSettingsTest(ConfigTestCase):
    def value(self, variable: str, value: str) -> object:
        """Return the value in the configuration of an app that starts with this value of a variable."""
        name = {'DATABASE_TEST_URL': 'TestingConfig', 'SECRET_KEY': 'ProductionConfig'}.get(
            variable, 'DevelopmentConfig'
        )
        environment = {'SECRET_KEY': KEY, **PRODUCTION, variable: value}
        if variable == 'APP_SETTINGS':
            with mock.patch.dict(os.environ, environment):
                return config.default_settings()
        app = self.app(name, **environment)
        return database_urls.engine_url(app.config) if variable in CONFIGURED else app.config.get(variable)

    def test_valid_values_are_accepted_with_white_space_around_them(self) -> None:
        for variable, values in SERVICE.items():
            for value in values.taken:
                with self.subTest(variable=variable, value=value):
                    plain = self.value(variable, value)
                    for spaced in (f'{value}\n', f' {value}\r\n', f'\t{value} '):
                        self.assertEqual(self.value(variable, spaced), plain)

    def test_blank_is_the_default(self) -> None:
        for variable in SERVICE.keys() - {'SECRET_KEY', 'DATABASE_URL'}:
            with self.subTest(variable=variable):
                self.assertEqual(self.value(variable, ' \n'), self.value(variable, ''))
        for variable in PRODUCTION:
            with self.subTest(variable=variable):
                self.assert_rejected(f'{variable} must', 'ProductionConfig', **PRODUCTION | {variable: ' \n'})

    def test_wrong_values_are_rejected_in_one_line_that_shows_a_right_one(self) -> None:
        for variable, values in SERVICE.items():
            for value in values.rejected:
                with self.subTest(variable=variable, value=value[:50]):
                    with self.assertRaises(Exception) as raised:
                        self.value(variable, value)
                    message = str(raised.exception)
                    self.assertEqual(type(raised.exception).__name__, 'SettingsError', message)
                    self.assertRegex(message, rf'\A{variable}\b[^\n]*\Z')
                    self.assertRegex(message, values.shown)
                    if variable in SECRET and len(value) > 10:
                        self.assertNotIn(value, message)

    def test_lists_are_separated_by_commas(self) -> None:
        app = self.app('DevelopmentConfig', CORS_ORIGINS=' http://A ,http://b,, ', TRUSTED_HOSTS=' A , .b.example,')
        self.assertEqual(app.config['CORS_ORIGINS'], ['http://a', 'http://b'])
        self.assertEqual(app.config['TRUSTED_HOSTS'], ['a', '.b.example'])
        self.assertIsNone(self.app('DevelopmentConfig', TRUSTED_HOSTS=',').config['TRUSTED_HOSTS'])

    def test_line_ends_around_variables_of_libpq_are_removed(self) -> None:
        with mock.patch.dict(os.environ, PGPASSWORD=' a b \r\n', PGHOST='db\n'):
            self.addCleanup(dispose, make_app())
            self.assertEqual((os.environ['PGPASSWORD'], os.environ['PGHOST']), (' a b ', 'db'))

    def test_each_variable_of_the_service_is_in_the_table(self) -> None:
        text = ''.join((ROOT / name).read_text(encoding='utf-8') for name in ('project/config.py', 'gunicorn.conf.py'))
        for variable in SERVICE:
            self.assertIn(f"'{variable}'", text)
        self.assertEqual(set(VARIABLES) - {'SERVER_SOFTWARE'}, SERVICE.keys())
