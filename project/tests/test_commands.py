"""The commands of manage.py: in this process where that is enough, as a newcomer starts them where it is not."""

import contextlib
import importlib.util
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import unittest
import urllib.error
import urllib.request
from pathlib import Path
from unittest import mock

from sqlalchemy import inspect
from sqlalchemy.exc import OperationalError

from project import config, db
from project.api.models import User
from project.bench import BenchError
from project.commands import waiting
from project.database import utcnow
from project.tests.base import ROOT, dispose, scratch_database
from project.tests.test_config import KEY, VARIABLES
from project.tests.test_migrations import NOON, OLD

SECONDS = 30


class Scratch(config.DevelopmentConfig):
    """The settings of the commands under test, whose database is set by the test."""


class ScratchProduction(config.ProductionConfig):
    """The same in production."""

    SECRET_KEY = KEY


class CommandTestCase(unittest.TestCase):
    settings = Scratch

    def setUp(self):
        url = self.enterContext(scratch_database())
        self.enterContext(mock.patch.object(self.settings, 'SQLALCHEMY_DATABASE_URI', url))
        self.manage = self.load_manage(APP_SETTINGS=f'{__name__}.{self.settings.__name__}')
        self.addCleanup(dispose, self.manage.app)
        self.enterContext(self.manage.app.app_context())

    def load_manage(self, **environment):
        """manage.py as a module, as it is in this environment."""
        with mock.patch.dict(os.environ, environment):
            spec = importlib.util.spec_from_file_location('manage_under_test', ROOT / 'manage.py')
            manage = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(manage)
        return manage

    def run_command(self, *args, code=0):
        """What a command prints, on both streams; it must end with ``code``, which may be a text for stderr."""
        out, status = io.StringIO(), 0
        shown = mock.patch('alembic.config.Config.print_stdout', lambda _, text, *args: print(text % args, file=out))
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out), shown:
            try:
                status = self.manage.manager.handle('manage.py', args) or 0
            except SystemExit as end:
                status = end.code or 0
        db.session.remove()
        if isinstance(code, int):
            self.assertEqual(status, code, out.getvalue())
        else:
            self.assertRegex(str(status), code)
        return out.getvalue()

    def users(self):
        users = db.session.query(User).order_by(User.id).all()
        db.session.expunge_all()
        db.session.rollback()
        return users


class DatabaseCommandsTest(CommandTestCase):
    def test_recreate_db_makes_the_tables(self):
        self.run_command('recreate_db')
        self.assertEqual(self.users(), [])
        self.assertTrue(inspect(db.engine).has_table('alembic_version'))

    def test_recreate_db_drops_all_users_and_says_how_many(self):
        self.run_command('recreate_db')
        self.run_command('seed_db')
        self.assertIn('Dropping the 2 users in ', self.run_command('recreate_db'))
        self.assertEqual(self.users(), [])

    def test_recreate_db_leaves_nothing_of_the_table_of_2017(self):
        with db.engine.begin() as connection:
            OLD.create(connection)
            user = {'username': 'ann', 'email': 'ann@example.com', 'active': True, 'created_at': NOON}
            connection.execute(OLD.insert(), user)
        self.assertIn('Dropping the 1 users', self.run_command('recreate_db'))
        self.assertEqual(self.users(), [])

    def test_recreate_db_waits_for_a_database_that_starts(self):
        connect, outcomes = db.engine.connect, [OperationalError('', {}, Exception('starting up'))] * 3
        attempts = mock.patch.object(db.engine, 'connect', lambda: raise_first(outcomes) or connect())
        self.enterContext(attempts)
        with mock.patch('time.sleep') as sleep:
            self.run_command('recreate_db')
        self.assertEqual(sleep.call_count, 3)
        self.assertEqual(self.users(), [])

    def test_command_gives_up_on_a_database_that_does_not_start(self):
        refusal = OperationalError('', {}, Exception('not\nthere'))
        self.enterContext(mock.patch.object(db.engine, 'connect', side_effect=refusal))
        self.enterContext(mock.patch('time.sleep'))
        self.enterContext(mock.patch.object(waiting, 'WAIT_SECONDS', 0))
        for command in (['recreate_db'], ['db', 'upgrade']):
            with self.subTest(command=command):
                self.run_command(*command, code=r'\ANo database after 0 s: not\Z')

    def test_seed_db_adds_the_two_users_of_the_original_once(self):
        self.run_command('recreate_db')
        self.assertIn('Added 2 users.', self.run_command('seed_db'))
        self.assertIn('Added 0 users.', self.run_command('seed_db'))
        self.assertEqual(
            [(user.username, user.email) for user in self.users()],
            [('michael', 'michael@realpython.com'), ('michaelherman', 'michael@mherman.org')],
        )
        db.session.query(User).filter_by(username='michael').delete()
        db.session.commit()
        self.assertIn('Added 1 users.', self.run_command('seed_db'))

    def test_seed_db_adds_as_many_users_as_are_asked_for(self):
        self.run_command('recreate_db')
        with mock.patch('project.commands.users.BATCH', 10):
            for count in (1, 10, 25):
                before = len(self.users())
                self.assertIn(f'Added {count} users.', self.run_command('seed_db', '--count', str(count)))
                self.assertEqual(len(self.users()), before + count)
        users = self.users()
        self.assertEqual(len({user.email for user in users}), 36)
        newest = users[-25:]
        moments = [user.created_at for user in newest]
        self.assertEqual(moments, sorted(set(moments)))
        self.assertLess(moments[-1], utcnow())
        self.assertEqual({user.active for user in newest}, {True, False})

    def test_seed_db_refuses_a_count_that_is_none(self):
        self.run_command('recreate_db')
        for count in ('0', '-1'):
            with self.subTest(count=count):
                self.run_command('seed_db', f'--count={count}', code='--count must be at least 1')
        self.assertIn('invalid int value', self.run_command('seed_db', '--count', 'x', code=2))
        self.assertEqual(self.users(), [])

    def test_db_upgrade_current_check_and_downgrade(self):
        self.run_command('db', 'upgrade')
        self.assertTrue(inspect(db.engine).has_table('users'))
        self.assertIn('0001', self.run_command('db', 'current'))
        self.assertIn('No new upgrade operations', self.run_command('db', 'check'))
        self.run_command('db', 'downgrade', 'base')
        self.assertFalse(inspect(db.engine).has_table('users'))
        self.run_command('db', 'upgrade', '0001')
        self.run_command('db', 'downgrade')
        self.assertFalse(inspect(db.engine).has_table('users'))

    def test_db_upgrade_takes_the_zone_of_the_old_times(self):
        with db.engine.begin() as connection:
            OLD.create(connection)
            user = {'username': 'ann', 'email': 'ann@example.com', 'active': True, 'created_at': NOON}
            connection.execute(OLD.insert(), user)
        self.run_command('db', 'upgrade', '-x', 'zone=Asia/Tokyo')
        self.assertEqual(self.users()[0].created_at.hour, 3)

    def test_db_upgrade_prints_its_statements(self):
        out = self.run_command('db', 'upgrade', '--sql')
        self.assertIn('CREATE TABLE users', out)
        self.assertFalse(inspect(db.engine).has_table('users'))

    def test_db_migrate_and_init_use_the_folders_they_are_given(self):
        for command, function, expected in (
            (['db', 'migrate', '-m', 'add a column'], 'migrate', {'message': 'add a column'}),
            (['db', 'init'], 'init', {}),
        ):
            with self.subTest(command=command), mock.patch(f'flask_migrate.{function}') as called:
                self.run_command(*command)
                called.assert_called_once_with(**expected)


