"""The commands of manage.py. Those that need a process of their own are in heavy/commands.py."""

import contextlib
import importlib.util
import io
import os
import re
import shutil
import tempfile
import unittest
from pathlib import Path
from unittest import mock

import flask_migrate
from click.testing import CliRunner
from flask.cli import FlaskGroup
from sqlalchemy import Column, Integer, Table, inspect, text
from werkzeug.test import Client

import project
from project import config, create_app, db, readiness
from project.api.models import User
from project.bench import BenchError
from project.commands import waiting
from project.tests.base import ROOT, dispose, scratch_database
from project.tests.support.servers import needs_gunicorn
from project.tests.test_config import KEY
from project.tests.test_migrations import HEAD, MIGRATIONS, NOON, OLD
from project.timestamps import utcnow


class Scratch(config.DevelopmentConfig):
    """The settings of the commands under test. Each test sets the database."""


class ScratchProduction(config.ProductionConfig):
    """The same settings for production."""

    SECRET_KEY = KEY


class CommandTestCase(unittest.TestCase):
    settings = Scratch

    def setUp(self):
        url = self.enterContext(scratch_database())
        self.enterContext(mock.patch.object(self.settings, 'SQLALCHEMY_DATABASE_URI', url))
        self.manage = self.load_manage(APP_SETTINGS=f'{__name__}.{self.settings.__name__}')
        self.addCleanup(dispose, self.manage.app)
        self.enterContext(self.manage.app.app_context())
        # argparse looks up translations of its texts 100 times for each command, which takes most of its time.
        self.enterContext(mock.patch('gettext.find', return_value=None))

    def load_manage(self, **environment):
        """Return manage.py as a module that was imported in this environment."""
        with mock.patch.dict(os.environ, environment):
            spec = importlib.util.spec_from_file_location('manage_under_test', ROOT / 'manage.py')
            manage = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(manage)
        return manage

    def run_command(self, *args, code=0):
        """Return what a command prints on both streams. It must end with ``code``, which may be a text for stderr."""
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

    def test_no_command_changes_the_database_before_a_standby_has_confirmed_a_commit(self):
        for module, command in (
            ('migrating', ['db', 'upgrade']),
            ('recreating', ['recreate_db']),
            ('schema', ['db', 'stamp', 'head']),
            ('schema', ['db', 'downgrade', 'base']),
            ('users', ['seed_db']),
            ('users', ['load_users', '-']),
        ):
            if 'downgrade' in command:
                self.run_command('db', 'upgrade')
            tables = inspect(db.engine).get_table_names()
            gives_up = mock.patch(f'project.commands.{module}.require_standby', side_effect=SystemExit('No standby'))
            with self.subTest(command=command), gives_up:
                self.run_command(*command, code='No standby')
                self.assertEqual(inspect(db.engine).get_table_names(), tables)

    def test_recreate_db_drops_all_users_and_says_how_many(self):
        self.run_command('recreate_db')
        self.run_command('seed_db')
        self.assertIn('Dropped the 2 users in ', self.run_command('recreate_db'))
        self.assertEqual(self.users(), [])

    def test_recreate_db_leaves_nothing_of_the_table_of_2017(self):
        with db.engine.begin() as connection:
            OLD.create(connection)
            user = {'username': 'ann', 'email': 'ann@example.com', 'active': True, 'created_at': NOON}
            connection.execute(OLD.insert(), user)
        self.assertIn('Dropped the 1 users', self.run_command('recreate_db'))
        self.assertEqual(self.users(), [])

    def test_recreate_db_that_cannot_drop_a_table_drops_none(self):
        self.run_command('db', 'upgrade')
        self.run_command('seed_db')
        with db.engine.begin() as connection:
            connection.execute(text('CREATE TABLE notes (user_id integer REFERENCES users (id))'))
            connection.execute(text('INSERT INTO notes SELECT id FROM users'))
            OLD.create(connection)
        words = r'\ANothing was dropped: \S[^\n]*\.\Z'
        self.run_command('recreate_db', code=words)
        if db.engine.dialect.name == 'postgresql':
            with db.engine.begin() as connection:
                connection.execute(text('DROP TABLE notes'))
                connection.execute(text('CREATE VIEW newest AS SELECT * FROM users'))
            self.run_command('recreate_db', code=words)
            self.run_command('recreate_db', code='view newest depends on table users')
        self.assertEqual(len(self.users()), 2)
        self.assertTrue(inspect(db.engine).has_table('user'))
        self.assertIn(f'{HEAD} (head)', self.run_command('db', 'current'))

    def test_recreate_db_keeps_what_depends_on_the_users(self):
        self.run_command('db', 'upgrade')
        self.run_command('seed_db')
        table = 'CREATE TABLE notes (user_id integer REFERENCES users (id) ON DELETE CASCADE)'
        for drop, name, *create in (
            ('DROP TABLE notes', 'notes', table, 'INSERT INTO notes SELECT id FROM users'),
            ('DROP VIEW newest', 'newest', 'CREATE VIEW newest AS SELECT * FROM USERS'),
        ):
            with self.subTest(name=name):
                with db.engine.begin() as connection:
                    for statement in create:
                        connection.execute(text(statement))
                said = self.run_command('recreate_db', code=rf'\ANothing was dropped: [^\n]*\b{name}\b[^\n]*\.\Z')
                self.assertEqual(said, '')
                self.assertEqual(len(self.users()), 2)
                with db.engine.begin() as connection:
                    if name == 'notes':
                        self.assertEqual(connection.scalar(text('SELECT count(*) FROM notes')), 2)
                    connection.execute(text(drop))
        self.assertIn('Dropped the 2 users', self.run_command('recreate_db'))

    def test_recreate_db_on_sqlite_needs_no_empty_table_of_others_to_go(self):
        if db.engine.dialect.name == 'postgresql':
            self.skipTest('PostgreSQL rejects to drop a table that a foreign key refers to')
        self.run_command('db', 'upgrade')
        with db.engine.begin() as connection:
            connection.execute(text('CREATE TABLE notes (user_id integer REFERENCES users (id))'))
            connection.execute(text('CREATE VIEW ours AS SELECT * FROM notes'))
        self.run_command('recreate_db')

    def test_seed_db_adds_the_two_users_of_the_original_once(self):
        self.run_command('recreate_db')
        self.assertIn('Added 2 users.', self.run_command('seed_db'))
        self.assertEqual(self.run_command('seed_db'), '2 users already existed.\n')
        self.assertEqual(
            [(user.username, user.email) for user in self.users()],
            [('michael', 'michael@realpython.com'), ('michaelherman', 'michael@mherman.org')],
        )
        db.session.query(User).filter_by(username='michael').delete()
        db.session.commit()
        self.assertEqual(self.run_command('seed_db'), 'Added 1 user; 1 user already existed.\n')

    def test_seed_db_adds_the_requested_number_of_users(self):
        self.run_command('recreate_db')
        with mock.patch('project.commands.users.BATCH', 10):
            for count in (1, 10, 25):
                before = len(self.users())
                self.assertIn(f'Added {count} user', self.run_command('seed_db', '--count', str(count)))
                self.assertEqual(len(self.users()), before + count)
        users = self.users()
        self.assertEqual(len({user.email for user in users}), 36)
        newest = users[-25:]
        times = [user.created_at for user in newest]
        self.assertEqual(times, sorted(set(times)))
        self.assertLess(times[-1], utcnow())
        self.assertEqual({user.active for user in newest}, {True, False})

    def test_seed_db_rejects_a_count_below_one(self):
        self.run_command('recreate_db')
        for count in ('0', '-1'):
            with self.subTest(count=count):
                self.run_command('seed_db', f'--count={count}', code='--count must be at least 1')
        self.assertIn('invalid int value', self.run_command('seed_db', '--count', 'x', code=2))
        self.assertEqual(self.users(), [])

    def test_db_upgrade_current_check_and_downgrade(self):
        self.run_command('db', 'upgrade')
        self.assertTrue(inspect(db.engine).has_table('users'))
        self.assertIn(f'{HEAD} (head)', self.run_command('db', 'current'))
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
        # On SQLite, later migrations copy the table.
        revision = 'head' if db.engine.dialect.name == 'postgresql' else '0002'
        out = self.run_command('db', 'upgrade', revision, '--sql')
        self.assertIn('CREATE TABLE users', out)
        self.assertFalse(inspect(db.engine).has_table('users'))

    def test_db_upgrade_and_downgrade_print_what_they_did(self):
        lines = [f'{script.revision} ({script.doc.rstrip(".")}).\n' for script in MIGRATIONS]
        self.assertTrue(lines[0].startswith('0001 (Make the table of users, and take over the one of the 2017 service'))
        self.assertEqual(self.run_command('db', 'upgrade'), ''.join(f'Applied {line}' for line in lines))
        self.assertRegex(self.run_command('db', 'upgrade'), rf'\ANothing to do: .* is at revision {HEAD}\.\n\Z')
        for line in reversed(lines):
            self.assertEqual(self.run_command('db', 'downgrade'), f'Undid {line}')
        self.assertRegex(self.run_command('db', 'downgrade', 'base'), r'\ANothing to do: .* is at revision base\.\n\Z')
        for revision in ('nope', '-5'):
            self.run_command('db', 'downgrade', revision, code=rf'\AError: .*{revision}')

    def test_db_downgrade_of_an_empty_database_does_nothing(self):
        for _ in range(2):
            self.assertRegex(self.run_command('db', 'downgrade'), r'\ANothing to do: .* is at revision base\.\n\Z')
            self.run_command('db', 'upgrade')
            self.run_command('db', 'downgrade', 'base')

    def test_revision_that_the_code_does_not_have_is_reported_with_what_helps(self):
        self.run_command('db', 'upgrade')
        with db.engine.begin() as connection:
            connection.execute(text("UPDATE alembic_version SET version_num = 'abc'"))
        for command in (['downgrade'], ['downgrade', '--force'], ['upgrade'], ['migrate'], ['check']):
            with self.subTest(command=command):
                words = r'\AThe database records revision abc, which .* db stamp --purge REVISION'
                self.run_command('db', *command, code=words)
        flask_migrate.stamp(purge=True)
        self.assertIn('Nothing to do', self.run_command('db', 'upgrade'))

    def test_db_downgrade_needs_force_where_there_are_users(self):
        self.run_command('db', 'upgrade')
        self.run_command('seed_db')
        words = rf'\AThis would undo {HEAD} \(.*\), and destroy what it made in .*, with 2 users; use --force to do'
        self.run_command('db', 'downgrade', code=words)
        self.assertEqual(len(self.users()), 2)
        self.run_command('db', 'downgrade', 'base', '--force')
        self.assertFalse(inspect(db.engine).has_table('users'))

    def test_commands_without_the_table_name_the_command_that_makes_it(self):
        file = self.enterContext(tempfile.TemporaryDirectory()) + '/users.jsonl'
        Path(file).touch()
        no_table = r'\AThe database has no table of users\. Run "python manage.py db upgrade"'
        using = [['seed_db'], ['dump_users', f'{file}.new'], ['load_users', file], ['db', 'migrate'], ['db', 'check']]
        for command in using:
            with self.subTest(command=command):
                self.run_command(*command, code=no_table)
        self.run_command('db', 'upgrade')
        db.drop_all()
        for command in [*using, ['db', 'upgrade'], ['db', 'downgrade'], ['db', 'downgrade', '--force']]:
            with self.subTest(command=command):
                self.run_command(*command, code=r'\A.* is missing, .* Run "python manage.py recreate_db"')
        with mock.patch('flask.Flask.run') as run:
            if db.engine.dialect.name == 'sqlite':
                self.run_command('runserver', code='Run "python manage.py recreate_db"')
                run.assert_not_called()
        self.run_command('recreate_db')
        self.run_command('seed_db')

    def test_migrations_of_tables_without_a_revision_need_a_stamp(self):
        db.create_all()
        for command in (['upgrade'], ['downgrade'], ['migrate'], ['check']):
            with self.subTest(command=command):
                self.run_command('db', *command, code='"python manage.py db stamp head"')
        self.assertRegex(self.run_command('db', 'stamp'), rf'\ARecorded revision {HEAD} in ')
        self.assertIn('Nothing to do', self.run_command('db', 'upgrade'))
        self.run_command('seed_db')

    def test_db_heads_and_history_list_the_migrations(self):
        self.run_command('db', 'upgrade')
        self.assertIn(f'{HEAD} (head)', self.run_command('db', 'heads'))
        self.assertIn(MIGRATIONS[-1].path, self.run_command('db', 'heads', '--verbose'))
        self.assertRegex(self.run_command('db', 'history'), '<base> -> 0001, Make the table of users')
        self.assertIn('(current)', self.run_command('db', 'history', '-i'))
        self.assertIn('0001_users.py', self.run_command('db', 'history', '-v'))

    def test_dump_users_and_load_users_print_how_many(self):
        file = self.enterContext(tempfile.TemporaryDirectory()) + '/users.jsonl'
        self.run_command('db', 'upgrade')
        self.run_command('seed_db')
        self.assertEqual(self.run_command('dump_users', file), 'Wrote 2 users.\n')
        said = 'Added 0 users; 2 already existed; rejected 0 lines.\n'
        self.assertEqual(self.run_command('load_users', file), said)
        Path(file).write_text('{}')
        self.assertIn('rejected 1 lines.', self.run_command('load_users', file, code=1))

    def test_db_init_makes_the_folder(self):
        with mock.patch('flask_migrate.init') as called:
            self.run_command('db', 'init')
        called.assert_called_once_with()


