"""The commands in the README and in ``docs``, run as written. Run by name: ``manage.py test documentation``.

Each page has a shell, in which its blocks run in their order, in a copy of the project. Two things differ from the
reader's machine: the service has a free port instead of 5000, and the databases are temporary. Ids, timestamps and
cursors in an output are not compared.
"""

import contextlib
import re
import secrets
import shutil
import subprocess
import tempfile
import unittest
from collections.abc import Iterator
from pathlib import Path

from sqlalchemy import Engine, create_engine, text
from sqlalchemy.pool import NullPool

from project.tests.base import ROOT, url_of_tests
from project.tests.support import documentation
from project.tests.support.documentation import Block
from project.tests.support.servers import free_port
from project.tests.support.shell import DATABASES, SERVER, Shell
from project.tests.test_migrations import NOON, OLD

# The reasons why a block is not run here, by a text that it contains. Its syntax is checked.
NOT_RUN = {
    'docker-compose': 'it needs images',
    'kubectl': 'it needs a cluster',
    'litestream': 'heavy/litestream.py',
    '/srv/': 'the same',
    'localhost:8080': 'it needs a proxy',
    'docker context use': 'it would send the next commands to another machine',
    'npm ': 'the tests of the page do that',
    'npx ': 'heavy/client_types.py runs a pinned version',
    'sudo ': 'it changes the machine',
    'python3 -m venv': '.ci/run runs the test line; the other one differs in its last word',
    'pip install': '.ci/run installs',
    'manage.py bench': 'heavy/benchmark.py',
    'manage.py test': 'it would run these tests',
    'promtool': 'heavy/prometheus.py',
    'opentelemetry': 'the project does not install it',
}
# The parts of an output that differ from run to run.
VARIABLE = re.compile(r'\d{4}-\d\d-\d\dT[\d:.]+Z|(?<=after=)[\w.-]{40,}|(?<=_ms":)[\d.]+')


def engine(name: str) -> Engine:
    """Return an engine for another database on the server of the test database."""
    return create_engine(url_of_tests().set(database=name), poolclass=NullPool)


@contextlib.contextmanager
def temporary_databases() -> Iterator[tuple[str, str]]:
    """Give the replacements of :data:`DATABASES` and the prefix of the databases' names; drop those databases."""
    url = url_of_tests()
    prefix = f'users_{secrets.token_hex(4)}_'
    if url.get_backend_name() != 'postgresql':
        yield f'localhost:{free_port()}/{prefix}', prefix  # not used: see needs_postgresql()
        return
    try:
        yield f'{url.host}:{url.port or 5432}/{prefix}', prefix
    finally:
        with engine('postgres').execution_options(isolation_level='AUTOCOMMIT').connect() as connection:
            for name in ('prod', 'dev', 'test'):
                connection.execute(text(f'DROP DATABASE IF EXISTS {prefix}{name} WITH (FORCE)'))


class DocumentationTest(unittest.TestCase):
    maxDiff = None

    def setUp(self) -> None:
        self.pages = {page.name: page for page in documentation.pages() if page.name != 'README.md'}
        self.pages['README.md'] = ROOT / 'README.md'

    def test_blocks_run_as_written(self) -> None:
        for name, page in self.pages.items():
            blocks = documentation.blocks(page)
            with self.subTest(page=name):
                if self.needs_postgresql(blocks) and url_of_tests().get_backend_name() != 'postgresql':
                    self.skipTest('this page needs PostgreSQL')
                self.run_page(name, blocks)

    def test_shell_commands_have_no_syntax_error(self) -> None:
        for page in documentation.pages():
            for block in documentation.blocks(page):
                if block.language in ('sh', 'bash', 'console'):
                    console = '\n'.join(command for command, _ in block.commands())
                    with self.subTest(page=page.name, line=block.line):
                        script = console if block.language == 'console' else block.text
                        command = ['bash', '-n']
                        checked = subprocess.run(command, check=False, input=script, text=True, capture_output=True)
                        self.assertEqual((checked.returncode, checked.stderr), (0, ''))

    def needs_postgresql(self, blocks: list[Block]) -> bool:
        """Return whether a block that is run uses PostgreSQL."""
        return any(DATABASES in block.text for block in blocks if self.is_run(block))

    def is_run(self, block: Block) -> bool:
        """Return whether a block is run here."""
        return block.language in ('sh', 'console', 'sql') and not any(part in block.text for part in NOT_RUN)

    def run_page(self, name: str, blocks: list[Block]) -> None:
        """Run the blocks of a page; every command must succeed, or print what the page shows."""
        with temporary_databases() as (databases, prefix), tempfile.TemporaryDirectory() as folder:
            shell = Shell(Path(folder), databases)
            try:
                self.prepare(name, prefix, shell)
                for block in filter(self.is_run, blocks):
                    with self.subTest(page=name, line=block.line):
                        self.run_block(block, shell, prefix)
            finally:
                shell.close()

    def prepare(self, name: str, prefix: str, shell: Shell) -> None:
        """Make the databases that a page assumes."""
        if name in ('deploying.md', 'upgrading.md'):
            with engine('postgres').execution_options(isolation_level='AUTOCOMMIT').connect() as connection:
                connection.execute(text(f'CREATE DATABASE {prefix}prod TEMPLATE template0'))
        if name == 'backup.md':
            shell.run('python manage.py db upgrade')
        if name == 'upgrading.md':
            with engine(f'{prefix}prod').begin() as connection:
                OLD.create(connection)
                user = {'username': 'michael', 'email': 'michael@realpython.com', 'active': True, 'created_at': NOON}
                connection.execute(OLD.insert(), [user, user | {'email': 'Michael@RealPython.com'}])
            shell.run('python manage.py db upgrade')

    def run_block(self, block: Block, shell: Shell, prefix: str) -> None:
        """Run a block, and compare what its commands print with what the page shows."""
        if block.language == 'sql':
            with engine(f'{prefix}prod').begin() as connection:
                connection.execute(text(block.text))
        elif block.language == 'sh':
            for line in block.text.replace('\\\n', ' ').splitlines():
                output, code = shell.run(line)
                self.assertEqual(code, 0, f'{line}\n{output}')
                if SERVER.match(line) and not line.endswith('&'):
                    shell.run('kill %%; wait')  # as Ctrl-C would
        else:
            for command, shown in block.commands():
                if command.startswith('docker ') and not shutil.which('docker'):
                    continue
                output, code = shell.run(command)
                self.assertEqual(VARIABLE.sub('*', output), VARIABLE.sub('*', shown), command)
                self.assertTrue(code == 0 or shown, command)
