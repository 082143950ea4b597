"""Wrong settings of real processes: commands, gunicorn, nginx, the image, and the build of the page."""

import json
import os
import re
import shutil
import subprocess
import sys
import unittest

from project.tests.base import ROOT
from project.tests.support.servers import needs_gunicorn
from project.tests.test_settings import NGINX, PAGE, SERVICE


class ProcessTest(unittest.TestCase):
    """Processes end with one line on stderr, without a traceback."""

    def check(self, command: list[str], variable: str, value: str) -> None:
        """Check that a command ends because of the value of a variable."""
        environ = {'PATH': os.environ['PATH'], variable: value}
        environ |= {name: os.environ[name] for name in ('PYTHONPATH', 'SYSTEMROOT') if name in os.environ}
        done = subprocess.run(
            [sys.executable, *command], cwd=ROOT, env=environ, capture_output=True, text=True, timeout=60, check=False
        )
        self.assertNotEqual(done.returncode, 0)
        self.assertRegex(done.stderr, rf'\A{variable}\b[^\n]*\n\Z')

    def test_commands_reject_wrong_values(self) -> None:
        for variable, value in (('WEB_CONCURRENCY', 'x'), ('CORS_ORIGINS', 'http://localhost:3000/')):
            with self.subTest(variable=variable):
                self.check(['manage.py', 'check_settings'], variable, value)

    @needs_gunicorn
    def test_gunicorn_rejects_wrong_values_before_workers_start(self) -> None:
        gunicorn = ['-m', 'gunicorn', '-b', '127.0.0.1:0', 'manage:app']
        for variable, value in (('WEB_CONCURRENCY', '0'), ('MAX_REQUESTS', 'x'), ('TRUSTED_HOSTS', 'http://localhost')):
            with self.subTest(variable=variable):
                self.check(gunicorn, variable, value)


@unittest.skipUnless(shutil.which('sh'), 'needs sh')
class NginxSettingsTest(unittest.TestCase):
    def source(self, variable: str, value: str) -> subprocess.CompletedProcess[str]:
        """Run nginx.envsh as the image's entrypoint does, and print what it exports."""
        script = f'set -e; . project/client/nginx.envsh; printf %s "${variable}"'
        environ = {'PATH': os.environ['PATH'], variable: value}
        return subprocess.run(
            ['sh', '-c', script], cwd=ROOT, env=environ, capture_output=True, text=True, encoding='utf-8', check=False
        )

    def test_values(self) -> None:
        for variable, values in NGINX.items():
            default = values.shown if variable != 'PATH_PREFIX' else ''
            for value, expected in (
                *((value, value) for value in values.taken),
                *((f' {value}\r\n', value) for value in values.taken),
                *((blank, default) for blank in ('', ' \n')),
            ):
                with self.subTest(variable=variable, value=value):
                    done = self.source(variable, value)
                    self.assertEqual((done.returncode, done.stdout, done.stderr), (0, expected, ''))
            for value in values.rejected:
                with self.subTest(variable=variable, value=value):
                    done = self.source(variable, value)
                    self.assertEqual((done.returncode, done.stdout), (1, ''))
                    self.assertRegex(done.stderr, rf'\A{variable} must be [^\n]* such as {values.shown}\.\n\Z')


@unittest.skipUnless((ROOT / 'Dockerfile').exists() and shutil.which('sh'), 'needs the Dockerfile and sh')
class ImageTest(unittest.TestCase):
    """The image checks WEB_CONCURRENCY, since gunicorn itself would print a traceback for a wrong one."""

    def test_values(self) -> None:
        dockerfile = (ROOT / 'Dockerfile').read_text(encoding='utf-8')
        command = json.loads(re.search(r'^CMD (.*)$', dockerfile, re.MULTILINE)[1])
        command[-1] = command[-1].replace('exec gunicorn -b 0.0.0.0:5000 manage:app', 'printf %s "$WEB_CONCURRENCY"')
        taken = {'': '2', ' \n': '2', '3\n': '3'} | {value: value for value in SERVICE['WEB_CONCURRENCY'].taken}
        for value, expected in taken.items():
            with self.subTest(value=value):
                environ = {'PATH': os.environ['PATH'], 'WEB_CONCURRENCY': value}
                done = subprocess.run(command, env=environ, capture_output=True, text=True, check=True)
                self.assertEqual((done.stdout, done.stderr), (expected, ''))
        for value in ('x', '-1', '1.5', '1 2', '*', '$(id)'):
            with self.subTest(value=value):
                environ = {'PATH': os.environ['PATH'], 'WEB_CONCURRENCY': value}
                done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
                self.assertEqual((done.returncode, done.stdout), (1, ''))
                self.assertRegex(done.stderr, r'\AWEB_CONCURRENCY must be [^\n]*, such as 2\.\n\Z')


# Loads vite.config.ts with each value, and prints the first line that it writes to stderr.
LOAD_VITE_CONFIG = """
import { readFileSync } from 'node:fs';
import { resolveConfig } from 'vite';
const messages = {};
process.exit = () => { throw new Error('exit'); };
for (const [variable, value] of JSON.parse(readFileSync(0))) {
  process.env[variable] = value;
  messages[value] = '';
  console.error = (text) => { messages[value] ||= text; };
  await resolveConfig({}, 'build').catch(() => {});
}
console.log(JSON.stringify(messages));
"""


class PageSettingsTest(unittest.TestCase):
    def test_values(self) -> None:
        client = ROOT / 'project' / 'client'
        if not (client / 'node_modules').is_dir():
            self.skipTest('needs the packages of the page: cd project/client && npm ci')
        for variable, values in PAGE.items():
            taken = (*values.taken, *(f' {value}\n' for value in values.taken), '', ' \n')
            done = subprocess.run(
                ['node', '--input-type=module', '-e', LOAD_VITE_CONFIG],
                cwd=client,
                env={'PATH': os.environ['PATH']},
                input=json.dumps([(variable, value) for value in (*taken, *values.rejected)]),
                capture_output=True,
                text=True,
                check=True,
            )
            messages = json.loads(done.stdout)
            for value in taken:
                self.assertEqual(messages[value], '', value)
            for value in values.rejected:
                self.assertRegex(messages[value], rf'\A{variable} must [^\n]* such as {values.shown}\.\Z')
