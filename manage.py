"""The commands of the users service: ``python manage.py`` lists them."""

import os
import sys
import time
import unittest
from pathlib import Path

import flask_migrate
from sqlalchemy import func, inspect, select, table, text
from sqlalchemy.exc import OperationalError

from project import config, create_app, db, seed, transfer
from project.api.models import User
from project.flask_script_compat import Command, Manager, Option, Server, Shell

ROOT = Path(__file__).parent
WAIT_SECONDS = 30  # for a database that is still starting

try:
    app = create_app()
except config.SettingsError as error:
    print(error, file=sys.stderr)
    # To gunicorn's master this exit code means: it will never start, so do not try for ever.
    sys.exit(3)

manager = Manager(app, description='The users service.')


class RunServer(Server):
    """Serve for development, reloading changed code."""

    help = description = __doc__

    def __call__(self, app, **options):
        with app.app_context():
            if db.engine.dialect.name == 'sqlite':
                flask_migrate.upgrade()
        # The debugger would run whatever a visitor types into its page.
        return super().__call__(app, **options | {'use_debugger': False})


manager.add_command('runserver', RunServer(use_reloader=app.debug))


class AppShell(Shell):
    """A Python shell with app, db and User."""

    help = description = __doc__

    def get_context(self):
        return {'app': app, 'db': db, 'User': User}


manager.add_command('shell', AppShell())


class Outside(Command):
    """A command outside the context of this app, whose database it could else take for that of the tests."""

    def __call__(self, app, **options):
        return self.run(**options)


class Test(Outside):
    """Run the tests, on the test database only."""

    option_list = [Option('names', nargs='*', metavar='MODULE', help='of project/tests, such as test_users')]

    def run(self, names):
        return 0 if run_tests(names).wasSuccessful() else 1


class Cov(Outside):
    """Run the tests and report what they missed."""

    def run(self):
        return measure_coverage()


manager.add_command('test', Test())
manager.add_command('cov', Cov())


def measure_coverage():
    """Run all tests, print the lines and branches that they missed, and write the HTML report."""
    import coverage

    measured = coverage.Coverage(config_file=str(ROOT / 'pyproject.toml'))
    measured.erase()
    measured.start()
    # What was imported to get here has run unmeasured: it is imported again.
    for name in [name for name in sys.modules if name.split('.')[0] == 'project']:
        del sys.modules[name]
    result = run_tests([])
    measured.stop()
    measured.save()
    missed = measured.report(show_missing=True, skip_covered=True) < 100
    measured.html_report()
    print(f'HTML: {ROOT / "htmlcov" / "index.html"}')
    return 1 if missed or not result.wasSuccessful() else 0


@manager.option('--force', action='store_true', help='in production too')
def recreate_db(force):
    """Drop all users, and make the tables anew."""
    production = not (app.debug or app.testing)
    wait_for_database()
    where = db.engine.url.render_as_string(hide_password=True)
    present = inspect(db.engine)
    # The second is the table of the 2017 service, whose users the migrations would else carry over.
    tables = [table(name) for name in ('users', 'user') if present.has_table(name)]
    count = sum(db.session.scalar(select(func.count()).select_from(old)) for old in tables)
    db.session.rollback()
    if production and not force:
        sys.exit(f'This would destroy the {count} users in {where}. In production that needs --force.')
    print(f'Dropping the {count} users in {where}.')
    db.drop_all()
    with db.engine.begin() as connection:
        for name in ('alembic_version', '"user"'):
            connection.execute(text(f'DROP TABLE IF EXISTS {name}'))
    flask_migrate.upgrade()
    print('The tables are new and empty.')


@manager.option('--count', type=int, help='make so many, instead of the two of the original lesson')
def seed_db(count=None):
    """Add sample users."""
    if count is not None and count < 1:
        sys.exit('--count must be at least 1.')
    wait_for_database()
    if not inspect(db.engine).has_table('users'):
        sys.exit('The database has no table of users; "python manage.py db upgrade" makes it.')
    print(f'Added {seed.seed_original() if count is None else seed.seed_many(count)} users.')


@manager.option('file', metavar='FILE', help='compressed if it ends in .gz; - is stdout')
@manager.option('--force', action='store_true', help='replace FILE if it is there')
def dump_users(file, force):
    """Write all users to a file, one JSON object a line."""
    wait_for_database()
    try:
        count = transfer.dump(file, force)
    except transfer.TransferError as error:
        sys.exit(str(error))
    print(f'Wrote {count} users.', file=sys.stderr if file == '-' else sys.stdout)


@manager.option('file', metavar='FILE', help='as dump_users made it; - is stdin')
@manager.option('--stop', action='store_true', help='stop at the first line that is refused')
def load_users(file, stop):
    """Add the users of a file to those there are."""
    wait_for_database()
    try:
        done = transfer.load(file, stop)
    except transfer.TransferError as error:
        sys.exit(str(error))
    print(f'Added {done.added} users; {done.there} were there already; refused {done.refused} lines.')
    return 1 if done.refused else 0


