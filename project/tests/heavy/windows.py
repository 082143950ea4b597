"""The commands and the default suite without what Python lacks on Windows. It takes about a minute.

It needs ``pip install -r .ci/requirements.txt``, for the time zones of the package tzdata.
"""

import getpass
import http.client
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

from project.tests.base import ROOT
from project.tests.support.servers import HOST, free_port, wait_until

WINDOWS = ROOT / 'project' / 'tests' / 'support' / 'windows'
NAME = '\u0141ukasz \u2603 \u0639\u0644\u064a'  # which the encoding of a console in Western Europe lacks


class WindowsTest(unittest.TestCase):
    """A copy of the project, whose commands run as on Windows."""

    @classmethod
    def setUpClass(cls) -> None:
        cls.folder = Path(cls.enterClassContext(tempfile.TemporaryDirectory()))
        kept = ('manage.py', 'project', 'pyproject.toml', 'gunicorn.conf.py')
        for name in kept:
            if (ROOT / name).is_dir():
                ignored = shutil.ignore_patterns('__pycache__', 'client', 'heavy')
                shutil.copytree(ROOT / name, cls.folder / name, ignore=ignored)
            else:
                shutil.copy(ROOT / name, cls.folder)
        cls.environ = {
            **{name: os.environ[name] for name in ('PATH', 'SYSTEMROOT', 'TEMP') if name in os.environ},
            'PYTHONPATH': '' if os.name == 'nt' else str(WINDOWS),
            'PYTHONTZPATH': '',  # no time zones but those of the package tzdata
            'PYTHONIOENCODING': 'cp1252',
            'PYTHONUTF8': '0',
            'USERNAME': 'user',
        }

    def start(self, *arguments: str, **environ: str) -> 'subprocess.Popen[str]':
        """Start a command of manage.py."""
        return subprocess.Popen(
            [sys.executable, '-W', 'error', 'manage.py', *arguments],
            cwd=self.folder,
            env=self.environ | environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding='cp1252',
        )

    def run_command(self, *arguments: str, **environ: str) -> str:
        """Run a command of manage.py, and return its output; it must succeed."""
        process = self.start(*arguments, **environ)
        output, _ = process.communicate(timeout=120)
        self.assertEqual(process.returncode, 0, output)
        return output

    def test_main_commands(self) -> None:
        self.assertIn('Applied 0001', self.run_command('db', 'upgrade'))
        self.assertIn('Added 2 users', self.run_command('seed_db'))
        self.assertIn('Wrote 2 users', self.run_command('dump_users', 'users.jsonl.gz'))
        self.assertIn('tables are new', self.run_command('recreate_db'))
        self.assertIn('Added 2 users', self.run_command('load_users', 'users.jsonl.gz'))
        self.assertIn('/users', self.run_command('routes'))
        output = self.run_command('test', 'test_breaker')
        self.assertRegex(output, r'Ran [0-9]+ tests')

    def test_runserver_serves_and_logs_any_name(self) -> None:
        database = f'sqlite:///{self.folder / "served.db"}'
        port = free_port()
        server = self.start('runserver', '-p', str(port), '--no-reload', DATABASE_URL=database)
        self.addCleanup(server.stdout.close)
        self.addCleanup(server.wait, 30)
        self.addCleanup(server.terminate)

        def add() -> int | None:
            connection = http.client.HTTPConnection(HOST, port, timeout=20)
            try:
                body = json.dumps({'username': NAME, 'email': '\u0142ukasz@example.com'})
                connection.request('POST', '/users', body, {'Content-Type': 'application/json'})
                return connection.getresponse().status
            except ConnectionRefusedError:
                self.assertIsNone(server.poll())
                return None
            finally:
                connection.close()

        self.assertEqual(wait_until(add, 60, 'the server responds'), 201)

    def test_console_that_cannot_show_a_name_shows_its_escape(self) -> None:
        program = f'import manage; print({NAME!r})'
        done = subprocess.run(
            [sys.executable, '-c', program], cwd=self.folder, env=self.environ, capture_output=True, check=False
        )
        self.assertEqual((done.returncode, done.stderr), (0, b''))
        self.assertIn(b'\\u0141ukasz', done.stdout)

    def test_bench_is_rejected_in_one_line(self) -> None:
        process = self.start('bench')
        output, _ = process.communicate(timeout=60)
        self.assertEqual((process.returncode, output.count('\n')), (1, 1), output)
        self.assertIn('does not run on Windows', output)


class DefaultSuiteTest(unittest.TestCase):
    def test_default_suite_passes_or_skips(self) -> None:
        if not importlib.util.find_spec('tzdata'):
            raise RuntimeError('this test needs tzdata: pip install -r .ci/requirements.txt')
        path = os.pathsep.join(filter(None, (str(WINDOWS), os.environ.get('PYTHONPATH'))))
        environ = os.environ | {'PYTHONPATH': path, 'PYTHONTZPATH': '', 'PYTHONIOENCODING': 'cp1252', 'PYTHONUTF8': '0'}
        environ['USERNAME'] = getpass.getuser()
        done = subprocess.run(
            [sys.executable, '-W', 'error', 'manage.py', 'test'],
            cwd=ROOT,
            env=environ,
            capture_output=True,
            text=True,
            errors='replace',
            check=False,
        )
        self.assertEqual(done.returncode, 0, done.stderr[-5000:])
        ran, skipped = re.search(r'Ran (\d+) tests.*OK \(skipped=(\d+)\)', done.stderr, re.DOTALL).groups()
        self.assertGreater(int(ran) - int(skipped), 400, 'most of the suite runs')
