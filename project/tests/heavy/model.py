"""Hypothesis compares the running service with a model of it: a dict of users.

Not among the tests that run by default: ``python manage.py test model``, after
``pip install -r .ci/requirements.txt``. The service runs under gunicorn with two workers, on an empty database beside
the one of DATABASE_TEST_URL. ``MODEL_EXAMPLES=N`` runs N random sequences instead of the usual ones.

Hypothesis draws sequences of requests, imports and restarts. After each step the list of all users must equal the
model's. When a check fails, Hypothesis prints the shortest sequence that it finds.
"""

import os
import tempfile
import unittest
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlencode

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    invariant,
    multiple,
    precondition,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import create_engine, delete, insert
from sqlalchemy.pool import NullPool

from project.api.models import User
from project.tests.base import scratch_database
from project.tests.support.servers import Server, manage
from project.tests.support.users_model import SPELLINGS, UsersModel, identity, position
from project.timestamps import parse, rfc3339, utcnow

EXAMPLES, STEPS = 40, 50  # sequences, and the steps of each
TAKEN = 400, {'status': 'fail', 'message': 'Sorry. That email already exists.'}
MISSING = 404, {'status': 'fail', 'message': 'User does not exist'}
CHANGED = 412, {'status': 'fail', 'message': 'The user has changed since it was read.'}

EMAILS = st.sampled_from([spelling for line in SPELLINGS for spelling in line])
USERNAMES = st.sampled_from(['ann', 'Ann', 'anna', 'b%', 'Bob', 'Örjan', 'örjan'])
NEW = st.fixed_dictionaries({'username': USERNAMES, 'email': EMAILS})
# Enough for two of them to wait at the same time in one worker.
SAME = st.sampled_from(SPELLINGS).flatmap(
    lambda line: st.lists(
        st.fixed_dictionaries({'username': USERNAMES, 'email': st.sampled_from(line)}), min_size=6, max_size=6
    )
)
DIFFERENT = st.lists(NEW, min_size=1, max_size=5, unique_by=lambda user: identity(user['email']))
TIMES = st.sampled_from(['2026-01-01T12:00:00.000000Z', '2026-01-01T12:00:00.000001Z'])
CHANGES = st.fixed_dictionaries({}, optional={'username': USERNAMES, 'email': EMAILS, 'active': st.booleans()})
# Values of If-Match and If-None-Match (RFC 9110 section 13.1); {} is the entity tag that the client has.
CONDITIONS = st.sampled_from([None, '{}', '"another", {}', 'W/{}', '"another"', '*'])
LIMITS = st.fixed_dictionaries({'limit': st.integers(1, 3)}, optional={'count': st.just('true')})
ACTIVE = {'active': st.sampled_from(['true', 'false'])}
FILTERS = st.fixed_dictionaries({}, optional=ACTIVE) | st.fixed_dictionaries(
    {}, optional={'username': USERNAMES, 'email': EMAILS, **ACTIVE}
)
PREFIXES = st.sampled_from(['an', 'ANN', 'anna', 'b_', 'b%', 'bo', 'BOB@B', 'ör', 'Ör', 'xn'])


