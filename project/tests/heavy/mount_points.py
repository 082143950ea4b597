"""The service and the page below a path, behind real proxies, with the lines of docs/mounting.md.

``python manage.py test mount_points`` needs Debian's ``nginx-light``, ``caddy`` and ``chromium``, Node with npm, and
``.ci/requirements.txt``. It takes about a minute.
"""

import http.client
import os
import re
import shutil
import socket
import subprocess
import tempfile
import unittest
from pathlib import Path
from urllib.parse import urlsplit

from playwright.sync_api import expect, sync_playwright

from project.tests.base import ROOT
from project.tests.support.browsing import CHROMIUM_OPTIONS, build_page
from project.tests.support.clients import Response
from project.tests.support.nginx import Nginx
from project.tests.support.servers import HOST, SLACK_SECONDS, Server, free_port, manage, wait_until

NGINX = """
daemon off; pid {folder}/pid; error_log {folder}/error.log;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
    absolute_redirect off;
    server {{ listen {host}:{port}; {lines} }}
}}
"""


def documented(language: str, words: str) -> str:
    """Return the block of docs/mounting.md in a language that contains these words."""
    text = (ROOT / 'docs' / 'mounting.md').read_text(encoding='utf-8')
    (block,) = (block for block in re.findall(rf'```{language}\n(.*?)```', text, re.DOTALL) if words in block)
    return block


def required(program: str) -> str:
    """Return the path of a program."""
    path = shutil.which(program, path=f'{os.environ["PATH"]}:/usr/sbin')
    if path is None:
        raise RuntimeError(f'these tests need {program}')
    return path


