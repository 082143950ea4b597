"""Test apps under gunicorn: one whose list fails in the middle, and one that reports gunicorn's replaced parts."""

import gc
import http.client
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from unittest import mock

from project import create_app
from project.api import users
from project.tests.base import ROOT
from project.tests.test_server import ServerTestCase

# gunicorn's master runs its configuration at start, and again on HUP.
RELOAD = """
import runpy, sys
from pathlib import Path

runpy.run_path('gunicorn.conf.py')
before = sys.modules['serving.worker'].Worker
with Path('project/serving/worker.py').open('a') as file:
    file.write('CHANGED = True\\n')
config = runpy.run_path('gunicorn.conf.py')
print(sys.modules['serving.worker'].CHANGED, config['worker_class'] is not before)
"""
error_streams = []
computed = []  # the names of the settings that gunicorn has computed since the last request


def look_at_gunicorn(environ, start_response):
    """Respond with what this worker of gunicorn uses: the type of its server, its error streams, and its settings."""
    from gevent.server import StreamServer
    from gunicorn.config import Config

    if not error_streams:
        compute = Config.__getattr__
        Config.__getattr__ = lambda self, name: computed.append(name) or compute(self, name)
    error_streams.append(environ['wsgi.errors'])
    servers = [type(one).__name__ for one in gc.get_objects() if isinstance(one, StreamServer)]
    streams = len({id(one) for one in error_streams})
    body = json.dumps({'servers': servers, 'error_streams': streams, 'computed': computed}).encode()
    computed.clear()
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
    """gunicorn uses the replacements that project/serving/worker.py makes."""

    served, workers = 'project.tests.heavy.served:look_at_gunicorn', 1
    changes = "from serving import worker; worker.date_of = lambda second: 'one date'"

    def test_gunicorn_uses_the_replacements(self):
        for _ in range(3):
            response = self.server.get('/')
        self.assertEqual(response.headers['Date'], 'one date')
        self.assertEqual(response.body, {'servers': ['Server'], 'error_streams': 1, 'computed': []})

    def test_new_code_is_loaded_on_hup(self):
        with tempfile.TemporaryDirectory() as folder:
            shutil.copy(ROOT / 'gunicorn.conf.py', folder)
            shutil.copytree(ROOT / 'project/serving', Path(folder, 'project/serving'))
            command = [sys.executable, '-B', '-c', RELOAD]  # -B: write no bytecode
            done = subprocess.run(command, check=False, cwd=folder, capture_output=True, text=True, timeout=60)
        self.assertEqual((done.stderr, done.stdout), ('', 'True True\n'))
