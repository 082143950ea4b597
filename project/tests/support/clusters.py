"""PostgreSQL clusters that a test starts, pauses, stops and kills.

They need the server programs of PostgreSQL, and for one test PgBouncer: on Debian ``apt-get install postgresql
pgbouncer``.
"""

import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import psycopg2
import psycopg2.extensions

from project.tests.support.servers import HOST, children, free_port, is_running, wait_until


def as_postgres() -> dict[str, Any]:
    """Return arguments for ``subprocess``: PostgreSQL and PgBouncer don't run as root."""
    return {'user': 'postgres', 'group': 'postgres', 'extra_groups': []} if os.geteuid() == 0 else {}


def programs() -> Path:
    """Return the directory of the newest PostgreSQL's server programs."""
    found = sorted(Path('/usr/lib/postgresql').glob('*/bin/postgres'), key=lambda path: int(path.parts[-3]))
    if not found:
        raise RuntimeError('these tests need the server programs of PostgreSQL: apt-get install postgresql')
    return found[-1].parent


class Cluster:
    """A PostgreSQL cluster with the database ``users``, whose superuser needs no password.

    :param directory: where to make it.
    :param settings: such as ``max_connections=40``.
    :param standby_of: the cluster to copy and to follow, by default none.
    """

    def __init__(self, directory: Path, *settings: str, standby_of: Self | None = None) -> None:
        self.programs = programs()
        self.port = free_port()
        self.data, self.log_file = directory / 'data', directory / 'log'
        self.settings = ('listen_addresses=127.0.0.1', 'unix_socket_directories=', 'fsync=off', *settings)
        self.process: subprocess.Popen[bytes] | None = None
        directory.mkdir()
        if os.geteuid() == 0:
            shutil.chown(directory, 'postgres', 'postgres')
        if standby_of:
            options = ['-R', '-c', 'fast', '--no-sync', '-d', standby_of.dsn('postgres')]
            self.run('pg_basebackup', '-D', self.data, *options)
        else:
            self.run('initdb', '-D', self.data, '-U', 'users', '-A', 'trust', '-E', 'UTF8', '--locale=C', '--no-sync')

    def run(self, program: str, *arguments: str | Path) -> None:
        """Run one of PostgreSQL's programs to its end."""
        command = [self.programs / program, *arguments]
        subprocess.run(command, **as_postgres(), check=True, capture_output=True, timeout=60)

    def start(self, *settings: str) -> None:
        """Start it, with ``settings`` besides its own, and wait until it accepts connections."""
        self.launch(*settings)
        wait_until(self.is_ready, 30, f'PostgreSQL accepts connections; {self.log()[-2000:]}')
        if not self.sql("SELECT 1 FROM pg_database WHERE datname = 'users'", database='postgres'):
            self.sql('CREATE DATABASE users', database='postgres')

    def launch(self, *settings: str) -> None:
        """Start it without waiting."""
        options = [option for setting in (*self.settings, *settings) for option in ('-c', setting)]
        with self.log_file.open('ab') as log:
            self.process = subprocess.Popen(
                [self.programs / 'postgres', '-D', self.data, '-p', str(self.port), *options],
                **as_postgres(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def is_ready(self) -> bool:
        """Return whether it accepts connections."""
        try:
            self.sql('SELECT 1', database='postgres')
        except psycopg2.OperationalError:
            return False
        return True

    def stop(self, how: int = signal.SIGINT) -> None:
        """Stop it: with SIGINT as ``pg_ctl stop -m fast`` does, with SIGQUIT as ``-m immediate``."""
        assert self.process
        self.process.send_signal(how)
        self.process.wait(30)

    def restart(self) -> None:
        """Stop and start it."""
        self.stop()
        self.start()

    def kill(self) -> None:
        """Send SIGKILL to all its processes, first to the main process, so that it cannot restart the others."""
        if self.process and self.process.poll() is None:
            backends = children(self.process.pid)
            for pid in (self.process.pid, *backends):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self.process.wait(10)
            wait_until(lambda: not any(map(is_running, backends)), 10, 'the killed backends have ended')

    def freeze(self) -> None:
        """Pause all its processes: the kernel still accepts connections and data, and nothing responds."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let its processes continue."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: int) -> None:
        assert self.process
        os.kill(self.process.pid, number)
        for pid in children(self.process.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def promote(self) -> None:
        """Make a standby the primary."""
        self.run('pg_ctl', 'promote', '-w', '-D', self.data)

    def sql(self, statement: str, *parameters: Any, database: str = 'users') -> list[tuple[Any, ...]]:
        """Run a statement in a connection of its own, and return its rows."""
        with self.connect(database) as connection, connection.cursor() as cursor:
            cursor.execute(statement, parameters or None)
            return cursor.fetchall() if cursor.description else []

    @contextlib.contextmanager
    def connect(self, database: str = 'users') -> Iterator[psycopg2.extensions.connection]:
        """Give a connection in autocommit mode, and close it."""
        connection = psycopg2.connect(self.dsn(database), connect_timeout=3)
        try:
            connection.autocommit = True
            yield connection
        finally:
            connection.close()

    @contextlib.contextmanager
    def locked(self, mode: str) -> Iterator[None]:
        """Hold a lock of ``mode``, such as ``ACCESS EXCLUSIVE``, on the table of users."""
        with self.connect() as connection, connection.cursor() as cursor:
            cursor.execute(f'BEGIN; LOCK TABLE users IN {mode} MODE')
            yield

    def dsn(self, database: str = 'users') -> str:
        """Return its URL."""
        return f'postgresql://users@{HOST}:{self.port}/{database}'

    def log(self) -> str:
        """Return its output."""
        return self.log_file.read_text(errors='replace') if self.log_file.exists() else ''

    def add_users(self, count: int) -> None:
        """Add ``count`` users, each created a second after the one before."""
        self.sql(
            "INSERT INTO users (username, email, created_at) SELECT 'u' || n, 'u' || n || '@example.com', "
            "timestamptz '2026-01-01Z' + n * interval '1 s' FROM generate_series(1, %s) n",
            count,
        )

    def emails(self) -> list[str]:
        """Return the emails of all users, sorted."""
        return [email for (email,) in self.sql('SELECT email FROM users ORDER BY email')]
