"""Responses while nodes of a cluster fail behind HAProxy, and behind PgBouncer.

Run by name: ``python manage.py test cluster_proxies``. The module ``cluster`` lists the requirements.
"""

import signal

from project.tests.support.cluster_case import RECOVERY_SECONDS, ClusterCase
from project.tests.support.proxies import HAProxy, PgBouncer
from project.tests.support.servers import HOST, wait_until


class HAProxyTest(ClusterCase):
    """The service knows only HAProxy, which forwards to the leader."""

    with_bouncer = False
    within = RECOVERY_SECONDS

    def setUp(self):
        super().setUp()
        proxy = HAProxy(self.directory, self.patroni)
        port = proxy.port
        for program in (proxy, *([PgBouncer(self.directory, port)] if self.with_bouncer else [])):
            program.start()
            self.addCleanup(program.kill)
            port = program.port
        self.serve(f'postgresql://users@{HOST}:{port}/users')
        wait_until(lambda: self.server.get('/health').status == 200, 20, 'the proxy has found the leader')

    def test_leader_killed(self):
        with self.load():
            self.check_failover(self.patroni.leader.kill, within=self.within)

    def test_only_the_leaders_patroni_paused(self):
        with self.load():
            self.check_failover(lambda: self.patroni.leader.signal(signal.SIGSTOP), within=self.within)

    def test_standbys_paused(self):
        self.check_paused_standbys()


class PgBouncerTest(HAProxyTest):
    """The service knows only PgBouncer, which forwards to HAProxy."""

    with_bouncer = True
    within = RECOVERY_SECONDS + 1  # after a failed connection, PgBouncer waits for server_login_retry
