"""Responses while nodes of a PostgreSQL cluster under Patroni fail: the tests that ``cluster`` leaves out.

Run by name: ``python manage.py test cluster_more``. The module ``cluster`` lists the requirements.
"""

import time

from project.tests.support.cluster_case import ClusterCase
from project.tests.support.servers import wait_until


class MoreFailoversTest(ClusterCase):
    """The URL names all three nodes."""

    def setUp(self):
        super().setUp()
        self.serve()

    def test_only_postgresql_of_the_leader_killed(self):
        with self.load():
            self.check_failover(self.patroni.leader.kill_postgres, moves=False)

    def test_leader_paused_for_30_seconds(self):
        old = self.patroni.leader
        with self.load():
            _, lost = self.check_failover(old.freeze)
            wait_until(lambda: time.monotonic() > lost + 30, 60, '30 s have passed')
            old.thaw()
            time.sleep(5)

    def test_standby_and_then_leader_lost(self):
        # The last node becomes the leader, and can commit when a lost one is back: the strict mode waits for it.
        lost = self.patroni.standbys[0]

        def lose_two():
            lost.kill()
            time.sleep(5)  # commits continue, with the other standby
            self.patroni.leader.kill()
            wait_until(self.patroni.find_leader, 60, 'the last node is the leader')
            lost.start()

        with self.load():
            self.check_failover(lose_two)
