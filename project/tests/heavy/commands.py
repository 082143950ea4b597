"""Commands in processes of their own, as a user starts them. Run by name: ``python manage.py test commands``."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest
import urllib.error
import urllib.request
from pathlib import Path

from project import db
from project.tests.base import ROOT
from project.tests.support.fake_postgres import FakePostgres
from project.tests.test_config import KEY, VARIABLES
from project.tests.test_script_compat import PLAIN_SHELL
from project.tests.test_transfer import ANN, TransferTestCase, lines_of, numbered
from project.tests.test_unreadable import BROKEN_ROW
from project.transfer import loading

SECONDS = 60
MANAGE = """
import sys
sys.path.insert(0, {root!r})
from flask import Flask
from project.commands.script_compat import Manager

Manager(lambda: Flask('probe')).run()
"""


class TransferTest(TransferTestCase):
    """dump_users and load_users on the test database."""

    def command(self, *arguments):
        """Start a command of manage.py on the test database."""
        url = db.engine.url.render_as_string(hide_password=False)
        return subprocess.Popen(
            [sys.executable, '-W', 'error', 'manage.py', *arguments],
            cwd=ROOT,
            env=os.environ | {'APP_SETTINGS': 'project.config.DevelopmentConfig', 'DATABASE_URL': url},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def run_command(self, *arguments):
        """Run a command; return its exit code, stdout and stderr."""
        with self.command(*arguments) as process:
            stdout, stderr = process.communicate(timeout=60)
        return process.returncode, stdout.decode(), stderr.decode()

    def test_commands_report_their_result(self):
        self.load([ANN])
        code, stdout, stderr = self.run_command('dump_users', '-')
        self.assertEqual((code, stdout, stderr), (0, self.dump().decode(), 'Wrote 1 users.\n'))
        self.path.write_bytes(lines_of([ANN, {}, numbered(8)]))
        code, stdout, stderr = self.run_command('load_users', str(self.path))
        self.assertEqual((code, stdout), (1, 'Added 1 users; 1 already existed; rejected 1 lines.\n'))
        self.assertTrue(stderr.startswith('Line 2: id is required'), stderr)
        code, stdout, stderr = self.run_command('load_users', '--stop', str(self.path))
        self.assertEqual((code, stdout, stderr.count('\n'), stderr[:7]), (1, '', 1, 'Line 2:'))

    def test_load_that_is_killed_can_be_repeated(self):
        # A background job of a shell ignores SIGINT, and the commands that it starts would inherit that.
        self.addCleanup(signal.signal, signal.SIGINT, signal.signal(signal.SIGINT, signal.default_int_handler))
        users = [numbered(number) for number in range(1, 2 * loading.BATCH + 501)]
        for death, code, reported in ((signal.SIGKILL, -9, b''), (signal.SIGINT, 130, b'Interrupted.\n')):
            with self.subTest(death=death), self.command('load_users', '-') as process:
                process.stdin.write(lines_of(users))
                process.stdin.flush()
                end = time.monotonic() + 30
                while self.count_users() < 2 * loading.BATCH:
                    self.assertLess(time.monotonic(), end)
                    time.sleep(0.01)
                process.send_signal(death)
                self.assertEqual(process.wait(30), code)
                self.assertEqual(process.stderr.read(), reported)
                self.assertEqual(self.count_users(), 2 * loading.BATCH)
        self.assertEqual(self.load(users), (500, 2 * loading.BATCH, 0))


class ProcessCase(unittest.TestCase):
    """Commands in a copy of the project that has never been started."""

    def setUp(self):
        self.folder = Path(self.enterContext(tempfile.TemporaryDirectory()))
        ignored = shutil.ignore_patterns('client', 'tests', '__pycache__')
        shutil.copytree(ROOT / 'project', self.folder / 'project', ignore=ignored)
        shutil.copy(ROOT / 'manage.py', self.folder)

    def command(self, *args, **environment):
        """Return the arguments of Popen for a command in an environment of its own."""
        kept = {name: value for name, value in os.environ.items() if name not in VARIABLES}
        arguments = [sys.executable, '-W', 'error', 'manage.py', *args]
        return {'args': arguments, 'cwd': self.folder, 'env': kept | environment, 'text': True}


class FirstStartTest(ProcessCase):
    def test_first_start_makes_the_database_and_serves(self):
        # In its own process group, since the reloader has a child. Windows has no process groups.
        options = [] if hasattr(os, 'killpg') else ['--no-reload']
        process = subprocess.Popen(
            **self.command('runserver', '-p', '0', *options, PYTHONUNBUFFERED='1'),
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
            if hasattr(os, 'killpg'):
                os.killpg(process.pid, signal.SIGKILL)
            process.kill()
            process.wait()
            process.stdout.close()
        self.assertTrue((self.folder / 'instance' / 'users.db').is_file())
        self.assertNotIn('Traceback', said)

    def fetch(self, request):
        """Return status and JSON of a response."""
        try:
            with urllib.request.urlopen(request, timeout=SECONDS) as response:
                return response.status, json.load(response)
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.load(error)


class ErrorsTest(ProcessCase):
    """Wrong commands and settings, in a copy of the project that has never been started."""

    def test_wrong_setting_or_command_is_reported_in_one_line(self):
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

    def test_command_that_reads_something_else_than_utf_8_ends_with_one_line(self):
        server = self.enterContext(FakePostgres())
        server.respond = lambda sql: BROKEN_ROW
        command = self.command('db', 'upgrade', DATABASE_URL=server.url)
        ended = subprocess.run(**command, capture_output=True, timeout=SECONDS, check=False)
        self.assertEqual((ended.returncode, ended.stdout), (1, ''))
        self.assertRegex(ended.stderr, r'\ADatabase error: .*\n\Z')


class FlaskScriptTest(unittest.TestCase):
    """A script like manage.py, with a Flask app of its own."""

    def run_script(self, *args, stdin=''):
        """Run the script with warnings as errors, and return what it printed and its exit code."""
        with tempfile.TemporaryDirectory() as folder:
            script = Path(folder, 'manage.py')
            script.write_text(MANAGE.format(root=str(ROOT)))
            return subprocess.run(
                [sys.executable, '-W', 'error', str(script), *args],
                input=stdin,
                capture_output=True,
                text=True,
                timeout=30,
                check=False,
            )

    def test_shell_runs_what_comes_from_stdin_with_warnings_as_errors(self):
        result = self.run_script(*PLAIN_SHELL, stdin='print(app.name)\n')
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertIn('probe', result.stdout)
        self.assertEqual(result.stderr.strip(), 'now exiting InteractiveConsole...')

    def test_unknown_command_of_a_script_is_one_line_and_status_2(self):
        result = self.run_script('nope')
        self.assertEqual((result.returncode, result.stdout), (2, ''))
        self.assertRegex(result.stderr, r"\Amanage\.py: error: .*invalid choice: 'nope'.*\n\Z")
