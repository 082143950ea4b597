"""Responses of several instances: behind nginx while one of them ends, and when their clocks differ.

Run by name: ``python manage.py test instances``. It needs Debian's ``nginx-light``, ``faketime`` and ``postgresql``.
"""

import itertools
import os
import time
from pathlib import Path

from project.tests.support.clients import Client
from project.tests.support.fault_case import FaultCase
from project.tests.support.histories import check
from project.tests.support.loads import Load
from project.tests.support.nginx import Nginx
from project.tests.support.recorder import Recorder
from project.tests.support.servers import wait_until

UNLIMITED = {'REQUESTS_PER_SECOND': '9999', 'ADDITIONS_PER_SECOND': '9999'}
CLOCK_SECONDS = 5


class NginxTest(FaultCase):
    """Three instances behind nginx, under load from 10 clients that add users and 8 that read them."""

    def setUp(self):
        super().setUp()
        self.cluster = self.shared_cluster('max_connections=200')
        self.instances = [
            self.start_server(self.cluster.dsn(), migrate=False, PROXY_HOPS='1', WEB_CONCURRENCY='1') for _ in range(3)
        ]
        self.nginx = Nginx(self.directory, *(instance.port for instance in self.instances), **UNLIMITED)
        self.addCleanup(self.nginx.stop)
        self.nginx.start()
        self.recorder = Recorder(Client(self.nginx.port))
        self.recorder.add()

    def check(self, fault, failing):
        """Cause a fault under load; at most ``failing`` POSTs may fail, and no GET."""
        adds, reads = Load(self.recorder.add, 8), Load(self.recorder.read, 6)
        contests, pages = Load(self.recorder.contest, 2), Load(self.recorder.page, 2, 0.05)
        with adds, reads, contests, pages:
            wait_until(lambda: len(adds.responses) > 100, 30, 'users are added')
            fault()
            since = time.monotonic()
            wait_until(lambda: adds.statuses(since).count(201) > 200, 30, 'users are added')
        for load in (reads, pages):
            self.assert_promised(load, {200})
        self.assertEqual([], adds.failures + contests.failures)
        self.assertEqual({201, 400}, set(contests.statuses()) - ({502} if failing else set()))
        posts = adds.responses + contests.responses
        failed = [response for response in posts if response.status not in (201, 400)]
        print(f'  measured: {self.id().rpartition(".")[2]}: {len(failed)} of {len(posts)} POSTs failed')
        self.assertLessEqual(len(failed), failing)
        self.assertLessEqual({response.status for response in failed}, {502})
        self.assertLess(max(response.seconds for response in adds.responses), 6)
        self.assertEqual(200, self.recorder.read_all().status)
        self.assertEqual([], check(self.recorder.history)[:5])

    def test_one_of_three_instances_killed(self):
        # Each of the 10 clients waits for one response at a time, so the killed instance holds at most 10 POSTs.
        self.check(self.instances[0].kill, failing=10)

    def test_one_of_three_instances_stopped(self):
        self.check(self.instances[0].stop, failing=0)


class ClocksTest(FaultCase):
    def test_clocks_of_two_instances_differ(self):
        libraries = sorted(Path('/usr/lib').glob('*/faketime/libfaketime.so.1'))
        if not libraries:
            raise RuntimeError('this test needs faketime: apt-get install faketime')
        late = {'LD_PRELOAD': str(libraries[0]), 'FAKETIME': f'-{CLOCK_SECONDS}s'}
        url = self.shared_cluster().dsn()
        secret = {'SECRET_KEY': os.urandom(24).hex(), 'WEB_CONCURRENCY': '1'}
        instances = [self.start_server(url, migrate=False, **secret, **fake) for fake in ({}, late)]
        recorder = Recorder(*instances)
        for _ in range(40):
            recorder.add()
        timestamps = [user['created_at'] for user in self.users(instances[0], '/users')]
        self.assertEqual(sorted(timestamps, reverse=True), timestamps)
        ids = [user['id'] for user in self.users(instances[0], '/users')]
        self.assertNotEqual(sorted(ids, reverse=True), ids, 'the clocks do not differ')
        with Load(recorder.add, 4) as adds:
            for _ in range(10):
                before = set(recorder.existing)
                paged = self.page_through(instances)
                self.assertEqual(len(paged), len(set(paged)), 'a user was repeated')
                self.assertEqual(set(), before - set(paged), 'a user was skipped')
        self.assertEqual({201}, set(adds.statuses()))
        recorder.read_all()
        self.assertEqual([], check(recorder.history)[:5])

    def users(self, instance, path):
        return instance.get(path).body['data']['users']

    def page_through(self, instances):
        """Return the ids of all users, read in pages from each of the instances in turn."""
        found, path = [], '/users?limit=7'
        for instance in itertools.cycle(instances):
            data = instance.get(path).body['data']
            found += [user['id'] for user in data['users']]
            path = data.get('next')
            if path is None:
                return found