def raise_first(errors):
    """Raise the errors that are left, one at a time."""
    if errors:
        raise errors.pop()


class ProductionCommandsTest(CommandTestCase):
    settings = ScratchProduction

    def setUp(self):
        super().setUp()
        self.run_command('db', 'upgrade')
        self.run_command('seed_db')

    def test_recreate_db_needs_force(self):
        self.run_command('recreate_db', code=r'\AThis would destroy the 2 users in .* needs --force\.\Z')
        self.assertEqual(len(self.users()), 2)
        self.run_command('recreate_db', '--force')
        self.assertEqual(self.users(), [])

    def test_db_downgrade_needs_force(self):
        self.run_command('db', 'downgrade', code=r'\AThis destroys data in .* needs --force\.\Z')
        self.assertEqual(len(self.users()), 2)
        self.run_command('db', 'downgrade', '--force')
        self.assertFalse(inspect(db.engine).has_table('users'))


class OtherCommandsTest(CommandTestCase):
    def test_routes_lists_the_routes(self):
        lines = self.run_command('routes').splitlines()
        for method, path in (('GET', '/users'), ('POST', '/users'), ('PATCH', '/users/<user_id>'), ('GET', '/ping')):
            self.assertRegex('\n'.join(lines), rf'(?m)^{method} +{re.escape(path)}$')

    def test_bench_rejects_wrong_arguments(self):
        for args, words in (
            (['--workload', 'nope'], r'\AThere is no workload nope; there are list10, '),
            (['--seconds', '0'], r'\A--seconds must be more than 0'),
            (['--rows', '9'], '--rows from 10 to 100,000,000'),
            (['--chart', '/no/folder/x.svg'], r'\A--chart goes without --workload'),
        ):
            with self.subTest(args=args):
                self.run_command('bench', *args, code=words)

    def test_bench_reports_failed_requests_and_draws_the_chart(self):
        results, chart = [{'failed': 2}], Path(self.enterContext(tempfile.TemporaryDirectory()), 'x.svg')
        with (
            mock.patch.multiple('project.bench', table=str, conditions=str, chart=str),
            mock.patch('project.bench.measure_growth', return_value=results),
            mock.patch('project.bench.measure', side_effect=BenchError('The server ended.')),
        ):
            self.assertIn(str(results), self.run_command('bench', '--chart', str(chart), code='2 requests failed.'))
            self.assertEqual(chart.read_text(encoding='utf-8'), str(results))
            self.run_command('bench', code='The server ended.')
            with mock.patch('project.bench.measure', return_value=[{'failed': 0}]):
                self.run_command('bench')

    def test_shell_has_what_one_works_with(self):
        with mock.patch('code.interact') as interact:
            self.run_command('shell', '--no-ipython', '--no-bpython', '--no-ptipython', '--no-ptpython')
        names = interact.call_args.kwargs['local']
        self.assertEqual((names['app'], names['db'], names['User']), (self.manage.app, db, User))

    def test_help_lists_every_command_with_one_line(self):
        out = self.run_command('--help')
        for name in ('runserver', 'shell', 'test', 'cov', 'recreate_db', 'seed_db', 'db', 'routes'):
            self.assertRegex(out, rf'(?m)^ +{name} +\S.*$')
        out = self.run_command('db', '--help')
        for name in ('init', 'migrate', 'upgrade', 'downgrade', 'current', 'check'):
            self.assertRegex(out, rf'(?m)^ +{name} +\S.*$')

    def test_test_runs_the_modules_that_are_named(self):
        for names, modules in (
            (['test_config'], {'test_config'}),
            (['test_config.py', 'test_users'], {'test_config', 'test_users'}),
            ([], {path.stem for path in (ROOT / 'project' / 'tests').glob('test_*.py')}),
        ):
            for successful, code in ((True, 0), (False, 1)):
                with self.subTest(names=names), mock.patch('unittest.TextTestRunner.run') as run:
                    run.return_value.wasSuccessful.return_value = successful
                    self.run_command('test', *names, code=code)
                    tests = flatten(run.call_args.args[0])
                    self.assertEqual({type(test).__module__.split('.')[-1] for test in tests}, modules)

    def test_test_of_an_unknown_module_fails(self):
        self.run_command('test', 'test_nothing', code='There is no module of tests named test_nothing.')

    def test_runserver_never_has_a_debugger(self):
        with mock.patch('flask.Flask.run') as run:
            self.run_command('runserver', '-p', '0', '-d')
        self.assertIs(run.call_args.kwargs['use_debugger'], False)
        self.assertIs(run.call_args.kwargs['use_reloader'], True)


