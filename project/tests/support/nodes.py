"""A PostgreSQL node under Patroni, in processes on the loopback address.

The settings of Patroni are those of production (project/db/cluster), except that

* Patroni looks at the cluster every 2 s instead of every 5 s, a standby looks for its primary every 500 ms, and
  PostgreSQL does not wait for the disk (``fsync``): the tests are faster;
* the nodes have fewer connections and less memory, and one etcd instead of three: they share one machine;
* neither PostgreSQL nor the REST API of Patroni needs a password;
* a node that cannot follow the leader keeps its data: ``remove_data_directory_on_...`` is not set.
"""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg2
import psycopg2.extensions
import yaml

from project.tests.support.clusters import programs
from project.tests.support.servers import HOST, children, free_port, is_running, wait_until

# Patroni may not run as root. As another user, it may still read a Python in the home directory of root.
AS_POSTGRES = (
    'setpriv', '--reuid=postgres', '--regid=postgres', '--clear-groups', '--inh-caps=+dac_override',
    '--ambient-caps=+dac_override',
) if os.geteuid() == 0 else ()  # fmt: skip
TTL_SECONDS = 20  # after which a leader that has not renewed its key is replaced
SETTINGS: dict[str, Any] = {
    'ttl': TTL_SECONDS,
    'loop_wait': 2,
    'retry_timeout': 5,
    'primary_start_timeout': 30,
    'synchronous_mode': 'quorum',
    'synchronous_mode_strict': True,
    'failsafe_mode': True,
    'postgresql': {
        'use_pg_rewind': True,
        'use_slots': True,
        'parameters': {
            'fsync': False,  # the tests kill processes, not machines
            'max_connections': 150,
            'shared_buffers': '32MB',
            'unix_socket_directories': '',
            'wal_log_hints': True,
            'wal_retrieve_retry_interval': '500ms',
        },
    },
}


class Process:
    """A program that runs as the user postgres if this runs as root, in a process group of its own.

    :param log_file: where its output goes.
    :param command: its command line.
    """

    def __init__(self, log_file: Path, *command: str | Path) -> None:
        self.log_file, self.command = log_file, (*AS_POSTGRES, *command)
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it."""
        environ = {'PATH': f'{programs()}:/usr/sbin:/usr/bin:/bin'}
        with self.log_file.open('ab') as log:
            self.process = subprocess.Popen(
                self.command, cwd=self.log_file.parent, env=environ, start_new_session=True,
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip

    def signal(self, number: int) -> None:
        """Send a signal to it."""
        if self.process and self.process.poll() is None:
            self.process.send_signal(number)

    def kill(self) -> None:
        """Kill it, if it runs."""
        self.signal(signal.SIGKILL)
        if self.process:
            self.process.wait(10)

    def log(self) -> str:
        """Return its output."""
        return self.log_file.read_text(errors='replace') if self.log_file.exists() else ''


class Node(Process):
    """A PostgreSQL server, and the Patroni that runs it.

    :ivar port: where PostgreSQL listens.
    :ivar api_port: where Patroni's REST API listens.
    """

    def __init__(self, folder: Path, name: str, etcd_port: int) -> None:
        self.name, self.data, self.port, self.api_port = name, folder / name, free_port(), free_port()
        config = {
            'scope': 'users',
            'name': name,
            'etcd3': {'host': f'{HOST}:{etcd_port}'},
            'restapi': {'listen': f'{HOST}:{self.api_port}', 'connect_address': f'{HOST}:{self.api_port}'},
            'bootstrap': {'dcs': SETTINGS, 'initdb': [{'encoding': 'UTF8'}, {'locale': 'C'}, 'no-sync']},
            'postgresql': {
                'listen': f'{HOST}:{self.port}',
                'connect_address': f'{HOST}:{self.port}',
                'data_dir': str(self.data),
                'bin_dir': str(programs()),
                'basebackup': [{'checkpoint': 'fast'}, 'no-sync'],
                'pgpass': str(folder / f'{name}.pgpass'),
                'authentication': {'superuser': {'username': 'postgres'}, 'replication': {'username': 'replicator'}},
                'pg_hba': [f'host all all {HOST}/32 trust', f'host replication all {HOST}/32 trust'],
            },
        }
        file = folder / f'{name}.yml'
        file.write_text(yaml.safe_dump(config))
        super().__init__(folder / f'{name}.log', sys.executable, '-m', 'patroni', str(file))

    def postgres(self) -> list[int]:
        """Return the ids of PostgreSQL's processes, the main process first; none if it does not run."""
        with contextlib.suppress(OSError, ValueError, IndexError):
            pid = int((self.data / 'postmaster.pid').read_text().split()[0])
            if is_running(pid):
                return [pid, *children(pid)]
        return []

    def signal_postgres(self, number: int) -> None:
        """Send a signal to all of PostgreSQL's processes, first to the main process, so that it starts no others."""
        for pid in self.postgres():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def kill_postgres(self) -> None:
        """Kill PostgreSQL, but not Patroni."""
        pids = self.postgres()
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not any(map(is_running, pids)), 10, 'the killed processes have ended')

    def kill(self) -> None:
        """Kill Patroni and PostgreSQL."""
        super().kill()
        self.kill_postgres()

    def freeze(self) -> None:
        """Pause all processes: the kernel still accepts connections and data, and no process responds."""
        self.signal(signal.SIGSTOP)
        self.signal_postgres(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let its processes continue."""
        self.signal_postgres(signal.SIGCONT)
        self.signal(signal.SIGCONT)

    @contextlib.contextmanager
    def connect(self, database: str = 'users') -> Iterator[psycopg2.extensions.connection]:
        """Give a connection of the superuser in autocommit mode, and close it."""
        connection = psycopg2.connect(
            host=HOST, port=self.port, user='postgres', dbname=database, connect_timeout=2, options='-c timezone=UTC'
        )
        try:
            connection.autocommit = True
            yield connection
        finally:
            connection.close()

    def sql(self, statement: str, *parameters: Any, database: str = 'users') -> list[tuple[Any, ...]]:
        """Run a statement in a connection of its own, and return its rows."""
        with self.connect(database) as connection, connection.cursor() as cursor:
            cursor.execute(statement, parameters or None)
            return cursor.fetchall() if cursor.description else []

    def is_primary(self) -> bool:
        """Return whether it accepts writes."""
        try:
            return self.sql('SELECT pg_is_in_recovery()', database='postgres') == [(False,)]
        except psycopg2.OperationalError:
            return False
