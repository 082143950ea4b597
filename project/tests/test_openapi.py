"""The OpenAPI document has the paths and methods of the service, and its examples are real responses."""

import json
import re
from collections.abc import Iterator
from datetime import datetime
from typing import Any
from unittest import mock

import yaml
from werkzeug.test import TestResponse

import project
from project import db
from project.api import system
from project.api.models import User
from project.headers import CONSTANT
from project.tests.base import BEARER, TOKEN, BaseTestCase, dispose, empty_tables, make_app, scratch_database

DOCUMENT = yaml.safe_load((system.HERE / 'openapi.yaml').read_text())
METHODS = ('get', 'post', 'put', 'patch', 'delete', 'head', 'options', 'trace')
# Headers of HTTP itself, and those that the document's introduction says of every response.
NOT_LISTED = {'Content-Type', 'Content-Length', 'Date', 'Content-Security-Policy', *dict(CONSTANT)}
NO_DATABASE = 'postgresql://user@127.0.0.1:1/users'  # nothing listens on port 1

# Well-formed values that differ each time.
VOLATILE = (
    (r'"id": \d+', '"id": ID'),
    (r'^/users/\d+$', '/users/ID'),
    (r'after=[A-Za-z0-9_.-]{70,}', 'after=CURSOR'),
    (r'\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z', 'TIME'),
    (r'"database_ms": \d+\.\d', '"database_ms": MS'),
    (r'^"[0-9a-f]{24,40}"$', 'TAG'),
    (r'^[0-9a-f]{32}$', 'REQUEST'),
)


def resolve(node):
    """Return a node of the document, or the node that its ``$ref`` names."""
    while '$ref' in node:
        name = node['$ref']
        node = DOCUMENT
        for key in name.removeprefix('#/').split('/'):
            node = node[key]
    return node


