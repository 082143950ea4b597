"""nginx with the configuration of the containers (project/client/nginx.conf), in front of a server of a test."""

import os
import re
import shutil
import socket
import subprocess
from pathlib import Path

from project.tests.support.servers import HOST, ROOT, free_port, wait_until

CLIENT = ROOT / 'project' / 'client'


class Nginx:
    """nginx in front of a server; its log is in ``log_file``.

    Only addresses are replaced in the configuration: Debian's nginx listens on a free port instead of the container's,
    and finds the service on a port of this machine instead of by a name.

    :param folder: a directory for its files.
    :param service_ports: where the instances of the service listen.
    :param environ: variables for nginx.envsh, such as ``ADDITIONS_PER_SECOND``.
    """

    def __init__(self, folder: Path, *service_ports: int, **environ: str) -> None:
        program = shutil.which('nginx', path=f'{os.environ["PATH"]}:/usr/sbin')
        if program is None:
            raise RuntimeError('these tests need nginx: apt-get install nginx-light')
        self.port = free_port()
        self.log_file = folder / 'nginx.log'
        (folder / 'index.html').write_text('<!doctype html><title>page</title>')
        (folder / 'assets').mkdir()
        (folder / 'assets' / 'a.js').write_text('// a script')
        folder.chmod(0o755)  # nginx's workers run as another user when this runs as root
        values = self._variables(environ)
        text = re.sub(r'\$\{(\w+)}', lambda match: values[match[1]], (CLIENT / 'nginx.conf').read_text())
        instances = ' '.join(f'server {HOST}:{port} max_fails=0;' for port in service_ports)
        for old, new in (
            ('/tmp/', f'{folder}/'),  # first: the folder may be in /tmp
            ('listen 8080 ', f'listen {HOST}:{self.port} '),
            # nginx tries the instances as it tries the addresses of a name: each request starts with the next one.
            ('http {\n', f'http {{\n    upstream instances {{ {instances} }}\n'),
            ('users-service:5000', 'instances'),
            ('/usr/share/nginx/html', str(folder)),
            ('/dev/stdout', str(self.log_file)),
            ('/dev/stderr', str(self.log_file)),
            ('127.0.0.1 0;', '127.0.0.2 0;'),  # the requests of the tests are logged
        ):
            if old not in text:
                raise RuntimeError(f'nginx.conf does not contain {old!r} any more')
            text = text.replace(old, new)
        config = folder / 'nginx.conf'
        config.write_text(text)
        self._command = [program, '-e', str(self.log_file), '-c', str(config), '-g', 'daemon off;']
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and wait until it takes connections."""
        self.process = subprocess.Popen(self._command, stdin=subprocess.DEVNULL)
        wait_until(self._listens, 10, f'nginx listens; {self.log()}')

    def stop(self) -> None:
        """Stop it."""
        if self.process:
            self.process.terminate()
            self.process.wait(10)

    def log(self) -> str:
        """Return its access and error log."""
        return self.log_file.read_text(errors='replace') if self.log_file.exists() else ''

    def _listens(self) -> bool:
        with socket.socket() as sock:
            return sock.connect_ex((HOST, self.port)) == 0

    def _variables(self, environ: dict[str, str]) -> dict[str, str]:
        """Return the variables that nginx.envsh exports. RESOLVER is any address, since no name is resolved."""
        script = f'. {CLIENT}/nginx.envsh; env'
        clean = {'PATH': os.environ['PATH'], **environ}
        output = subprocess.run(['sh', '-c', script], env=clean, check=True, capture_output=True, text=True).stdout
        return dict(line.partition('=')[::2] for line in output.splitlines()) | {'RESOLVER': HOST}
