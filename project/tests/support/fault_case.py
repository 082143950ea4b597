"""The base of the tests of faults: clusters and servers that end with the test, and checks of the responses."""

import shutil
import tempfile
import unittest
from collections.abc import Collection
from pathlib import Path
from typing import Any

from project.tests.support.clusters import Cluster
from project.tests.support.loads import Load
from project.tests.support.servers import Server, manage

PROMISED_SECONDS = 6.0  # the time within which every response is complete, whatever fails
# PostgreSQL logs it for a statement that the service has cancelled. A COMMIT that is cancelled while it waits for a
# standby would be reported as a success. The limited wait for locks cancels nothing that was committed.
CANCELED = 'canceling (?!statement due to lock timeout)'


def measured(what: str, seconds: float) -> None:
    """Print a figure, such as one for the table in docs/operating.md."""
    print(f'  measured: {what}: {seconds * 1000:.0f} ms', flush=True)


class FaultCase(unittest.TestCase):
    """A test with processes of its own, which all end with the test."""

    cluster: Cluster
    server: Server

    def setUp(self) -> None:
        """Make a directory for the test."""
        self.directory = Path(tempfile.mkdtemp(prefix='users-faults-'))
        self.directory.chmod(0o755)  # PostgreSQL runs as another user when this runs as root
        self.addCleanup(shutil.rmtree, self.directory, ignore_errors=True)

    @classmethod
    def shared_cluster(cls, *settings: str) -> Cluster:
        """Return a running cluster that all tests of the class share, with an empty table of users for each test."""
        if 'cluster' not in cls.__dict__:
            directory = Path(tempfile.mkdtemp(prefix='users-faults-'))
            directory.chmod(0o755)
            cls.addClassCleanup(shutil.rmtree, directory, ignore_errors=True)
            cls.cluster = Cluster(directory / 'cluster', *settings)
            cls.addClassCleanup(cls.cluster.kill)
            cls.cluster.start()
            manage(cls.cluster.dsn(), 'db', 'upgrade')
            cls.cluster.sql('ALTER DATABASE users RENAME TO empty', database='postgres')
        if not cls.cluster.is_ready():
            cls.cluster.start()
        cls.cluster.sql('DROP DATABASE IF EXISTS users WITH (FORCE)', database='postgres')
        cls.cluster.sql('CREATE DATABASE users TEMPLATE empty', database='postgres')
        return cls.cluster

    def start_cluster(self, name: str, *settings: str, **options: Any) -> Cluster:
        """Return a new running cluster; arguments as for :class:`Cluster`."""
        cluster = Cluster(self.directory / name, *settings, **options)
        self.addCleanup(cluster.kill)
        cluster.start()
        return cluster

    def start_server(self, url: str, migrate: bool = True, **options: Any) -> Server:
        """Return the running service.

        :param url: of its database.
        :param migrate: whether to make the tables first.
        :param options: as for :class:`Server`.
        """
        if migrate:
            manage(url, 'db', 'upgrade')
        server = Server(self.directory, url, **options)
        self.addCleanup(server.kill)
        server.start()
        return server

    def check_missing_table(self, url: str) -> None:
        """Undo the migrations under the running service, and apply them again; the service reports it, and recovers."""
        self.assertEqual(200, self.server.get('/health').status)
        manage(url, 'db', 'downgrade', 'base', '--force')
        for response in (self.server.get('/health'), self.server.get('/users'), self.server.post('ann@example.com')):
            self.assertEqual(503, response.status)
            self.assertIn('"python manage.py db upgrade"', response.body['message'])
        manage(url, 'db', 'upgrade')
        self.assertEqual(200, self.server.get('/health').status)
        self.assertEqual(201, self.server.post('ann@example.com').status)

    def assert_promised(self, load: Load, statuses: Collection[int]) -> None:
        """Check that every client got a JSON response in time, with one of ``statuses``; a 503 has Retry-After."""
        self.assertEqual([], load.failures[:3], 'clients without a response')
        self.assertLessEqual({response.status for response in load.responses}, set(statuses))
        self.assertLess(max(response.seconds for response in load.responses), PROMISED_SECONDS)
        for response in load.responses:
            if response.status == 503:
                self.assertEqual('error', response.body['status'])
                self.assertGreaterEqual(int(response.headers['Retry-After']), 1)

    def assert_quick(self, load: Load, what: str) -> None:
        """Check that responses take under 100 ms in the median, and that all take under a second.

        Only the median has the lower limit, since other programs share the machine with the test.
        """
        self.assertEqual([], load.failures[:3], 'clients without a response')
        seconds = sorted(response.seconds for response in load.responses)
        measured(f'{what}, median', seconds[len(seconds) // 2])
        measured(f'{what}, slowest of {len(seconds)}', seconds[-1])
        self.assertGreater(len(seconds), 20)
        self.assertLess(seconds[len(seconds) // 2], 0.1)
        self.assertLess(seconds[-1], 1.0)