@manager.option('--seconds', type=float, default=5, help='for each workload; default 5')
@manager.option('--rows', type=int, default=1_000_000, help='users in the big table; default 1,000,000')
@manager.option('--workload', action='append', metavar='NAME', help='only this one; may be given again; default all')
@manager.option('--chart', metavar='FILE.svg', help='measure in tables of 10 users up to --rows instead, and draw it')
def bench(seconds, rows, workload, chart):
    """Measure the service on databases of its own."""
    from project import bench

    unknown = set(workload or ()) - bench.WORKLOADS.keys()
    if unknown:
        sys.exit(f'There is no workload {", ".join(sorted(unknown))}; there are {", ".join(bench.WORKLOADS)}.')
    if not 0 < seconds <= 3600 or not 10 <= rows <= 10**8:
        sys.exit('--seconds must be more than 0 and at most 3600, --rows from 10 to 100,000,000.')
    if chart and (workload or not os.access(os.path.dirname(os.path.abspath(chart)), os.W_OK)):
        sys.exit('--chart goes without --workload, and needs a folder that can be written.')
    wait_for_database()
    try:
        results = bench.measure_growth(seconds, rows) if chart else bench.measure(seconds, rows, workload)
        print(bench.table(results), bench.conditions(), sep='\n\n')
        if chart:
            Path(chart).write_text(bench.chart(results), encoding='utf-8')
    except bench.BenchError as error:
        sys.exit(str(error))
    failed = sum(result['failed'] for result in results)
    return f'{failed} requests failed.' if failed else 0


@manager.command
def routes():
    """List the routes."""
    for rule in sorted(app.url_map.iter_rules(), key=lambda rule: rule.rule):
        print(f'{",".join(sorted(rule.methods - {"HEAD", "OPTIONS"})):8} {rule.rule}')


db_manager = Manager(help='Change the schema of the database.')
manager.add_command('db', db_manager)


@db_manager.command
def init():
    """Make a new folder of migrations; this project has one."""
    flask_migrate.init()


@db_manager.option('-m', '--message', help='what the migration does')
def migrate(message):
    """Write a migration for what has changed in the models."""
    flask_migrate.migrate(message=message)


@db_manager.option('revision', nargs='?', default='head')
@db_manager.option('-x', '--x-arg', action='append', metavar='NAME=VALUE', help='for the migration, such as zone=UTC')
@db_manager.option('--sql', action='store_true', help='print the statements instead')
def upgrade(revision, x_arg, sql):
    """Bring the schema up to the newest migration."""
    if not sql:
        wait_for_database()
    flask_migrate.upgrade(revision=revision, x_arg=x_arg, sql=sql)


@db_manager.option('revision', nargs='?', default='-1')
@db_manager.option('--force', action='store_true', help='in production too')
def downgrade(revision, force):
    """Take back the last migration, and what it made."""
    if not (app.debug or app.testing or force):
        sys.exit(f'This destroys data in {db.engine.url.render_as_string()}. In production that needs --force.')
    flask_migrate.downgrade(revision=revision)


@db_manager.command
def current():
    """Show which migration the database has."""
    flask_migrate.current()


@db_manager.command
def check():
    """Fail when models have changed without a migration."""
    flask_migrate.check()


def run_tests(names):
    """Run test modules by name, or all that start with ``test_``."""
    loader = unittest.TestLoader()
    if names:
        for name in names:
            if not (ROOT / 'project' / 'tests' / f'{name.removesuffix(".py").split(".")[0]}.py').is_file():
                sys.exit(f'There is no module of tests named {name}.')
        suite = loader.loadTestsFromNames([f'project.tests.{name.removesuffix(".py")}' for name in names])
    else:
        suite = loader.discover(str(ROOT / 'project' / 'tests'), pattern='test_*.py', top_level_dir=str(ROOT))
    return unittest.TextTestRunner(verbosity=1, warnings=None if sys.warnoptions else 'default').run(suite)


def wait_for_database():
    """Wait until the database answers; exit with one line when it does not in time."""
    end = time.monotonic() + WAIT_SECONDS
    while True:
        try:
            with db.engine.connect():
                return
        except OperationalError as error:
            if time.monotonic() > end:
                sys.exit(f'No database after {WAIT_SECONDS} s: {str(error.orig).strip().splitlines()[0]}')
            time.sleep(0.5)


if __name__ == '__main__':
    try:
        manager.run()
    except KeyboardInterrupt:
        print('Interrupted.', file=sys.stderr)
        sys.exit(130)  # 128 and the number of the signal, as in a shell
