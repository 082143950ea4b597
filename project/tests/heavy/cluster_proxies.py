"""Responses while nodes of a cluster fail behind HAProxy, and behind PgBouncer.

Run by name: ``python manage.py test cluster_proxies``. The module ``cluster`` lists the requirements.
"""

import signal
import time

from project.tests.support.cluster_case import ClusterCase, measured
from project.tests.support.proxies import HAProxy, PgBouncer
from project.tests.support.servers import HOST, wait_until


class ProxyCase(ClusterCase):
    """The service knows only a proxy, which forwards to the leader."""

    def serve_behind(self, bouncer):
        """Start HAProxy, optionally PgBouncer in front of it, and the service."""
        proxy = HAProxy(self.directory, self.patroni)
        port = proxy.port
        for program in (proxy, *([PgBouncer(self.directory, port)] if bouncer else [])):
            program.start()
            self.addCleanup(program.kill)
            port = program.port
        self.serve(f'postgresql://users@{HOST}:{port}/users')
        wait_until(lambda: self.server.get('/health').status == 200, 20, 'the proxy has found the leader')

    def check_paused_standbys(self):
        """Pause all standbys for a while, and check that writes get 503 and reads succeed."""
        standbys = self.patroni.standbys
        with self.load(writers=24):
            started = time.monotonic()
            for standby in standbys:
                standby.freeze()
            time.sleep(10)
            ended = time.monotonic()
            for standby in standbys:
                standby.thaw()
            wait_until(lambda: self.first_success(ended), 20, 'a user is added')
            measured('first 201 after the standbys continue', self.first_success(ended) - ended)
        self.assertIn(503, self.adds.statuses(started, ended))
        during = [response for response in self.reads.responses if started <= response.started < ended]
        self.assertEqual({200}, {response.status for response in during} - {404})
        measured('slowest read meanwhile', max(response.seconds for response in during))


class HAProxyTest(ProxyCase):
    def test_leader_killed(self):
        self.serve_behind(bouncer=False)
        with self.load():
            self.check_failover(self.patroni.leader.kill)

    def test_only_the_leaders_patroni_paused(self):
        self.serve_behind(bouncer=False)
        with self.load():
            self.check_failover(lambda: self.patroni.leader.signal(signal.SIGSTOP))

    def test_standbys_paused(self):
        self.serve_behind(bouncer=False)
        self.check_paused_standbys()


class PgBouncerTest(ProxyCase):
    def test_leader_killed(self):
        self.serve_behind(bouncer=True)
        with self.load():
            self.check_failover(self.patroni.leader.kill)

    def test_standbys_paused(self):
        self.serve_behind(bouncer=True)
        self.check_paused_standbys()
