"""Real processes for the tests of faults: PostgreSQL clusters, the service under gunicorn, and its clients.

The modules that use this have names that do not start with ``test_``, so they run only when asked for:
``python manage.py test faults faults_failover faults_serving faults_sqlite``. They need the server programs
of PostgreSQL and, for one test, PgBouncer (on Debian ``apt-get install postgresql pgbouncer``), and listen on
free ports of the loopback address only.
"""

import contextlib
import http.client
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import unittest
from pathlib import Path

import psycopg2

ROOT = Path(__file__).parents[2]
HOST = '127.0.0.1'
PROMISED_SECONDS = 6.0  # within which every answer is there, whatever breaks
SLACK_SECONDS = 20.0  # after which a client gives up, so that a broken service fails a test instead of hanging it


def measured(what, seconds):
    """Show a figure for the table of the README."""
    print(f'  measured: {what}: {seconds * 1000:.0f} ms', flush=True)


def wait_until(condition, seconds, what):
    """Poll ``condition`` until it is true.

    :param seconds: after which an AssertionError names ``what`` did not happen.
    :returns: what ``condition`` returned.
    """
    end = time.monotonic() + seconds
    while not (result := condition()):
        if time.monotonic() > end:
            raise AssertionError(f'not within {seconds} s: {what}')
        time.sleep(0.02)
    return result


def free_port():
    """A port that nobody listens on, and that the kernel gives to no outgoing connection of its own accord."""
    while True:
        port = random.randrange(20_000, 32_000)
        with socket.socket() as sock, contextlib.suppress(OSError):
            sock.bind((HOST, port))
            return port


def children(pid):
    """The ids of the processes that ``pid`` has started and that are still there."""
    found = []
    for status in Path('/proc').glob('[0-9]*/stat'):
        with contextlib.suppress(OSError):
            # The name, in parentheses, may contain anything.
            if int(status.read_text().rpartition(')')[2].split()[1]) == pid:
                found.append(int(status.parent.name))
    return found


