"""The sources of the settings. test_settings.py tests their values."""

import importlib.util
import os
import unittest
from unittest import mock

from sqlalchemy import inspect
from sqlalchemy.engine import make_url

from project import config, create_app, database_urls, db
from project.tests import base

KEY = 'a-key-of-the-tests-that-cannot-be-guessed'
VARIABLES = (
    *('APP_SETTINGS', 'DATABASE_URL', 'DATABASE_TEST_URL', 'SECRET_KEY', 'API_TOKENS', 'PROTECT', 'CORS_ORIGINS'),
    *('TRUSTED_HOSTS', 'PROXY_HOPS', 'LOG_LEVEL', 'METRICS', 'POOL_SIZE', 'POOL_OVERFLOW', 'SERVER_SOFTWARE'),
    *('SCRIPT_NAME', 'WEB_CONCURRENCY', 'MAX_REQUESTS'),
)
PRODUCTION = {'DATABASE_URL': 'postgres://u:p@db/users', 'SECRET_KEY': KEY}


class ConfigTestCase(unittest.TestCase):
    """The classes of ``project/config.py`` in an environment, which they read when they are imported."""

    def classes(self, **environment):
        """Return the configuration classes by name, as they are when only these variables are set."""
        kept = {variable: value for variable, value in os.environ.items() if variable not in VARIABLES}
        with mock.patch.dict(os.environ, kept | environment, clear=True):
            spec = importlib.util.spec_from_file_location('config', config.__file__)
            fresh = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(fresh)
        return vars(fresh)

    def app(self, name, **environment):
        """Return an app with the settings of the class ``name``, created when only these variables are set."""
        settings = self.classes(**environment)[name]
        kept = {variable: value for variable, value in os.environ.items() if variable not in VARIABLES}
        with mock.patch.dict(os.environ, kept | environment, clear=True):
            app = create_app(settings)
        self.addCleanup(base.dispose, app)
        return app

    def assert_rejected(self, words, name, **environment):
        """Check that the settings are rejected with one line that contains the words and no value."""
        with self.assertRaises(config.SettingsError) as raised:
            self.app(name, **environment)
        message = str(raised.exception)
        for word in words.split():
            self.assertIn(word, message)
        self.assertNotIn('\n', message)
        for value in environment.values():
            if len(value) > 10:
                self.assertNotIn(value, message)


class DevelopmentConfigTest(ConfigTestCase):
    def test_app_is_in_development(self):
        app = self.app('DevelopmentConfig', DATABASE_URL='postgres://u:p@db/users_dev')
        self.assertTrue(app.debug)
        self.assertFalse(app.testing)
        self.assertEqual(app.config['SECRET_KEY'], 'my_precious')
        self.assertEqual(app.config['SQLALCHEMY_DATABASE_URI'], 'postgres://u:p@db/users_dev')

    def test_nothing_needs_to_be_set(self):
        for environment in ({}, dict.fromkeys(VARIABLES, '')):
            with self.subTest(environment=environment):
                app = self.app('DevelopmentConfig', **environment)
                self.assertEqual(app.config['SQLALCHEMY_DATABASE_URI'], 'sqlite:///users.db')
                self.assertEqual(app.config['API_TOKENS'], [])
                self.assertEqual(app.config['PROTECT'], 'changes')
                self.assertEqual(app.config['CORS_ORIGINS'], ['*'])
                self.assertIsNone(app.config['TRUSTED_HOSTS'])
                self.assertEqual(app.config['PROXY_HOPS'], 0)
                self.assertFalse(app.config['METRICS'])


