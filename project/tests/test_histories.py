"""The checker of histories: it finds planted faults, and accepts what a correct service may do."""

import itertools
import random
import unittest
from math import inf
from types import SimpleNamespace
from unittest import mock

from project.tests.support.histories import Operation, Seen, check
from project.tests.support.recorder import Recorder
from project.tests.support.registers import Register

ANN = Seen(1, 'ann', 'ann@example.com')
ADDED = Operation('add', 'acknowledged', 0, 1, username='ann', email='ann@example.com', users=(ANN,))


def change(start, end, username='bob', outcome='acknowledged', email=None):
    """Return a change of the user who was added as ANN."""
    users = (Seen(1, username, email or ANN.email),) if outcome == 'acknowledged' else ()
    return Operation('change', outcome, start, end, user_id=1, username=username, email=email, users=users)


def remove(start, end, outcome='acknowledged'):
    """Return a removal of the user who was added as ANN."""
    return Operation('remove', outcome, start, end, user_id=1)


def read(start, end, username=None, user_id=1):
    """Return a read of one user; it did not find them if there is no username."""
    users = (Seen(user_id, username, f'{user_id}@example.com' if user_id > 1 else ANN.email),) if username else ()
    return Operation('read', 'acknowledged', start, end, user_id=user_id, users=users)


def read_all(start, end, *users):
    """Return a read of the whole list."""
    return Operation('read', 'acknowledged', start, end, users=users, complete=True)


class CheckTest(unittest.TestCase):
    def assert_found(self, history, words):
        """Check that the checker finds something in a history, in whichever order its operations are."""
        for operations in (history, history[::-1]):
            self.assertIn(words, ' '.join(check(operations)))

    def test_stale_reads_are_found(self):
        for name, history in {
            'after an acknowledged change': [ADDED, change(2, 3), read(4, 5, 'ann')],
            'after a read of an unknown change': [ADDED, change(2, 3, outcome='unknown'), read(4, 5, 'bob'),
                                                  read(6, 7, 'ann')],
            'of a removed user': [ADDED, remove(2, 3), read(4, 5, 'ann')],
            'after a read that did not find a user whose removal is unknown': [
                ADDED, remove(2, 3, 'unknown'), read(4, 5), read(6, 7, 'ann')],
            'in a list': [ADDED, change(2, 3), read_all(4, 5, ANN)],
            'before it was written': [ADDED, read(2, 3, 'bob'), change(4, 5)],
        }.items():  # fmt: skip
            with self.subTest(name):
                self.assert_found(history, 'returned')

    def test_lost_writes_are_found(self):
        for name, history in {
            'the add': [ADDED, read(2, 3)],
            'the add, in a list': [ADDED, read_all(2, 3)],
            'for a while': [ADDED, read(2, 3), read(4, 5, 'ann')],
            'an add of unknown outcome that was read': [
                Operation('add', 'unknown', 0, 1, username='cid', email='2@example.com'),
                read(2, 3, 'cid', user_id=2), read(4, 5, user_id=2)],
            'the change': [ADDED, change(2, 3), change(4, 5, 'cid'), read(6, 7, 'bob')],
        }.items():  # fmt: skip
            with self.subTest(name):
                self.assert_found(history, 'returned')

    def test_rejected_and_foreign_writes_must_not_be_seen(self):
        self.assert_found([ADDED, change(2, 3, outcome='rejected'), read(4, 5, 'bob')], 'never written')
        self.assert_found([ADDED, read(4, 5, 'nobody')], 'never written')
        self.assert_found([ADDED, change(2, 3), read(4, 5, 'bob', user_id=2)], 'never written')

    def test_duplicated_users_are_found(self):
        other = Seen(2, 'bob', 'ANN@example.com')
        added = Operation('add', 'acknowledged', 2, 3, username='bob', email=other.email, users=(other,))
        unknown = Operation('add', 'unknown', 2, 3, username='bob', email=other.email)
        for name, history in {
            'both acknowledged': [ADDED, added],
            'one of them read': [ADDED, unknown, read_all(4, 5, ANN, other)],
            'read one after the other': [ADDED, unknown, Operation('read', 'acknowledged', 4, 5, 2, users=(other,))],
            'not removed': [ADDED, remove(1, 2, 'unknown'), added, read(4, 5, 'ann')],
            'removed too late': [ADDED, added, remove(4, 5)],
            'moved too late': [ADDED, added, change(4, 5, 'cid', email='cid@example.com')],
        }.items():
            with self.subTest(name):
                self.assert_found(history, 'email')

    def test_id_of_two_users_and_users_listed_twice_are_found(self):
        other = Operation(
            'add', 'acknowledged', 2, 3, username='bob', email='b@b.org', users=(Seen(1, 'bob', 'b@b.org'),)
        )
        self.assert_found([ADDED, other], 'two users got this id')
        self.assert_found([ADDED, read_all(2, 3, ANN, ANN)], 'twice')

    def test_correct_histories_have_no_findings(self):
        other = Seen(2, 'bob', ANN.email)
        bob = Operation('add', 'acknowledged', 4, 6, username='bob', email=ANN.email, users=(other,))
        for name, history in {
            'reads during a change': [ADDED, change(2, 9), read(3, 4, 'ann'), read(3, 5, 'bob'), read(4, 6, 'ann')],
            'unknown change that happens late': [ADDED, change(2, 3, outcome='unknown'), read(4, 5, 'ann'),
                                                 read(6, 7, 'bob')],
            'unknown change that never happens': [ADDED, change(2, 3, outcome='unknown'), read(4, 5, 'ann')],
            'unknown add that happens late': [
                Operation('add', 'unknown', 0, 1, username='cid', email='2@example.com'),
                read(2, 3, user_id=2), read(4, 5, 'cid', user_id=2), read(6, 7, 'cid', user_id=2)],
            'removal': [ADDED, read(2, 3, 'ann'), remove(4, 5), read(6, 7), read_all(8, 9)],
            'email taken over from a removed user': [ADDED, remove(3, 5), bob, read_all(7, 8, other)],
            'email taken over after a change': [ADDED, change(3, 5, 'cid', email='cid@example.com'), bob],
            'email that left and came back': [
                ADDED, change(3, 5, 'cid', email='cid@example.com'), bob,
                Operation('remove', 'acknowledged', 7, 8, user_id=2), change(9, 10, 'dan', email=ANN.email)],
            'two adds of one email, of which one is rejected': [
                ADDED, Operation('add', 'rejected', 0, 1, username='bob', email=ANN.email)],
            'absence before the add or after the removal': [
                ADDED, read(0.5, 6), remove(4, 7, 'unknown'), read(8, 9, 'ann')],
            'reads without a result': [ADDED, Operation('read', 'unknown', 2, 3, user_id=1)],
        }.items():  # fmt: skip
            with self.subTest(name):
                self.assertEqual([], check(history))

    def test_writes_without_a_username_of_their_own_are_rejected(self):
        with self.assertRaisesRegex(ValueError, 'same username'):
            check([ADDED, change(2, 3, 'ann')])