class WritingMigrationsTest(CommandTestCase):
    """The commands that write migrations, into a copy of the folder."""

    def setUp(self):
        folder = Path(self.enterContext(tempfile.TemporaryDirectory()), 'migrations')
        shutil.copytree(ROOT / 'project' / 'migrations', folder, ignore=shutil.ignore_patterns('__pycache__'))
        self.versions = folder / 'versions'
        self.enterContext(mock.patch.object(project.migrate, 'directory', str(folder)))
        super().setUp()
        self.run_command('db', 'upgrade')

    def written(self):
        """Return the names of the migrations that were written."""
        # The migrations are read once in a process; each command has its own.
        readiness._migrations.cache_clear()
        known = [Path(script.path).name for script in MIGRATIONS]
        return [path.name for path in self.versions.glob('*.py') if path.name not in known]

    def test_db_migrate_without_changes_writes_no_file(self):
        said = self.run_command('db', 'migrate', '-m', 'nothing')
        self.assertEqual(said, 'The models have not changed: no migration was written.\n')
        self.assertEqual(self.written(), [])

    def test_db_migrate_writes_what_has_changed(self):
        extra = Table('extra', db.metadata, Column('id', Integer, primary_key=True))
        self.addCleanup(db.metadata.remove, extra)
        self.run_command('db', 'migrate', '-m', 'Add extra')
        (name,) = self.written()
        self.assertIn("op.create_table('extra'", (self.versions / name).read_text())
        self.run_command('db', 'migrate', code=r'\AThe schema of the database is older .*"python manage.py db upgrade"')
        self.run_command('seed_db', code='is older than the code')
        self.assertRegex(self.run_command('db', 'upgrade'), r'\AApplied \w+ \(Add extra\)\.\n\Z')
        self.assertIn('Added 2 users', self.run_command('seed_db'))
        self.run_command('db', 'downgrade', code=r'This would undo \w+ \(Add extra\), and destroy')
        self.run_command('db', 'downgrade', '--force')
        self.assertFalse(inspect(db.engine).has_table('extra'))
        self.assertEqual(len(self.users()), 2)

    def test_db_revision_writes_an_empty_migration(self):
        self.run_command('db', 'revision', '-m', 'By hand')
        (name,) = self.written()
        self.assertRegex(name, r'\A\w+_by_hand\.py\Z')
        self.assertIn('Applied', self.run_command('db', 'upgrade'))


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

    def test_db_downgrade_needs_force_even_without_users(self):
        db.session.query(User).delete()
        db.session.commit()
        self.run_command('db', 'downgrade', code=r'with 0 users; use --force to do it\.\Z')
        self.assertTrue(inspect(db.engine).has_table('users'))


