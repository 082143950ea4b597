"""A log line contains nothing that a client sent: a secret is sent in many places, and then looked for in the log."""

import json
import tempfile
import urllib.request
from pathlib import Path

from flask import Flask, request

from project import config, create_app
from project.tests.base import BaseTestCase
from project.tests.support.nginx import Nginx
from project.tests.support.raw import RawClient
from project.tests.support.secrets import PLACES, SECRET
from project.tests.support.servers import HOST, Server
from project.tests.test_headers import TRACE, TRACEPARENTS


def failing_app() -> Flask:
    """Return an app with a view that fails, with an exception about the request; gunicorn calls this function."""
    app = create_app()

    @app.get('/fail/<text>')
    def fail(text: str) -> str:
        try:
            raise KeyError(text)
        except KeyError as error:
            raise RuntimeError(request.url) from error

    return app


class LogPrivacyTest(BaseTestCase):
    def test_no_log_line_contains_what_a_client_sent(self):
        folder = self.enterContext(tempfile.TemporaryDirectory())
        url = config.TestingConfig.SQLALCHEMY_DATABASE_URI
        app = 'project.tests.heavy.log_privacy:failing_app()'
        server = Server(folder, url, app=app, WEB_CONCURRENCY='1', LOG_LEVEL='DEBUG')
        self.addCleanup(server.kill)
        server.start()
        failing = b'GET /fail/' + SECRET + b' HTTP/1.1\r\nHost: x\r\n\r\n'
        for data in [*PLACES.values(), failing]:
            with RawClient(server.port) as client:
                client.send(data)
                client.socket.shutdown(1)  # the end of what is cut off
                while client.socket.recv(10_000):
                    pass
        server.stop()
        self.assertGreater(len(PLACES), 40)
        log = server.log()
        self.assertNotIn(SECRET.decode().lower(), log.lower())
        lines = [json.loads(line) for line in log.splitlines()]
        events = {line['event'] for line in lines}
        self.assertLessEqual({'request', 'request_rejected', 'exception'}, events)
        self.assertIn('other', {line.get('method') for line in lines})
        failures = [line for line in lines if line['event'] == 'exception']
        self.assertEqual(len(failures), 1, failures)
        failure = failures[0]
        self.assertEqual(failure['route'], '/fail/<text>')
        self.assertRegex(
            failure['traceback'], r'(?s)raise KeyError\(text\)\nbuiltins.KeyError\n.*builtins.RuntimeError\n$'
        )


class TraceTest(BaseTestCase):
    def test_trace_id_of_a_valid_traceparent_is_in_the_lines_of_nginx_and_of_the_service(self):
        folder = Path(self.enterContext(tempfile.TemporaryDirectory()))
        server = Server(folder, config.TestingConfig.SQLALCHEMY_DATABASE_URI, WEB_CONCURRENCY='1')
        self.addCleanup(server.kill)
        server.start()
        nginx = Nginx(folder, server.port)
        self.addCleanup(nginx.stop)
        nginx.start()
        for number, sent in enumerate(TRACEPARENTS):
            request = urllib.request.Request(
                f'http://{HOST}:{nginx.port}/users', headers={'X-Request-ID': str(number), 'traceparent': sent}
            )
            with urllib.request.urlopen(request, timeout=20) as response:
                self.assertEqual(response.status, 200)
        nginx.stop()
        server.stop()
        for log in (server.log(), nginx.log()):
            lines = {line.get('request_id'): line for line in map(json.loads, log.splitlines())}
            for number, (sent, valid) in enumerate(TRACEPARENTS.items()):
                with self.subTest(sent=sent):
                    self.assertEqual(lines[str(number)].get('trace_id') or None, TRACE if valid else None)


class TokenNameTest(BaseTestCase):
    def test_log_line_of_a_change_has_the_name_of_the_token(self):
        folder = self.enterContext(tempfile.TemporaryDirectory())
        tokens = {'': 'a' * 32, 'ops': 'b' * 32, 'sync': 'c' * 32}
        items = [f'{name}:{token}'.lstrip(':') for name, token in tokens.items()]
        url = config.TestingConfig.SQLALCHEMY_DATABASE_URI
        server = Server(folder, url, WEB_CONCURRENCY='1', API_TOKENS=','.join(items))  # POST needs no token
        self.addCleanup(server.kill)
        server.start()
        expected = []
        # Clients may send an item of API_TOKENS as it is, too.
        for number, (name, token) in enumerate([*tokens.items(), ('sync', items[-1])]):
            bearer = {'Authorization': f'Bearer {token}'}
            payload = {'username': 'ann', 'email': f'{number}@example.com'}
            user = server.request('POST', '/users', payload, **bearer).body['data']
            server.request('PATCH', f'/users/{user["id"]}', {'active': True}, **bearer)
            self.assertEqual(server.request('DELETE', f'/users/{user["id"]}', **bearer).status, 204)
            expected += [(method, name or None, user['id']) for method in ('POST', 'PATCH', 'DELETE')]
        for wrong in ('ops', f'sync:{tokens["ops"]}', 'd' * 32):
            self.assertEqual(server.request('DELETE', '/users/1', Authorization=f'Bearer {wrong}').status, 401)
        server.stop()
        lines = [json.loads(line) for line in server.log().splitlines()]
        changes = [line for line in lines if line.get('method') in ('POST', 'PATCH', 'DELETE') and line['status'] < 400]
        self.assertEqual([(line['method'], line.get('token'), line['user_id']) for line in changes], expected)
        for token in tokens.values():
            self.assertNotIn(token, server.log())
