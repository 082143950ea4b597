"""The one starter of servers, for the tests and ``manage.py bench``: gunicorn with the project's configuration."""

import contextlib
import http.client
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

ROOT = Path(__file__).parents[3]
HOST = '127.0.0.1'
TOKEN = 'a-token-of-the-tests-for-servers-in-processes'
# Seconds after which a client gives up and a server that starts or stops has failed: a defect fails a test then.
SLACK_SECONDS = 20.0
START_SECONDS = 30.0

T = TypeVar('T')


class StartError(Exception):
    """The server did not start; the message is the last line of its log."""


def wait_until(condition: Callable[[], T], seconds: float, what: str) -> T:
    """Call ``condition`` again and again until it is true, and return its result.

    :param seconds: how long to wait at most.
    :param what: the event that is awaited, for the error message.
    :raises AssertionError: the condition stayed false.
    """
    end = time.monotonic() + seconds
    while not (result := condition()):
        if time.monotonic() > end:
            raise AssertionError(f'did not happen within {seconds} s: {what}')
        time.sleep(0.02)
    return result


def free_port() -> int:
    """Return a free port outside of the range from which the kernel takes ports for outgoing connections."""
    while True:
        port = random.randrange(20_000, 32_000)
        with socket.socket() as sock, contextlib.suppress(OSError):
            sock.bind((HOST, port))
            return port


def children(pid: int) -> list[int]:
    """Return the ids of the running child processes of the process ``pid``."""
    found = []
    for status in Path('/proc').glob('[0-9]*/stat'):
        with contextlib.suppress(OSError):  # it has ended
            # The process's name, in parentheses, may contain anything.
            if int(status.read_text().rpartition(')')[2].split()[1]) == pid:
                found.append(int(status.parent.name))
    return found


def is_running(pid: int) -> bool:
    """Return whether a process runs; a zombie does not."""
    try:
        return Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()[0] not in 'ZX'
    except OSError:
        return False


def manage(url: str, *arguments: str) -> None:
    """Run a command of manage.py on the database at ``url``.

    :raises subprocess.CalledProcessError: the command failed.
    """
    environ = {'PATH': os.environ['PATH'], 'DATABASE_URL': url}
    command = [sys.executable, 'manage.py', *arguments]
    subprocess.run(command, cwd=ROOT, env=environ, check=True, capture_output=True, timeout=60)


class Response:
    """A response that has been read to its end.

    :ivar body: the parsed JSON; None if the body is empty.
    :ivar started: when its request was sent, in seconds on the monotonic clock.
    :ivar seconds: the time from then until the response was complete.
    :raises ValueError: the body is not JSON, or does not say so.
    """

    def __init__(self, started: float, response: http.client.HTTPResponse) -> None:
        text = response.read()
        self.started = started
        self.seconds = time.monotonic() - started
        self.status, self.headers = response.status, response.headers
        self.body: Any = json.loads(text) if text else None
        if text and response.headers['Content-Type'] != 'application/json':
            raise ValueError(f'the response is of type {response.headers["Content-Type"]}')


class Server:
    """gunicorn on a free port of the loopback address, in a process group of its own.

    :param folder: a directory for its log and its configuration; modules in it can be imported.
    :param url: the DATABASE_URL, of a database that has its tables.
    :param app: what gunicorn serves.
    :param config: Python statements that follow those of gunicorn.conf.py.
    :param environ: environment variables besides those that production needs, or instead of them.
    """

    def __init__(self, folder: str | Path, url: str, app: str = 'manage:app', config: str = '', **environ: str) -> None:
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | None = None
        self.log_file = Path(folder, f'server{self.port}.log')
        self._command = [sys.executable, '-m', 'gunicorn', '-b', f'{HOST}:{self.port}', app]
        if config:
            changed = Path(folder, 'gunicorn.conf.py')
            changed.write_text(f'{(ROOT / "gunicorn.conf.py").read_text()}\n{config}\n')
            self._command += ['-c', str(changed)]
        self.environ = {
            'PATH': os.environ['PATH'],
            'PYTHONPATH': str(folder),
            'APP_SETTINGS': 'project.config.ProductionConfig',
            'SECRET_KEY': 'a-key-of-the-tests-that-only-signs-their-cursors',
            'API_TOKENS': TOKEN,
            'WEB_CONCURRENCY': '2',
            **environ,
            'DATABASE_URL': url,
        }

    def start(self) -> None:
        """Start it, on the same port each time, and wait until it responds.

        :raises StartError: it ended, or did not respond in time.
        """
        with self.log_file.open('ab') as log:
            self.process = subprocess.Popen(
                self._command,
                cwd=ROOT,
                env=self.environ,
                start_new_session=True,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        end = time.monotonic() + START_SECONDS
        while not self.is_ready():
            if self.process.poll() is not None or time.monotonic() > end:
                raise StartError((self.log().strip().splitlines() or ['it logged nothing'])[-1])
            time.sleep(0.02)

    def is_ready(self) -> bool:
        """Return whether it responds to ``/ping``."""
        try:
            return self.get('/ping').status == 200
        except (OSError, http.client.HTTPException):
            return False

    def workers(self) -> list[int]:
        """Return the process ids of the workers."""
        assert self.process
        return children(self.process.pid)

    def stop(self) -> int:
        """Stop it gracefully, and return its exit code."""
        assert self.process
        self.process.terminate()
        return self.process.wait(SLACK_SECONDS)

    def kill(self) -> None:
        """Send SIGKILL to all its processes."""
        if self.process:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(10)

    def log(self) -> str:
        """Return its output."""
        return self.log_file.read_text(errors='replace') if self.log_file.exists() else ''

    def connect(self) -> http.client.HTTPConnection:
        """Return a connection for several requests."""
        return http.client.HTTPConnection(HOST, self.port, timeout=SLACK_SECONDS)

    def get(self, path: str, connection: http.client.HTTPConnection | None = None) -> Response:
        """Send a GET; arguments, result and errors as for :meth:`request`."""
        return self.request('GET', path, connection=connection)

    def post(self, email: str, connection: http.client.HTTPConnection | None = None) -> Response:
        """Add a user with this email; the rest as for :meth:`request`."""
        return self.request('POST', '/users', {'username': 'ann', 'email': email}, connection)

    def request(
        self,
        method: str,
        path: str,
        payload: Any = None,
        connection: http.client.HTTPConnection | None = None,
        **headers: str,
    ) -> Response:
        """Send a request with the token, and return the response.

        :param payload: what the body has as JSON; no body if it is None.
        :param connection: one of :meth:`connect`; by default a new one, which is closed.
        :param headers: more headers; an underscore in a name stands for a hyphen.
        :raises OSError, http.client.HTTPException: the response did not come, or is incomplete.
        :raises ValueError: the response is not JSON.
        """
        body = None if payload is None else json.dumps(payload)
        sent = {'Authorization': f'Bearer {TOKEN}'} | ({'Content-Type': 'application/json'} if body else {})
        sent |= {name.replace('_', '-'): value for name, value in headers.items()}
        own = connection is None
        connection = connection or self.connect()
        started = time.monotonic()
        try:
            connection.request(method, path, body, sent)
            return Response(started, connection.getresponse())
        finally:
            if own:
                connection.close()