class Service(RuleBasedStateMachine):
    """The service and its model.

    :param server: the running service.
    :param engine: of its database.
    :param reached: counts the responses by method and status, next pages and restarts.
    """

    seen = Bundle('seen')  # ids of users, removed ones too, each with an entity tag that a client has got for it
    pages = Bundle('pages')  # URLs of next pages, with the parameters of the list and the position of the last user

    def __init__(self, server, engine, reached):
        super().__init__()
        self.server, self.engine, self.reached = server, engine, reached
        self.model = UsersModel()
        self.restarted = False
        with engine.begin() as connection:
            connection.execute(delete(User))

    def send(self, method, path, payload=None, **headers):
        """Send a request, and return its response."""
        response = self.server.request(method, path, payload, **headers)
        self.reached[method, response.status] += 1
        return response

    @invariant()
    def list_of_all_users_is_the_models(self):
        body = self.send('GET', '/users').body
        assert body == {'status': 'success', 'data': {'users': self.model.newest_first({})}}, body

    @rule(target=seen, users=st.lists(NEW, min_size=1, max_size=3) | SAME)
    def add_at_the_same_time(self, users):
        free = {identity(user['email']) for user in users if self.model.owner(user['email']) is None}
        ids = {state['id'] for state in self.model.tags.values()}
        start = rfc3339(str(utcnow()))
        with ThreadPoolExecutor(len(users)) as threads:
            responses = list(threads.map(lambda user: self.send('POST', '/users', user), users))
        end = rfc3339(str(utcnow()))
        added = {}
        for user, response in zip(users, responses, strict=True):
            if response.status == 201:
                stored = response.body['data']
                decided = {name: stored[name] for name in ('id', 'email', 'created_at')}  # by the service
                assert stored == user | {'active': False} | decided
                assert identity(stored['email']) == identity(user['email'])
                assert start <= stored['created_at'] <= end
                assert stored['id'] not in ids, 'an id is used again'
                assert identity(user['email']) not in added, 'two users have the same email'
                added[identity(user['email'])] = self.model.store(stored, response.headers['ETag'])
            else:
                assert (response.status, response.body) == TAKEN, response.body
        assert added.keys() == free
        # Hypothesis must find the same state when it repeats the sequence, whichever of equal emails was added.
        first = {identity(user['email']): user for user in reversed(users)}
        return multiple(*(self.change(added[email], None, first[email]) for email in sorted(free)))

    @rule(target=seen, users=DIFFERENT, time=TIMES)
    def import_with_the_same_time(self, users, time):
        rows = [user | {'email': identity(user['email'])} for user in users if self.model.owner(user['email']) is None]
        statement = insert(User).returning(User.id)
        with self.engine.begin() as connection:
            ids = [connection.scalar(statement.values(**row, created_at=parse(time))) for row in rows]
        imported = []
        for id, row in zip(ids, rows, strict=True):
            response = self.send('GET', f'/users/{id}')
            assert response.body['data'] == {'id': id, **row, 'active': False, 'created_at': time}, response.body
            imported.append(self.model.store(response.body['data'], response.headers['ETag']))
        return multiple(*imported)

    @rule(target=seen, one=seen, condition=CONDITIONS)
    def get(self, one, condition):
        id, tag = one
        headers = {'If_None_Match': condition.format(tag)} if condition else {}
        response = self.send('GET', f'/users/{id}', **headers)
        user = self.model.users.get(id)
        if user is None:
            assert (response.status, response.body) == MISSING
            return one
        if condition and self.model.holds(condition, id, tag, weakly=True):
            assert (response.status, response.body) == (304, None)
        else:
            assert (response.status, response.body) == (200, {'status': 'success', 'data': user})
        return self.model.store(user, response.headers['ETag'])

    def rejection(self, one, condition):
        """Return the status and the body of the response to a change that must be rejected; else None."""
        id, tag = one
        if id not in self.model.users:
            return MISSING
        return CHANGED if condition and not self.model.holds(condition, id, tag, weakly=False) else None

    @rule(target=seen, one=seen, condition=CONDITIONS, values=CHANGES)
    def change(self, one, condition, values):
        id, tag = one
        headers = {'If_Match': condition.format(tag)} if condition else {}
        response = self.send('PATCH', f'/users/{id}', values, **headers)
        rejection = self.rejection(one, condition)
        if 'email' in values and self.model.owner(values['email']) not in (None, id):
            rejection = rejection or TAKEN
        if rejection:
            assert (response.status, response.body) == rejection
            return one
        assert response.status == 200, response.body
        user = response.body['data']
        if 'email' in values:
            assert identity(user['email']) == identity(values['email'])
            values = values | {'email': user['email']}
        assert user == self.model.users[id] | values
        return self.model.store(user, response.headers['ETag'])

    @rule(one=seen, condition=CONDITIONS)
    def remove(self, one, condition):
        id, tag = one
        headers = {'If_Match': condition.format(tag)} if condition else {}
        response = self.send('DELETE', f'/users/{id}', **headers)
        rejection = self.rejection(one, condition)
        assert (response.status, response.body) == (rejection or (204, None))
        if not rejection:
            del self.model.users[id]

    @rule(target=pages, limits=LIMITS, filters=FILTERS)
    def first_page(self, limits, filters):
        return self.check_page(None, limits | filters, None)

    @rule(target=pages, limits=LIMITS, filters=st.fixed_dictionaries({}, optional=ACTIVE), q=PREFIXES)
    def search(self, limits, filters, q):
        return self.check_page(None, {'q': q, **limits, **filters}, None)

    @rule(target=pages, page=consumes(pages))
    def next_page(self, page):
        self.reached['next page'] += page[0] is not None
        return self.check_page(*page)

    def check_page(self, url, parameters, after):
        """Check a page, and return the arguments for the next one.

        :param url: where the previous page, which may have been read before changes, said that this one is; None for
            the first page, which follows the last one here.
        :param parameters: of the list.
        :param after: the position of the last user on the previous page.
        """
        body = self.send('GET', url or f'/users?{urlencode(parameters)}').body
        matching = self.model.newest_first(parameters)
        left = [user for user in matching if after is None or position(user) < after]
        page = left[: parameters['limit']]
        following = body['data'].pop('next', None)
        expected = {'users': page} | ({'total': len(matching)} if 'count' in parameters else {})
        assert body == {'status': 'success', 'data': expected}, body
        assert (following is not None) == (len(left) > len(page)), following
        return following, parameters, position(page[-1]) if following else None

    # A restart takes a second, so each sequence has one at most.
    @precondition(lambda self: not self.restarted and len(self.model.users) > 2)
    @rule(gracefully=st.booleans())
    def restart(self, gracefully):
        if gracefully:
            self.server.stop()
        else:
            self.server.kill()
        self.server.start()
        self.restarted = True
        self.reached['restart'] += 1


class ModelTest(unittest.TestCase):
    def setUp(self):
        directory = self.enterContext(tempfile.TemporaryDirectory())
        url = self.enterContext(scratch_database())
        manage(url, 'db', 'upgrade')
        self.engine = create_engine(url, poolclass=NullPool)
        self.server = Server(directory, url)
        self.addCleanup(self.server.kill)
        self.server.start()

    def test_service_behaves_as_the_model(self):
        reached = Counter()
        chosen = os.environ.get('MODEL_EXAMPLES')
        run_state_machine_as_test(
            lambda: Service(self.server, self.engine, reached),
            settings=settings(
                max_examples=int(chosen or EXAMPLES),
                derandomize=not chosen,
                stateful_step_count=STEPS,
                deadline=None,
                database=None,
                phases=(Phase.generate, Phase.shrink),
                suppress_health_check=list(HealthCheck),
            ),
        )
        print('; '.join(f'{what}: {count}' for what, count in sorted(reached.items(), key=str)))
        for method, *statuses in (
            ('GET', 200, 304, 404),
            ('POST', 201, 400),
            ('PATCH', 200, 400, 404, 412),
            ('DELETE', 204, 404, 412),
        ):
            for status in statuses:
                self.assertGreater(reached[method, status], 0, f'{method} with {status}')
        self.assertGreater(reached['next page'], 9)
        self.assertGreater(reached['restart'], 0)
