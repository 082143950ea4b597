"""Responses while PostgreSQL is paused, stopped or overloaded. Run by name: ``manage.py test faults``."""

import collections
import concurrent.futures
import contextlib
import itertools
import re
import signal
import threading
import time

import psycopg2

from project.tests.support.fault_case import CANCELED, PROMISED_SECONDS, FaultCase, measured
from project.tests.support.loads import Load, Writers
from project.tests.support.servers import SLACK_SECONDS, manage, wait_until

OTHERS = "WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
WITHOUT_DEADLINE = """
import math

from manage import app
from project import database
from project.api import users
from project.database import connecting

connecting.CALL_SECONDS = math.inf
database.REQUEST_SECONDS = users.REQUEST_SECONDS = math.inf
"""


class FaultsTest(FaultCase):
    """One cluster, and the service with two workers."""

    def setUp(self):
        super().setUp()
        self.cluster = self.shared_cluster('max_connections=60')
        self.numbers = itertools.count()

    def serve(self, **kw):
        """Start the service."""
        self.server = self.start_server(self.cluster.dsn(), migrate=False, **kw)
        return self.server

    def assert_recovers(self):
        """Check that the service recovers within seconds, without a restart, and keeps working."""
        wait_until(lambda: self.server.get('/health').status == 200, 10, 'the database is reached')
        # The circuit breaker of each worker lets the next probe through a quarter of a second after a timeout.
        wait_until(lambda: {self.server.get('/users?limit=1').status for _ in range(8)} == {200}, 10, 'reads recover')
        unique = f'{time.monotonic_ns()}@example.com'
        for number in range(8):
            self.assertEqual(200, self.server.get('/users?limit=1').status)
            self.assertEqual(201, self.server.post(f'{number}.{unique}').status)

    def check_paused_database(self):
        """Pause the database under load, check the responses, and let it continue."""
        server, logged = self.server, len(self.cluster.log())
        user = server.post('reader@example.com').body['data']['id']
        with (
            Load(lambda: server.get('/ping')) as pings,
            Writers(server, 2) as writers,
            Load(lambda: server.get(f'/users/{user}'), 3) as readers,
            Load(lambda: server.request('PATCH', f'/users/{user}', {'active': True}), 1) as changers,
        ):
            loads = (readers, writers, changers)
            wait_until(lambda: min(len(load.responses) for load in loads) > 20, 20, 'all clients are served')
            self.cluster.freeze()
            try:
                frozen = time.monotonic()
                # Requests of the first 4 s may wait for a deadline. Those of the next 4 s must not wait.
                wait_until(lambda: time.monotonic() > frozen + 8, 10, 'time passes')
                for load in loads:
                    self.assertTrue(load.statuses(frozen + 4), 'clients wait for longer than 4 s')
                thawed = time.monotonic()
            finally:
                self.cluster.thaw()
            wait_until(lambda: 200 in readers.statuses(thawed), 5, 'reads recover')
            wait_until(lambda: 201 in writers.statuses(thawed), 5, 'writes recover')
            healed = time.monotonic()
            wait_until(lambda: min(len(load.statuses(healed + 0.5)) for load in loads) > 5, 20, 'all are served')
        for load, good in ((readers, 200), (writers, 201), (changers, 200)):
            self.assert_promised(load, {good, 503})
            self.assertEqual({good}, {a.status for a in load.responses if a.started + a.seconds < frozen})
            self.assertEqual({503}, set(load.statuses(frozen + 0.5, thawed - 4)))
            self.assertEqual({good}, set(load.statuses(healed + 0.5)))
        known = sorted(
            response.seconds
            for load in loads
            for response in load.responses
            if frozen + 4 < response.started < thawed - 0.5
        )
        measured('paused database, slowest response', max(max(a.seconds for a in load.responses) for load in loads))
        measured('paused database, median response once the circuit breaker is open', known[len(known) // 2])
        measured('paused database, first success after it continues', healed - thawed)
        self.assertLess(known[int(len(known) * 0.8)], 0.1)
        self.assert_quick(pings, 'paused database, /ping')
        emails = collections.Counter(self.cluster.emails())
        self.assertEqual([], [email for email in writers.acknowledged if emails[email] != 1])
        self.assertIsNone(re.search(CANCELED, self.cluster.log()[logged:]))

    def test_paused_database(self):
        self.serve()
        self.check_paused_database()
        self.assert_recovers()

    def test_suite_detects_a_missing_deadline(self):
        (self.directory / 'broken.py').write_text(WITHOUT_DEADLINE)
        self.serve(app='broken:app')
        with self.assertRaises(AssertionError):
            self.check_paused_database()

    def check_one_user_per_email(self):
        """Check that of many simultaneous POSTs of one email, in different letter case, one adds a user."""
        for attempt in range(4):
            with contextlib.ExitStack() as stack:
                spellings = iter([f'Same{attempt}@example.com', f'sAME{attempt}@EXAMPLE.com'] * 20)
                lock = threading.Lock()

                def post(spellings=spellings, lock=lock):
                    with lock:
                        email = next(spellings, None)
                    return self.server.post(email) if email else self.server.get('/ping')

                load = stack.enter_context(Load(post, 8, 0))
                wait_until(lambda load=load: len(load.responses) > 40, SLACK_SECONDS, 'all have posted')
            statuses = collections.Counter(
                a.status for a in load.responses if 'errors' not in a.body and a.status > 200
            )
            self.assertEqual({201: 1, 400: 39}, statuses)

    def test_one_of_many_simultaneous_posts_of_an_email_succeeds(self):
        self.serve()
        self.check_one_user_per_email()

    def test_suite_detects_a_missing_unique_index(self):
        self.serve()
        self.cluster.sql('DROP INDEX users_email_key')
        with self.assertRaises(AssertionError):
            self.check_one_user_per_email()

    def get_unshared(self):
        """Send a GET of a list that no other client requests at the same time, so that they do not share a SELECT."""
        return self.server.get(f'/users?limit=2&username={next(self.numbers)}')

    def fill_pools(self):
        """Give each worker several idle connections, for reads and for writes: waiting for a lock opens them."""
        change = lambda: self.server.request('PATCH', '/users/1', {'active': True})  # noqa: E731
        for send, mode, verb in ((self.get_unshared, 'ACCESS EXCLUSIVE', 'SELECT'), (change, 'SHARE', 'UPDATE')):

            def connected(verb=verb):
                found = "SELECT count(*) FROM pg_stat_activity WHERE datname = 'users' AND query LIKE %s"
                return self.cluster.sql(found, f'{verb}%users%')[0][0]

            with Load(send, 12, 0.2):
                for _ in range(10):
                    with self.cluster.locked(mode):
                        end = time.monotonic() + 0.5
                        wait_until(lambda end=end: connected() > 8 or time.monotonic() > end, 2, 'clients wait')
                    if connected() > 8:
                        break
                else:
                    raise AssertionError('the pools do not fill')

    def test_stale_connections_cost_no_client_an_error(self):
        self.serve(POOL_SIZE='10')
        self.cluster.add_users(4500)

        def terminate():
            # It waits until each backend has ended.
            self.cluster.sql(f'SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity {OTHERS}')

        def crash():
            self.cluster.kill()
            self.cluster.start()

        def crash_at_once():
            self.cluster.stop(signal.SIGQUIT)
            self.cluster.start()

        for what in (terminate, self.cluster.restart, crash, crash_at_once):
            for send in (
                lambda: self.server.post(f'{time.monotonic_ns()}@example.com'),
                lambda: self.server.get('/users/1'),
                lambda: self.server.get('/users'),
            ):
                with self.subTest(what=what.__name__):
                    self.fill_pools()
                    what()
                    # A new connection may go to either worker, so a few of them reach both.
                    self.assertLessEqual({send().status for _ in range(12)}, {200, 201})

    def test_stopped_database_is_503_at_once_until_it_is_back(self):
        self.serve()
        with Load(lambda: self.server.get('/ping')) as pings, Writers(self.server, 2) as writers:
            self.cluster.stop()
            stopped = time.monotonic()
            wait_until(lambda: len(writers.statuses(stopped)) > 50, SLACK_SECONDS, 'writers get responses')
            self.assertEqual(503, self.server.get('/health').status)
            self.assertEqual(503, self.server.get('/users').status)
            started = time.monotonic()
            self.cluster.start()
            wait_until(lambda: 201 in writers.statuses(started), 5, 'writes recover')
        self.assert_promised(writers, {201, 503})
        down = [response.seconds for response in writers.responses if stopped < response.started < started]
        measured('stopped database, slowest response', max(down))
        self.assertLess(sorted(down)[len(down) // 2], 0.1)
        self.assert_quick(pings, 'stopped database, /ping')
        self.assert_recovers()

    def test_starting_database_is_503(self):
        self.serve()
        self.cluster.stop()
        # A standby without hot standby rejects connections with 57P03, as a server that starts does.
        signal_file = self.cluster.data / 'standby.signal'
        signal_file.touch()
        self.cluster.launch('hot_standby=off')
        with Writers(self.server, 1) as writers:
            wait_until(lambda: 'Hot standby mode is disabled' in self.cluster.log(), 20, 'it rejects a connection')
            since = time.monotonic()
            wait_until(lambda: len(writers.statuses(since)) > 5, SLACK_SECONDS, 'writers get responses')
        self.assert_promised(writers, {503})
        self.assertEqual(503, self.server.get('/users').status)
        self.cluster.stop()
        signal_file.unlink()
        self.cluster.start()
        self.assert_recovers()

    def test_too_many_connections_are_503(self):
        self.serve()
        with contextlib.ExitStack() as stack:
            self.cluster.sql(f'SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity {OTHERS}')
            with contextlib.suppress(psycopg2.OperationalError):
                while True:
                    stack.enter_context(self.cluster.connect())
            for _ in range(6):
                for response in (self.server.get('/users'), self.server.post('a@example.com')):
                    self.assertEqual(503, response.status)
                    self.assertIn('Retry-After', response.headers)
        self.assert_recovers()

    def test_read_only_database_is_503_for_writes_only(self):
        self.serve()
        user = self.server.post('a@example.com').body['data']['id']

        def set_read_only(value):
            with self.cluster.connect() as connection, connection.cursor() as cursor:
                cursor.execute('SET default_transaction_read_only = off')
                cursor.execute(f'ALTER SYSTEM SET default_transaction_read_only = {value}')
                cursor.execute('SELECT pg_reload_conf()')
            wait_until(lambda: self.cluster.sql('SHOW default_transaction_read_only') == [(value,)], 5, 'it reloads')

        set_read_only('on')
        for number in range(6):
            self.assertEqual(503, self.server.post(f'{number}@example.com').status)
            self.assertEqual(503, self.server.request('DELETE', f'/users/{user}').status)
            self.assertEqual(200, self.server.get(f'/users/{user}').status)
        self.assertIn('"sqlstate":"25006"', self.server.log())
        set_read_only('off')
        wait_until(lambda: self.server.post(f'{time.monotonic_ns()}@example.com').status == 201, 5, 'writes recover')
        self.assert_recovers()

    def test_exhausted_pool_is_503_after_a_second(self):
        self.serve(WEB_CONCURRENCY='1', POOL_SIZE='1', POOL_OVERFLOW='0')
        with Load(lambda: self.server.get('/ping')) as pings:
            with self.cluster.locked('ACCESS EXCLUSIVE'), Load(self.get_unshared, 6) as readers:
                wait_until(lambda: len(readers.responses) > 4, SLACK_SECONDS, 'the readers get responses')
            wait_until(lambda: len(pings.responses) > 50, SLACK_SECONDS, 'pings get responses')
        self.assert_promised(readers, {200, 503})
        self.assertLess(min(response.seconds for response in readers.responses), 2)
        self.assert_quick(pings, 'exhausted pool, /ping')
        self.assert_recovers()

    def test_conflict_is_retried_and_503_if_it_persists(self):
        self.serve()
        self.cluster.sql(
            'CREATE SEQUENCE attempts; CREATE FUNCTION conflict() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN '
            "IF nextval('attempts') % (TG_ARGV[0]::int) <> 0 THEN RAISE 'conflict' USING ERRCODE = TG_ARGV[1]; END IF; "
            'RETURN NEW; END $$'
        )
        for number, (code, every, status) in enumerate(
            (('40001', 2, 201), ('40P01', 3, 201), ('40001', 10**9, 503), ('40P01', 10**9, 503), ('55P03', 10**9, 503))
        ):
            with self.subTest(code=code, every=every):
                self.cluster.sql(
                    f"SELECT setval('attempts', 1, false); CREATE OR REPLACE TRIGGER conflict BEFORE INSERT ON users "
                    f"FOR EACH ROW EXECUTE FUNCTION conflict({every}, '{code}')"
                )
                self.assertEqual(status, self.server.post(f'{number}@example.com').status)
        self.cluster.sql('DROP TRIGGER conflict ON users')
        self.assert_recovers()

    def test_lock_timeout_is_503(self):
        self.cluster.sql("ALTER DATABASE users SET lock_timeout = '200ms'")
        self.serve()
        with self.cluster.locked('SHARE'):
            self.assertEqual(503, self.server.post('a@example.com').status)
            self.assertEqual(200, self.server.get('/users').status)
        self.assertIn('"sqlstate":"55P03"', self.server.log())
        self.assert_recovers()

    def test_command_waits_longer_than_a_request(self):
        with concurrent.futures.ThreadPoolExecutor() as executor, self.cluster.locked('ACCESS EXCLUSIVE'):
            seeding = executor.submit(manage, self.cluster.dsn(), 'seed_db')
            waiting = "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND now() - query_start > '3.5 s'"
            wait_until(lambda: seeding.done() or self.cluster.sql(waiting), SLACK_SECONDS, 'it waits for the lock')
            self.assertFalse(seeding.done())
        seeding.result()
        self.assertEqual(2, len(self.cluster.emails()))

    def test_missing_table_is_503_with_the_command_that_makes_it(self):
        self.serve()
        self.check_missing_table(self.cluster.dsn())

    def test_unknown_database_host_is_503_in_time(self):
        server = self.start_server('postgresql://users@no-such-host.invalid/users', migrate=False)
        for response in (server.get('/users'), server.get('/health'), server.post('a@example.com')):
            self.assertEqual(503, response.status)
            self.assertLess(response.seconds, PROMISED_SECONDS)
