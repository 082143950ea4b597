"""The commands ``test`` and ``cov``."""

import importlib
import shlex
import sys
import unittest
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from flask import Flask
from sqlalchemy import create_engine, text
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from project import config, create_app, database_urls, db
from project.commands.script_compat import Command, Option
from project.database import libpq

ROOT = Path(__file__).parents[2]
TESTS = ROOT / 'project' / 'tests'


class ContextFreeCommand(Command):
    """A command without an app context. The context of manage.py's app has the service's database, not the tests'."""

    run: Callable[..., int]

    def __call__(self, app: Flask, **options: Any) -> int:
        """Run the command and return its exit code."""
        return self.run(**options)


class Test(ContextFreeCommand):
    """Run the tests, on the test database only."""

    option_list = [Option('names', nargs='*', metavar='MODULE', help='module of project/tests or of its folder heavy')]

    def run(self, names: list[str]) -> int:
        """Run the modules ``names``, or all, and return the exit code."""
        return 0 if run_tests(names).wasSuccessful() else 1


class Cov(ContextFreeCommand):
    """Run the tests, and report the lines and branches that they do not cover."""

    def run(self) -> int:
        """Run all tests, print what they do not cover, write the HTML report, and return the exit code."""
        import coverage

        measured = coverage.Coverage(config_file=str(ROOT / 'pyproject.toml'))
        measured.erase()
        measured.start()
        # The modules imported up to here ran unmeasured, so they are imported again.
        for name in [name for name in sys.modules if name.split('.')[0] == 'project']:
            del sys.modules[name]
        result = importlib.import_module(__name__).run_tests([])
        measured.stop()
        measured.save()
        measured.combine()  # with the measurements of the processes that tests started
        covered = measured.report(show_missing=True, skip_covered=True)
        measured.html_report()
        print(f'HTML: {ROOT / "htmlcov" / "index.html"}')
        missed = covered < float(str(measured.get_option('report:fail_under')))
        return 1 if missed or not result.wasSuccessful() else 0


def run_tests(names: list[str]) -> unittest.TestResult:
    """Run test modules on the test database.

    :param names: of modules in ``project/tests`` and ``project/tests/heavy``, perhaps with a class and a method. If
        empty, all modules that match ``test*.py``.
    :raises SystemExit: with one line, when a module does not exist or the test database cannot be used.
    """
    modules = [_module(name.removesuffix('.py')) for name in names]
    try:
        database_urls.use_test_settings()
        check_test_database()
    except config.SettingsError as error:
        sys.exit(str(error))
    loader = unittest.TestLoader()
    if modules:
        for name in modules:
            _require_test(name)
        suite = loader.loadTestsFromNames(modules)
    else:
        suite = loader.discover(str(TESTS), pattern='test*.py', top_level_dir=str(ROOT))
    return unittest.TextTestRunner(verbosity=1, warnings=None if sys.warnoptions else 'default').run(suite)


def _module(name: str) -> str:
    """Return the full name of a module of tests, or exit with one line if it does not exist."""
    for folder in (TESTS, TESTS / 'heavy'):
        if (folder / f'{name.partition(".")[0]}.py').is_file():
            return '.'.join((*folder.relative_to(ROOT).parts, name))
    sys.exit(f'There is no module of tests named {name}.')


def _require_test(name: str) -> None:
    """Exit with one line if a module of tests has no such class or method.

    :param name: the full name of the module, perhaps with a class and a method.
    """
    prefix = 'project.tests.heavy.' if name.startswith('project.tests.heavy.') else 'project.tests.'
    module, _, attributes = name.removeprefix(prefix).partition('.')
    try:
        found = importlib.import_module(f'{prefix}{module}')
    except Exception:
        return  # the loader reports it with its traceback
    for attribute in filter(None, attributes.split('.')):
        found = getattr(found, attribute, None)
    if found is None:
        sys.exit(f'There is no test named {attributes} in {module}.')


def check_test_database() -> None:
    """Connect to the test database; if that fails, exit with one line that says why and what to do."""
    app = create_app(config.TestingConfig)
    with app.app_context():
        try:
            with db.engine.connect() as connection:
                if database_urls.is_among(
                    database_urls.replaced(), connection.connection.dbapi_connection, db.engine.url
                ):
                    sys.exit(database_urls.SAME_DATABASE)
                return
        except config.SettingsError:
            sys.exit(database_urls.SAME_DATABASE)
        except DBAPIError as error:
            url, reason = db.engine.url, str(error.orig).strip().splitlines()[0]
        finally:
            for engine in db.engines.values():
                engine.dispose()
    if url.get_backend_name() == 'postgresql':
        settings = libpq.parameters(database_urls.connect_arguments(url))
        if not _exists(url, settings['dbname']):
            sys.exit(f'The test database {settings["dbname"]} does not exist. Create it with: {_createdb(settings)}')
    sys.exit(f'Cannot connect to the test database {url.render_as_string()}: {reason}. Check DATABASE_TEST_URL.')


def _exists(url: URL, name: str) -> bool:
    """Return False if the server of ``url`` says that it has no database ``name``; True also if it is unavailable."""
    # The error of a failed connection has no SQLSTATE, and its text depends on the server's language.
    server = create_engine(url.set(database='postgres'), poolclass=NullPool)
    try:
        with server.connect() as connection:
            statement = text('SELECT count(*) FROM pg_database WHERE datname = :name')
            return connection.scalar(statement, {'name': name}) > 0
    except DBAPIError:
        return True


def _createdb(settings: Mapping[str, str]) -> str:
    """Return the command line that creates a database.

    :param settings: as :func:`project.database.libpq.parameters` returned them.
    """
    options = [
        f'{option} {shlex.quote(settings[name])}'
        for option, name in (('-h', 'host'), ('-p', 'port'), ('-U', 'user'))
        if settings.get(name)
    ]
    return ' '.join(['createdb', *options, shlex.quote(settings['dbname'])])