class RegisterTest(unittest.TestCase):
    def test_finds_what_trying_all_orders_finds(self):
        generator = random.Random(14)
        outcomes = {True: 0, False: 0}
        for _ in range(3000):
            operations = []  # of (start, end, value, whether it is a write)
            for value in range(generator.randint(1, 3)):
                start = generator.random()
                end = inf if generator.random() < 0.2 else start + generator.random() / 2
                operations.append((start, end, value, True))
            for _ in range(generator.randint(1, 3)):
                start = generator.random()
                value = generator.randrange(-1, sum(write for *_, write in operations))
                operations.append((start, start + generator.random() / 2, value, False))
            register = Register(-1)
            for start, end, value, is_write in operations:
                if is_write:
                    register.write(value, start, end)
            for start, end, value, is_write in operations:
                if not is_write:
                    register.read(value, start, end)
            expected = has_order(operations)
            outcomes[expected] += 1
            self.assertEqual(expected, not list(register.conflicts()), operations)
        self.assertGreater(min(outcomes.values()), 300)


def has_order(operations):
    """Return whether some order explains the operations; a write of unknown outcome need not take place."""
    optional = [operation for operation in operations if operation[1] == inf]
    for count in range(len(optional) + 1):
        for left_out in itertools.combinations(optional, count):
            chosen = [operation for operation in operations if operation not in left_out]
            if any(is_order(order) for order in itertools.permutations(chosen)):
                return True
    return False


def is_order(order):
    """Return whether no operation comes after one that started when it had ended, and each read returns the value."""
    current = -1
    for index, (start, _, value, is_write) in enumerate(order):
        if any(later[1] < start for later in order[index + 1 :]):
            return False
        if is_write:
            current = value
        elif value != current:
            return False
    return True


