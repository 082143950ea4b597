"""Commands that a student of the lesson types, in a copy of the project. Run by name: ``manage.py test student``."""

import json
import os
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request

from project.tests.test_lesson import SECONDS, LessonTestCase


class StudentTest(LessonTestCase):
    def test_unittest_destroys_nothing(self) -> None:
        self.check_nothing_is_destroyed('-m', 'unittest', 'project.tests.test_users', 'project.tests.test_config')

    def test_pytest_destroys_nothing(self) -> None:
        self.check_nothing_is_destroyed('-m', 'pytest', '-q', 'project/tests')

    def test_a_test_file_run_directly_destroys_nothing(self) -> None:
        self.check_nothing_is_destroyed('-c', 'from project.tests.test_users import *; unittest.main()')

    def test_discovery_by_unittest_destroys_nothing(self) -> None:
        self.check_nothing_is_destroyed('-m', 'unittest', 'discover', '-t', '.', '-s', 'project/tests')

    def flask(self, *args: str, **options: str) -> subprocess.CompletedProcess[str]:
        """Run the flask command, which must succeed."""
        ended = self.run_python('-m', 'flask', '--app', 'manage', *args, **options)
        self.assertEqual(ended.returncode, 0, ended.stderr)
        return ended

    def test_flask_db(self) -> None:
        (self.folder / 'instance').mkdir()
        self.url = f'sqlite:///{self.folder}/instance/new.db'
        self.flask('db', 'upgrade')
        self.assertIn('(head)', self.flask('db', 'current').stdout)
        self.assertIn('No new upgrade operations', self.flask('db', 'check').stdout)
        self.flask('db', 'downgrade', 'base')
        self.assertNotIn('(head)', self.flask('db', 'current').stdout)

    def test_shells_have_app_db_and_user(self) -> None:
        line = 'print(app.name, db.session.bind, User.query.count())\n'
        self.assertIn('project None 2', self.flask('shell', input=line).stdout)
        ended = self.run_python('manage.py', 'shell', '--no-ipython', '--no-bpython', input=line)
        self.assertIn('project None 2', ended.stdout)

    def test_flask_run_serves_without_a_debugger(self) -> None:
        for options in ([], ['--debug'], ['--debug', '--no-reload'], ['--debug', '--debugger', '--no-reload']):
            with self.subTest(options=options):
                self.check_server(*options)

    def check_server(self, *options: str) -> None:
        """Start ``flask run``, and check that it lists the users and has no console."""
        process = subprocess.Popen(
            [sys.executable, '-m', 'flask', '--app', 'manage', 'run', '-p', '0', *options],
            cwd=self.folder,
            env=self.environment() | {'PYTHONUNBUFFERED': '1'},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,  # the reloader has a child
        )
        try:
            output = ''
            while not (running := re.search(r'Running on (http://127\.0\.0\.1:\d+)', output)):
                line = process.stdout.readline()
                self.assertTrue(line, output)
                output += line
            with urllib.request.urlopen(f'{running[1]}/users', timeout=SECONDS) as response:
                self.assertEqual(len(json.load(response)['data']['users']), 2)
            for path in ('/console', '/?__debugger__=yes&cmd=resource&f=debugger.js'):
                with self.assertRaises(urllib.error.HTTPError) as raised:
                    urllib.request.urlopen(running[1] + path, timeout=SECONDS)
                with raised.exception as response:
                    self.assertEqual((response.status, json.load(response)['status']), (404, 'fail'))
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            process.stdout.close()