class TestingConfigTest(ConfigTestCase):
    def test_app_is_in_testing(self):
        app = self.app('TestingConfig', DATABASE_TEST_URL='postgres://u:p@db/users_test')
        self.assertTrue(app.debug)
        self.assertTrue(app.testing)
        self.assertEqual(app.config['SECRET_KEY'], 'my_precious')
        self.assertEqual(app.config['SQLALCHEMY_DATABASE_URI'], 'postgres://u:p@db/users_test')

    def test_database_of_the_tests_is_never_that_of_the_service(self):
        for settings in ('project.config.DevelopmentConfig', 'project.config.ProductionConfig'):
            with self.subTest(settings=settings):
                app = self.app('TestingConfig', APP_SETTINGS=settings, **PRODUCTION)
                self.assertEqual(app.config['SQLALCHEMY_DATABASE_URI'], 'sqlite:///users_test.db')
                with app.app_context():
                    for engine in db.engines.values():
                        self.assertEqual(engine.url.database, os.path.join(app.instance_path, 'users_test.db'))

    def test_environment_does_not_change_what_is_tested(self):
        environment = {
            'API_TOKENS': KEY,
            'PROTECT': 'all',
            'CORS_ORIGINS': 'x',
            'TRUSTED_HOSTS': 'x',
            'PROXY_HOPS': '3',
            'SCRIPT_NAME': '/x',
        }
        changed = self.app('TestingConfig', **environment, METRICS='1').config
        plain = self.app('TestingConfig').config
        for name in (*environment, 'METRICS'):
            self.assertEqual(changed[name], plain[name], name)


class ProductionConfigTest(ConfigTestCase):
    def test_app_is_in_production(self):
        app = self.app('ProductionConfig', **PRODUCTION)
        self.assertFalse(app.debug)
        self.assertFalse(app.testing)
        self.assertEqual(app.config['SECRET_KEY'], KEY)
        self.assertEqual(app.config['SQLALCHEMY_DATABASE_URI'], 'postgres://u:p@db/users')

    def test_nothing_is_assumed(self):
        for variable in PRODUCTION:
            for value in (None, ''):
                with self.subTest(variable=variable, value=value):
                    environment = {name: text for name, text in PRODUCTION.items() if name != variable}
                    if value is not None:
                        environment[variable] = value
                    self.assert_rejected(f'{variable} must', 'ProductionConfig', **environment)

    def test_debug_is_off_under_gunicorn_whatever_the_settings(self):
        for name in ('DevelopmentConfig', 'TestingConfig', 'ProductionConfig'):
            with self.subTest(name=name):
                self.assertFalse(self.app(name, **PRODUCTION, SERVER_SOFTWARE='gunicorn/27.0.1').debug)


class SettingsTest(ConfigTestCase):
    def test_settings_are_chosen_by_argument_else_by_app_settings_else_development(self):
        for argument, variable, expected in (
            (None, None, (True, False)),
            (None, '', (True, False)),
            (None, 'project.config.TestingConfig', (True, True)),
            ('project.config.TestingConfig', 'project.config.DevelopmentConfig', (True, True)),
            (config.TestingConfig, 'project.config.DevelopmentConfig', (True, True)),
        ):
            with self.subTest(argument=argument, variable=variable):
                with mock.patch.dict(os.environ, {} if variable is None else {'APP_SETTINGS': variable}):
                    if variable is None:
                        os.environ.pop('APP_SETTINGS', None)
                    app = create_app(argument)
                self.assertEqual((app.debug, app.testing), expected)

    def test_every_form_of_a_postgresql_url_means_psycopg2(self):
        for scheme in ('postgres', 'postgresql', 'postgresql+psycopg2'):
            for rest in (
                'u:p@h:5433/d',
                'u:p%40s%2Fs@h/d',
                'u@/d?host=/run/x',
                'u:p@/d?host=a:1&host=b:2',
                'h/d?sslmode=require',
            ):
                with self.subTest(scheme=scheme, rest=rest):
                    app = self.app('DevelopmentConfig', DATABASE_URL=f'{scheme}://{rest}')
                    with app.app_context():
                        for engine in db.engines.values():
                            self.assertEqual(engine.url, make_url(f'postgresql+psycopg2://{rest}'))
                            self.assertEqual(engine.dialect.driver, 'psycopg2')

    def test_sqlite_files_are_a_database(self):
        for url in ('sqlite:///x.db', 'sqlite:////var/x.db', 'sqlite+pysqlite:///x.db'):
            with self.subTest(url=url):
                app = self.app('DevelopmentConfig', DATABASE_URL=url)
                self.assertEqual(database_urls.engine_url(app.config), make_url(url))

    def test_settings_of_a_class_may_be_values(self):
        app = base.make_app(CORS_ORIGINS=['http://a'], API_TOKENS=(KEY,), PROXY_HOPS=2, TRUSTED_HOSTS=None)
        self.assertEqual(app.config['CORS_ORIGINS'], ['http://a'])
        self.assertEqual(app.config['API_TOKENS'], [KEY])
        self.assertEqual(app.config['PROXY_HOPS'], 2)


