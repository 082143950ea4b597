"""Apps of the tests under gunicorn: a list that fails in the middle, and what gunicorn uses of project/serving."""

import gc
import http.client
import json
from unittest import mock

from project import create_app
from project.api import users
from project.tests.test_server import ServerTestCase

error_streams = []


def look_at_gunicorn(environ, start_response):
    """Respond with what this worker of gunicorn uses: the type of its server, and the number of its error streams."""
    from gevent.server import StreamServer

    error_streams.append(environ['wsgi.errors'])
    servers = [type(one).__name__ for one in gc.get_objects() if isinstance(one, StreamServer)]
    body = json.dumps({'servers': servers, 'error_streams': len({id(one) for one in error_streams})}).encode()
    start_response('200 OK', [('Content-Type', 'application/json'), ('Content-Length', str(len(body)))])
    return [body]


def broken_app():
    """Return an app whose database fails in the middle of a long list; gunicorn calls this function."""

    def stream(*args):
        yield [(1, 'first', 'first@example.com', False, '2026-01-01T00:00:00.000000Z')]
        yield [(2, 'second', 'second@example.com', False, '2026-01-01T00:00:00.000000Z')]
        raise RuntimeError('in the middle')

    mock.patch('project.database.Database.stream', stream).start()
    mock.patch.object(users, 'STREAM_ROWS', 2).start()
    return create_app()


class BrokenServerTest(ServerTestCase):
    served, workers = 'project.tests.heavy.served:broken_app()', 1

    def test_list_that_fails_in_the_middle_does_not_look_complete(self):
        self.store_users(4)
        with self.assertRaises(http.client.IncompleteRead) as raised:
            self.server.get('/users')
        self.assertIn(b'first', raised.exception.partial)
        self.assertIn(b'second', raised.exception.partial)
        with self.assertRaises(ValueError):
            json.loads(raised.exception.partial)
        self.assertEqual(self.server.get('/ping').status, 200)


class ReplacementsTest(ServerTestCase):
    """What project/serving/worker.py replaces in gunicorn, which has no settings for it."""

    served, workers = 'project.tests.heavy.served:look_at_gunicorn', 1
    changes = "from serving import worker; worker.date_of = lambda second: 'one date'"

    def test_gunicorn_uses_the_replacements(self):
        for _ in range(2):
            response = self.server.get('/')
        self.assertEqual(response.headers['Date'], 'one date')
        self.assertEqual(response.body, {'servers': ['Server'], 'error_streams': 1})