def operations(document: dict[str, Any] = DOCUMENT) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield each operation of the document as its method, its path and itself."""
    for path, item in document['paths'].items():
        for method in METHODS:
            if method in item:
                yield method.upper(), path, item[method]


def parameters(method, path):
    """Return the parameters of an operation, by name."""
    item = DOCUMENT['paths'][path]
    both = [*item.get('parameters', ()), *item[method.lower()].get('parameters', ())]
    return {parameter['name']: parameter for parameter in map(resolve, both)}


def steady(text):
    """Return a text without the parts that differ each time."""
    for pattern, name in VOLATILE:
        text = re.sub(pattern, name, text)
    return text


class DocumentTest(BaseTestCase):
    settings = {'METRICS': '1'}

    def test_paths_and_methods_are_those_of_the_app(self):
        served = {
            (method, re.sub(r'<(?:\w+:)?(\w+)>', r'{\1}', rule.rule))
            for rule in self.app.url_map.iter_rules()
            for method in rule.methods - {'HEAD', 'OPTIONS'}
        }
        self.assertEqual({(method, path) for method, path, _ in operations()}, served)

    def test_options_names_the_methods_that_are_listed_and_head(self):
        for path, item in DOCUMENT['paths'].items():
            with self.subTest(path=path):
                response = self.client.options(re.sub(r'{\w+}', '1', path))
                listed = {method.upper() for method in METHODS if method in item} | {'OPTIONS'}
                self.assertEqual(response.status_code, 200)
                self.assertEqual(set(response.allow), listed | ({'HEAD'} if 'GET' in listed else set()))
                listed = DOCUMENT['info']['description']
                for name in response.headers['Access-Control-Allow-Headers'].split(', '):
                    self.assertIn(f'`{name}`', listed)

    def test_version_is_the_one_of_the_service(self):
        self.assertEqual(DOCUMENT['info']['version'], project.__version__)

    def test_security_of_each_operation_is_that_of_the_service(self) -> None:
        for protect in ('changes', 'writes', 'all'):
            client = self.client_of(PROTECT=protect, API_TOKENS=TOKEN, METRICS='1')
            served = yaml.safe_load(client.get('/openapi.yaml').data)
            for method, path, operation in operations(served):
                with self.subTest(protect=protect, method=method, path=path):
                    status = client.open(re.sub(r'{\w+}', '1', path), method=method).status_code
                    self.assertEqual(operation['security'], [{'bearer': []}] if status == 401 else [])
                    # The two responses of a wrong or missing token are listed wherever a token may be required.
                    self.assertTrue(status != 401 or {'401', '403'} <= operation['responses'].keys())

    def test_document_in_the_repository_is_that_of_the_default_settings(self) -> None:
        self.assertEqual(yaml.safe_load(self.client.get('/openapi.yaml').data), DOCUMENT)


class ExampleTest(BaseTestCase):
    """Each example has the name of a situation, which the test causes for every operation that lists the example."""

    settings = {'METRICS': '1', 'API_TOKENS': TOKEN}

    def store_example_users(self):
        """Store the users of the document's list. Every example starts from this state."""
        empty_tables()
        listed = DOCUMENT['paths']['/users']['get']['responses']['200']['content']['application/json']['examples']
        for example in reversed(listed['allUsers']['value']['data']['users']):
            user = User(example['username'], example['email'], datetime.fromisoformat(example['created_at']))
            user.active = example['active']
            db.session.add(user)
            db.session.flush()
        db.session.commit()
        self.first_id = db.session.scalar(db.select(db.func.min(User.id)))
        db.session.rollback()

    def request(self, *, client=None, path=None, method=None, **request):
        """Send the request of the current operation, with a token unless ``headers`` are given."""
        values = {'user_id': self.first_id, 'name': 'swagger-ui.css'}
        path = (path or self.path).format(**values)
        request.setdefault('headers', BEARER)
        return (client or self.client).open(path, method=method or self.method, **request)

    def examples_of_parameters(self, *names):
        """Return the document's examples for these parameters of the query."""
        examples = {name: parameters(self.method, self.path)[name]['example'] for name in names}
        return {name: json.dumps(value) if isinstance(value, bool) else value for name, value in examples.items()}

    def example_of_body(self):
        (example,) = self.operation['requestBody']['content']['application/json']['examples'].values()
        return example['value']

    def request_guarded(self, tokens, **headers):
        return self.request(client=self.client_of(PROTECT='all', API_TOKENS=tokens, METRICS='1'), headers=headers)

    def request_untrusted_host(self) -> TestResponse:
        client = self.client_of(TRUSTED_HOSTS='users.example', API_TOKENS=TOKEN, METRICS='1')
        return self.request(client=client, headers=BEARER | {'Host': 'unknown.example'})

    def request_without_database(self):
        client = self.client_of(SQLALCHEMY_DATABASE_URI=NO_DATABASE, API_TOKENS=TOKEN)
        with self.assertLogs(self.app.logger, 'ERROR'):
            return self.request(client=client, json={'username': 'ann', 'email': 'ann@example.com'})

    def request_without_tables(self):
        with scratch_database() as url:
            app = make_app(SQLALCHEMY_DATABASE_URI=url, API_TOKENS=TOKEN)
            with self.assertLogs(app.logger, 'ERROR'):
                response = self.request(client=app.test_client(), json={'username': 'ann', 'email': 'ann@example.com'})
            dispose(app)
        return response

    def request_defective(self):
        with (
            mock.patch('project.database.Database.read', side_effect=RuntimeError),
            mock.patch('project.database.Database.write', side_effect=RuntimeError),
            self.assertLogs(self.app.logger, 'ERROR'),
        ):
            return self.request(json={'username': 'ann', 'email': 'ann@example.com'})

    def request_again(self):
        return self.request(headers=BEARER | {'If-None-Match': self.request().headers['ETag']})

    SITUATIONS = {
        (200, None): request,
        (200, 'pong'): request,
        (200, 'healthy'): request,
        (200, 'allUsers'): request,
        (200, 'page'): lambda self: self.request(query_string=self.examples_of_parameters('limit')),
        (200, 'lastPage'): lambda self: self.request(query_string=self.examples_of_parameters('limit', 'after')),
        (200, 'lookUp'): lambda self: self.request(
            query_string=self.examples_of_parameters('email', 'username', 'active')
        ),
        (200, 'search'): lambda self: self.request(query_string=self.examples_of_parameters('q', 'count')),
        (200, 'noMatch'): lambda self: self.request(query_string={'username': 'nobody'}),
        (200, 'user'): request,
        (200, 'changed'): lambda self: self.request(json=self.example_of_body()),
        (201, 'added'): lambda self: self.request(json=self.example_of_body()),
        (204, None): request,
        (304, None): request_again,
        (400, 'wrongQuery'): lambda self: self.request(
            query_string='limit=0&after=x&email=%00&username=a&username=b&active=yes&q=a&count=1'
        ),
        (400, 'wrongFields'): lambda self: self.request(json={'email': 'ann'}),
        (400, 'wrongChanges'): lambda self: self.request(json={'username': ' ', 'email': None, 'active': 1}),
        (400, 'noObject'): lambda self: self.request(json=[]),
        (400, 'noJson'): lambda self: self.request(data='username=ann', content_type='text/plain'),
        (400, 'emailTaken'): lambda self: self.request(json={'username': 'ann', 'email': 'Michael@MHerman.org'}),
        (400, 'untrustedHost'): request_untrusted_host,
        (401, 'noToken'): lambda self: self.request_guarded(TOKEN),
        (401, 'wrongToken'): lambda self: self.request_guarded(TOKEN, Authorization='Bearer another'),
        (403, 'noTokens'): lambda self: self.request_guarded('', **BEARER),
        (404, 'noUser'): lambda self: self.request(path='/users/0', json={}),
        (404, 'unknownPath'): lambda self: self.request(path='/docs/unknown'),
        (404, 'metricsOff'): lambda self: self.request(client=self.client_of()),
        (412, 'stale'): lambda self: self.request(headers=BEARER | {'If-Match': '"0"'}, json={}),
        (413, 'tooLarge'): lambda self: self.request(data=b'{}'.ljust(65_537), content_type='application/json'),
        (500, 'defect'): request_defective,
        (503, 'noDatabase'): request_without_database,
        (503, 'outcomeUnknown'): request_without_database,
        (503, 'notReady'): request_without_tables,
    }

    def check(self, response, code, definition, name):
        """Compare a response with its definition and with the example ``name`` in it."""
        self.assertEqual(response.status_code, code, response.text[:500])
        headers = {header: resolve(described) for header, described in definition['headers'].items()}
        actual = set(response.headers.keys()) - (NOT_LISTED - headers.keys())
        self.assertLessEqual(actual, headers.keys())
        self.assertLessEqual({header for header in headers if headers[header].get('required')}, actual)
        for header in actual:
            self.check_header(response.headers[header], headers[header], name)
        if 'content' not in definition:
            self.assertEqual(response.data, b'')
            return
        content = definition['content'][response.mimetype]
        if name is None:
            self.assertTrue(response.data)
            return
        value = content['examples'][name]['value']
        self.assertEqual(steady(json.dumps(response.json, sort_keys=True)), steady(json.dumps(value, sort_keys=True)))
        following = value.get('data', {}).get('next')
        self.assertEqual('Link' in actual, following is not None)

    def check_header(self, value, described, name):
        example = described.get('example') or described['examples'][name]['value']
        self.assertEqual(steady(value), steady(str(example)))

    def test_every_example_is_a_real_response(self):
        seen = set()
        for self.method, self.path, self.operation in operations():
            for status, reference in self.operation['responses'].items():
                if status == '429':
                    continue  # the response of nginx, which heavy/attack.py compares with its example
                definition = resolve(reference)
                content = next(iter(definition.get('content', {}).values()), {})
                for name in content.get('examples', {None: None}):
                    with self.subTest(method=self.method, path=self.path, status=status, example=name):
                        seen.add((int(status), name))
                        self.store_example_users()
                        response = self.SITUATIONS[int(status), name](self)
                        self.check(response, int(status), definition, name)
        self.assertEqual(seen, self.SITUATIONS.keys(), 'situations without an example, or examples without a situation')

    def test_responses_of_any_path_are_as_described(self):
        self.store_example_users()
        unknown = self.client.get('/nothing/here')
        self.check(unknown, 404, DOCUMENT['components']['responses']['UnknownPath'], 'unknownPath')
        other_method = self.client.put(f'/users/{self.first_id}')
        self.assert_failure(other_method, 405, 'Method Not Allowed')
        self.assertEqual(other_method.allow, {'DELETE', 'GET', 'HEAD', 'OPTIONS', 'PATCH'})

    def test_head_has_the_headers_of_get_and_no_body(self):
        self.store_example_users()
        for self.method, self.path, self.operation in operations():
            if self.method != 'GET' or self.path in ('/health', '/metrics'):  # which differ each time
                continue
            with self.subTest(path=self.path):
                get = self.request()
                head = self.request(method='HEAD')
                self.assertEqual(head.status_code, get.status_code)
                self.assertEqual(head.data, b'')
                self.assertEqual(
                    {name: steady(value) for name, value in head.headers},
                    {name: steady(value) for name, value in get.headers},
                )


