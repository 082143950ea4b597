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
from project.timestamps import parse, rfc3339, utcnow

EXAMPLES, STEPS = 60, 50  # sequences, and the steps of each
TAKEN = {'status': 'fail', 'message': 'Sorry. That email already exists.'}
MISSING = {'status': 'fail', 'message': 'User does not exist'}
CHANGED = {'status': 'fail', 'message': 'The user has changed since it was read.'}
# There are few values, so that sequences repeat them. Each line has the spellings of one email.
SPELLINGS = (
    ('ann@example.com', 'Ann@Example.com', ' ANN@EXAMPLE.COM'),
    ('anna@example.com', 'ANNA@example.com'),
    ('bob@bücher.de', 'Bob@Bücher.de', 'bob@xn--bcher-kva.de', 'BOB@XN--BCHER-KVA.DE'),
    ('örjan@example.com', 'Örjan@example.com'),
    ('b_b@example.com', 'B_B@example.com'),
    ('bob@example.com', 'Bob@example.com'),
    ('cy@example.com', 'CY@example.com'),
    ('dee@example.com', 'Dee@example.com'),
    ('eve@example.com', 'EVE@EXAMPLE.com '),
)
IDENTITIES = {spelling.strip(): line[0] for line in SPELLINGS for spelling in line}
EMAILS = st.sampled_from([spelling for line in SPELLINGS for spelling in line])
USERNAMES = st.sampled_from(['ann', 'Ann', 'anna', 'b%', 'Bob', 'Örjan', 'örjan'])
NEW = st.fixed_dictionaries({'username': USERNAMES, 'email': EMAILS})
CHANGES = st.fixed_dictionaries({}, optional={'username': USERNAMES, 'email': EMAILS, 'active': st.booleans()})
LIMITS = st.fixed_dictionaries({'limit': st.integers(1, 3)}, optional={'count': st.just('true')})
FILTERS = st.fixed_dictionaries(
    {},
    optional={
        'q': st.sampled_from(['an', 'ANN', 'anna', 'b_', 'b%', 'bo', 'BOB@B', 'ör', 'Ör', 'xn']),
        'active': st.sampled_from(['true', 'false']),
        'username': USERNAMES,
        'email': EMAILS,
    },
)
TIMES = st.sampled_from(['2026-01-01T12:00:00.000000Z', '2026-01-01T12:00:00.000001Z'])
# Values of If-Match and If-None-Match, RFC 9110 section 13.1; {} is the entity tag that the client has.
CONDITIONS = st.sampled_from([None, '{}', '"another", {}', 'W/{}', '"another"', '*'])


def identity(email):
    """Return the same text for all spellings of an email."""
    return IDENTITIES[email.strip()]


def position(user):
    """Return the sort key of a user in the list, in ascending order."""
    return user['created_at'], user['id']


def folded(text):
    """Return a text with its ASCII letters in lower case."""
    return text.encode().lower().decode()


def matches(user, q='', active='', username='', email='', **_):
    """Return whether a user matches the parameters of a list."""
    return (
        (not q or any(folded(user[name]).startswith(folded(q)) for name in ('username', 'email')))
        and (not active or user['active'] == (active == 'true'))
        and (not username or user['username'] == username)
        and (not email or identity(user['email']) == identity(email))
    )


