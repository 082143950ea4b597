"""The batcher, with real threads and a function that waits until the test releases it."""

import gc
import threading
import time
import unittest
import weakref
from math import inf
from queue import Queue
from types import SimpleNamespace
from unittest import mock

from project.database import batching
from project.database.batching import Batcher
from project.database.errors import DeadlineExceeded, Unavailable

SECONDS = 10  # seconds, after which a broken batcher fails a test instead of hanging it


class Held:
    """A function for batches that waits in each run until the test releases it."""

    def __init__(self):
        self.started = Queue()  # of the items of each batch
        self.released = threading.Semaphore(0)
        self.outcomes = lambda items: [f'<{item}>' for item in items]

    def __call__(self, items):
        self.started.put(list(items))
        assert self.released.acquire(timeout=SECONDS)
        return self.outcomes(items)


class Caller(threading.Thread):
    """A thread that makes one call, and keeps its result or its exception."""

    def __init__(self, batcher, function, item, end=inf, key='lane'):
        super().__init__(daemon=True)
        self.arguments = (key, function, item, end)
        self.batcher = batcher
        self.result = self.error = None
        self.start()

    def run(self):
        try:
            self.result = self.batcher.run(*self.arguments)
        except BaseException as error:
            self.error = error

    def ended(self):
        """Wait for the end, and return the caller."""
        self.join(SECONDS)
        assert not self.is_alive(), 'the call hangs'
        return self


