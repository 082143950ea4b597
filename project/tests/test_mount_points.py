"""Mount points: the service behind a path prefix that a proxy removes, or that gunicorn removes (``SCRIPT_NAME``)."""

import json
import os
import re
import subprocess
import sys
import tempfile

from project import config
from project.headers import forwarded_prefix
from project.tests.base import ROOT, BaseTestCase
from project.tests.support.servers import Server, needs_gunicorn

VALID = {
    '/api': '/api',
    '/api/': '/api',
    ' /api ': '/api',
    '/a/b.c~d_e-1': '/a/b.c~d_e-1',
    '': '',
    '/': '',
}
INVALID = (
    *('//evil.example', '/..', '/a/../b', '/.', '/a//b', 'api', 'http://evil.example', '/a b', '/a"', "/a'", '/<b>'),
    *(
        '/a\r\nX: y',
        '/a\\b',
        '/a?b',
        '/a#b',
        '/a%0d%0a',
        '/\xe9',
        '/a;b',
        '/' + 'a' * 256,
        '/a' * 200,
        '\\evil',
    ),
)


class ForwardedPrefixTest(BaseTestCase):
    settings = {'PROXY_HOPS': '1'}

    def links(self, prefix: str, **settings: str) -> set[str]:
        """Return the beginnings of Location, Link and next, each up to the path of this service."""
        self.store_users(1)
        client = self.client_of(**self.settings | settings)
        headers = {'X-Forwarded-Prefix': prefix}
        added = client.post('/users', json={'username': 'ann', 'email': 'ann@example.com'}, headers=headers)
        listed = client.get('/users?limit=1', headers=headers)
        self.assertEqual((added.status_code, listed.status_code), (201, 200))
        texts = (added.headers['Location'], listed.headers['Link'].lstrip('<'), listed.json['data']['next'])
        return {text[: text.rindex('/users')] for text in texts}

    def test_location_link_and_next_have_the_prefix(self) -> None:
        self.assertEqual(self.links('/api'), {'/api'})

    def test_script_name_of_another_server_is_encoded(self) -> None:
        self.store_users(2)
        environ = {'SCRIPT_NAME': '/\xc3\xbc x'}  # "/ü x" in the encoding of WSGI
        json = {'username': 'ann', 'email': 'ann@example.com'}
        added = self.client.post('/users', json=json, environ_overrides=environ)
        listed = self.client.get('/users?limit=1', environ_overrides=environ)
        self.assertEqual(added.headers['Location'], f'/%C3%BC%20x/users/{added.json["data"]["id"]}')
        self.assertTrue(listed.json['data']['next'].startswith('/%C3%BC%20x/users?'))

    def test_prefix_of_a_client_is_ignored_without_trusted_proxies(self) -> None:
        self.assertEqual(self.links('/api', PROXY_HOPS='0'), {''})

    def test_invalid_prefix_is_ignored(self) -> None:
        self.assertEqual(self.links('//evil.example'), {''})

    def test_values(self) -> None:
        for value, expected in VALID.items():
            with self.subTest(value=value):
                self.assertEqual(forwarded_prefix(value, 1), expected)
        for value in INVALID:
            with self.subTest(value=value):
                self.assertEqual(forwarded_prefix(value, 1), '')

    def test_each_trusted_proxy_may_add_a_prefix(self) -> None:
        for value, hops, expected in (
            ('/outer, /inner', 2, '/outer/inner'),
            ('/outer,/inner/', 2, '/outer/inner'),
            ('/api', 2, '/api'),
            ('/client, /api', 1, '/api'),
            ('/client, /outer, /inner', 2, '/outer/inner'),
            ('/outer, //evil', 2, ''),
            ('/api', 0, ''),
        ):
            with self.subTest(value=value, hops=hops):
                self.assertEqual(forwarded_prefix(value, hops), expected)

    def test_all_paths_are_those_without_the_prefix(self) -> None:
        client = self.client_of(**self.settings)
        for path, code in (('/ping', 200), ('/docs', 200), ('/openapi.yaml', 200), ('/api/ping', 404), ('/', 404)):
            with self.subTest(path=path):
                response = client.get(path, headers={'X-Forwarded-Prefix': '/api'})
                self.assertEqual(response.status_code, code)


@needs_gunicorn
class ScriptNameTest(BaseTestCase):
    """gunicorn with SCRIPT_NAME, whose value ends with a newline as in a secret's file, and with TRUSTED_HOSTS."""

    hosts = ' ,bücher.example, .example.org,127.0.0.1'

    @classmethod
    def setUpClass(cls) -> None:
        folder = cls.enterClassContext(tempfile.TemporaryDirectory())
        settings = {'SCRIPT_NAME': '/api\n', 'PROXY_HOPS': '1', 'WEB_CONCURRENCY': '1', 'LOG_LEVEL': 'WARNING'}
        settings['TRUSTED_HOSTS'] = cls.hosts
        cls.server = MountedServer(folder, config.TestingConfig.SQLALCHEMY_DATABASE_URI, **settings)
        cls.addClassCleanup(cls.server.kill)
        cls.server.start()

    def test_paths_inside_have_the_prefix_in_links(self) -> None:
        added = self.server.request('POST', '/api/users', {'username': 'a', 'email': 'a@example.com'})
        self.assertEqual(added.headers['Location'], f'/api/users/{added.body["data"]["id"]}')
        self.assertEqual(self.server.get(added.headers['Location']).body['data'], added.body['data'])
        self.store_users(2)
        listed = self.server.request('GET', '/api/users?limit=1', X_Forwarded_Prefix='/outer')
        self.assertTrue(listed.body['data']['next'].startswith('/outer/api/users?limit=1&after='))

    def test_paths_outside_are_404_in_the_envelope(self) -> None:
        for path in (
            '/',
            '/users',
            '/ping',
            '/apiusers',
            '/apiping',
            '/ap',
            '/API/ping',
            '/api',
            '/api/',
            '/api/nowhere',
        ):
            with self.subTest(path=path):
                response = self.server.get(path)  # an error unless it is JSON
                self.assertEqual((response.status, response.body['status']), (404, 'fail'))
                self.assertEqual(response.headers['Access-Control-Allow-Origin'], '*')
        self.assertEqual(self.server.get('/api/ping').status, 200)
        self.assertNotIn('Traceback', self.server.log())
        self.assertNotIn('apiusers', self.server.log())

    def test_health_check_of_the_image_passes(self) -> None:
        dockerfile = ROOT / 'Dockerfile'
        if not dockerfile.exists():
            self.skipTest('the image has no Dockerfile in it')
        check = re.search(r'^HEALTHCHECK .*\\\n    CMD (\[.*])$', dockerfile.read_text(encoding='utf-8'), re.MULTILINE)
        _, option, program = json.loads(check[1])
        program = program.replace('5000', str(self.server.port))
        for script_name, hosts, code in (
            ('/api\n', self.hosts, 0),
            ('/api', ' .example.org\n', 0),
            ('/api', '', 1),  # localhost, which is not one of them
            ('', self.hosts, 1),
        ):
            with self.subTest(script_name=script_name, hosts=hosts):
                environ = {'PATH': os.environ['PATH'], 'SCRIPT_NAME': script_name, 'TRUSTED_HOSTS': hosts}
                done = subprocess.run([sys.executable, option, program], env=environ, check=False)
                self.assertEqual(done.returncode, code)


class MountedServer(Server):
    """A server whose paths begin with ``/api``."""

    def is_ready(self) -> bool:
        """Return whether it responds; outside of the mount point that is 404."""
        try:
            return self.get('/api/ping').status == 200
        except OSError:
            return False
