"""Histories of requests and their checker, in the manner of Jepsen (https://jepsen.io/analyses).

Each request is an :class:`Operation`: when it was sent, when its response was complete, and what its outcome was.
:class:`~project.tests.support.recorder.Recorder` records them. :func:`check` looks for an order of the operations on
each user that explains every response (linearizability). So it finds a history in which

* a read goes back in time;
* an acknowledged write is not seen by a read that starts later;
* a rejected write is seen;
* an email has two owners at the same time, ignoring letter case.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import pairwise
from math import inf
from typing import Literal, NamedTuple

from project.tests.support.registers import Register


class Seen(NamedTuple):
    """A user in a response."""

    id: int
    username: str
    email: str


class Absence(Enum):
    """The user does not exist."""

    BEFORE = 'before the add'
    AFTER = 'after the removal'

    def __repr__(self) -> str:
        return f'absence {self.value}'


@dataclass(frozen=True, slots=True)
class Operation:
    """One request.

    Each add and each change sets a username that no other write of the history sets. Reads name the write by it.

    :ivar outcome: of a write: ``acknowledged`` (2xx), ``rejected`` (4xx: it changed nothing), or ``unknown`` (a 503, or
        no response). Of a read: ``acknowledged``, or ``unknown`` if it returned nothing.
    :ivar start: when it was sent, in seconds on the monotonic clock.
    :ivar end: when its response was complete, or when the client stopped waiting.
    :ivar user_id: of the user in the path; None for an add and for a list.
    :ivar username: that an add or a change sets.
    :ivar email: that an add or a change sets; None if a change leaves it as it is.
    :ivar users: in the response; none if a read of one user did not find it.
    :ivar complete: whether a read returned all users. The others do not exist then.
    """

    kind: Literal['add', 'change', 'remove', 'read']
    outcome: Literal['acknowledged', 'rejected', 'unknown']
    start: float
    end: float
    user_id: int | None = None
    username: str | None = None
    email: str | None = None
    users: tuple[Seen, ...] = ()
    complete: bool = False


def check(history: Iterable[Operation]) -> list[str]:
    """Return a sentence for each result that a correct service could not have; none if there is no such result.

    :param history: all writes of these users, and any reads, in any order.
    :raises ValueError: two writes set the same username.
    """
    operations = sorted(history, key=lambda operation: operation.start)
    names = [operation.username for operation in operations if operation.username is not None]
    if len(set(names)) < len(names):
        raise ValueError('two writes of the history set the same username')
    reads = [operation for operation in operations if operation.kind == 'read' and operation.outcome == 'acknowledged']
    writes = [operation for operation in operations if operation.kind != 'read']
    return [*_check_lists(reads), *_check_users(writes, reads), *_check_emails(writes, operations)]


def _check_lists(reads: Sequence[Operation]) -> Iterator[str]:
    for read in reads:
        for what, values in (
            ('user', [user.id for user in read.users]),
            ('email', [user.email.lower() for user in read.users]),
        ):
            if len(set(values)) < len(values):
                yield f'a list requested at {read.start:.3f} has the same {what} twice'


def _check_users(writes: Sequence[Operation], reads: Sequence[Operation]) -> Iterator[str]:
    registers: dict[int, Register] = defaultdict(lambda: Register(Absence.BEFORE))
    added: dict[int, float] = {}  # by which time the user existed
    for write in writes:
        user_id = write.user_id or next((user.id for user in write.users), None)
        if user_id is not None and write.outcome != 'rejected':  # an add without an id is found by its username, below
            end = write.end if write.outcome == 'acknowledged' else inf
            registers[user_id].write(write.username or Absence.AFTER, write.start, end)
            if write.kind == 'add' and added.setdefault(user_id, end) != end:
                yield f'user {user_id}: two users got this id'
    by_name = {write.username: write for write in writes if write.username is not None}
    for read in reads:
        for user in read.users:
            added[user.id] = min(added.get(user.id, inf), read.end)
            write = by_name.get(user.username)
            if write is None or write.outcome == 'rejected' or write.user_id not in (None, user.id):
                yield f'user {user.id}: {user.username!r} was returned at {read.end:.3f}, but never written to it'
                continue
            if not write.users:
                registers[user.id].write(user.username, write.start, inf)
            registers[user.id].read(user.username, read.start, read.end)
    _add_absences(registers, writes, reads, added)
    for user_id, register in registers.items():
        yield from (f'user {user_id}: {conflict}' for conflict in register.conflicts())


def _add_absences(
    registers: dict[int, Register], writes: Sequence[Operation], reads: Sequence[Operation], added: dict[int, float]
) -> None:
    """Add the reads that did not find a user. Leave out one that may be either before the add or after the removal."""
    removing: dict[int, float] = {}  # since when the user may be removed; the first write is the earliest
    for write in writes:
        if write.kind == 'remove' and write.user_id is not None and write.outcome != 'rejected':
            removing.setdefault(write.user_id, write.start)
    for read in reads:
        wanted = {read.user_id} if read.user_id is not None else set(registers) if read.complete else set()
        for user_id in wanted - {user.id for user in read.users}:
            if read.end < removing.get(user_id, inf):
                registers[user_id].read(Absence.BEFORE, read.start, read.end)
            elif read.start > added.get(user_id, inf):
                registers[user_id].read(Absence.AFTER, read.start, read.end)


def _check_emails(writes: Sequence[Operation], operations: Sequence[Operation]) -> Iterator[str]:
    """Check that no two users own an email at the same time, as far as the history shows when they own it."""
    written: dict[int, list[Operation]] = defaultdict(list)
    for write in writes:
        if write.user_id is not None and write.outcome != 'rejected':
            written[write.user_id].append(write)
    shown: dict[tuple[str, int], list[Operation]] = defaultdict(list)
    for operation in operations:
        if operation.outcome == 'acknowledged':
            for user in operation.users:
                shown[user.email.lower(), user.id].append(operation)
    owners: dict[str, list[tuple[float, float, int]]] = defaultdict(list)
    for (email, user_id), evidence in shown.items():
        since = min(operation.end for operation in evidence)
        emails = [None if write.kind == 'remove' else (write.email or email).lower() for write in written[user_id]]
        until = min(
            (write.start for write, sets in zip(written[user_id], emails, strict=True) if sets != email), default=inf
        )
        if email not in [write.email.lower() for write in written[user_id] if write.email]:
            # It cannot have left and come back.
            until = max(until, *(operation.start for operation in evidence))
        if since < until:
            owners[email].append((since, until, user_id))
    for email, times in owners.items():
        for (_, until, user_id), (since, _, other) in pairwise(sorted(times)):
            if since < until:
                yield f'users {user_id} and {other} both had the email {email} at {since:.3f}'
