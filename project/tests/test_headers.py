"""The headers of every response: CORS, security headers, request ids, and the trusted proxies."""

import contextvars
import io
import logging
import re
from unittest import mock

from project import observability
from project.tests.base import BEARER, TOKEN, BaseTestCase

ORIGIN = {'Origin': 'https://shop.example'}
PREFLIGHT = ORIGIN | {'Access-Control-Request-Method': 'POST', 'Access-Control-Request-Headers': 'content-type'}


class HeadersTestCase(BaseTestCase):
    settings = {'API_TOKENS': TOKEN}

    def responses(self, client=None, **headers):
        """Yield a response of each kind, in a subtest with its name."""
        client, headers = client or self.client, headers or None
        user_id = self.add_user()['id']
        for method, path, code in (
            ('GET', '/ping', 200),
            ('GET', '/health', 200),
            ('GET', '/users', 200),
            ('GET', '/users?limit=1', 200),
            ('GET', f'/users/{user_id}', 200),
            ('HEAD', f'/users/{user_id}', 200),
            ('OPTIONS', '/users', 200),
            ('GET', '/users?limit=x', 400),
            ('POST', '/users', 400),
            ('DELETE', f'/users/{user_id}', 401),
            ('GET', '/users/x', 404),
            ('GET', '/nowhere', 404),
            ('GET', '/users/', 404),
            ('PUT', '/users', 405),
        ):
            with self.subTest(method=method, path=path):
                response = client.open(path, method=method, headers=headers)
                self.assertEqual(response.status_code, code, response.text)
                yield response
        with self.subTest('201'):
            yield client.post('/users', json={'username': 'b', 'email': 'b@example.com'}, headers=headers)
        with self.subTest('204'):
            yield client.delete(f'/users/{user_id}', headers=BEARER | (headers or {}))
        with self.subTest('413'):
            yield client.post('/users', data=b' ' * 70_000, content_type='application/json', headers=headers)
        broken = mock.patch('project.database.Database.read', side_effect=RuntimeError)
        with self.subTest('500'), self.assertLogs('project'), broken:
            yield client.get('/users', headers=headers)


class CorsTest(HeadersTestCase):
    def test_every_response_may_be_read_by_any_origin(self):
        for response in self.responses(**ORIGIN):
            self.assertEqual(response.headers['Access-Control-Allow-Origin'], '*')
            self.assertNotIn('Access-Control-Allow-Credentials', response.headers)
            exposed = set(response.headers['Access-Control-Expose-Headers'].split(', '))
            self.assertEqual(exposed, {'ETag', 'Link', 'Location', 'Retry-After', 'X-Request-ID'})

    def test_only_configured_origins_may_read(self):
        origins = 'https://shop.example, http://localhost:3000'
        client = self.client_of(CORS_ORIGINS=origins, API_TOKENS=TOKEN)
        for response in self.responses(client, **ORIGIN):
            self.assertEqual(response.headers['Access-Control-Allow-Origin'], 'https://shop.example')
            self.assertIn('Origin', response.headers.getlist('Vary'))
        for origin in (
            None,
            'null',
            'https://evil.example',
            'http://shop.example',
            'https://shop.example:8443',
            '*',
            '',
        ):
            with self.subTest(origin=origin):
                response = client.get('/ping', headers={} if origin is None else {'Origin': origin})
                self.assertNotIn('Access-Control-Allow-Origin', response.headers)
                self.assertEqual(response.headers['Vary'], 'Origin')

    def test_preflight_names_the_methods_that_the_route_has(self):
        for path, methods in (
            ('/users', {'GET', 'HEAD', 'OPTIONS', 'POST'}),
            ('/users/1', {'GET', 'HEAD', 'OPTIONS', 'PATCH', 'DELETE'}),
            ('/ping', {'GET', 'HEAD', 'OPTIONS'}),
        ):
            with self.subTest(path=path):
                response = self.client.options(path, headers=PREFLIGHT)
                self.assertEqual((response.status_code, response.data), (200, b''))
                self.assertEqual(response.headers['Access-Control-Allow-Origin'], '*')
                self.assertEqual(set(response.headers['Access-Control-Allow-Methods'].split(', ')), methods)
                self.assertGreater(int(response.headers['Access-Control-Max-Age']), 0)

    def test_preflight_allows_the_requested_headers(self) -> None:
        for requested, allowed in (
            ('content-type', 'content-type'),
            ('x-requested-with,cache-control', 'x-requested-with, cache-control'),
            ('Access-Control-Allow-Origin, X-Requested-With', 'Access-Control-Allow-Origin, X-Requested-With'),
            (' , x-a ,\tx_b~!,', 'x-a, x_b~!'),
            ('x-a, x b, "x", x:y, <script>, \xfc, x-c', 'x-a, x-c'),
        ):
            with self.subTest(requested=requested):
                response = self.client.options(
                    '/users', headers=PREFLIGHT | {'Access-Control-Request-Headers': requested}
                )
                self.assertEqual((response.status_code, response.data), (200, b''))
                self.assertEqual(response.headers.getlist('Access-Control-Allow-Headers'), [allowed])

    def test_preflight_without_requested_headers_allows_those_of_the_service(self) -> None:
        names = 'Authorization, Content-Type, If-Match, If-None-Match, X-Request-ID'
        for requested in (None, '', ',', 'a b'):
            with self.subTest(requested=requested):
                headers = ORIGIN | {'Access-Control-Request-Method': 'POST'}
                if requested is not None:
                    headers['Access-Control-Request-Headers'] = requested
                response = self.client.options('/users', headers=headers)
                self.assertEqual(response.headers['Access-Control-Allow-Headers'], names)

    def test_only_preflights_vary_by_the_requested_headers(self) -> None:
        for response in self.responses(**PREFLIGHT):
            if response.request.method == 'OPTIONS':
                self.assertIn('Access-Control-Request-Headers', response.headers.getlist('Vary'))
                self.assertIn('Access-Control-Allow-Headers', response.headers)
            else:
                self.assertNotIn('Vary', response.headers)
                self.assertNotIn('Access-Control-Allow-Headers', response.headers)

    def test_preflight_of_an_unknown_path_is_rejected(self):
        response = self.client.options('/nowhere', headers=PREFLIGHT)
        self.assert_failure(response, 404, 'Not Found')
        self.assertNotIn('Access-Control-Allow-Methods', response.headers)

    def test_preflight_needs_no_token(self):
        client = self.client_of(API_TOKENS=TOKEN, PROTECT='all')
        self.assertEqual(client.options('/users', headers=PREFLIGHT).status_code, 200)


