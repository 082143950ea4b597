"""A log line contains nothing that a client sent: a secret is sent in many places, and then looked for in the log."""

import json
import tempfile

from flask import Flask, request

from project import config, create_app
from project.tests.base import BaseTestCase
from project.tests.support.raw import RawClient
from project.tests.support.secrets import PLACES, SECRET
from project.tests.support.servers import Server


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
        app = 'project.tests.test_log_privacy:failing_app()'
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
