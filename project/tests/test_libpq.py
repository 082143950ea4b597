"""The sources from which libpq takes the database: URLs, ``PG*`` variables, service files. The servers are fake."""

import os
import tempfile
from pathlib import Path
from unittest import mock

from project import config, database_urls
from project.commands import waiting
from project.database import hosts, libpq
from project.tests.base import BaseTestCase, dispose, make_app
from project.tests.support.fake_postgres import FakePostgres, fatal, rows

PLAIN = {'PGSSLMODE': 'disable', 'PGGSSENCMODE': 'disable'}  # all that the fake server speaks
# URL, variables, and the service file. {port} is that of the server with the database "users", {other} that of
# another, which rejects connections.
TABLE = (
    ('postgres://ann@127.0.0.1:{port}/users', {}, ''),
    ('postgresql+psycopg2://ann@127.0.0.1:{port}/users', {}, ''),
    ('postgresql:///users', {'PGHOST': '127.0.0.1', 'PGPORT': '{port}', 'PGUSER': 'ann'}, ''),
    ('postgresql:///users', {'PGHOSTADDR': '127.0.0.1', 'PGPORT': '{port}', 'PGUSER': 'ann'}, ''),
    ('postgresql://ann@nowhere.invalid:{port}/users', {'PGHOSTADDR': '127.0.0.1'}, ''),
    ('postgresql://ann@nowhere.invalid:{port}/users?hostaddr=127.0.0.1', {}, ''),
    ('postgresql://ann@/users?hostaddr=127.0.0.1&port={port}', {'PGHOST': 'nowhere.invalid', 'PGPORT': '{other}'}, ''),
    ('postgresql://', {'PGHOST': '127.0.0.1', 'PGPORT': '{port}', 'PGUSER': 'ann', 'PGDATABASE': 'users'}, ''),
    ('postgresql://?user=ann&dbname=users&host=127.0.0.1&port={port}', {}, ''),
    ('postgresql://ann@/users', {'PGHOST': '127.0.0.1,127.0.0.1', 'PGPORT': '{other},{port}'}, ''),
    ('postgresql://ann@127.0.0.1:{other},127.0.0.1:{port}/users', {}, ''),
    ('postgresql://ann@127.0.0.1:{other},127.0.0.1:{port}/users?target_session_attrs=any', {}, ''),
    ('postgresql://ann@/users?host=127.0.0.1:{other}&host=127.0.0.1:{port}', {}, ''),
    ('postgresql://ann@/users?host=127.0.0.1,127.0.0.1&port={other},{port}', {}, ''),
    ('postgresql://ann@/users?host=a.invalid,b.invalid&hostaddr=127.0.0.1,127.0.0.1&port={other},{port}', {}, ''),
    ('postgresql://ann@127.0.0.%31:{port}/users', {}, ''),
    ('postgresql://%61nn:p%2C%2F@127.0.0.1:{port}/users', {}, ''),
    ('postgresql://?service=one', {}, '[one]\nhost=127.0.0.1\nport={port}\nuser=ann\ndbname=users\n'),
    ('postgresql://', {'PGSERVICE': 'one'}, '# ours\n\n[one]\nhost=127.0.0.1\nport={port}\nuser=ann\ndbname=users\n'),
    ('postgresql://ann@/users', {'PGSERVICE': 'one'}, '[one]\nhost=127.0.0.1\nport={port}\nuser=bee\ndbname=no\n'),
    ('postgresql://ann@/users', {'PGSERVICE': 'one', 'PGPORT': '{other}'}, '[one]\nhost=127.0.0.1\nport={port}\n'),
    (
        'postgresql://ann@/users',
        {'PGSERVICE': 'one', 'PGHOST': '127.0.0.1', 'PGPORT': '{port}'},
        '[on]\nport=1\n[one]\n[two]\nport={other}\n',
    ),
)


