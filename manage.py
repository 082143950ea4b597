"""The commands of the users service: ``python manage.py`` lists them."""

import sys
import unittest
from pathlib import Path

from project import config, create_app
from project.commands import bench, schema, server, users
from project.commands.script_compat import Command, Manager, Option

ROOT = Path(__file__).parent

try:
    app = create_app()
except config.SettingsError as error:
    print(error, file=sys.stderr)
    # gunicorn's master does not restart a worker that exits with 3.
    sys.exit(3)


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


manager = Manager(app, description='The users service.')
manager.add_command('runserver', server.RunServer(use_reloader=app.debug))
manager.add_command('shell', server.AppShell())
manager.add_command('test', Test())
manager.add_command('cov', Cov())
manager.add_command('recreate_db', schema.RecreateDb())
manager.add_command('seed_db', users.SeedDb())
manager.add_command('dump_users', users.DumpUsers())
manager.add_command('load_users', users.LoadUsers())
manager.add_command('bench', bench.Bench())
manager.add_command('routes', server.Routes())
manager.add_command('db', schema.db_manager)


if __name__ == '__main__':
    try:
        manager.run()
    except KeyboardInterrupt:
        print('Interrupted.', file=sys.stderr)
        sys.exit(130)  # 128 and the number of the signal, as in a shell