class DocsTest(BaseTestCase):
    settings = {'PROTECT': 'all', 'API_TOKENS': TOKEN}

    def test_document_needs_no_token(self):
        response = self.client.get('/openapi.yaml')
        self.assertEqual(response.status_code, 200)
        self.assertEqual(response.content_type, 'application/yaml')
        self.assertEqual(yaml.safe_load(response.data)['info'], DOCUMENT['info'])

    def test_page_has_no_script_in_it_and_allows_none(self):
        response = self.client.get('/docs')
        self.assertEqual(response.status_code, 200)
        self.assertEqual(response.content_type, 'text/html; charset=utf-8')
        (policy,) = response.headers.getlist('Content-Security-Policy')
        directives = dict(directive.strip().split(' ', 1) for directive in policy.split(';'))
        self.assertEqual(directives['default-src'], "'none'")
        self.assertEqual(directives['script-src'], "'self'")
        self.assertNotIn('unsafe', policy)
        self.assertEqual(re.findall('<script[^>]*>([^<]+)</script>|<style| on[a-z]+=', response.text), [])

    def test_page_finds_its_files_behind_the_path_of_a_proxy(self):
        links = re.findall('(?:src|href)="([^"]+)"', self.client.get('/docs').text)
        self.assertGreaterEqual({link.removeprefix('docs/') for link in links}, system.DOCS_ASSETS.keys())
        for link in links:
            with self.subTest(link=link):
                # Relative to /docs without a slash, and so to /some/path/docs, too.
                self.assertRegex(link, '^[a-z]')
                self.assertNotIn(':', link)
                self.assertEqual(self.client.get(f'/{link}').status_code, 200)

    def test_only_the_files_of_the_page_are_served(self):
        for name in ('', 'index.css', '../system.py', '..%2fsystem.py', '%2e%2e/system.py', 'swagger-ui.css/'):
            with self.subTest(name=name):
                self.assert_failure(self.client.get(f'/docs/{name}', headers=BEARER), 404)

    def test_file_that_the_client_has_is_not_sent_again(self):
        first = self.client.get('/docs/swagger-ui-bundle.js')
        second = self.client.get('/docs/swagger-ui-bundle.js', headers={'If-None-Match': first.headers['ETag']})
        self.assertEqual((second.status_code, second.data), (304, b''))
        self.assertEqual(second.headers['ETag'], first.headers['ETag'])
