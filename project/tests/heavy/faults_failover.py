"""Responses while a standby is promoted or does not respond, and behind PgBouncer.

Run by name: ``python manage.py test faults_failover``.
"""

import collections
import os
import re
import shutil
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor

from project.tests.support.fault_case import CANCELED, FaultCase, measured
from project.tests.support.loads import Load, Writers
from project.tests.support.proxies import PgBouncer
from project.tests.support.servers import HOST, manage, wait_until


class FailoverTest(FaultCase):
    """A primary and a synchronous standby: each commit waits until the standby has it."""

    def setUp(self):
        super().setUp()
        self.primary = self.start_cluster('primary')
        manage(self.primary.dsn(), 'db', 'upgrade')
        self.standby = self.start_cluster('standby', 'wal_retrieve_retry_interval=100ms', standby_of=self.primary)
        self.primary.stop()
        # On the command line, so that the standby's copy of the configuration doesn't have it.
        self.primary.start('synchronous_standby_names=*')
        wait_until(
            lambda: self.primary.sql('SELECT sync_state FROM pg_stat_replication') == [('sync',)],
            20,
            'the standby follows',
        )

    def serve(self, **kw):
        """Start the service with the addresses of both."""
        hosts = '&'.join(f'host={HOST}:{cluster.port}' for cluster in (self.primary, self.standby))
        url = f'postgresql://users@/users?{hosts}&target_session_attrs=read-write'
        self.server = self.start_server(url, migrate=False, **kw)
        return self.server

    def check_failover(self, lose_primary, after, within):
        """Lose the primary under load, promote the standby, and check that it has every acknowledged user.

        :param after: how long after the loss to promote, in seconds.
        :param within: how long after that clients are served again, in seconds.
        """
        server = self.server
        with (
            Load(lambda: server.get('/ping')) as pings,
            Writers(server, 4) as writers,
            Load(lambda: server.get('/users?limit=5'), 4) as readers,
        ):
            wait_until(lambda: len(writers.acknowledged) > 50, 20, 'writers are served')
            lose_primary()
            lost = time.monotonic()
            wait_until(lambda: 503 in writers.statuses(lost) and 503 in readers.statuses(lost), 10, 'requests fail')
            wait_until(lambda: time.monotonic() > lost + after, 10, 'time passes')
            self.standby.promote()
            promoted = time.monotonic()
            for load, good in ((writers, 201), (readers, 200)):
                wait_until(lambda load=load, good=good: good in load.statuses(lost + 0.2), 10, 'the service recovers')
                first = min(
                    a.started + a.seconds for a in load.responses if a.status == good and a.started > lost + 0.2
                )
                measured(f'failover, first {good} after the promotion', first - promoted)
                self.assertLess(first - promoted, within)
            wait_until(lambda: len(writers.statuses(promoted + within)) > 50, 20, 'writers are served')
        self.assert_promised(writers, {201, 503})
        self.assert_promised(readers, {200, 503})
        self.assertEqual({201}, set(writers.statuses(promoted + within)))
        self.assertEqual({200}, set(readers.statuses(promoted + within)))
        measured(
            'failover, slowest response', max(response.seconds for response in writers.responses + readers.responses)
        )
        self.assert_quick(pings, 'failover, /ping')
        emails = collections.Counter(self.standby.emails())
        self.assertEqual([], [email for email in writers.acknowledged if emails[email] != 1])

    def test_killed_primary(self):
        self.serve()
        self.check_failover(self.primary.kill, after=0.5, within=1)

    def test_paused_primary(self):
        self.serve()
        # After 4 s no request waits for the paused primary any more. A request that connects to it again just before
        # the promotion takes another second.
        self.check_failover(self.primary.freeze, after=4, within=3)

    def test_paused_standby_makes_writes_503_and_not_reads(self):
        # More changes wait for the standby than there are connections for writes. Reads must not wait for these.
        server = self.serve(WEB_CONCURRENCY='1', POOL_SIZE='2')
        path = f'/users/{server.post("first@example.com").body["data"]["id"]}'
        with (
            Load(lambda: server.get('/users'), 2) as lists,
            Load(lambda: server.get(path), 2) as readers,
            Load(lambda: server.get('/ping')) as pings,
        ):
            self.standby.freeze()
            try:
                with (
                    Load(lambda: server.post('waits@example.com')) as writers,
                    Load(lambda: server.request('PATCH', path, {'active': True}), 6) as changers,
                ):
                    wait_until(lambda: len(writers.responses) > 1, 20, 'two writes get a response')
            finally:
                self.standby.thaw()
        self.assert_promised(writers, {503})
        self.assert_promised(changers, {503})
        for load in (lists, readers):
            self.assert_promised(load, {200})
            self.assertGreater(len(load.responses), 50)
        self.assert_quick(pings, 'paused standby, /ping')
        measured('paused standby, response to a write', max(response.seconds for response in writers.responses))
        self.assertIsNone(re.search(CANCELED, self.primary.log()))
        self.assertEqual(201, server.post('after@example.com').status)
        # The client does not know the outcome. The user was not stored twice.
        self.assertLessEqual(self.primary.emails().count('waits@example.com'), 1)


