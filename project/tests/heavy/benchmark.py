"""The benchmark, with small numbers: it measures every workload, and leaves no database or process behind.

It takes a minute. Run by name: ``python manage.py test benchmark``.
"""

import os
import secrets
import signal
import subprocess
import sys
import tempfile
import time
import unittest
from pathlib import Path
from xml.etree import ElementTree

from sqlalchemy import create_engine, text
from sqlalchemy.pool import NullPool

from project.tests.base import ROOT, url_of_tests

SVG = '{http://www.w3.org/2000/svg}'


class BenchTest(unittest.TestCase):
    def setUp(self):
        self.url = url_of_tests()
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        self.mark = secrets.token_hex(16)
        self.before = self.databases()

    def start(self, *arguments, **environment):
        """Start the command on the server of the test database, marked in the environment."""
        (self.folder / 'tmp').mkdir(exist_ok=True)
        environment = {
            'APP_SETTINGS': 'project.config.DevelopmentConfig',
            'DATABASE_URL': self.url.render_as_string(hide_password=False),
            'TMPDIR': str(self.folder / 'tmp'),
            'BENCH_MARK': self.mark,
            'WEB_CONCURRENCY': '2',
            'POOL_SIZE': '16',  # each client that reads a long list takes a connection, for long on a busy machine
            **environment,
        }
        return subprocess.Popen(
            [sys.executable, '-W', 'error', 'manage.py', 'bench', '--seconds', '0.2', '--rows', '1000', *arguments],
            cwd=ROOT,
            env=os.environ | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run_bench(self, *arguments, **environment):
        """Run the command, and return its exit code, stdout and stderr."""
        with self.start(*arguments, **environment) as process:
            stdout, stderr = process.communicate(timeout=300)
        return process.returncode, stdout, stderr

    def databases(self):
        """Return the names of the scratch databases on the server."""
        if self.url.get_backend_name() != 'postgresql':
            return set()
        with create_engine(self.url, poolclass=NullPool).connect() as connection:
            return set(connection.scalars(text("SELECT datname FROM pg_database WHERE datname LIKE 'users_bench_%'")))

    def processes(self, *words):
        """Return the ids of the processes of this test that have these words in their command line."""
        found = []
        for path in Path('/proc').glob('[0-9]*'):
            try:
                if self.mark.encode() in (path / 'environ').read_bytes():
                    line = (path / 'cmdline').read_bytes()
                    if all(word.encode() in line for word in words):
                        found.append(int(path.name))
            except OSError:
                continue  # it has ended, or belongs to another user
        return found

    def assert_nothing_left(self):
        self.assertEqual(self.processes(), [])
        self.assertEqual(self.databases(), self.before)
        self.assertEqual(os.listdir(self.folder / 'tmp'), [])

    def test_every_workload_is_measured(self):
        code, stdout, stderr = self.run_bench()
        self.assertEqual((code, stderr), (0, ''))
        rows = [line.split() for line in stdout.split('\n\n')[0].splitlines()[1:]]
        self.assertEqual(
            [row[0] for row in rows],
            ['list10', 'list1000', 'post', 'mixed', 'one', 'page', 'deep', 'all', 'list10000'],
        )
        for row in rows:
            with self.subTest(row=row):
                numbers = [float(cell.replace(',', '')) for cell in row[1:] if cell != '-']
                self.assertGreaterEqual(len(numbers), 7)
                self.assertTrue(all(number > 0 for number in numbers[:-1]), row)
        self.assertIn('2 workers, 16 clients', stdout)
        self.assert_nothing_left()

    def test_chart_is_drawn(self):
        path = self.folder / 'chart.svg'
        code, stdout, stderr = self.run_bench('--chart', str(path))
        self.assertEqual((code, stderr), (0, ''))
        self.assertEqual(len(stdout.split('\n\n')[0].splitlines()), 1 + 3 * 3)
        chart = ElementTree.parse(path).getroot()
        lines = [line for line in chart.iter(f'{SVG}path') if line.get('class').startswith('line')]
        self.assertEqual([line.get('d').count('L') + 1 for line in lines], [3, 3, 3])
        words = ''.join(chart.itertext())
        for word in ('One user by id', 'First page of 50', 'Page at 90% depth', '1,000', 'prefers-color-scheme: dark'):
            self.assertIn(word, words)
        self.assert_nothing_left()

    def test_nothing_is_left_after_an_interrupt(self):
        # A background job of a shell ignores SIGINT, and the commands that it starts would inherit that.
        self.addCleanup(signal.signal, signal.SIGINT, signal.signal(signal.SIGINT, signal.default_int_handler))
        for number, code in ((signal.SIGINT, 130), (signal.SIGTERM, 143)):
            with self.subTest(signal=number), self.start('--workload', 'page', '--seconds', '60') as process:
                end = time.monotonic() + 60
                while not self.processes('client.py'):
                    self.assertLess(time.monotonic(), end)
                    self.assertIsNone(process.poll())
                    time.sleep(0.02)
                process.send_signal(number)
                stdout, stderr = process.communicate(timeout=60)
                self.assertEqual((process.returncode, stdout), (code, ''))
                self.assertEqual(stderr, 'Interrupted.\n' if number == signal.SIGINT else '')
            self.assert_nothing_left()

    def test_service_that_does_not_start_is_reported(self):
        code, stdout, stderr = self.run_bench('--workload', 'page', GUNICORN_CMD_ARGS='--nonsense')
        self.assertEqual((code, stdout), (1, ''))
        self.assertRegex(stderr, r'\AThe service did not start: .*--nonsense.*\n\Z')
        self.assert_nothing_left()

    def test_wrong_command_lines_are_reported(self):
        for arguments, message in (
            (('--workload', 'ping'), 'There is no workload ping; use list10, '),
            (('--seconds', '0'), '--seconds must be '),
            (('--rows', '9'), '--rows from 10'),
            (('--chart', str(self.folder / 'none' / 'chart.svg')), '--chart '),
        ):
            with self.subTest(arguments=arguments):
                code, stdout, stderr = self.run_bench(*arguments)
                self.assertEqual((code, stdout), (1, ''))
                self.assertIn(message, stderr)
                self.assertEqual(stderr.count('\n'), 1)
