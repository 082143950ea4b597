"""The values of each setting: those that are taken, and those that are rejected at start in one line."""

import json
import os
import re
import shutil
import subprocess
import sys
import unittest
from typing import NamedTuple
from unittest import mock

from project import config, database_urls
from project.tests.base import ROOT, dispose, make_app
from project.tests.support.servers import needs_gunicorn
from project.tests.test_config import KEY, PRODUCTION, VARIABLES, ConfigTestCase

URL = 'postgres://user:password@host:5432/users'


class Values(NamedTuple):
    """The values of a setting.

    :ivar taken: values that are valid.
    :ivar rejected: values that are not.
    :ivar shown: a right value that each message shows, as a regular expression.
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
        'postgresql+asyncpg://u:p@h/d',
        'postgresql+nodriver://u:p@h/d',
        'mysql://u:p@h/d',
        'http://u:p@h/d',
        'sqlite://',
        'sqlite:///',
        'sqlite:///:memory:',
        'sqlite:///file:x.db?uri=true',
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
        (KEY, f'{KEY},{KEY}2', f'{KEY}, ops:{KEY}2,', f'ops:{KEY}', f'{KEY}+/=~'),
        ('x', 'x' * 31, f'{KEY},short', 'ops:short', '\xe9' * 32, f'{KEY} {KEY}', f'{KEY}\n{KEY}', f'a b:{KEY}'),
        r'ops:TOKEN|token_urlsafe\(32\)',
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
        ('/users-page', '/a/b', '/a.b~c_d-e'),
        tuple(value for value in SERVICE['SCRIPT_NAME'].rejected if len(value) < 256),
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

    def test_valid_values_are_taken_with_white_space_around_them(self) -> None:
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


class ProcessTest(unittest.TestCase):
    """Processes end with one line on stderr, without a traceback."""

    def check(self, command: list[str], variable: str, value: str) -> None:
        """Check that a command ends because of the value of a variable."""
        environ = {'PATH': os.environ['PATH'], variable: value}
        environ |= {name: os.environ[name] for name in ('PYTHONPATH', 'SYSTEMROOT') if name in os.environ}
        done = subprocess.run(
            [sys.executable, *command], cwd=ROOT, env=environ, capture_output=True, text=True, timeout=60, check=False
        )
        self.assertNotEqual(done.returncode, 0)
        self.assertRegex(done.stderr, rf'\A{variable}\b[^\n]*\n\Z')

    def test_commands_reject_wrong_values(self) -> None:
        for variable, value in (('WEB_CONCURRENCY', 'x'), ('CORS_ORIGINS', 'http://localhost:3000/')):
            with self.subTest(variable=variable):
                self.check(['manage.py', 'check_settings'], variable, value)

    @needs_gunicorn
    def test_gunicorn_rejects_wrong_values_before_workers_start(self) -> None:
        gunicorn = ['-m', 'gunicorn', '-b', '127.0.0.1:0', 'manage:app']
        for variable, value in (('WEB_CONCURRENCY', '0'), ('MAX_REQUESTS', 'x'), ('TRUSTED_HOSTS', 'http://localhost')):
            with self.subTest(variable=variable):
                self.check(gunicorn, variable, value)


@unittest.skipUnless(shutil.which('sh'), 'needs sh')
class NginxSettingsTest(unittest.TestCase):
    def source(self, variable: str, value: str) -> subprocess.CompletedProcess[str]:
        """Run nginx.envsh as the image's entrypoint does, and print what it exports."""
        script = f'set -e; . project/client/nginx.envsh; printf %s "${variable}"'
        environ = {'PATH': os.environ['PATH'], variable: value}
        return subprocess.run(
            ['sh', '-c', script], cwd=ROOT, env=environ, capture_output=True, text=True, encoding='utf-8', check=False
        )

    def test_values(self) -> None:
        for variable, values in NGINX.items():
            default = values.shown if variable != 'PATH_PREFIX' else ''
            for value, expected in (
                *((value, value) for value in values.taken),
                *((f' {value}\r\n', value) for value in values.taken),
                *((blank, default) for blank in ('', ' \n')),
            ):
                with self.subTest(variable=variable, value=value):
                    done = self.source(variable, value)
                    self.assertEqual((done.returncode, done.stdout, done.stderr), (0, expected, ''))
            for value in values.rejected:
                with self.subTest(variable=variable, value=value):
                    done = self.source(variable, value)
                    self.assertEqual((done.returncode, done.stdout), (1, ''))
                    self.assertRegex(done.stderr, rf'\A{variable} must be [^\n]* such as {values.shown}\.\n\Z')


@unittest.skipUnless((ROOT / 'Dockerfile').exists() and shutil.which('sh'), 'needs the Dockerfile and sh')
class ImageTest(unittest.TestCase):
    """The image checks WEB_CONCURRENCY, with which gunicorn itself would end with a traceback."""

    def test_values(self) -> None:
        dockerfile = (ROOT / 'Dockerfile').read_text(encoding='utf-8')
        command = json.loads(re.search(r'^CMD (.*)$', dockerfile, re.MULTILINE)[1])
        command[-1] = command[-1].replace('exec gunicorn -b 0.0.0.0:5000 manage:app', 'printf %s "$WEB_CONCURRENCY"')
        taken = {'': '2', ' \n': '2', '3\n': '3'} | {value: value for value in SERVICE['WEB_CONCURRENCY'].taken}
        for value, expected in taken.items():
            with self.subTest(value=value):
                environ = {'PATH': os.environ['PATH'], 'WEB_CONCURRENCY': value}
                done = subprocess.run(command, env=environ, capture_output=True, text=True, check=True)
                self.assertEqual((done.stdout, done.stderr), (expected, ''))
        for value in ('x', '-1', '1.5', '1 2', '*', '$(id)'):
            with self.subTest(value=value):
                environ = {'PATH': os.environ['PATH'], 'WEB_CONCURRENCY': value}
                done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
                self.assertEqual((done.returncode, done.stdout), (1, ''))
                self.assertRegex(done.stderr, r'\AWEB_CONCURRENCY must be [^\n]*, such as 2\.\n\Z')


# Loads vite.config.ts with each value, and prints the first line that it writes to stderr.
LOAD_VITE_CONFIG = """
import { readFileSync } from 'node:fs';
import { resolveConfig } from 'vite';
const messages = {};
process.exit = () => { throw new Error('exit'); };
for (const [variable, value] of JSON.parse(readFileSync(0))) {
  process.env[variable] = value;
  messages[value] = '';
  console.error = (text) => { messages[value] ||= text; };
  await resolveConfig({}, 'build').catch(() => {});
}
console.log(JSON.stringify(messages));
"""


class PageSettingsTest(unittest.TestCase):
    def test_values(self) -> None:
        client = ROOT / 'project' / 'client'
        if not (client / 'node_modules').is_dir():
            self.skipTest('needs the packages of the page: cd project/client && npm ci')
        for variable, values in PAGE.items():
            taken = (*values.taken, *(f' {value}\n' for value in values.taken), '', ' \n')
            done = subprocess.run(
                ['node', '--input-type=module', '-e', LOAD_VITE_CONFIG],
                cwd=client,
                env={'PATH': os.environ['PATH']},
                input=json.dumps([(variable, value) for value in (*taken, *values.rejected)]),
                capture_output=True,
                text=True,
                check=True,
            )
            messages = json.loads(done.stdout)
            for value in taken:
                self.assertEqual(messages[value], '', value)
            for value in values.rejected:
                self.assertRegex(messages[value], rf'\A{variable} must [^\n]* such as {values.shown}\.\Z')