class LibpqTestCase(BaseTestCase):
    def setUp(self):
        super().setUp()
        self.server, self.other = self.enterContext(FakePostgres()), self.enterContext(FakePostgres())
        self.server.respond = lambda sql: rows((7, 'ann', 'ann@example.com', False, '2026-01-01 00:00:00'))
        self.other.reject = fatal('57P03')
        self.folder = Path(self.enterContext(tempfile.TemporaryDirectory()))

    def variables(self, service_file='', **variables):
        """Let libpq find these variables and this service file, and no others, besides the URL."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith('PG')}
        (self.folder / '.pg_service.conf').write_text(self.fill(service_file))
        values = {name: self.fill(value) for name, value in (PLAIN | variables).items()}
        return mock.patch.dict(os.environ, kept | {'HOME': str(self.folder)} | values, clear=True)

    def fill(self, text):
        return text.replace('{port}', str(self.server.port)).replace('{other}', str(self.other.port))


class ConnectingTest(LibpqTestCase):
    def test_each_url_leads_to_its_database_and_is_compared_as_that(self):
        used = database_urls.parse(f'postgres://127.0.0.1:{self.server.port}/users', '')
        for url, variables, service_file in TABLE:
            self.server.startups.clear()
            hosts._timed_out.clear()
            with self.subTest(url=url, **variables), self.variables(service_file, **variables):
                client = self.client_of(SQLALCHEMY_DATABASE_URI=self.fill(url))
                self.assertEqual(client.get('/users/7').status_code, 200)
                (startup,) = self.server.startups
                self.assertEqual((startup['user'], startup['database']), ('ann', 'users'))
                parsed = database_urls.parse(self.fill(url), '')
                self.assertTrue(database_urls.places(parsed) & database_urls.places(used))
                with client.application.app_context():
                    self.assertRegex(waiting.describe_database(), rf'\Ausers at .*:{self.server.port}\Z')

    def test_database_without_a_name_has_that_of_the_user(self):
        with self.variables(PGHOST='127.0.0.1', PGPORT='{port}'):
            for url, name in (('postgresql://ann@', 'ann'), ('postgresql:///', libpq._system_user())):
                self.client_of(SQLALCHEMY_DATABASE_URI=url).get('/users/7')
                self.assertEqual(self.server.startups[-1]['database'], name)
                ((*_, found),) = database_urls.places(database_urls.parse(url, ''))
                self.assertEqual(found, name)

    def test_unresponsive_host_of_a_variable_is_skipped(self):
        self.other.frozen, self.other.reject = True, None
        self.enterContext(mock.patch.object(hosts, 'CONNECT_SECONDS', 0.2))
        with self.variables(PGHOST='127.0.0.1,127.0.0.1', PGPORT='{other},{port}'):
            client = self.client_of(SQLALCHEMY_DATABASE_URI='postgresql://ann@/users')
            self.assertEqual(client.get('/users/7').status_code, 200)
        self.assertEqual((self.other.connected, self.server.connected), (1, 1))

    def test_hosts_are_shuffled_if_libpq_would(self):
        with mock.patch('random.shuffle', side_effect=list.reverse), self.variables(PGLOADBALANCEHOSTS='random'):
            url = self.fill('postgresql://ann@127.0.0.1:{other},127.0.0.1:{port}/users')
            self.assertEqual(self.client_of(SQLALCHEMY_DATABASE_URI=url).get('/users/7').status_code, 200)
        self.assertEqual(self.other.connected, 0)


class RejectedTest(LibpqTestCase):
    def test_url_that_libpq_rejects_is_rejected_at_start(self):
        for url, variables, words in (
            ('postgres://h/d?colour=blue', {}, 'colour'),
            ('postgres://a:1,b:2/d?colour=blue', {}, 'must be a URL'),
            ('postgres://a,b,c/d?port=1,2', {}, 'hosts and ports'),
            ('postgres://a,b/d?hostaddr=10.0.0.1', {}, 'differ'),
            ('postgres:///d?service=two', {}, "'two'.*PGSERVICEFILE"),
            ('postgres:///d', {'PGSERVICE': 'two'}, "'two'.*PGSERVICEFILE"),
        ):
            with (
                self.subTest(url=url),
                self.variables('[one]\n[three]\nhost=h\n', **variables),
                self.assertRaisesRegex(config.SettingsError, f'DATABASE_URL.*{words}') as raised,
            ):
                database_urls.parse(url, 'DATABASE_URL')
            self.assertNotIn('\n', str(raised.exception))

    def test_password_in_the_query_is_hidden(self):
        for text in (
            'postgres:///d?password=secret&user=u',
            'postgres://a,b:2/d?password=secret',
            'postgres://:secret@/d',
        ):
            url = database_urls.parse(text, '')
            self.assertEqual(url.password, 'secret')
            self.assertNotIn('secret', url.render_as_string())

    def test_tests_cannot_use_a_server_that_the_service_uses(self):
        services = '[same]\nhost=h\ndbname=d\n[addressed]\nhost=h\nhostaddr=10.0.0.1\ndbname=d\n'
        for url, test_url, variables in (
            ('postgres://h/d', 'postgres:///d', {'PGHOST': 'h'}),
            ('postgres://h:7/d', 'postgres://', {'PGHOST': 'H', 'PGPORT': '7', 'PGDATABASE': 'd'}),
            ('postgres://h/d', 'postgres://?service=same', {}),
            ('postgres://h/d', 'postgres://?service=addressed', {}),
            ('postgres://10.0.0.1/d', 'postgres://?service=addressed', {}),
            ('postgres:///d', 'postgres://localhost/d', {'PGHOST': '/run/postgresql'}),
            ('postgres://%2Frun%2Fpostgresql/d', 'postgres:///d', {}),
            ('postgres://h,i/d', 'postgres://i/d', {}),
            ('postgres://h:7,i:8/d', 'postgres://i:8/d', {}),
            ('postgres:///?user=d', 'postgres:///d', {}),
        ):
            with self.subTest(url=url, test_url=test_url), self.variables(services, **variables):
                self.use_test_settings(url, test_url, 'DATABASE_TEST_URL')
        for url, test_url, variables in (
            ('postgres://h/d', 'postgres:///d', {'PGHOST': 'i'}),
            ('postgres://h:7,i:8/d', 'postgres://i:7/d', {}),
            ('postgres://h:5432/d', 'postgres://?service=same', {'PGPORT': '7'}),
        ):
            with self.subTest(url=url, test_url=test_url), self.variables(services, **variables):
                self.use_test_settings(url, test_url)

    def use_test_settings(self, url, test_url, words=None):
        """Check that tests on ``test_url`` are rejected with these words; without words, that they are not."""
        with (
            mock.patch.object(config.BaseConfig, 'SQLALCHEMY_DATABASE_URI', url),
            mock.patch.object(config.TestingConfig, 'SQLALCHEMY_DATABASE_URI', test_url),
            mock.patch.dict(
                os.environ, {'APP_SETTINGS': 'project.config.DevelopmentConfig', database_urls.REPLACED: ''}
            ),
        ):
            if words:
                with self.assertRaisesRegex(config.SettingsError, words):
                    database_urls.use_test_settings()
                return
            database_urls.use_test_settings()
            app = make_app(SQLALCHEMY_DATABASE_URI=url)
            self.addCleanup(dispose, app)
            self.assertEqual(app.extensions['database_url'], database_urls.parse(test_url, ''))
