"""Starts servers for the tests and ``manage.py bench``: gunicorn with the project's configuration."""

import contextlib
import http.client
import os
import random
import signal
import socket
import subprocess
import sys
import time
import unittest
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from project.tests.support.clients import HOST, SLACK_SECONDS, TOKEN, Client

ROOT = Path(__file__).parents[3]
START_SECONDS = 30.0

needs_gunicorn = unittest.skipUnless(hasattr(os, 'fork'), 'gunicorn does not run on Windows')

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


class Server(Client):
    """gunicorn on a free port of the loopback address, in a process group of its own.

    :param folder: a directory for its log and its configuration; modules in it can be imported.
    :param url: the DATABASE_URL, of a database that has its tables.
    :param app: what gunicorn serves.
    :param config: Python statements that follow those of gunicorn.conf.py; its package ``serving`` can be imported.
    :param environ: environment variables besides those that production needs, or instead of them.
    """

    def __init__(self, folder: str | Path, url: str, app: str = 'manage:app', config: str = '', **environ: str) -> None:
        super().__init__(free_port())
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
