"""A temporary database, a service on it, and the resources that their processes use."""

import contextlib
import os
import re
import secrets
import signal
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path

from flask import Flask
from sqlalchemy import String, cast, create_engine, func, insert, literal, select, text
from sqlalchemy.pool import NullPool

from project import config, create_app, db
from project.api.models import User
from project.tests.support.servers import Server, StartError

CHUNK = 50_000  # users added by one statement
EPOCH = 1_600_000_000  # the first user's created_at, in seconds since 1970; each next one is a second later


class BenchError(Exception):
    """The measurement failed. The message is one line for the operator."""


# --- the database


@contextlib.contextmanager
def database(folder: str) -> Iterator[Flask]:
    """Yield an app on a new database without users: on the configured server, or in a file in ``folder``."""
    url = db.engine.url
    name = f'users_bench_{secrets.token_hex(6)}'
    with contextlib.ExitStack() as stack:
        if url.get_backend_name() == 'postgresql':
            server = create_engine(url, poolclass=NullPool, isolation_level='AUTOCOMMIT')

            def drop() -> None:
                with _uninterrupted(), server.connect() as connection:
                    connection.execute(text(f'DROP DATABASE IF EXISTS {name} WITH (FORCE)'))

            stack.callback(drop)
            with server.connect() as connection:
                connection.execute(text(f'CREATE DATABASE {name} TEMPLATE template0'))
            scratch = url.set(database=name)
        else:
            scratch = url.set(database=f'{folder}/{name}.db', query={})
        settings = {
            'SQLALCHEMY_DATABASE_URI': scratch.render_as_string(hide_password=False),
            'SECRET_KEY': secrets.token_hex(32),
        }
        app = create_app(type('ScratchConfig', (config.ProductionConfig,), settings))
        with app.app_context():
            db.create_all()
            stack.callback(lambda engines: [engine.dispose() for engine in engines], list(db.engines.values()))
        yield app


def fill(count: int) -> Iterator[None]:
    """Add ``count`` users to the table of the current app, and yield after each chunk of them."""
    on_postgresql = db.engine.dialect.name == 'postgresql'
    for start in range(1, count + 1, CHUNK):
        end = min(start + CHUNK, count + 1)
        numbers = select(literal(start).label('n')).cte(recursive=True)
        numbers = numbers.union_all(select(numbers.c.n + 1).where(numbers.c.n < end - 1))
        number = cast(numbers.c.n, String)
        if on_postgresql:
            created_at = func.to_timestamp(EPOCH + numbers.c.n)
        else:
            created_at = func.strftime('%Y-%m-%dT%H:%M:%S.000000Z', EPOCH + numbers.c.n, 'unixepoch')
        users = select(
            literal('user') + number, literal('user') + number + '@example.com', numbers.c.n % 2 == 0, created_at
        )
        with db.engine.begin() as connection:
            connection.execute(insert(User).from_select(['username', 'email', 'active', 'created_at'], users))
        yield
    if on_postgresql:
        # Otherwise autovacuum may start during the measurement.
        with db.engines['reads'].connect() as connection:
            connection.execute(text('VACUUM ANALYZE users'))


# --- the service


class Service(Server):
    """The service, and the resources that its processes have used."""

    def cpu(self) -> float | None:
        """Return the CPU seconds of all its processes until now; None if the system does not report them."""
        own = [self.process.pid] if self.process else []
        return _cpu([*own, *self.workers()])

    def memory(self) -> dict[int, tuple[float | None, float | None]]:
        """Return the resident memory of each worker and its peak since :meth:`forget_peaks`, in MiB, by process id."""
        return {pid: (_status(pid, 'VmRSS'), _status(pid, 'VmHWM')) for pid in self.workers()}

    def forget_peaks(self) -> None:
        """Reset the peaks of :meth:`memory`: proc(5), ``clear_refs``."""
        for pid in self.workers():
            with contextlib.suppress(OSError):
                Path(f'/proc/{pid}/clear_refs').write_text('5')


@contextlib.contextmanager
def served(app: Flask, folder: str) -> Iterator[Service]:
    """Serve the database of ``app`` with gunicorn as in production, with the settings of this environment.

    :raises BenchError: the service did not start.
    """
    environ = os.environ | {
        'APP_SETTINGS': 'project.config.ProductionConfig',
        'SECRET_KEY': app.config['SECRET_KEY'],
        # The clients come from this machine, and send no token.
        'TRUSTED_HOSTS': '',
        'PROTECT': 'changes',
        'PROXY_HOPS': '0',
        'SCRIPT_NAME': '',
    }
    environ.pop('DATABASE_URL', None)
    service = Service(folder, app.config['SQLALCHEMY_DATABASE_URI'], **environ)
    with contextlib.ExitStack() as stack:
        stack.callback(_stop, service)
        try:
            service.start()
        except StartError as error:
            raise BenchError(f'The service did not start: {error}') from None
        yield service


def _stop(service: Service) -> None:
    with _uninterrupted():
        if service.process:
            with contextlib.suppress(subprocess.TimeoutExpired):
                service.stop()
        service.kill()


# --- resource usage: proc(5)


def _cpu(pids: Iterable[int]) -> float | None:
    """Return the CPU seconds of processes until now, to the nanosecond; None if the system does not report them."""
    if not Path('/proc/self/schedstat').exists():
        return None
    nanoseconds = 0
    for pid in pids:
        for path in Path(f'/proc/{pid}/task').glob('*/schedstat'):
            with contextlib.suppress(OSError):  # it has ended
                nanoseconds += int(path.read_text().split()[0])
    return nanoseconds / 1e9


def _status(pid: int, field: str) -> float | None:
    """Return a field of the status of a process in MiB; None if it does not exist."""
    with contextlib.suppress(OSError):
        if found := re.search(rf'^{field}:\s+(\d+) kB', Path(f'/proc/{pid}/status').read_text(), re.MULTILINE):
            return int(found[1]) / 1024
    return None


def backends_cpu() -> float | None:
    """Return the CPU seconds of PostgreSQL's processes for the database of the current app, including ended ones.

    None if they run in another container or on another machine, or if the database is SQLite.
    """
    if db.engine.dialect.name != 'postgresql':
        return None
    with db.engine.connect() as connection:
        own = connection.scalar(text('SELECT pg_backend_pid()'))
        pids = connection.scalars(text('SELECT pid FROM pg_stat_activity WHERE datname = current_database()')).all()
    try:
        if str(db.engine.url.database).encode() not in Path(f'/proc/{own}/cmdline').read_bytes():
            return None  # another process of this machine with the same id
        server = _stat(own)[1]
        # The server process has the times of all ended processes. Those of other databases should be idle.
        ended = sum(map(int, _stat(server)[13:15])) / os.sysconf('SC_CLK_TCK')
    except OSError:
        return None
    alive = _cpu(pids)
    return None if alive is None else alive + ended


def _stat(pid: str | int) -> list[str]:
    """Return the fields of /proc/PID/stat after the name of the process, which may contain blanks and brackets."""
    return Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()


@contextlib.contextmanager
def _uninterrupted() -> Iterator[None]:
    """Ignore SIGINT and SIGTERM in the block, which cleans up."""
    before = [(number, signal.signal(number, signal.SIG_IGN)) for number in (signal.SIGINT, signal.SIGTERM)]
    try:
        yield
    finally:
        for number, handler in before:
            signal.signal(number, handler)