class MissingStandbyTest(FaultCase):
    """A primary whose COMMITs wait for a standby, and no standby."""

    def setUp(self):
        super().setUp()
        self.primary = self.start_cluster('primary')
        self.standby = self.start_cluster('standby', standby_of=self.primary)
        self.standby.stop()
        self.primary.stop()
        self.primary.start('synchronous_standby_names=ANY 1 (*)')

    def test_upgrade_ends_with_what_to_do_and_changes_nothing(self):
        with self.assertRaises(subprocess.CalledProcessError) as failed:
            manage(self.primary.dsn(), 'db', 'upgrade')
        self.assertEqual(
            failed.exception.stderr.decode().splitlines(),
            [
                f'Waiting up to 30 s for a standby of the database users at {HOST}:{self.primary.port}',
                f'No standby has confirmed a COMMIT within 30 s, so nothing was changed in users at '
                f"{HOST}:{self.primary.port}. Start a standby; synchronous_standby_names is 'ANY 1 (*)'.",
            ],
        )
        self.assertEqual([], self.primary.sql("SELECT 1 FROM pg_class WHERE relname IN ('users', 'alembic_version')"))
        self.assertIsNone(re.search(CANCELED, self.primary.log()))

    def test_upgrade_waits_for_a_standby_that_starts(self):
        with ThreadPoolExecutor(1) as threads:
            upgrade = threads.submit(manage, self.primary.dsn(), 'db', 'upgrade')
            waiting = "SELECT 1 FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
            wait_until(lambda: self.primary.sql(waiting), 20, 'the upgrade waits')
            self.standby.start()
            upgrade.result(40)
        self.assertEqual([(0,)], self.standby.sql('SELECT count(*) FROM users'))
        # If no migration is needed, the loss of the standby does not matter.
        self.standby.kill()
        manage(self.primary.dsn(), 'db', 'upgrade')


class PgBouncerTest(FaultCase):
    """The service behind PgBouncer in transaction mode, which gives each transaction another connection."""

    def test_service_keeps_no_state_in_a_session(self):
        if not shutil.which('pgbouncer', path=f'{os.environ["PATH"]}:/usr/sbin'):
            raise RuntimeError('this test needs PgBouncer: apt-get install pgbouncer')
        cluster = self.start_cluster('cluster', 'log_statement=all')
        manage(cluster.dsn(), 'db', 'upgrade')
        logged = len(cluster.log())
        bouncer = PgBouncer(self.directory, cluster.port, pool_size=2)
        bouncer.start()
        self.addCleanup(bouncer.kill)
        server = self.start_server(f'postgresql://users@{HOST}:{bouncer.port}/users', migrate=False)
        with Load(lambda: server.get('/users?limit=10'), 4) as readers, Writers(server, 4) as writers:
            wait_until(lambda: len(writers.acknowledged) > 200, 30, 'writers are served')
            user = server.post('ann@example.com').body['data']
            path = f'/users/{user["id"]}'
            self.assertEqual('bob', server.request('PATCH', path, {'username': 'bob'}).body['data']['username'])
            self.assertEqual('bob', server.get(path).body['data']['username'])
            self.assertEqual(204, server.request('DELETE', path).status)
            self.assertEqual(404, server.get(path).status)
        self.assert_promised(writers, {201})
        self.assert_promised(readers, {200})
        cluster.add_users(5000)
        expected = cluster.emails()
        self.assertEqual(expected, sorted(user['email'] for user in server.get('/users').body['data']['users']))
        paged, url = [], '/users?limit=700'
        while url:
            data = server.get(url).body['data']
            paged += data['users']
            url = data.get('next')
        self.assertEqual(expected, sorted(user['email'] for user in paged))
        # SET LOCAL ends with its transaction.
        state = re.compile('statement: (SET (?!LOCAL)|PREPARE|LISTEN)|pg_advisory_lock|WITH HOLD')
        self.assertIsNone(state.search(cluster.log()[logged:]))
        with Writers(server, 2) as writers:
            cluster.restart()
            since = time.monotonic()
            wait_until(lambda: 201 in writers.statuses(since + 1), 20, 'the service recovers')
        self.assert_promised(writers, {201, 503})
        emails = collections.Counter(cluster.emails())
        self.assertEqual([], [email for email in writers.acknowledged if emails[email] != 1])
