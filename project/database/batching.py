"""Run calls that wait at the same time together.

Under load, many requests of one process wait for the database at the same time. Run one by one, each
pays for a round trip and a connection. Run together, they pay once. The rule:

    A call that arrives while no batch of its lane is running leads one.
    A call that arrives while one is running waits, and runs in the next batch with all others that wait.

There is no timer. A leader only lets those threads run first that are ready, because they may bring calls for its
batch. An idle service sends each statement at once. No result comes from a statement that was sent before
its call arrived. Nothing is cached.

The race, from start to end, with one lane and the calls A, B and C:

1. A arrives. The lane is idle, so A leads. No other thread is ready, so A closes a batch of one, and runs the function
   with ``[a]``.
2. B and C arrive while A's function runs. Both wait, each on a lock of its own.
3. A's function ends. Before A returns, it passes the turn on: it wakes B to lead. The lane never becomes idle in
   between, so that a newcomer cannot overtake B and C.
4. B lets the ready threads run, and D arrives with one of them. B closes the batch [B, C, D], and runs the function
   with ``[b, c, d]``. A call that arrives from here on waits for the next batch.
5. B stores an outcome for each call, wakes C and D, and passes the turn on as A did. If no call waits by then, the
   lane is removed.

The batcher handles these cases:

* The call with the latest deadline leads, and its batch has no calls whose deadline is later by more than
  ``SLACK_SECONDS``. So no call fails because its leader runs out of time.
* A call whose deadline passes leaves. If its batch is already running, the batch continues without it.
* The leader's function may raise, or the leader's greenlet may be killed. Each call of the batch then raises an
  exception of its own, and the turn passes on.
* A leader that is killed or late before it has closed its batch leaves, and another call that waits leads.
* The function must not call its own lane: it would wait for itself. That raises :class:`RuntimeError`.

The same code serves threads and, because gunicorn's worker patches ``threading`` and ``time``, gevent's greenlets.
"""

import contextlib
import copy
import threading
import time
from collections.abc import Callable, Hashable, Sequence
from math import inf
from typing import Any

from project.database.errors import DeadlineExceeded, Unavailable

MAX_CALLS = 500  # calls of one batch; SQLite allows 32,766 parameters in a statement
SLACK_SECONDS = 0.5  # the time by which a call's deadline may be later than its leader's
TURNS = 2  # of all ready threads before a batch: they send responses, and then find the next requests of those clients


class _Call:
    """One call, from its arrival to its outcome."""

    __slots__ = ('done', 'end', 'item', 'leads', 'outcome', 'wake')

    def __init__(self, item: Any, end: float) -> None:
        self.item = item
        self.end = end  # on the monotonic clock
        self.wake: Any = None  # a lock, if the call has to wait; released when it has an outcome, or leads
        self.leads = False
        self.done = False
        self.outcome: Any = None


class _Lane:
    """The calls of one key. The lane exists as long as one of them leads."""

    __slots__ = ('leader', 'waiting')

    def __init__(self) -> None:
        self.leader: int | None = None  # the thread that leads
        self.waiting: list[_Call] = []  # those that are in no batch yet, in the order of their arrival


