"""Tests as the 2017 lesson writes them (the folder ``lesson``) run here, and never on the development database."""

import contextlib
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import unittest
from collections.abc import Iterator
from pathlib import Path

from sqlalchemy import create_engine, inspect, text
from sqlalchemy.pool import NullPool

from project import database_urls, db
from project.api.models import User
from project.commands import users
from project.tests.base import ROOT, dispose, make_app, url_of_tests
from project.tests.test_config import VARIABLES

SECONDS = 60
COUNT, OTHER_SHAPES = 12, 5  # tests: of the lesson, and in test_other_shapes.py


SUBPROCESS = """
import subprocess, sys, unittest

CODE = '''
from project import create_app, db
app = create_app("project.config.DevelopmentConfig")
with app.app_context():
    db.create_all()
    db.drop_all()
'''

class TestSubprocess(unittest.TestCase):
    def test_drop_all(self):
        subprocess.run([sys.executable, '-c', CODE], check=True)
"""


@contextlib.contextmanager
def new_database() -> Iterator[str]:
    """Create a database of the kind of the test database, give its URL as the lesson writes it, and drop it."""
    url, name = url_of_tests(), f'users_lesson_{secrets.token_hex(4)}'
    if url.get_backend_name() == 'sqlite':
        with tempfile.TemporaryDirectory() as folder:
            yield f'sqlite:///{folder}/{name}'
        return
    server = create_engine(url, poolclass=NullPool, isolation_level='AUTOCOMMIT')
    with server.connect() as connection:
        connection.execute(text(f'CREATE DATABASE {name} TEMPLATE template0'))
    try:
        yield url.set(drivername='postgres', database=name).render_as_string(hide_password=False)
    finally:
        with server.connect() as connection:
            connection.execute(text(f'DROP DATABASE {name} WITH (FORCE)'))


class LessonTestCase(unittest.TestCase):
    """A copy of the project with the lesson's tests, its exports in force, and users in the development database."""

    url: str  # of the development database
    test_url: str

    @classmethod
    def setUpClass(cls) -> None:
        cls.url, cls.test_url = (cls.enterClassContext(new_database()) for _ in range(2))
        cls.app = make_app(SQLALCHEMY_DATABASE_URI=cls.url)
        cls.addClassCleanup(dispose, cls.app)
        with cls.app.app_context():
            db.create_all()
            users.seed_original()
        cls.users = cls.stored_users()

    @classmethod
    def stored_users(cls) -> list[tuple[object, ...]]:
        """Return the rows of the development database."""
        with cls.app.app_context(), db.engine.connect() as connection:
            return [tuple(row) for row in connection.execute(User.__table__.select().order_by(User.id))]

    def setUp(self) -> None:
        self.folder = Path(self.enterContext(tempfile.TemporaryDirectory()))
        ignored = shutil.ignore_patterns('client', 'tests', '__pycache__')
        shutil.copytree(ROOT / 'project', self.folder / 'project', ignore=ignored)
        shutil.copytree(ROOT / 'project' / 'tests' / 'lesson', self.folder / 'project' / 'tests')
        (self.folder / 'project' / 'tests' / '__init__.py').touch()
        shutil.copy(ROOT / 'manage.py', self.folder)

    def environment(self) -> dict[str, str]:
        """Return the environment of a process with the lesson's exports."""
        kept = {name: value for name, value in os.environ.items() if name not in VARIABLES}
        return kept | {
            'APP_SETTINGS': 'project.config.DevelopmentConfig',
            'DATABASE_URL': self.url,
            'DATABASE_TEST_URL': self.test_url,
        }

    def run_python(self, *args: str, **options: str) -> subprocess.CompletedProcess[str]:
        """Run Python in the copy, and check that the users in the development database stay as they are.

        :param options: such as ``input``, as for ``subprocess.run``.
        """
        ended = subprocess.run(
            [sys.executable, *args],
            cwd=self.folder,
            env=self.environment(),
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
            **options,
        )
        self.assertEqual(self.stored_users(), self.users, ended.stderr)
        return ended

    def check_nothing_is_destroyed(self, *args: str) -> None:
        """Run the tests without the command; those that would use the development database must be rejected."""
        ended = self.run_python(*args)
        self.assertNotEqual(ended.returncode, 0)
        self.assertRegex(ended.stdout + ended.stderr, r'db\.create_all\(\) was rejected.*python manage\.py test')


class LessonTest(LessonTestCase):
    def test_manage_py_test_finds_them_and_runs_them_and_their_subprocesses_on_the_test_database(self) -> None:
        tests = self.folder / 'project' / 'tests'
        (tests / 'test_config.py').rename(tests / 'testconfig.py')
        (tests / 'test_subprocess.py').write_text(SUBPROCESS)
        ended = self.run_python('manage.py', 'test')
        self.assertRegex(ended.stderr, rf'Ran {COUNT + OTHER_SHAPES + 1} tests')
        self.assertEqual(ended.returncode, 0, ended.stderr)
        engine = create_engine(database_urls.parse(self.test_url, ''), poolclass=NullPool)
        self.assertEqual(inspect(engine).get_table_names(), [])