class SettingsOfTheOriginalTest(ConfigTestCase):
    """The tests of the original service read settings of an app that has loaded another configuration."""

    def test_settings_exist_on_every_class(self):
        for environment, key in (({}, 'my_precious'), ({'SECRET_KEY': KEY}, KEY)):
            urls = {'DATABASE_URL': 'postgres://u:p@db/users', 'DATABASE_TEST_URL': 'postgres://u:p@db/users_test'}
            for name, debug, testing, variable in (
                ('DevelopmentConfig', True, False, 'DATABASE_URL'),
                ('TestingConfig', True, True, 'DATABASE_TEST_URL'),
                ('ProductionConfig', False, False, 'DATABASE_URL'),
            ):
                with self.subTest(name=name, key=key):
                    settings = self.classes(**environment, **urls)[name]
                    self.assertEqual((settings.DEBUG, settings.TESTING), (debug, testing))
                    self.assertIs(settings.PRESERVE_CONTEXT_ON_EXCEPTION, False)
                    self.assertEqual(settings.SECRET_KEY, key)
                    self.assertEqual(settings.SQLALCHEMY_DATABASE_URI, urls[variable])

    def test_loading_a_configuration_again_leaves_the_app_working(self):
        app = base.make_app()
        self.addCleanup(base.dispose, app)
        for name in ('DevelopmentConfig', 'ProductionConfig', 'TestingConfig'):
            app.config.from_object(f'project.config.{name}')
            for method, path, code in (('GET', '/ping', 200), ('DELETE', '/users/1', 403), ('GET', '/none', 404)):
                with self.subTest(name=name, path=path):
                    self.assertEqual(app.test_client().open(path, method=method).status_code, code)


class TablesTest(base.BaseTestCase):
    """Tables are created and dropped only in the database that the configuration names."""

    def test_tables_are_safe_once_the_configuration_names_another_database(self):
        user = self.add_user()
        for url in ('sqlite:///other.db', 'postgres://u:p@h/other', 'sqlite://', None):
            self.app.config['SQLALCHEMY_DATABASE_URI'] = url
            for method in (db.drop_all, db.create_all):
                words = rf'(?s)db\.{method.__name__}\(\) was rejected.*python manage\.py test'
                with self.subTest(url=url, method=method), self.assertRaisesRegex(RuntimeError, words) as raised:
                    method()
                self.assertNotIn('postgres:postgres', str(raised.exception))
        self.assertEqual(self.list_users(), [user])
        self.app.config.from_object(config.TestingConfig)
        db.create_all()

    def test_drop_all_drops_the_tables_of_the_database_that_is_named(self):
        url = self.enterContext(base.scratch_database())
        app = base.make_app(SQLALCHEMY_DATABASE_URI=url)
        self.addCleanup(base.dispose, app)
        with app.app_context():
            db.create_all()
            self.assertTrue(inspect(db.engine).has_table('users'))
            db.drop_all()
            self.assertFalse(inspect(db.engine).has_table('users'))

    def test_only_the_test_database_is_emptied(self):
        user = self.add_user()
        other = mock.patch.object(config.TestingConfig, 'SQLALCHEMY_DATABASE_URI', 'sqlite:///other.db')
        with other, mock.patch.object(db, 'drop_all') as drop_all, self.assertRaises(RuntimeError):
            base.empty_tables()
        drop_all.assert_not_called()
        self.assertEqual(self.list_users(), [user])


