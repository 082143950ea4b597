"""The command ``test``. ``test_lesson`` starts it in a process of its own."""

import os
import re
import secrets
import unittest
from unittest import mock

from project import config, database_urls, db
from project.tests.base import ROOT, url_of_tests
from project.tests.test_commands import CommandTestCase


def flatten(suite):
    """Yield the tests of a suite of suites."""
    for test in suite:
        if isinstance(test, unittest.TestSuite):
            yield from flatten(test)
        else:
            yield test


class RunTestsTest(CommandTestCase):
    """Which tests run, and on which database."""

    def setUp(self):
        super().setUp()
        self.enterContext(mock.patch.dict(os.environ, {database_urls.REPLACED: ''}))

    def test_test_runs_the_modules_that_are_named(self):
        for names, modules in (
            (['test_config'], {'test_config'}),
            (['test_config.py', 'test_users'], {'test_config', 'test_users'}),
            (['test_config', 'plans.PlanTest'], {'test_config', 'plans'}),  # of heavy/, and one class
            ([], {path.stem for path in (ROOT / 'project' / 'tests').glob('test*.py')}),
        ):
            for successful, code in ((True, 0), (False, 1)):
                with self.subTest(names=names), mock.patch('unittest.TextTestRunner.run') as run:
                    run.return_value.wasSuccessful.return_value = successful
                    self.run_command('test', *names, code=code)
                    tests = flatten(run.call_args.args[0])
                    self.assertEqual({type(test).__module__.split('.')[-1] for test in tests}, modules)

    def test_test_of_an_unknown_module_fails(self):
        self.run_command('test', 'test_nothing', code='There is no module of tests named test_nothing.')

    def test_test_of_an_unknown_class_or_method_fails(self):
        for name in ('Nope', 'ScratchProduction.nope', 'Nope.nope'):
            with self.subTest(name=name):
                line = rf'\AThere is no test named {name} in test_commands\.\Z'
                self.run_command('test', f'test_commands.{name}', code=line)

    def check_one_line(self, test_url, line):
        """Check that the tests do not run on this database, and that the reason is one line."""
        with (
            mock.patch.object(config.TestingConfig, 'SQLALCHEMY_DATABASE_URI', test_url),
            mock.patch('unittest.TextTestRunner.run') as run,
            self.subTest(test_url=test_url),
        ):
            self.run_command('test', code=rf'\A{line}\Z')
            run.assert_not_called()

    def test_test_database_that_cannot_be_used_is_one_line(self):
        for test_url, line in (
            (
                'postgres://u:secret@127.0.0.1:1/t',
                r'Cannot connect to .*//u:\*\*\*@127.0.0.1:1/t: .* Check DATABASE_TEST_URL\.',
            ),
            ('sqlite:////nowhere/t.db', 'DATABASE_TEST_URL names an SQLite file in a folder that does not exist; .*'),
            ('sqlite://', 'DATABASE_TEST_URL must name .*'),
            (f'sqlite:///{__file__}', 'Cannot connect to the test database .*: file is not a database. Check .*'),
            ('postgres://u:secret@h/t?nonsense=1', 'DATABASE_TEST_URL cannot be used: .*"nonsense"; .*'),
            (config.BaseConfig.SQLALCHEMY_DATABASE_URI, 'DATABASE_TEST_URL names the database of DATABASE_URL.*'),
        ):
            self.check_one_line(test_url, line)

    def test_test_database_that_does_not_exist_is_one_line_with_the_command_that_creates_it(self):
        if db.engine.dialect.name != 'postgresql':
            self.skipTest('SQLite creates its files')
        url = url_of_tests()
        name = f'users_lesson_{secrets.token_hex(4)}'
        missing = url.set(database=f"{name}'s").render_as_string(hide_password=False)
        host, port = url.host, url.port or 5432
        self.check_one_line(missing, rf"The test database {name}'s does not exist\. Create it with: createdb .*")
        command = re.escape(f'createdb -h {host} -p {port} -U {url.username} {name}')
        self.check_one_line(
            url.set(port=port, database=name).render_as_string(hide_password=False), f'The test .*: {command}'
        )
        nameless = url.set(database='').render_as_string(hide_password=False)
        with mock.patch.dict(os.environ, PGDATABASE=name):
            self.check_one_line(nameless, rf'The test database {name} does not exist\. Create it with: {command}')
        with mock.patch.dict(os.environ, PGDATABASE='template0'):  # it exists, but accepts no connections
            self.check_one_line(nameless, r'Cannot connect to .*: .* Check DATABASE_TEST_URL\.')
        stranger = url.set(username=name, password='wrong').render_as_string(hide_password=False)
        self.check_one_line(stranger, rf'Cannot connect to .*//{name}:\*\*\*@.*: .* Check DATABASE_TEST_URL\.')