class FaultCase(unittest.TestCase):
    """A test with processes of its own, all of which are gone after it."""

    def setUp(self):
        """Make a directory for the test."""
        self.directory = Path(tempfile.mkdtemp(prefix='users-faults-'))
        self.directory.chmod(0o755)  # PostgreSQL runs as another user when this runs as root
        self.addCleanup(shutil.rmtree, self.directory, ignore_errors=True)

    @classmethod
    def shared_cluster(cls, *settings):
        """A running PostgreSQL cluster for all tests of the class, with an empty table of users for each of them."""
        if 'cluster' not in cls.__dict__:
            directory = Path(tempfile.mkdtemp(prefix='users-faults-'))
            directory.chmod(0o755)
            cls.addClassCleanup(shutil.rmtree, directory, ignore_errors=True)
            cls.cluster = Cluster(directory / 'cluster', *settings)
            cls.addClassCleanup(cls.cluster.kill)
            cls.cluster.start()
            manage(cls.cluster.dsn(), 'db', 'upgrade')
            cls.cluster.sql('ALTER DATABASE users RENAME TO empty', database='postgres')
        if not cls.cluster.ready():
            cls.cluster.start()
        cls.cluster.sql('DROP DATABASE IF EXISTS users WITH (FORCE)', database='postgres')
        cls.cluster.sql('CREATE DATABASE users TEMPLATE empty', database='postgres')
        return cls.cluster

    def start_cluster(self, name, *settings, **kw):
        """A running PostgreSQL cluster; arguments as for :class:`Cluster`."""
        cluster = Cluster(self.directory / name, *settings, **kw)
        self.addCleanup(cluster.kill)
        cluster.start()
        return cluster

    def start_service(self, url, **kw):
        """The running service; arguments as for :class:`Service`."""
        service = Service(self.directory, url, **kw)
        self.addCleanup(service.kill)
        service.start()
        return service

    def check_missing_table(self, url):
        """Take the migrations back under the running service, and make them again; it reports that and heals."""
        self.assertEqual(200, self.service.get('/health').status)
        manage(url, 'db', 'downgrade', 'base', '--force')
        for answer in (self.service.get('/health'), self.service.get('/users'), self.service.post('ann@example.com')):
            self.assertEqual(503, answer.status)
            self.assertIn('"python manage.py db upgrade"', answer.body['message'])
        manage(url, 'db', 'upgrade')
        self.assertEqual(200, self.service.get('/health').status)
        self.assertEqual(201, self.service.post('ann@example.com').status)

    def assert_promised(self, load, statuses):
        """Every client has got an answer in time, JSON, and of one of ``statuses``; a 503 says when to come again."""
        self.assertEqual([], load.failures[:3], 'clients without an answer')
        self.assertLessEqual({answer.status for answer in load.answers}, set(statuses))
        self.assertLess(max(answer.seconds for answer in load.answers), PROMISED_SECONDS)
        for answer in load.answers:
            if answer.status == 503:
                self.assertEqual('error', answer.body['status'])
                self.assertGreaterEqual(int(answer.headers['Retry-After']), 1)

    def assert_quick(self, load, what):
        """Answers are there within 100 ms, and all of them within a second.

        The former is asked of the median only, since other programs share the machine with this.
        """
        self.assertEqual([], load.failures[:3], 'clients without an answer')
        seconds = sorted(answer.seconds for answer in load.answers)
        measured(f'{what}, median', seconds[len(seconds) // 2])
        measured(f'{what}, slowest of {len(seconds)}', seconds[-1])
        self.assertGreater(len(seconds), 20)
        self.assertLess(seconds[len(seconds) // 2], 0.1)
        self.assertLess(seconds[-1], 1.0)


class Cluster:
    """A PostgreSQL cluster with the database ``users``, whose superuser is let in without a password.

    :param directory: where to make it.
    :param settings: such as ``max_connections=40``.
    :param standby_of: the cluster to copy and to follow, by default none.
    """

    def __init__(self, directory, *settings, standby_of=None):
        found = sorted(Path('/usr/lib/postgresql').glob('*/bin/postgres'), key=lambda path: int(path.parts[-3]))
        if not found:
            raise RuntimeError('these tests need the server programs of PostgreSQL: apt-get install postgresql')
        self.programs = found[-1].parent
        self.port = free_port()
        self.data, self.log_file = directory / 'data', directory / 'log'
        self.settings = ('listen_addresses=127.0.0.1', 'unix_socket_directories=', 'fsync=off', *settings)
        self.process = None
        directory.mkdir()
        if os.geteuid() == 0:
            shutil.chown(directory, 'postgres', 'postgres')
        if standby_of:
            self.run(
                'pg_basebackup', '-D', self.data, '-R', '-c', 'fast', '--no-sync', '-d', standby_of.dsn('postgres')
            )
        else:
            self.run('initdb', '-D', self.data, '-U', 'users', '-A', 'trust', '-E', 'UTF8', '--locale=C', '--no-sync')

    def run(self, program, *arguments):
        """Run one of PostgreSQL's programs to its end."""
        subprocess.run(
            [self.programs / program, *arguments], **as_nobody_special(), check=True, capture_output=True, timeout=60
        )

    def start(self, *settings):
        """Start it, with ``settings`` besides its own, and wait until it takes connections."""
        self.launch(*settings)
        wait_until(self.ready, 30, f'PostgreSQL takes connections; {self.log()[-2000:]}')
        if not self.sql("SELECT 1 FROM pg_database WHERE datname = 'users'", database='postgres'):
            self.sql('CREATE DATABASE users', database='postgres')

    def launch(self, *settings):
        """Start it without waiting."""
        options = [option for setting in (*self.settings, *settings) for option in ('-c', setting)]
        with self.log_file.open('ab') as log:
            self.process = subprocess.Popen(
                [self.programs / 'postgres', '-D', self.data, '-p', str(self.port), *options],
                **as_nobody_special(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def ready(self):
        """Whether it takes connections."""
        try:
            self.sql('SELECT 1', database='postgres')
        except psycopg2.OperationalError:
            return False
        return True

    def stop(self, how=signal.SIGINT):
        """Stop it: with SIGINT as ``pg_ctl stop -m fast`` does, with SIGQUIT as ``-m immediate``."""
        self.process.send_signal(how)
        self.process.wait(30)

    def restart(self):
        """Stop and start it."""
        self.stop()
        self.start()

    def kill(self):
        """``kill -9`` of all its processes, of the first one first, so that it can do nothing about the others."""
        if self.process and self.process.poll() is None:
            backends = children(self.process.pid)
            for pid in (self.process.pid, *backends):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self.process.wait(10)
            wait_until(lambda: not any(map(alive, backends)), 10, 'the killed backends are gone')

    def freeze(self):
        """Stop all its processes, so that its machine takes connections and data but nobody answers."""
        self._to_all(signal.SIGSTOP)

    def thaw(self):
        """Let them go on."""
        self._to_all(signal.SIGCONT)

    def _to_all(self, number):
        os.kill(self.process.pid, number)
        for pid in children(self.process.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def promote(self):
        """Make a primary of a standby."""
        self.run('pg_ctl', 'promote', '-w', '-D', self.data)

    def sql(self, statement, *parameters, database='users'):
        """Run a statement in a connection of its own, and return its rows."""
        with self.connect(database) as connection, connection.cursor() as cursor:
            cursor.execute(statement, parameters or None)
            return cursor.fetchall() if cursor.description else []

    @contextlib.contextmanager
    def connect(self, database='users'):
        """A connection that commits each statement on its own."""
        connection = psycopg2.connect(self.dsn(database), connect_timeout=3)
        try:
            connection.autocommit = True
            yield connection
        finally:
            connection.close()

    @contextlib.contextmanager
    def locked(self, mode):
        """Hold a lock of ``mode``, such as ``ACCESS EXCLUSIVE``, on the table of users."""
        with self.connect() as connection, connection.cursor() as cursor:
            cursor.execute(f'BEGIN; LOCK TABLE users IN {mode} MODE')
            yield

    def dsn(self, database='users'):
        """Where it is, for libpq."""
        return f'postgresql://users@{HOST}:{self.port}/{database}'

    def log(self):
        """What it has logged."""
        return self.log_file.read_text(errors='replace') if self.log_file.exists() else ''

    def add_users(self, count):
        """Add so many users, each created a second after the one before."""
        self.sql(
            "INSERT INTO users (username, email, created_at) SELECT 'u' || n, 'u' || n || '@example.com', "
            "timestamptz '2026-01-01Z' + n * interval '1 s' FROM generate_series(1, %s) n",
            count,
        )

    def emails(self):
        """The addresses of all users, sorted."""
        return [email for (email,) in self.sql('SELECT email FROM users ORDER BY email')]


def manage(url, *arguments):
    """Run a command of manage.py on the database at ``url``."""
    environ = {'PATH': os.environ['PATH'], 'DATABASE_URL': url}
    command = [sys.executable, 'manage.py', *arguments]
    subprocess.run(command, cwd=ROOT, env=environ, check=True, capture_output=True, timeout=60)


def as_nobody_special():
    """Arguments for ``subprocess``: PostgreSQL and PgBouncer refuse to run as root."""
    return {'user': 'postgres', 'group': 'postgres', 'extra_groups': []} if os.geteuid() == 0 else {}


def alive(pid):
    """Whether a process runs, rather than that it is gone or waits to be collected."""
    try:
        return Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()[0] not in 'ZX'
    except OSError:
        return False


class Service:
    """The service under gunicorn, with the project's configuration, on a database that has its tables.

    :param url: the DATABASE_URL.
    :param app: what gunicorn serves.
    :param migrate: whether to make the tables first.
    :param config: statements that follow those of gunicorn.conf.py.
    :param environ: settings besides the ones that production needs.
    """

    def __init__(self, directory, url, app='manage:app', migrate=True, config='', **environ):
        self.port = free_port()
        self.app = app
        self.log_file = directory / f'service{self.port}'
        self.process = None
        self.command = [sys.executable, '-m', 'gunicorn', '-b', f'{HOST}:{self.port}', self.app]
        if config:
            changed = directory / 'gunicorn.conf.py'
            changed.write_text(f'{(ROOT / "gunicorn.conf.py").read_text()}\n{config}\n')
            self.command += ['-c', changed]
        self.environ = {
            'PATH': os.environ['PATH'],
            'PYTHONPATH': str(directory),
            'APP_SETTINGS': 'project.config.ProductionConfig',
            'DATABASE_URL': url,
            'SECRET_KEY': 'only the cursors of these tests are signed with it',
            'API_TOKENS': TOKEN,
            'WEB_CONCURRENCY': '2',
            **environ,
        }
        if migrate:
            manage(url, 'db', 'upgrade')

    def start(self):
        """Start it in a process group of its own, and wait until each worker is there and it answers."""
        with self.log_file.open('ab') as log:
            self.process = subprocess.Popen(
                self.command,
                cwd=ROOT,
                env=self.environ,
                start_new_session=True,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        wait_until(self.ready, 30, f'the service answers; {self.log()[-2000:]}')

    def ready(self):
        """Whether it answers."""
        try:
            return self.get('/ping').status == 200
        except OSError:
            return False

    def workers(self):
        """The ids of its worker processes."""
        return children(self.process.pid)

    def stop(self):
        """Ask it to stop, and return its exit code."""
        self.process.terminate()
        return self.process.wait(SLACK_SECONDS)

    def kill(self):
        """``kill -9`` of all its processes."""
        if self.process:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(10)

    def log(self):
        """What it has logged."""
        return self.log_file.read_text(errors='replace') if self.log_file.exists() else ''

    def connect(self):
        """A connection, for several requests."""
        return http.client.HTTPConnection(HOST, self.port, timeout=SLACK_SECONDS)

    def get(self, path, connection=None):
        """Answer of a GET."""
        return self.ask('GET', path, connection=connection)

    def post(self, email, connection=None):
        """Answer of adding a user with this address."""
        return self.ask('POST', '/users', {'username': 'ann', 'email': email}, connection)

    def ask(self, method, path, payload=None, connection=None):
        """Answer to a request, on a connection of its own unless one is given.

        :raises OSError, http.client.HTTPException: there was no whole answer.
        :raises ValueError: it was no JSON.
        """
        body = None if payload is None else json.dumps(payload)
        headers = {'Content-Type': 'application/json'} if body else {}
        headers['Authorization'] = f'Bearer {TOKEN}'
        own = connection is None
        connection = connection or self.connect()
        started = time.monotonic()
        try:
            connection.request(method, path, body, headers)
            return Answer(started, connection.getresponse())
        finally:
            if own:
                connection.close()


TOKEN = 'a token which is known to these tests only'


class Answer:
    """Status, parsed body and headers, and when it was asked for and how long it took, in seconds."""

    def __init__(self, started, response):
        self.started = started
        text = response.read()
        self.seconds = time.monotonic() - started
        self.status, self.headers = response.status, response.headers
        self.body = json.loads(text) if text else None
        if text and response.headers['Content-Type'] != 'application/json':
            raise ValueError(f'an answer of type {response.headers["Content-Type"]}')


class Load:
    """Clients in threads, each of which asks again and again while the block runs.

    :param ask: called without arguments; returns an :class:`Answer`.
    :param clients: how many threads.
    :param pause: seconds between an answer and the next request, so that the machine is not what is tested.
    """

    def __init__(self, ask, clients=1, pause=0.02):
        self.ask, self.pause = ask, pause
        self.answers, self.failures = [], []  # the latter: (when it was asked, the exception)
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run, daemon=True) for _ in range(clients)]

    def _run(self):
        while not self._stop.is_set():
            started = time.monotonic()
            try:
                self.answers.append(self.ask())
            except (OSError, http.client.HTTPException, ValueError) as error:
                self.failures.append((started, error))
            self._stop.wait(self.pause)

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        for thread in self._threads:
            thread.join(SLACK_SECONDS + PROMISED_SECONDS)

    def statuses(self, since=0.0, until=float('inf')):
        """The statuses of the answers to requests made within a time, on the monotonic clock."""
        return [answer.status for answer in list(self.answers) if since <= answer.started < until]


class Writers(Load):
    """Clients that add users, each with an address of its own.

    :ivar acknowledged: the addresses that were answered with 201.
    """

    def __init__(self, service, clients=4, pause=0.02):
        super().__init__(self._post, clients, pause)
        self.service = service
        self.acknowledged = []
        self._numbers, self._run_id = iter(range(10**9)), time.monotonic_ns()

    def _post(self):
        email = f'writer{next(self._numbers)}.{self._run_id}@example.com'
        answer = self.service.post(email)
        if answer.status == 201:
            self.acknowledged.append(email)
        return answer
