"""The base of the browser tests and the screenshots: the service, the built page on another origin, and Chromium.

They need Node with npm, Debian's ``chromium``, and ``.ci/requirements.txt``.
"""

import contextlib
import http.server
import json
import os
import shutil
import signal
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.request import Request, urlopen

from playwright.sync_api import sync_playwright
from sqlalchemy import create_engine, delete, insert
from sqlalchemy.pool import NullPool

from project.api.models import User
from project.tests.base import ROOT, scratch_database
from project.tests.support.servers import TOKEN, Server, free_port, manage

CLIENT = ROOT / 'project' / 'client'
# The policy of nginx.conf. In addition, it forbids the page to make HTML from strings.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self' {service}; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'"
)
CHROMIUM_OPTIONS = [
    '--no-sandbox',  # the sandbox does not run as root; Chromium loads only this page
    '--disable-gpu',
    '--disable-quic',
    '--no-first-run',
    '--disable-background-networking',
    '--disable-component-update',
    '--disable-sync',
    # No other host name has an address.
    '--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE localhost, EXCLUDE 127.0.0.1',
]


class Site:
    """The service, the page and the browser, all running.

    :ivar url: of the page. :ivar service_url: of the service. :ivar browser: Playwright's Chromium.
    """

    def __init__(self, url, service, browser, engine):
        self.url, self.browser = url, browser
        self.service_url = f'http://127.0.0.1:{service.port}'
        self._service, self._engine = service, engine

    def store(self, users):
        """Make these the only users. Of users with equal timestamps, the later one in ``users`` is the newer.

        :param users: dicts with ``username``, ``email`` and ``created_at``, an aware ``datetime``.
        """
        with self._engine.begin() as connection:
            connection.execute(delete(User))
            if users:
                connection.execute(insert(User), users)

    def stop_service(self):
        """End the service at once, as a crash does; connections to its port fail from now on."""
        self._service.kill()

    def start_service(self):
        """Start it again unless it runs, and wait until it responds."""
        if not self._service.is_ready():
            self._service.start()

    @contextlib.contextmanager
    def settings(self, **environ: str) -> Iterator[None]:
        """During the block the service runs with other settings, such as ``PROTECT='all'``."""
        usual = self._service.environ
        self._restart(usual | environ)
        try:
            yield
        finally:
            self._restart(usual)

    def _restart(self, environ: dict[str, str]) -> None:
        self._service.kill()
        self._service.environ = environ
        self._service.start()

    def request(self, method: str, path: str, body: dict | None = None) -> dict:
        """Send a request as another client who has the token, and return the JSON of the response."""
        data = None if body is None else json.dumps(body).encode()
        request = Request(f'{self.service_url}{path}', data, method=method)
        request.add_header('Content-Type', 'application/json')
        request.add_header('Authorization', f'Bearer {TOKEN}')
        with urlopen(request, timeout=10) as response:
            return json.loads(response.read() or '{}')

    @contextlib.contextmanager
    def frozen_service(self):
        """Pause the service in the block: it accepts connections, and does not respond until the block ends."""
        group = self._service.process.pid
        os.killpg(group, signal.SIGSTOP)
        try:
            yield
        finally:
            os.killpg(group, signal.SIGCONT)


@contextlib.contextmanager
def site():
    """Start everything on an empty scratch database, give the :class:`Site`, and leave nothing behind.

    :raises RuntimeError: npm or Chromium is missing, or npm failed. :raises AssertionError: the service did not start.
    """
    for program in ('npm', 'chromium'):
        if not shutil.which(program):
            raise RuntimeError(f'{program} is missing; on Debian: apt-get install {program}')
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix='users-page-')))
        database_url = stack.enter_context(scratch_database())
        port = free_port()
        # Another host name than that of the service: for the browser, this is another site, not only another port.
        url = f'http://localhost:{port}'
        manage(database_url, 'db', 'upgrade')
        service = Server(folder, database_url, CORS_ORIGINS=url, WEB_CONCURRENCY='1')
        stack.callback(service.kill)
        service.start()
        playwright = stack.enter_context(sync_playwright())
        browser = playwright.chromium.launch(executable_path=shutil.which('chromium'), args=CHROMIUM_OPTIONS)
        stack.callback(browser.close)
        running = Site(url, service, browser, create_engine(database_url, poolclass=NullPool))
        build_page(running.service_url, folder / 'page')
        stack.enter_context(page_server(folder / 'page', port, POLICY.format(service=running.service_url)))
        yield running


def build_page(service_url, folder):
    """Build the page for the service at this address into ``folder``; npm installs what is missing for that."""
    if subprocess.run(['npm', 'ls'], cwd=CLIENT, capture_output=True, check=False).returncode:
        npm('ci')
    environ = os.environ | {'REACT_APP_USERS_SERVICE_URL': service_url}
    npm('run', 'build', '--', '--outDir', folder, '--emptyOutDir', env=environ)


def npm(*arguments, **options):
    """Run npm in the folder of the page.

    :param options: for ``subprocess.run``.
    :raises RuntimeError: it failed; the message has its output.
    """
    done = subprocess.run(['npm', *arguments], cwd=CLIENT, capture_output=True, text=True, check=False, **options)
    if done.returncode:
        raise RuntimeError(f'npm {arguments[0]} failed:\n{done.stdout}{done.stderr}')


class PageHandler(http.server.SimpleHTTPRequestHandler):
    """Serves the built page, with the most restrictive headers of a web server."""

    def __init__(self, *args, policy, **options):
        self._policy = policy
        super().__init__(*args, **options)

    def end_headers(self):
        """Add the headers to every response."""
        self.send_header('Content-Security-Policy', self._policy)
        self.send_header('X-Content-Type-Options', 'nosniff')
        super().end_headers()

    def log_message(self, *args):
        """Log nothing."""


@contextlib.contextmanager
def page_server(folder, port, policy):
    """Serve the files of ``folder`` on ``port`` during the block, under this Content-Security-Policy."""

    def handle(*args):
        PageHandler(*args, directory=folder, policy=policy)

    with http.server.ThreadingHTTPServer(('127.0.0.1', port), handle) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={'poll_interval': 0.05})
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join()