class SecurityTest(HeadersTestCase):
    def test_every_response_has_the_security_headers(self):
        for response in self.responses():
            self.assertEqual(response.headers['X-Content-Type-Options'], 'nosniff')
            self.assertEqual(response.headers['X-Frame-Options'], 'DENY')
            self.assertEqual(response.headers['Referrer-Policy'], 'no-referrer')
            self.assertIn("default-src 'none'", response.headers['Content-Security-Policy'])
            self.assertNotIn('Set-Cookie', response.headers)

    def test_responses_about_users_stay_out_of_shared_caches(self):
        user_id = self.add_user()['id']
        for method, path in (
            ('GET', '/users'),
            ('GET', '/users?limit=x'),
            ('GET', f'/users/{user_id}'),
            ('GET', '/users/x'),
            ('POST', '/users'),
            ('DELETE', '/users/1'),
        ):
            with self.subTest(method=method, path=path):
                response = self.client.open(path, method=method)
                self.assertEqual(response.headers['Cache-Control'], 'private, no-cache')

    def test_only_known_hosts_are_served(self):
        client = self.client_of(TRUSTED_HOSTS='api.example, .shop.example')
        for host, code in (
            ('api.example', 200),
            ('api.example:8080', 200),
            ('shop.example', 200),
            ('a.shop.example', 200),
            ('evil.example', 400),
            ('api.example.evil.example', 400),
            ('localhost', 400),
            ('a b', 400),
        ):
            with self.subTest(host=host):
                response = client.get('/ping', headers={'Host': host})
                self.assertEqual(response.status_code, code, response.text)
                if code == 400:
                    self.assert_failure(response, 400)
        self.assertEqual(self.client.get('/ping', headers={'Host': 'any.example'}).status_code, 200)

    def test_only_the_configured_number_of_proxies_is_trusted(self):
        forwarded = {'Host': 'inner', 'X-Forwarded-Host': 'api.example'}
        for hops, code in ((0, 400), (1, 200)):
            with self.subTest(hops=hops):
                client = self.client_of(TRUSTED_HOSTS='api.example', PROXY_HOPS=hops)
                self.assertEqual(client.get('/ping', headers=forwarded).status_code, code)
        # Values further left were sent by the client.
        client = self.client_of(TRUSTED_HOSTS='api.example', PROXY_HOPS=1)
        forwarded['X-Forwarded-Host'] = 'api.example, evil.example'
        self.assertEqual(client.get('/ping', headers=forwarded).status_code, 400)


class RequestIdTest(HeadersTestCase):
    def test_every_response_has_an_id_of_its_own(self):
        ids = [response.headers['X-Request-ID'] for response in self.responses()]
        self.assertEqual(len(set(ids)), len(ids))

    def test_valid_id_of_the_client_is_kept(self):
        for sent in ('a', '3f0c-77', 'A.b_c:d/e+f=', 'x' * 128):
            with self.subTest(sent=sent):
                self.assertEqual(self.client.get('/ping', headers={'X-Request-ID': sent}).headers['X-Request-ID'], sent)
        for sent in ('', 'a b', 'x' * 129, '<script>', 'é', 'a,b', '"', '%0a', '{}'):
            with self.subTest(sent=sent):
                response = self.client.get('/ping', headers={'X-Request-ID': sent})
                self.assertRegex(response.headers['X-Request-ID'], r'\A[0-9a-f]{32}\Z')

    def test_every_response_keeps_the_id_of_the_client(self):
        for response in self.responses(**{'X-Request-ID': 'mine'}):
            self.assertEqual(response.headers['X-Request-ID'], 'mine')