class OtherCommandsTest(CommandTestCase):
    def test_routes_lists_the_routes(self):
        lines = self.run_command('routes').splitlines()
        for method, path in (('GET', '/users'), ('POST', '/users'), ('PATCH', '/users/<user_id>'), ('GET', '/ping')):
            self.assertRegex('\n'.join(lines), rf'(?m)^{method} +{re.escape(path)}$')

    @needs_gunicorn
    def test_bench_rejects_wrong_arguments(self):
        for args, words in (
            (['--workload', 'nope'], r'\AThere is no workload nope; use list10, '),
            (['--seconds', '0'], r'\A--seconds must be more than 0'),
            (['--rows', '9'], '--rows from 10 to 100,000,000'),
            (['--chart', '/no/folder/x.svg'], r'\A--chart cannot be combined with --workload'),
        ):
            with self.subTest(args=args):
                self.run_command('bench', *args, code=words)

    @needs_gunicorn
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

    def test_shell_has_app_db_and_user(self):
        with mock.patch('code.interact') as interact:
            self.run_command('shell', '--no-ipython', '--no-bpython', '--no-ptipython', '--no-ptpython')
        names = interact.call_args.kwargs['local']
        self.assertEqual((names['app'], names['db'], names['User']), (self.manage.app, db, User))

    def test_help_lists_every_command_with_one_line(self):
        out = self.run_command('--help')
        for name in ('runserver', 'shell', 'test', 'cov', 'recreate_db', 'seed_db', 'db', 'routes'):
            self.assertRegex(out, rf'(?m)^ +{name} +\S.*$')
        out = self.run_command('db', '--help')
        for name in (
            'init',
            'migrate',
            'upgrade',
            'downgrade',
            'current',
            'check',
            'heads',
            'history',
            'stamp',
            'revision',
        ):
            self.assertRegex(out, rf'(?m)^ +{name} +\S.*$')

    def test_flask_run_never_has_a_debugger(self):
        from werkzeug.debug import DebuggedApplication

        self.enterContext(mock.patch.object(DebuggedApplication, '__call__', DebuggedApplication.__call__))
        self.enterContext(mock.patch.dict(os.environ))
        cli = FlaskGroup(create_app=create_app)
        with mock.patch('flask.cli.run_simple') as run:
            ended = CliRunner().invoke(cli, ['run', '--debug'], catch_exceptions=False)
        self.assertEqual(ended.exit_code, 0, ended.output)
        app = run.call_args.args[2]
        self.addCleanup(dispose, app)
        response = Client(DebuggedApplication(app, evalex=True)).get('/console')
        self.assertEqual((response.status_code, response.json['status']), (404, 'fail'))
        # The reloader starts the command again, and that process must have no debugger from its start.
        with mock.patch('flask.cli.run_simple') as run:
            CliRunner().invoke(cli, ['run', '--debug'], catch_exceptions=False)
        self.addCleanup(dispose, run.call_args.args[2])
        self.assertEqual((run.call_args.kwargs['use_debugger'], run.call_args.kwargs['use_reloader']), (False, True))

    def test_flask_shell_has_app_db_and_user(self):
        names = self.manage.app.make_shell_context()
        self.assertEqual((names['app'], names['db'], names['User']), (self.manage.app, db, User))

    def test_runserver_upgrades_an_sqlite_database_first(self):
        file = self.enterContext(tempfile.TemporaryDirectory()) + '/users.db'
        url = mock.patch.object(self.settings, 'SQLALCHEMY_DATABASE_URI', f'sqlite:///{file}')
        with url, mock.patch('flask.Flask.run') as run, contextlib.redirect_stdout(io.StringIO()):
            manage = self.load_manage(APP_SETTINGS=f'{__name__}.{self.settings.__name__}')
            self.addCleanup(dispose, manage.app)
            manage.manager.handle('manage.py', ['runserver', '-p', '0'])
        run.assert_called_once()
        with manage.app.app_context():
            self.assertTrue(inspect(db.engine).has_table('users'))
            self.assertEqual(waiting.describe_database(), file)

    def test_runserver_prints_where_the_users_and_the_documentation_are(self):
        for args, address in (
            ((), 'http://127.0.0.1:5000'),
            (('-h', '0.0.0.0', '-p', '8000'), 'http://127.0.0.1:8000'),
            (('-h', '::'), 'http://[::1]:5000'),
            (('-h', 'dev.local', '--ssl-crt', __file__, '--ssl-key', __file__), 'https://dev.local:5000'),
        ):
            with self.subTest(args=args), mock.patch('flask.Flask.run'):
                said = self.run_command('runserver', *args)
                self.assertTrue(said.endswith(f'Users: {address}/users\nDocumentation: {address}/docs\n'), said)
        for args, environ in ((('-p', '0'), {}), ((), {'WERKZEUG_RUN_MAIN': 'true'})):
            with self.subTest(args=args), mock.patch('flask.Flask.run'), mock.patch.dict(os.environ, environ):
                self.assertNotIn('Users:', self.run_command('runserver', *args))

    def test_runserver_never_has_a_debugger(self):
        with mock.patch('flask.Flask.run') as run:
            self.run_command('runserver', '-p', '0', '-d')
        self.assertIs(run.call_args.kwargs['use_debugger'], False)
        self.assertIs(run.call_args.kwargs['use_reloader'], True)

    def test_runserver_starts_before_postgresql_does(self):
        url = 'postgres://127.0.0.1:1/none'
        with mock.patch.object(self.settings, 'SQLALCHEMY_DATABASE_URI', url), mock.patch('flask.Flask.run') as run:
            manage = self.load_manage(APP_SETTINGS=f'{__name__}.{self.settings.__name__}')
            manage.manager.handle('manage.py', ['runserver', '-p', '0'])
        run.assert_called_once()