class MountCase(unittest.TestCase):
    """A folder, the service, and a browser.

    :cvar settings: of the service.
    """

    settings: dict[str, str] = {'PROXY_HOPS': '1'}
    ready = '/ping'  # of the service

    @classmethod
    def setUpClass(cls) -> None:
        cls.folder = Path(tempfile.mkdtemp(prefix='users-mount-'))
        cls.addClassCleanup(shutil.rmtree, cls.folder)
        cls.folder.chmod(0o755)  # nginx's workers run as another user when this runs as root
        url = f'sqlite:///{cls.folder}/users.db'
        manage(url, 'db', 'upgrade')
        manage(url, 'seed_db')
        cls.server = Server(cls.folder, url, WEB_CONCURRENCY='1', **cls.settings)
        cls.server.is_ready = lambda: cls.get(cls.server.port, cls.ready) == 200
        cls.addClassCleanup(cls.server.kill)
        cls.server.start()
        cls.port = free_port()
        cls.site = f'http://{HOST}:{cls.port}'

    @staticmethod
    def get(port: int, path: str) -> int | None:
        """Return the status of a response; None if no server listens."""
        connection = http.client.HTTPConnection(HOST, port, timeout=SLACK_SECONDS)
        try:
            connection.request('GET', path)
            return connection.getresponse().status
        except OSError:
            return None
        finally:
            connection.close()

    @classmethod
    def run_proxy(cls, *command: str) -> None:
        """Run a proxy until the tests of this class are done, and wait until it listens."""
        environ = os.environ | {'HOME': str(cls.folder)}
        log = cls.enterClassContext((cls.folder / 'proxy.log').open('wb'))
        process = subprocess.Popen(command, env=environ, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        cls.addClassCleanup(process.wait, 10)
        cls.addClassCleanup(process.terminate)

        def listens() -> bool:
            with socket.socket() as sock:
                return sock.connect_ex((HOST, cls.port)) == 0

        wait_until(listens, 20, 'the proxy listens')

    @classmethod
    def run_nginx(cls, lines: str, port: int) -> None:
        """Run nginx with documented lines.

        :param port: of the server behind it.
        """
        lines = re.sub(r'127\.0\.0\.1:\d+', f'{HOST}:{port}', lines)
        config = cls.folder / 'proxy.conf'
        config.write_text(NGINX.format(folder=cls.folder, host=HOST, port=cls.port, lines=lines))
        cls.run_proxy(required('nginx'), '-e', str(cls.folder / 'error.log'), '-c', str(config))

    def request(self, method: str, path: str, **headers: str) -> Response:
        """Send a request through the proxy; a POST adds a user."""
        user = f'{{"username": "x", "email": "{os.urandom(6).hex()}@example.com"}}' if method == 'POST' else None
        sent = {'Content-Type': 'application/json'} | {name.replace('_', '-'): value for name, value in headers.items()}
        connection = http.client.HTTPConnection(HOST, self.port, timeout=SLACK_SECONDS)
        self.addCleanup(connection.close)
        connection.request(method, path, user, sent)
        return Response(0, connection.getresponse())

    def check_links(self, prefix: str) -> None:
        """Follow Location, Link and next through the proxy, with and without a prefix of the client's own."""
        for headers in ({}, {'X_Forwarded_Prefix': '/evil'}, {'X_Forwarded_Prefix': '//evil.example'}):
            with self.subTest(headers=headers):
                added = self.request('POST', f'{prefix}/users', **headers)
                self.assertEqual(added.headers['Location'], f'{prefix}/users/{added.body["data"]["id"]}')
                self.assertEqual(self.request('GET', added.headers['Location']).body['data'], added.body['data'])
                listed = self.request('GET', f'{prefix}/users?limit=1', **headers)
                self.assertTrue(listed.body['data']['next'].startswith(f'{prefix}/users?'), listed.body['data']['next'])
                self.assertIn(f'<{listed.body["data"]["next"]}>', listed.headers['Link'])
                self.assertEqual(self.request('GET', listed.body['data']['next']).status, 200)

    def browse(self):
        """Return a page of Chromium, and check at the end of the test that it has reported no error.

        A response of 401 is no error: the page finds out whether changes need a token. A request that the page itself
        ended, for a newer search, is none either.
        """
        playwright = self.enterContext(sync_playwright())
        browser = playwright.chromium.launch(executable_path=required('chromium'), args=CHROMIUM_OPTIONS)
        self.addCleanup(browser.close)
        page = browser.new_page()
        page.set_default_timeout(20_000)
        problems: list[str] = []
        page.on('pageerror', lambda error: problems.append(str(error)))
        page.on('console', lambda message: problems.append(message.text) if message.type == 'error' else None)
        page.on('requestfailed', lambda request: problems.append(f'{request.url}: {request.failure}'))
        expected = re.compile('401|net::ERR_ABORTED')
        self.addCleanup(lambda: self.assertEqual([text for text in problems if not expected.search(text)], []))
        return page

    def check_documentation(self, prefix: str) -> None:
        """Send a request from the documentation page."""
        page = self.browse()
        requested = []
        page.on('request', lambda request: requested.append(urlsplit(request.url).path))
        page.goto(f'{self.site}{prefix}/docs')
        part = page.locator('[id$="-ping"]')
        part.get_by_role('button').first.click()
        part.get_by_role('button', name='Execute').click()
        expect(part.locator('.live-responses-table')).to_contain_text('"pong!"')
        self.assertIn(f'{prefix}/ping', requested)
        self.assertEqual([path for path in requested if not path.startswith(f'{prefix}/')], [])


class NginxTest(MountCase):
    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        cls.run_nginx(documented('nginx', 'X-Forwarded-Prefix'), cls.server.port)

    def test_links(self) -> None:
        self.check_links('/api')

    def test_documentation(self) -> None:
        self.check_documentation('/api')


class KeepingNginxTest(MountCase):
    settings = {'SCRIPT_NAME': '/api'}
    ready = '/api/ping'

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        cls.run_nginx(documented('nginx', 'without a slash'), cls.server.port)

    def test_links(self) -> None:
        self.check_links('/api')

    def test_documentation(self) -> None:
        self.check_documentation('/api')


class CaddyTest(MountCase):
    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        lines = documented('caddy', 'header_up').replace(':8080', f'http://{HOST}:{cls.port}')
        lines = lines.replace('127.0.0.1:5000', f'{HOST}:{cls.server.port}')
        config = cls.folder / 'Caddyfile'
        config.write_text(f'{{\n admin off\n}}\n{lines}')
        cls.run_proxy(required('caddy'), 'run', '--adapter', 'caddyfile', '--config', str(config))

    def test_links(self) -> None:
        self.check_links('/api')

    def test_documentation(self) -> None:
        self.check_documentation('/api')


class PageTest(MountCase):
    """A proxy in front of the containers' nginx, which has the page, in front of the service."""

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        inner = cls.folder / 'inner'
        inner.mkdir()
        nginx = Nginx(inner, cls.server.port, PATH_PREFIX='/people')
        build_page('', cls.folder / 'page')
        shutil.copytree(cls.folder / 'page', inner, dirs_exist_ok=True)
        cls.addClassCleanup(nginx.stop)
        nginx.start()
        cls.run_nginx(documented('nginx', '/people'), nginx.port)

    def test_links(self) -> None:
        self.check_links('/people')

    def test_documentation(self) -> None:
        self.check_documentation('/people')

    def test_page_shows_and_finds_users(self) -> None:
        page = self.browse()
        page.goto(f'{self.site}/people')
        self.assertEqual(urlsplit(page.url).path, '/people/')
        expect(page.get_by_text('michael@realpython.com')).to_be_visible()
        page.goto(f'{self.site}/people/?q=michaelh')
        expect(page.get_by_text('michael@mherman.org')).to_be_visible()
        expect(page.get_by_text('michael@realpython.com')).to_have_count(0)