class Service(RuleBasedStateMachine):
    """The service and its model.

    :param server: the running service.
    :param engine: of its database.
    :param reached: counts the responses by method and status, and the pages after the first.
    """

    seen = Bundle('seen')  # ids of users, each with an entity tag that a client has got for it
    pages = Bundle('pages')  # URLs of next pages, with the parameters of the list and the position of the last user

    def __init__(self, server, engine, reached):
        super().__init__()
        self.server, self.engine, self.reached = server, engine, reached
        self.users = {}  # the model: each user as in a response, by id
        self.tags = {}  # what each entity tag has stood for
        self.restarted = False
        with engine.begin() as connection:
            connection.execute(delete(User))

    def newest_first(self, parameters):
        """Return the users of the model that match."""
        return sorted((user for user in self.users.values() if matches(user, **parameters)), key=position, reverse=True)

    def owner(self, email):
        """Return the id of the user with this email, or None."""
        return next((id for id, user in self.users.items() if identity(user['email']) == identity(email)), None)

    def holds(self, condition, tag, user, weakly):
        """Return whether a condition is true for the present state of a user."""
        if condition == '*':
            return True
        return '{}' in condition and self.tags[tag] == user and (weakly or not condition.startswith('W/'))

    def store(self, user, tag):
        """Note the state of a user; equal states must have equal tags, and others another. Return id and tag."""
        assert self.tags.setdefault(tag, user) == user, 'two states have the same entity tag'
        assert [tag] == [other for other, state in self.tags.items() if state == user], 'a state has two entity tags'
        self.users[user['id']] = user
        return user['id'], tag

    def send(self, method, path, payload=None, **headers):
        """Send a request, and return its response."""
        response = self.server.request(method, path, payload, **headers)
        self.reached[method, response.status] += 1
        return response

    @invariant()
    def list_of_all_users_is_the_models(self):
        body = self.send('GET', '/users').body
        assert body == {'status': 'success', 'data': {'users': self.newest_first({})}}, body

    @rule(target=seen, users=st.lists(NEW, min_size=1, max_size=3))
    def add_at_the_same_time(self, users):
        free = {identity(user['email']) for user in users if self.owner(user['email']) is None}
        ids = {state['id'] for state in self.tags.values()}
        start = rfc3339(str(utcnow()))
        with ThreadPoolExecutor(len(users)) as threads:
            responses = list(threads.map(lambda user: self.send('POST', '/users', user), users))
        end = rfc3339(str(utcnow()))
        added = []
        for user, response in zip(users, responses, strict=True):
            if response.status == 400:
                assert response.body == TAKEN, response.body
                continue
            assert response.status == 201, response.body
            stored = response.body['data']
            assert stored == user | {'active': False} | {name: stored[name] for name in ('id', 'email', 'created_at')}
            assert identity(stored['email']) == identity(user['email'])
            assert start <= stored['created_at'] <= end
            assert stored['id'] not in ids, 'an id is used again'
            added.append(self.store(stored, response.headers['ETag']))
        assert sorted(identity(self.users[id]['email']) for id, _ in added) == sorted(free)
        return multiple(*added)

    @rule(
        target=seen,
        users=st.lists(NEW, min_size=1, max_size=5, unique_by=lambda user: identity(user['email'])),
        time=TIMES,
    )
    def import_with_the_same_time(self, users, time):
        rows = [user | {'email': identity(user['email'])} for user in users if self.owner(user['email']) is None]
        with self.engine.begin() as connection:
            ids = [
                connection.scalar(insert(User).values(**row, created_at=parse(time)).returning(User.id)) for row in rows
            ]
        stored = []
        for id, row in zip(ids, rows, strict=True):
            response = self.send('GET', f'/users/{id}')
            assert response.body['data'] == {'id': id, **row, 'active': False, 'created_at': time}, response.body
            stored.append(self.store(response.body['data'], response.headers['ETag']))
        return multiple(*stored)

    @rule(target=seen, one=seen, condition=CONDITIONS)
    def get(self, one, condition):
        id, tag = one
        response = self.send('GET', f'/users/{id}', **({'If_None_Match': condition.format(tag)} if condition else {}))
        user = self.users.get(id)
        if user is None:
            assert (response.status, response.body) == (404, MISSING)
            return one
        if condition and self.holds(condition, tag, user, weakly=True):
            assert (response.status, response.body) == (304, None)
        else:
            assert (response.status, response.body) == (200, {'status': 'success', 'data': user})
        return self.store(user, response.headers['ETag'])

    def refused(self, response, one, condition):
        """Return whether a change must be rejected for the state of its user, and check that it was."""
        id, tag = one
        user = self.users.get(id)
        if user is None:
            assert (response.status, response.body) == (404, MISSING)
        elif condition and not self.holds(condition, tag, user, weakly=False):
            assert (response.status, response.body) == (412, CHANGED)
        else:
            return False
        return True

    @rule(target=seen, one=seen, condition=CONDITIONS, values=CHANGES)
    def change(self, one, condition, values):
        id, tag = one
        headers = {'If_Match': condition.format(tag)} if condition else {}
        response = self.send('PATCH', f'/users/{id}', values, **headers)
        if self.refused(response, one, condition):
            return one
        if 'email' in values and self.owner(values['email']) not in (None, id):
            assert (response.status, response.body) == (400, TAKEN)
            return one
        assert response.status == 200, response.body
        user = response.body['data']
        if 'email' in values:
            assert identity(user['email']) == identity(values['email'])
            values = values | {'email': user['email']}
        assert user == self.users[id] | values
        return self.store(user, response.headers['ETag'])

    @rule(one=seen, condition=CONDITIONS)
    def remove(self, one, condition):
        id, tag = one
        headers = {'If_Match': condition.format(tag)} if condition else {}
        response = self.send('DELETE', f'/users/{id}', **headers)
        if not self.refused(response, one, condition):
            assert (response.status, response.body) == (204, None)
            del self.users[id]

    @rule(target=pages, limits=LIMITS, filters=st.just({}) | FILTERS)
    def first_page(self, limits, filters):
        parameters = limits | filters
        return self.check_page(f'/users?{urlencode(parameters)}', parameters)

    @rule(target=pages, page=consumes(pages))
    def next_page(self, page):
        self.reached['next page'] += 1
        return self.check_page(*page)

    def check_page(self, url, parameters, after=None):
        """Check a page, which may follow one that was read before changes; return the next one, if there is one."""
        body = self.send('GET', url).body
        matching = self.newest_first(parameters)
        left = [user for user in matching if after is None or position(user) < after]
        page = left[: parameters['limit']]
        expected = {'users': page} | ({'total': len(matching)} if 'count' in parameters else {})
        following = body['data'].pop('next', None)
        assert body == {'status': 'success', 'data': expected}, body
        assert (following is not None) == (len(left) > len(page)), following
        return (following, parameters, position(page[-1])) if following else multiple()

    # It takes a second, so there is one at most in each sequence, when there are users.
    @precondition(lambda self: not self.restarted and len(self.users) > 2)
    @rule(gracefully=st.booleans())
    def restart(self, gracefully):
        self.restarted = True
        if gracefully:
            self.server.stop()
        else:
            self.server.kill()
        self.server.start()
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
        print(', '.join(f'{count} {what}' for what, count in sorted(reached.items(), key=str)))
        for method, *statuses in (
            ('GET', 200, 304, 404),
            ('POST', 201, 400),
            ('PATCH', 200, 400, 404, 412),
            ('DELETE', 204, 404, 412),
        ):
            for status in statuses:
                self.assertGreater(reached[method, status], 9, f'{method} with {status}')
        self.assertGreater(reached['next page'], 9)
        self.assertGreater(reached['restart'], 9)