class Batcher:
    """Runs the calls of each lane in batches, one batch at a time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lanes: dict[Hashable, _Lane] = {}

    @property
    def waiting(self) -> int:
        """The number of calls that wait for their batch to start, not counting the leaders."""
        return sum(not call.leads for lane in list(self._lanes.values()) for call in list(lane.waiting))

    @property
    def running(self) -> int:
        """The number of batches that are running, each in its lane."""
        return sum(lane.leader is not None for lane in list(self._lanes.values()))

    def run(self, key: Hashable, function: Callable[[list[Any]], Sequence[Any]], item: Any, end: float) -> Any:
        """Run ``function`` for ``item``, together with the other calls that wait in the same lane.

        :param key: names the lane. All calls with one key pass equivalent functions, since a batch runs one of them.
        :param function: takes the items of a batch. Returns one outcome for each, in the same order; an outcome
            that is an exception is raised in its call. Outcomes may be shared between calls: do not change them.
        :param item: the item of this call.
        :param end: the call's deadline in seconds on the monotonic clock.
        :returns: the outcome.
        :raises DeadlineExceeded: the deadline passed while the call waited.
        :raises Unavailable: the leader of the batch was killed.
        :raises RuntimeError: ``function`` has called its own lane.
        """
        call = _Call(item, end)
        with self._lock:
            lane = self._lanes.get(key)
            if lane is None:
                lane = self._lanes[key] = _Lane()
                call.leads = True
            elif lane.leader == threading.get_ident():
                raise RuntimeError('the function of a batch must not call its own lane')
            else:
                call.wake = threading.Lock()
                call.wake.acquire()
            lane.waiting.append(call)
        if not call.leads:
            self._wait(key, lane, call)
        if not call.done:
            self._lead(key, lane, call, function)
        if isinstance(call.outcome, BaseException):
            raise call.outcome
        return call.outcome

    def _wait(self, key: Hashable, lane: _Lane, call: _Call) -> None:
        """Wait until the call has an outcome or leads a batch; leave when its deadline passes."""
        try:
            woken = call.wake.acquire(timeout=-1 if call.end == inf else max(0.0, call.end - time.monotonic()))
        except BaseException:  # such as GreenletExit, which is raised in a greenlet that is killed
            self._leave(key, lane, call)
            raise
        late = not woken or time.monotonic() >= call.end
        if late and self._leave(key, lane, call):
            raise DeadlineExceeded

    def _leave(self, key: Hashable, lane: _Lane, call: _Call) -> bool:
        """Leave the lane or the running batch; return whether the call has no outcome."""
        with self._lock:
            if call.done:
                return False
            if call in lane.waiting:
                lane.waiting.remove(call)
            if call.leads:
                self._pass_on(key, lane)
            return True

    def _lead(self, key: Hashable, lane: _Lane, call: _Call, function: Callable[[list[Any]], Sequence[Any]]) -> None:
        """Run the function for a batch, store the outcomes, and pass the turn on."""
        try:
            for _ in range(TURNS):
                time.sleep(0)
        except BaseException:  # such as GreenletExit
            self._leave(key, lane, call)
            raise
        batch, later = [], []
        with self._lock:  # a call that leaves after this is part of the batch all the same
            for member in lane.waiting:
                fits = member.end <= call.end + SLACK_SECONDS and len(batch) < MAX_CALLS
                (batch if fits else later).append(member)
            lane.waiting = later
            lane.leader = threading.get_ident()
        outcomes: Sequence[Any] = ()
        error: BaseException | None = None
        try:
            outcomes = function([member.item for member in batch])
            if len(outcomes) != len(batch):
                raise RuntimeError('the function of a batch must return an outcome for each of its items')
        except BaseException as reason:
            error = reason
            raise
        finally:
            with self._lock:
                lane.leader = None
                for number, member in enumerate(batch):
                    member.outcome = _own(error) if error else outcomes[number]
                    member.done = True
                    if member is not call:
                        member.wake.release()
                self._pass_on(key, lane)
            error = None  # else a reference cycle would keep the frame of the function

    def _pass_on(self, key: Hashable, lane: _Lane) -> None:
        """Let a call that waits lead the next batch, or remove the lane."""
        if not lane.waiting:
            del self._lanes[key]
            return
        leader = max(lane.waiting[:MAX_CALLS], key=lambda member: member.end)
        leader.leads = True
        leader.wake.release()


def _own(error: BaseException) -> BaseException:
    """Return an exception for another call of the batch: two threads must not raise the same object."""
    if isinstance(error, Exception):
        with contextlib.suppress(Exception):  # an exception that cannot be copied
            return copy.copy(error)
    return Unavailable()