TRACE, PARENT = '4bf92f3577b34da6a3ce929d0e0e4736', '00f067aa0ba902b7'
TRACEPARENTS = {
    f'00-{TRACE}-{PARENT}-01': True,
    f'00-{TRACE}-{PARENT}-00': True,
    f'cc-{TRACE}-{PARENT}-ff': True,
    f'01-{TRACE}-{PARENT}-01-what-the-future-will-be-like': True,
    f'00-{TRACE}-{PARENT}-01-what-the-future-will-be-like': False,
    f'00-{TRACE}-{PARENT}-01.': False,
    f'cc-{TRACE}-{PARENT}-01.what': False,
    f'ff-{TRACE}-{PARENT}-01': False,
    f'00-{"0" * 32}-{PARENT}-01': False,
    f'00-{TRACE}-{"0" * 16}-01': False,
    f'00-{TRACE.upper()}-{PARENT}-01': False,
    f'00-{TRACE[1:]}-{PARENT}-01': False,
    f'00-{TRACE}0-{PARENT}-01': False,
    f'00-{TRACE[1:]}g-{PARENT}-01': False,
    f'00-{TRACE}-{PARENT[1:]}-01': False,
    f'00-{TRACE}-{PARENT}-1': False,
    f'00-{TRACE}-{PARENT}': False,
    f'00-{TRACE}-{PARENT}-01,00-{TRACE}-{PARENT}-01': False,
    f'0-{TRACE}-{PARENT}-01': False,
    '': False,
}


class LogTest(HeadersTestCase):
    def logged(self, **settings):
        """A client, and the text that is logged during its requests."""
        with mock.patch('sys.stdout', io.StringIO()) as stdout:
            client = self.client_of(**settings)
        return client, stdout

    def test_lines_carry_the_request_id(self):
        client, lines = self.logged()
        with mock.patch('project.database.Database.read', side_effect=RuntimeError('boom')):
            client.get('/users', headers={'X-Request-ID': 'mine'})
        first, *rest = lines.getvalue().splitlines()
        self.assertTrue(first.startswith('ERROR '), first)
        self.assertIn("'request_id': 'mine'", first)
        self.assertEqual(rest[-1], 'RuntimeError: boom')

    def test_lines_carry_the_trace_id_of_a_valid_traceparent(self):
        for sent, valid in TRACEPARENTS.items():
            with self.subTest(sent=sent):
                client, lines = self.logged()
                with mock.patch('project.database.Database.read', side_effect=RuntimeError('boom')):
                    client.get('/users', headers={'traceparent': sent})
                first = lines.getvalue().splitlines()[0]
                self.assertEqual(re.findall(r"'trace_id': '(.*?)'", first), [TRACE] if valid else [])
                self.assertNotIn('future', first)

    def test_lines_outside_of_a_request_have_none(self):
        client, lines = self.logged()
        contextvars.Context().run(client.application.logger.warning, 'started')
        self.assertEqual(lines.getvalue(), 'WARNING started \n')

    def test_level_is_a_setting(self):
        client, lines = self.logged(LOG_LEVEL='critical')
        with mock.patch('project.database.Database.read', side_effect=RuntimeError('boom')):
            client.get('/users')
        self.assertEqual(lines.getvalue(), '')

    def test_neither_tokens_nor_personal_data_are_logged(self):
        client, lines = self.logged(API_TOKENS=TOKEN, LOG_LEVEL='debug')
        user = {'username': 'annabel', 'email': 'annabel@example.com'}
        client.post('/users', json=user)
        client.post('/users', json=user)
        client.get('/users?email=annabel@example.com')
        client.delete('/users/1', headers=BEARER)
        client.delete('/users/1', headers={'Authorization': 'Bearer wrong'})
        with mock.patch('project.database.Database.write', side_effect=RuntimeError):
            client.post('/users', json=user, headers=BEARER)
        self.assertIn('RuntimeError', lines.getvalue())
        for secret in (TOKEN, 'wrong', 'annabel'):
            self.assertNotIn(secret, lines.getvalue())

    def test_gunicorn_gives_its_handlers(self):
        handler = logging.NullHandler()
        self.enterContext(mock.patch.object(logging.getLogger('gunicorn.error'), 'handlers', [handler]))
        self.enterContext(mock.patch.dict('os.environ', SERVER_SOFTWARE='gunicorn/27.0.1'))
        client = self.client_of()
        self.assertEqual(client.application.logger.handlers, [handler])

    def test_route_is_left_for_the_access_line(self):
        environs = []
        serve, self.app.wsgi_app = self.app.wsgi_app, lambda *args: environs.append(args[0]) or serve(*args)
        for path, route in (('/users/1', '/users/<user_id>'), ('/users?limit=1', '/users'), ('/nowhere', None)):
            with self.subTest(path=path):
                self.client.get(path, headers={'X-Request-ID': 'mine'})
                self.assertEqual(environs[-1].get(observability.ROUTE_KEY), route)
                self.assertEqual(environs[-1][observability.ID_KEY], 'mine')