class BatchingTest(unittest.TestCase):
    def setUp(self):
        self.batcher, self.function = Batcher(), Held()

    def call(self, item, **kwargs):
        """Start a call and wait until it runs or waits."""
        known = self.calls()
        caller = Caller(self.batcher, self.function, item, **kwargs)
        self.wait_until(lambda: self.calls() > known)
        return caller

    def calls(self):
        """The number of calls that wait, and of batches that have started and that the test has not looked at."""
        return self.function.started.qsize() + self.batcher.waiting

    def wait_until(self, condition):
        end = time.monotonic() + SECONDS
        while not condition():
            self.assertLess(time.monotonic(), end)
            time.sleep(0.001)

    def running(self):
        """The items of the next batch, once it has started."""
        return self.function.started.get(timeout=SECONDS)

    def hold_a_batch(self, **kwargs):
        """Start a batch of one that runs until the test releases it."""
        first = self.call('first', **kwargs)
        self.assertEqual(self.running(), ['first'])
        return first

    def test_lone_call_runs_at_once_and_leaves_no_lane(self):
        self.function.released.release(2)
        for _ in range(2):  # the second one would wait in a lane that is left
            self.assertEqual(Caller(self.batcher, self.function, 'a').ended().result, '<a>')
        self.assertEqual(self.batcher.running, 0)

    def test_calls_that_wait_run_together_in_order_of_arrival(self):
        first = self.hold_a_batch()
        waiting = [self.call(name) for name in 'abc']
        self.function.released.release()
        self.assertEqual(first.ended().result, '<first>')
        self.assertEqual(self.running(), ['a', 'b', 'c'])
        self.function.released.release()
        self.assertEqual([caller.ended().result for caller in waiting], ['<a>', '<b>', '<c>'])
        self.assertEqual(self.batcher.running, 0)

    def test_no_call_joins_a_batch_that_has_started(self):
        self.hold_a_batch()
        second = self.call('second')
        self.function.released.release()
        self.assertEqual(self.running(), ['second'])
        third = self.call('third')
        self.function.released.release()
        self.assertEqual(self.running(), ['third'])
        self.function.released.release()
        self.assertEqual((second.ended().result, third.ended().result), ('<second>', '<third>'))

    def test_lanes_run_beside_each_other(self):
        first = self.hold_a_batch()
        other = self.call('other', key='other lane')
        self.assertEqual(self.running(), ['other'])
        self.function.released.release(2)
        self.assertEqual((first.ended().result, other.ended().result), ('<first>', '<other>'))

    def test_turn_is_handed_over_before_a_newcomer_can_take_it(self):
        first = self.hold_a_batch()
        second = self.call('second')
        self.function.released.release()
        first.ended()
        # The first caller has returned. A call that it makes now does not run before the second one, even if that one
        # has not woken up yet.
        again = Caller(self.batcher, self.function, 'again')
        self.assertEqual(self.running()[0], 'second')
        self.function.released.release(2)
        self.assertEqual((second.ended().result, again.ended().result), ('<second>', '<again>'))

    def test_batch_has_a_largest_size(self):
        self.enterContext(mock.patch.object(batching, 'MAX_CALLS', 3))
        self.hold_a_batch()
        waiting = [self.call(number) for number in range(4)]
        self.function.released.release(3)
        self.assertEqual(self.running(), [0, 1, 2])
        self.assertEqual(self.running(), [3])
        for caller in waiting:
            caller.ended()

    def test_exception_of_the_function_is_raised_in_every_call_as_an_object_of_its_own(self):
        first = self.hold_a_batch()
        waiting = [self.call(name) for name in 'abc']
        self.function.released.release()
        first.ended()

        def fail(items):
            raise Unavailable('OperationalError', '57P01')

        self.running()
        self.function.outcomes = fail
        self.function.released.release()
        errors = [caller.ended().error for caller in waiting]
        self.assertEqual([(type(error), error.sqlstate) for error in errors], [(Unavailable, '57P01')] * 3)
        self.assertEqual(len({id(error) for error in errors}), 3)
        self.assertEqual(self.batcher.running, 0)

    def test_exception_that_cannot_be_copied_is_raised_in_one_call_only(self):
        class Uncopyable(Exception):
            def __init__(self, first, second):
                super().__init__()

        def fail(items):
            raise Uncopyable(1, 2)

        self.hold_a_batch()
        waiting = [self.call(name) for name in 'ab']
        self.function.released.release()
        self.running()
        self.function.outcomes = fail
        self.function.released.release()
        self.assertEqual({type(caller.ended().error) for caller in waiting}, {Uncopyable, Unavailable})

    def test_outcome_that_is_an_exception_is_raised_in_its_call_only(self):
        self.hold_a_batch()
        good, bad = self.call('good'), self.call('bad')
        self.function.released.release()
        self.running()
        self.function.outcomes = lambda items: ['fine', ValueError('mine')]
        self.function.released.release()
        self.assertEqual(good.ended().result, 'fine')
        self.assertIsInstance(bad.ended().error, ValueError)

    def test_leader_that_is_killed_leaves_no_call_waiting(self):
        first = self.hold_a_batch()
        waiting = [self.call(name) for name in 'abc']
        self.function.released.release()
        first.ended()
        self.running()
        later = self.call('later')

        def die(items):
            self.function.outcomes = lambda items: items
            raise SystemExit

        self.function.outcomes = die
        self.function.released.release(2)
        errors = [type(caller.ended().error) for caller in waiting]
        self.assertEqual(sorted(error.__name__ for error in errors), ['SystemExit', 'Unavailable', 'Unavailable'])
        self.assertEqual(later.ended().result, 'later')

    def test_wrong_number_of_outcomes_fails_each_call(self):
        self.hold_a_batch()
        waiting = [self.call(name) for name in 'ab']
        self.function.released.release()
        self.running()
        self.function.outcomes = lambda items: ['one']
        self.function.released.release()
        for caller in waiting:
            self.assertIsInstance(caller.ended().error, RuntimeError)
        self.assertEqual(self.batcher.running, 0)

    def test_call_leaves_at_its_deadline_while_the_batch_goes_on(self):
        first = self.hold_a_batch()
        late = self.call('late', end=time.monotonic() + 0.05)
        patient = self.call('patient')
        self.assertIsInstance(late.ended().error, DeadlineExceeded)
        self.function.released.release()
        first.ended()
        self.assertEqual(self.running(), ['patient'])
        self.function.released.release()
        self.assertEqual(patient.ended().result, '<patient>')

    def test_call_leaves_a_batch_that_is_running_at_its_deadline(self):
        first = self.hold_a_batch()
        patient = self.call('patient')
        late = self.call('late', end=time.monotonic() + 0.3)
        self.function.released.release()
        first.ended()
        self.assertEqual(self.running(), ['patient', 'late'])
        self.assertIsInstance(late.ended().error, DeadlineExceeded)
        self.function.released.release()
        self.assertEqual(patient.ended().result, '<patient>')

    def test_call_with_the_latest_deadline_leads(self):
        self.hold_a_batch()
        soon = self.call('soon', end=time.monotonic() + 60)
        latest = self.call('latest', end=time.monotonic() + 90)
        leaders = []
        self.function.outcomes = lambda items: leaders.append(threading.current_thread()) or items
        self.function.released.release(2)
        for caller in (soon, latest):
            caller.ended()
        self.assertEqual(leaders[-1], latest)

    def while_the_leader_lets_others_run(self, call):
        """Make ``call()`` once, in the first leader's thread, before that closes its batch."""
        calls = [call]

        def sleep(seconds):
            if calls:
                calls.pop()()

        clock = SimpleNamespace(monotonic=time.monotonic, sleep=sleep)
        self.enterContext(mock.patch.object(batching, 'time', clock))

    def test_call_joins_a_batch_whose_leader_lets_others_run(self):
        self.while_the_leader_lets_others_run(lambda: self.call('second'))
        Caller(self.batcher, self.function, 'first')
        self.assertEqual(self.running(), ['first', 'second'])

    def test_call_does_not_join_a_leader_that_has_much_less_time(self):
        end = time.monotonic() + 60
        self.while_the_leader_lets_others_run(lambda: self.call('patient', end=end + batching.SLACK_SECONDS + 1))
        first = Caller(self.batcher, self.function, 'first', end)
        self.assertEqual(self.running(), ['first'])
        self.function.released.release()
        first.ended()
        self.assertEqual(self.running(), ['patient'])

    def test_leader_that_is_killed_before_it_closes_its_batch_passes_the_turn_on(self):
        second = []

        def be_killed():
            second.append(self.call('second'))
            raise SystemExit

        self.while_the_leader_lets_others_run(be_killed)
        first = Caller(self.batcher, self.function, 'first')
        self.assertEqual(self.running(), ['second'])
        self.function.released.release()
        self.assertEqual(second[0].ended().result, '<second>')
        self.assertIsInstance(first.ended().error, SystemExit)
        self.assertEqual(self.batcher.running, 0)

    def test_outcomes_are_freed_without_the_garbage_collector(self):
        class Outcome:
            pass

        outcome = Outcome()
        freed = weakref.ref(outcome)
        self.function.outcomes = lambda items: [outcome] * len(items)
        gc.disable()
        self.addCleanup(gc.enable)
        first = self.hold_a_batch()
        waiting = [self.call(name) for name in 'abc']
        self.function.released.release(2)
        for caller in (first, *waiting):
            caller.ended().result = None
        self.function.outcomes = outcome = None
        self.assertIsNone(freed())

    def test_function_that_calls_its_own_lane_gets_an_error(self):
        def enter_again(items):
            return [self.batcher.run('lane', enter_again, 'again', inf)]

        error = Caller(self.batcher, enter_again, 'a').ended().error  # in a thread, in case that it hangs
        self.assertIsInstance(error, RuntimeError)
        self.assertIn('its own lane', str(error))
        self.assertEqual(self.batcher.running, 0)
