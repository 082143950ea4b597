"""A shell in a copy of the project, for the commands of the documentation."""

import contextlib
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from pathlib import Path

from project.tests.base import ROOT
from project.tests.support.servers import HOST, free_port, wait_until

SECONDS = 60  # for one command
DATABASES = 'localhost:5432/users_'
SERVER = re.compile(r'.*\bmanage\.py runserver\b|gunicorn ')
JOB = re.compile(r'^(?:\[\d+]|bash: line \d+: +\d+ Terminated).*\n?', re.MULTILINE)  # messages of the shell about jobs
# Scripts in env/bin by name. They let commands run as written, with the interpreter of the tests and on a free port.
WRAPPERS = {
    'python': 'case " $* " in *" runserver "*) set -- "$@" -p {port};; esac\nexec {python} "$@"',
    'flask': 'exec {python} -m flask "$@"',
    'gunicorn': 'exec {python} -m gunicorn $(echo "$*" | sed "s/[0-9.]*:5000/{host}:{port}/")',
    'activate': 'PATH={folder}/env/bin:$PATH',
}


class Shell:
    """A shell in a copy of the project.

    :param folder: a directory for the copy.
    :param databases: what replaces :data:`DATABASES` in commands.
    """

    def __init__(self, folder: Path, databases: str) -> None:
        self.folder, self.databases, self.port = folder, databases, free_port()
        shutil.copytree(ROOT / 'project', folder / 'project', ignore=shutil.ignore_patterns('client', '__pycache__'))
        for name in ('manage.py', 'gunicorn.conf.py', 'requirements.txt', 'pyproject.toml'):
            shutil.copy(ROOT / name, folder)
        create = folder / 'project/db/create.sql'
        create.write_text(create.read_text().replace('users_', databases.rpartition('/')[2]))
        (folder / 'env/bin').mkdir(parents=True)
        for name, script in WRAPPERS.items():
            file = folder / 'env/bin' / name
            content = script.format(python=sys.executable, host=HOST, port=self.port, folder=folder)
            file.write_text(content if name == 'activate' else f'#!/bin/sh\n{content}\n')
            file.chmod(0o755)
        (folder / '.curlrc').write_text(f'connect-to = "localhost:5000:{HOST}:{self.port}"\n')
        environ = {'PATH': f'{folder}/env/bin:{os.environ["PATH"]}', 'HOME': str(folder), 'LANG': 'C.UTF-8'}
        environ |= {'PGPASSWORD': 'postgres', 'PGPORT': databases.partition(':')[2].partition('/')[0]}
        # With job control, as in a terminal: kill %1.
        self.process = subprocess.Popen(
            ['bash', '--noprofile', '--norc', '-m', '-O', 'expand_aliases'],
            cwd=folder,
            env=environ,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self.run(':')  # what the shell prints at its start

    def run(self, command: str) -> tuple[str, int]:
        """Run a command, and return what it printed and its exit code.

        A command that starts the service runs in the background. This returns when the service responds.
        """
        command = command.replace(DATABASES, self.databases)
        starts = bool(SERVER.match(command))
        if starts and not command.endswith('&'):
            command += ' &'
        mark = secrets.token_hex(8)
        self.process.stdin.write(f'{command}\nprintf "\\n{mark} $?\\n"\n')
        self.process.stdin.flush()
        watchdog = threading.Timer(SECONDS, self.kill)
        watchdog.start()
        try:
            output = []
            for line in self.process.stdout:
                if line.startswith(mark):
                    if starts:
                        wait_until(self.is_serving, SECONDS, f'the service responds after: {command}')
                    return JOB.sub('', ''.join(output)[:-1]).strip('\n'), int(line.split()[1])
                output.append(line)
        finally:
            watchdog.cancel()
        raise AssertionError(f'no end of: {command}\n{"".join(output)}')

    def is_serving(self) -> bool:
        """Return whether the service responds."""
        try:
            with urllib.request.urlopen(f'http://{HOST}:{self.port}/ping', timeout=5):
                return True
        except urllib.error.HTTPError as response:
            response.close()
            return True
        except OSError:
            return False

    def kill(self) -> None:
        """End the shell and the jobs that it started. With job control, each job has its own process group."""
        listed = ['ps', '-o', 'pgid=', '-s', str(self.process.pid)]
        groups = subprocess.run(listed, check=False, capture_output=True, text=True).stdout
        for group in {int(number) for number in groups.split()}:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(group, signal.SIGKILL)

    def close(self) -> None:
        """End the shell and its jobs."""
        self.kill()
        self.process.wait(SECONDS)
        self.process.stdin.close()
        self.process.stdout.close()
