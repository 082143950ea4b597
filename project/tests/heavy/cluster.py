"""Responses while nodes of a PostgreSQL cluster under Patroni fail: the tests that have found the most defects.

Run by name: ``python manage.py test cluster``. All tests of clusters are ``cluster cluster_more cluster_proxies``.
They need Debian's ``etcd-server``, ``haproxy``, ``pgbouncer`` and ``postgresql``.
"""

import signal
import time

from project.tests.support.cluster_case import MOVE_SECONDS, ClusterCase, measured
from project.tests.support.loads import Load
from project.tests.support.servers import wait_until


class FailoverTest(ClusterCase):
    """The URL names all three nodes."""

    def setUp(self):
        super().setUp()
        self.serve()

    def test_leader_killed(self):
        with self.load():
            self.check_failover(self.patroni.leader.kill)

    def test_switchover(self):
        with self.load():
            self.check_failover(self.patroni.switch_over)

    def test_etcd_down_for_20_seconds(self):
        with self.load():
            started = time.monotonic()
            self.patroni.etcd.signal(signal.SIGSTOP)
            time.sleep(20)
            self.patroni.etcd.signal(signal.SIGCONT)
            time.sleep(5)
        measured('etcd down, longest time without a 201', self.longest_gap(started))
        self.assertEqual({201}, set(self.adds.statuses(started)))
        self.assertEqual({200}, set(self.reads.statuses(started)) - {404})


class TwoPrimariesTest(ClusterCase):
    def test_only_the_leaders_patroni_paused(self):
        self.serve()
        old = self.patroni.leader
        with self.load():
            # Writes that wait for the old primary end first, each at its deadline.
            leader, _ = self.check_failover(lambda: old.signal(signal.SIGSTOP), within=MOVE_SECONDS)
            self.assertTrue(old.is_primary(), 'there are two primaries')
            promoted = self.commits.promotions[leader]
            first = self.first_success(promoted) - promoted
            measured("only the leader's Patroni paused, from the promotion to the first 201", first)
            self.assertLess(first, MOVE_SECONDS)


class PausedStandbyTest(ClusterCase):
    def test_one_standby_paused_with_24_writers(self):
        self.serve()
        with self.load(writers=24):
            started = time.monotonic()
            self.patroni.standbys[0].freeze()
            time.sleep(8)
        self.assertEqual({201}, set(self.adds.statuses(started)))
        measured('one standby paused, longest time without a 201', self.longest_gap(started))

    def test_all_standbys_paused_with_24_writers(self):
        self.serve()
        standbys = self.patroni.standbys
        with self.load(writers=24), Load(lambda: self.server.get('/users?limit=5'), 2) as lists:
            started = time.monotonic()
            for standby in standbys:
                standby.freeze()
            time.sleep(10)
            ended = time.monotonic()
            for standby in standbys:
                standby.thaw()
            wait_until(lambda: self.first_success(ended), 20, 'a user is added')
            healed = self.first_success(ended) - ended
            wait_until(lambda: time.monotonic() > ended + 3, 20, 'time passes')
        measured('all standbys paused, first 201 after they continue', healed)
        self.assertIn(503, self.adds.statuses(started, ended))
        for load in (self.reads, lists):
            during = [response for response in load.responses if started <= response.started < ended]
            self.assertEqual({200}, {response.status for response in during} - {404})
            self.assertGreater(len(during), 100)
            slowest = max(response.seconds for response in during)
            measured('all standbys paused, slowest read', slowest)
            self.assertLess(slowest, 1)
