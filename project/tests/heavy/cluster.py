"""Responses while nodes of a PostgreSQL cluster under Patroni fail: the tests that have found the most defects.

Run by name: ``python manage.py test cluster``. All tests of clusters are ``cluster cluster_more cluster_proxies``.
They need Debian's ``etcd-server``, ``haproxy``, ``pgbouncer`` and ``postgresql``.
"""

import signal
import time

from project.tests.support.cluster_case import MOVE_SECONDS, ClusterCase
from project.tests.support.fault_case import measured


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
        self.check_paused_standbys()
