"""The circuit breaker, with a clock that the test sets."""

import threading
import unittest

from project.database.breaker import OPEN_SECONDS, Breaker
from project.database.errors import CircuitOpen, DeadlineExceeded, PoolExhausted, Unavailable


class BreakerTest(unittest.TestCase):
    def setUp(self):
        self.now = 100.0
        self.breaker = Breaker(lambda: self.now)

    def call(self, error=None):
        """Make a call that ends with ``error``, and return whether it was let through."""
        try:
            with self.breaker.watch():
                if error:
                    raise error
        except CircuitOpen:
            return False
        except Exception as raised:
            self.assertIs(raised, error)
        return True

    def test_calls_pass_while_the_database_responds(self):
        for error in (None, Unavailable(), ValueError(), PoolExhausted(), None):
            self.assertTrue(self.call(error))
            self.assertFalse(self.breaker.is_open)
            self.breaker.check()

    def test_timeout_opens_it(self):
        self.call(DeadlineExceeded())
        self.assertTrue(self.breaker.is_open)
        self.assertFalse(self.call())
        self.assertRaises(CircuitOpen, self.breaker.check)

    def test_probe_that_succeeds_or_is_rejected_closes_it(self):
        for error in (None, Unavailable()):
            self.call(DeadlineExceeded())
            self.now += OPEN_SECONDS
            self.breaker.check()
            self.assertTrue(self.call(error))
            self.assertFalse(self.breaker.is_open)

    def test_probe_that_does_not_reach_the_database_keeps_it_open(self):
        for error in (DeadlineExceeded(), PoolExhausted()):
            self.call(DeadlineExceeded())
            self.now += OPEN_SECONDS
            self.assertTrue(self.call(error))
            self.assertFalse(self.call())
            self.now += OPEN_SECONDS
            self.assertTrue(self.call())

    def test_one_probe_passes_at_a_time_however_long_it_takes(self):
        self.call(DeadlineExceeded())
        self.now += OPEN_SECONDS
        with self.breaker.watch():
            self.now += 3600
            self.assertRaises(CircuitOpen, self.breaker.check)
            self.assertFalse(self.call())
        self.assertTrue(self.call())

    def test_of_two_calls_that_look_at_the_same_time_one_is_the_probe(self):
        self.call(DeadlineExceeded())
        self.now += OPEN_SECONDS
        passed, others = [], []

        def now():
            # While the first call decides, a second one tries to; it must wait until the first has decided.
            if not others:
                others.append(threading.Thread(target=lambda: passed.append(self.call())))
                others[0].start()
                others[0].join(0.1)
            return self.now

        self.breaker = Breaker(now)
        self.breaker._retry_at = self.now
        with self.breaker.watch():
            others[0].join()
            self.assertEqual(passed, [False])

    def test_probe_that_is_killed_lets_the_next_one_pass(self):
        self.call(DeadlineExceeded())
        self.now += OPEN_SECONDS
        with self.assertRaises(SystemExit), self.breaker.watch():
            raise SystemExit
        self.assertTrue(self.call())

    def test_calls_that_started_before_it_opened_close_it_when_they_succeed(self):
        with self.breaker.watch():
            self.call(DeadlineExceeded())
            self.assertTrue(self.breaker.is_open)
        self.assertFalse(self.breaker.is_open)
