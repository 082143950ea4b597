"""Tests that need gevent's patches. These stay in force, so ``test_greenlets.py`` runs this module in a process.

Greenlets switch only where they wait, so each step below happens in the order in which it is written.
"""

import threading
import time
import unittest
from typing import Any

import gevent
from gevent import monkey

from project.database import connecting
from project.database.batching import Batcher
from project.database.errors import DeadlineExceeded
from project.tests import test_database

stop_all_greenlets = monkey.get_original('time', 'sleep')


class LeaderTest(unittest.TestCase):
    """A leader that is lost after the turn was passed to it, and before it has woken up."""

    def setUp(self) -> None:
        self.batcher, self.hold = Batcher(), threading.Semaphore(0)
        self.batches: list[list[str]] = []
        self.before_the_first_batch_ends = self.before_the_second_batch_ends = lambda: None

    def function(self, items: list[str]) -> list[str]:
        """Run a batch; the first one waits for the test."""
        self.batches.append(items)
        if items == ['first']:
            self.hold.acquire()
            self.before_the_first_batch_ends()
        elif len(self.batches) == 2:
            self.before_the_second_batch_ends()
        return items

    def call(self, item: str, seconds: float) -> Any:
        """Start a call with a deadline in a greenlet, and let it run until it waits."""

        def attempt(end: float) -> str:
            try:
                return self.batcher.run('lane', self.function, item, end)
            except DeadlineExceeded:
                return 'late'

        greenlet = gevent.spawn(attempt, time.monotonic() + seconds)
        gevent.idle()
        return greenlet

    def end(self, *calls: Any) -> None:
        """Let the first batch end, and check that the lane works afterwards."""
        self.hold.release()
        gevent.joinall(calls, timeout=5)
        after = self.call('after', 60)
        after.join(5)
        self.assertEqual(after.value, 'after')
        self.assertEqual(self.batcher.running, 0)

    def test_leader_that_is_killed_passes_the_turn_on(self) -> None:
        first, other, leader = self.call('first', 60), self.call('other', 30), self.call('leader', 60)
        self.before_the_first_batch_ends = lambda: leader.kill(block=False)
        self.end(first, other, leader)
        self.assertIsInstance(leader.value, gevent.GreenletExit)
        self.assertEqual(self.batches, [['first'], ['other'], ['after']])

    def test_leaders_that_are_late_pass_the_turn_on_alone(self) -> None:
        first, other, leader = self.call('first', 60), self.call('other', 0.1), self.call('leader', 0.15)
        self.before_the_first_batch_ends = lambda: stop_all_greenlets(0.2)
        self.end(first, other, leader)
        self.assertEqual((other.value, leader.value), ('late', 'late'))
        self.assertEqual(self.batches, [['first'], ['after']])

    def test_outcome_that_arrives_with_the_deadline_is_returned(self) -> None:
        first, other, leader = self.call('first', 60), self.call('other', 0.1), self.call('leader', 60)
        self.before_the_second_batch_ends = lambda: stop_all_greenlets(0.2)
        self.end(first, other, leader)
        self.assertEqual((other.value, leader.value), ('other', 'leader'))


class WaitingTest(test_database.WaitingTest):
    """The wait for a socket, in greenlets."""

    def test_sockets_are_waited_for_by_gevent(self) -> None:
        self.assertEqual(connecting._wait_for_socket.__code__.co_names[0], 'wait_read')