def flatten(suite):
    """The tests of a suite of suites."""
    for test in suite:
        if isinstance(test, unittest.TestSuite):
            yield from flatten(test)
        else:
            yield test


class ProcessTest(unittest.TestCase):
    """Commands as they are typed, in a copy of the project that has never been started."""

    def setUp(self):
        self.folder = Path(self.enterContext(tempfile.TemporaryDirectory()))
        ignored = shutil.ignore_patterns('client', 'tests', '__pycache__')
        shutil.copytree(ROOT / 'project', self.folder / 'project', ignore=ignored)
        shutil.copy(ROOT / 'manage.py', self.folder)

    def command(self, *args, **environment):
        """The arguments of Popen for a command in an environment of its own."""
        kept = {name: value for name, value in os.environ.items() if name not in VARIABLES}
        arguments = [sys.executable, '-W', 'error', 'manage.py', *args]
        return {'args': arguments, 'cwd': self.folder, 'env': kept | environment, 'text': True}

    def test_first_start_makes_the_database_and_serves(self):
        # In a group of its own, since the reloader has a child.
        process = subprocess.Popen(
            **self.command('runserver', '-p', '0', PYTHONUNBUFFERED='1'),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            said = ''
            while not (running := re.search(r'Running on (http://127\.0\.0\.1:\d+)', said)):
                line = process.stdout.readline()
                self.assertTrue(line, said)
                said += line
            address = running[1]
            body = json.dumps({'username': 'ann', 'email': 'ann@example.com'}).encode()
            added = urllib.request.Request(f'{address}/users', body, {'Content-Type': 'application/json'})
            self.assertEqual(self.fetch(added)[0], 201)
            self.assertEqual(self.fetch(f'{address}/users')[1]['data']['users'][0]['username'], 'ann')
            for path in ('/console', '/nowhere', '/users/x'):
                self.assertEqual(
                    (self.fetch(address + path)[0], self.fetch(address + path)[1]['status']), (404, 'fail')
                )
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            process.stdout.close()
        self.assertTrue((self.folder / 'instance' / 'users.db').is_file())
        self.assertNotIn('Traceback', said)

    def fetch(self, request):
        """Status and JSON of an answer."""
        try:
            with urllib.request.urlopen(request, timeout=SECONDS) as response:
                return response.status, json.load(response)
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.load(error)

    def test_wrong_setting_or_command_is_one_line(self):
        production = {'APP_SETTINGS': 'project.config.ProductionConfig', 'SECRET_KEY': KEY}
        for args, environment, words in (
            (['routes'], production, 'DATABASE_URL must be set'),
            (['nonsense'], {}, "'nonsense'"),
        ):
            with self.subTest(args=args, environment=environment):
                command = self.command(*args, **environment)
                ended = subprocess.run(**command, capture_output=True, timeout=SECONDS, check=False)
                self.assertNotEqual(ended.returncode, 0)
                self.assertEqual(len(ended.stderr.splitlines()), 1, ended.stderr)
                self.assertIn(words, ended.stderr)
                self.assertEqual(ended.stdout, '')
