"""Databases whose encoding cannot hold every name: ``db upgrade`` and ``/health`` report that and what to do."""

import shlex
import unittest
from unittest import mock

import flask_migrate
from sqlalchemy import inspect

from project import db
from project.commands import migrating, recreating
from project.tests.base import dispose, make_app
from project.tests.support.databases import other_database

CREATEDB = 'createdb -T template0 -E UTF8 -l C NAME'


class EncodingsTest(unittest.TestCase):
    def start(self, options):
        """Make a database, and an app on it."""
        self.app = make_app(SQLALCHEMY_DATABASE_URI=self.enterContext(other_database(options)))
        self.addCleanup(dispose, self.app)
        self.enterContext(self.app.app_context())
        self.enterContext(mock.patch('alembic.config.Config.print_stdout'))
        self.client = self.app.test_client()

    def check_rejected(self, name):
        self.start(f"ENCODING '{name}' LOCALE 'C'")
        rejected = rf'is {name}, which cannot hold every name.*{CREATEDB}'
        for run in (migrating.run_upgrade, lambda: recreating.RecreateDb().run(force=False)):
            with self.assertRaises(SystemExit) as end:
                run()
            self.assertRegex(str(end.exception.code), rejected)
        with self.assertLogs('flask_migrate') as logs, self.assertRaises(SystemExit):
            flask_migrate.upgrade()  # as "flask db upgrade"
        self.assertRegex(logs.output[0], rejected)
        self.assertFalse(inspect(db.engine).has_table('users'))
        db.create_all()  # a database that was made before the encoding was checked
        response = self.client.get('/health')
        self.assertEqual((response.status_code, response.headers['Retry-After']), (503, '1'))
        self.assertIn(CREATEDB, response.json['message'])
        return response.json

    def test_latin1(self):
        health = self.check_rejected('LATIN1')
        for response in (
            self.client.post('/users', json={'username': '\u0141ukasz', 'email': 'l@example.com'}),
            self.client.get('/users', query_string={'username': '\u0141ukasz'}),
        ):
            self.assertEqual((response.status_code, response.json), (503, health))
        response = self.client.post('/users', json={'username': 'Ren\xe9', 'email': 'r@example.com'})
        self.assertEqual((response.status_code, response.json['data']['username']), (201, 'Ren\xe9'))

    def test_sql_ascii_which_counts_bytes(self):
        self.check_rejected('SQL_ASCII')

    def test_database_that_the_message_says_how_to_create_is_accepted(self):
        words = shlex.split(CREATEDB)
        encoding, locale = words[words.index('-E') + 1], words[words.index('-l') + 1]
        self.start(f"ENCODING '{encoding}' LOCALE '{locale}'")
        migrating.run_upgrade()
        self.assertEqual(self.client.get('/health').status_code, 200)
        response = self.client.post('/users', json={'username': '\u0141' * 128, 'email': 'l@example.com'})
        self.assertEqual(response.status_code, 201)