class UseTestSettingsTest(unittest.TestCase):
    """Tests cannot use the database of the service."""

    def use_test_settings(self, url, test_url, settings='project.config.DevelopmentConfig'):
        """Put the test settings in force for these databases until the test ends."""
        self.enterContext(mock.patch.object(config.BaseConfig, 'SQLALCHEMY_DATABASE_URI', url))
        self.enterContext(mock.patch.object(config.ProductionConfig, 'SQLALCHEMY_DATABASE_URI', url))
        self.enterContext(mock.patch.object(config.TestingConfig, 'SQLALCHEMY_DATABASE_URI', test_url))
        self.enterContext(mock.patch.dict(os.environ, {database_urls.REPLACED: ''}))
        self.enterContext(mock.patch.dict(os.environ, APP_SETTINGS=settings))
        database_urls.use_test_settings()

    def engine_url(self, settings=None):
        """Return the URL of the engines of a new app."""
        app = create_app(settings)
        self.addCleanup(base.dispose, app)
        with app.app_context():
            (url,) = {engine.url for engine in db.engines.values()}
        return url

    def test_every_app_gets_the_test_database(self):
        for url, test_url in (
            ('postgres://u:p@h/users_dev', 'postgres://u:p@h/users_test'),
            ('sqlite:////var/users.db', 'sqlite:////var/users_test.db'),
        ):
            self.use_test_settings(url, test_url)
            production = type('Production', (config.ProductionConfig,), {'SECRET_KEY': KEY})
            own = type('Own', (config.TestingConfig,), {'SQLALCHEMY_DATABASE_URI': url})
            for settings in (None, 'project.config.DevelopmentConfig', config.TestingConfig, production, own):
                with self.subTest(url=url, settings=settings):
                    self.assertEqual(self.engine_url(settings), database_urls.parse(test_url, ''))

    def test_database_of_the_configuration_in_use_is_replaced(self):
        own = type('Own', (config.DevelopmentConfig,), {'SQLALCHEMY_DATABASE_URI': 'postgres://u:p@h/own'})
        with mock.patch.object(config, 'OwnConfig', own, create=True):
            self.use_test_settings('sqlite:////var/a.db', 'sqlite:////var/test.db', 'project.config.OwnConfig')
            self.assertEqual(self.engine_url(own), make_url('sqlite:////var/test.db'))

    def test_other_databases_may_be_used(self):
        self.use_test_settings('postgres://u:p@h/users_dev', 'postgres://u:p@h/users_test')
        for url in ('postgresql+psycopg2://u:p@h/scratch', 'postgresql+psycopg2://u:p@h2/users_dev', 'sqlite:////x.db'):
            with self.subTest(url=url):
                own = type('Own', (config.DevelopmentConfig,), {'SQLALCHEMY_DATABASE_URI': url})
                self.assertEqual(self.engine_url(own), make_url(url))

    def test_processes_started_by_tests_use_the_test_settings(self):
        self.use_test_settings('sqlite:////var/a.db', 'sqlite:////var/test.db')
        self.assertEqual(os.environ['APP_SETTINGS'], 'project.config.TestingConfig')

    def test_test_database_must_not_be_the_one_in_use(self):
        instance = base.ROOT / 'instance'
        for url, test_url in (
            (f'sqlite:///{instance}/users_test.db', 'sqlite:///users_test.db'),
            ('sqlite+pysqlite:///users.db', 'sqlite:///users.db'),
            ('postgres://u:p@h/d', 'postgres://u:p@h/d'),
            ('postgresql://other:user@H:5432/d?sslmode=require', 'postgres://u:p@h/d'),
            ('postgresql+psycopg2://127.0.0.1:5432/d', 'postgres://u:p@localhost/d'),
            ('postgres://[::1]/d', 'postgres:///d'),
            ('postgres:///d?host=h:5432', 'postgres://h/d'),
        ):
            with self.subTest(test_url=test_url, url=url), self.assertRaisesRegex(config.SettingsError, '_TEST_URL'):
                self.use_test_settings(url, test_url)

    def test_test_database_may_be_on_the_server_of_the_one_in_use(self):
        for url, test_url in (
            ('sqlite:///users.db', 'sqlite:///users_test.db'),
            ('sqlite:////var/users_test.db', 'sqlite:///users_test.db'),
            ('postgres://u:p@h/users_dev', 'postgres://u:p@h/users_test'),
            ('postgres://u:p@h2/d', 'postgres://u:p@h/d'),
            ('postgres://localhost:5435/t', 'postgres://127.0.0.1/t'),
            ('postgres://u:p@h/d', 'sqlite:///users_test.db'),
        ):
            with self.subTest(test_url=test_url, url=url):
                self.use_test_settings(url, test_url)