class MemoryService:
    """A correct service for one client, with the faults of its subclasses."""

    def __init__(self):
        self.users = {}
        self.ids = itertools.count(1)

    def request(self, method, path, payload=None):
        """Return the response to a request."""
        user_id = int(path.rpartition('/')[2]) if path.startswith('/users/') else None
        user = self.find(user_id)
        if user_id and user is None:
            return SimpleNamespace(status=404, body={'status': 'fail'})
        status, body = getattr(self, method.lower())(user, payload)
        return SimpleNamespace(status=status, body=body and {'data': body})

    def find(self, user_id):
        return self.users.get(user_id)

    def is_taken(self, email):
        return any(user['email'] == email for user in self.users.values())

    def get(self, user, _):
        return 200, user or {'users': list(self.users.values())}

    def post(self, _, payload):
        if self.is_taken(payload['email']):
            return 400, None
        user_id = next(self.ids)
        self.users[user_id] = {'id': user_id, **payload}
        return 201, self.users[user_id]

    def patch(self, user, payload):
        self.users[user['id']] = user | payload
        return 200, self.users[user['id']]

    def delete(self, user, _):
        del self.users[user['id']]
        return 204, None


class StaleReads(MemoryService):
    def patch(self, user, payload):
        self.stale = user
        return super().patch(user, payload)

    def get(self, user, payload):
        return (200, self.stale) if user and user['id'] == self.stale['id'] else super().get(user, payload)


class LostWrites(MemoryService):
    def post(self, user, payload):
        status, body = super().post(user, payload)
        if 3 in self.users:
            self.users.pop(2, None)
        return status, body


class DuplicatedUsers(MemoryService):
    def is_taken(self, email):
        return False


class RecorderTest(unittest.TestCase):
    """The checker, on histories that the recorder recorded."""

    def findings(self, service):
        """Return what the checker finds when all kinds of requests were sent to a service."""
        recorder = Recorder(service)
        for _ in range(4):
            recorder.add()
        recorder.change(1, email='moved@example.com')
        recorder.change(2)
        recorder.read(1)
        recorder.read(2)
        recorder.add('ann@example.com')
        recorder.add('ann@example.com')
        recorder.remove(3)
        recorder.read(3)
        recorder.page()
        recorder.read_all()
        return check(recorder.history)

    def test_faults_of_a_service_are_found(self):
        self.assertEqual([], self.findings(MemoryService()))
        self.assertIn('user 2: ', self.findings(StaleReads())[0])
        self.assertIn('absence before the add was returned', self.findings(LostWrites())[0])
        self.assertIn('email', self.findings(DuplicatedUsers())[0])
        recorder = Recorder(LostWrites())
        for _ in range(3):
            recorder.add()
        self.assertEqual(404, recorder.change(2).status)
        self.assertIn('absence before the add was returned', check(recorder.history)[0])

    def test_outcome_without_an_acknowledgement_is_unknown(self):
        for failure in (503, OSError):
            service = Failing(failure)
            recorder = Recorder(service)
            if failure == 503:
                recorder.add('ann@example.com')
            else:
                with self.assertRaises(OSError):
                    recorder.add('ann@example.com')
            self.assertEqual(['unknown'], [operation.outcome for operation in recorder.history])
            self.assertEqual(400, recorder.add('ann@example.com').status)
            self.assertEqual('rejected', recorder.history[-1].outcome)
            recorder.read(1)
            recorder.read_all()
            self.assertEqual([], check(recorder.history))

    def test_read_without_a_result_is_unknown(self):
        recorder = Recorder(service := MemoryService())
        recorder.add()
        with mock.patch.object(service, 'get', side_effect=[(503, None), OSError]):
            recorder.read(1)
            with self.assertRaises(OSError):
                recorder.read_all()
        self.assertEqual(['acknowledged', 'unknown', 'unknown'], [operation.outcome for operation in recorder.history])
        self.assertEqual([], check(recorder.history))


class Failing(MemoryService):
    """Stores users, and fails before it acknowledges them."""

    def __init__(self, failure):
        super().__init__()
        self.failure = failure

    def post(self, user, payload):
        status, body = super().post(user, payload)
        if status == 201:
            status, body = self.failure, None
            if status is OSError:
                raise OSError
        return status, body
