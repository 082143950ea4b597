"""The base of the tests of clusters: the load on the service, and the checks of its promises to clients."""

import collections
import contextlib
import itertools
import time
from collections.abc import Callable, Iterator

from project.tests.support.commits import Commits
from project.tests.support.fault_case import FaultCase, measured
from project.tests.support.histories import check
from project.tests.support.loads import Load
from project.tests.support.nodes import Node
from project.tests.support.patroni import PatroniCluster, shared_cluster
from project.tests.support.recorder import Recorder
from project.tests.support.servers import Server, wait_until

# From the first possible commit of a leader to a successful write. The limit is this plus the time of the slowest
# /ping, because other programs delay both.
RECOVERY_SECONDS = 1.0
MOVE_SECONDS = 3.0  # from the promotion of a second primary to a successful write
FAILOVER_SECONDS = 60.0  # until a leader is elected and has its standby


class ClusterCase(FaultCase):
    """A service with two workers on a cluster under Patroni, which all tests of the process share."""

    patroni: PatroniCluster
    recorder: Recorder
    adds: Load
    reads: Load
    pings: Load
    commits: Commits

    def setUp(self) -> None:
        """Repair the cluster."""
        super().setUp()
        self.patroni = shared_cluster()
        self.patroni.repair()
        self.addCleanup(self.thaw)
        self.patroni.leader.sql('TRUNCATE users')

    def thaw(self) -> None:
        """Let processes that the test has paused continue, so that they can be killed."""
        for node in self.patroni.nodes:
            node.thaw()

    def serve(self, url: str | None = None) -> Server:
        """Start the service, by default with the addresses of all nodes."""
        self.server = self.start_server(url or self.patroni.url(), migrate=False)
        return self.server

    @contextlib.contextmanager
    def load(self, writers: int = 8) -> Iterator[None]:
        """Send requests while the ``with`` block runs; then check the promises, and the history of the requests.

        :param writers: the number of clients that add users with emails of their own.
        """
        self.recorder = Recorder(self.server)
        self.recorder.add()
        self.adds = Load(self.recorder.add, writers, 0.05)
        self.reads = Load(self.recorder.read, 4, 0.03)
        contests = Load(self.recorder.contest, 2, 0.05)
        pages = Load(self.recorder.page, 1, 0.1)
        changes = Load(self.recorder.change, 2, 0.1)
        removals = Load(self.recorder.remove, 1, 0.5)
        self.pings = Load(lambda: self.server.get('/ping'), 1, 0.1)
        with self.adds, self.reads, contests, pages, changes, removals, self.pings:
            wait_until(lambda: self.adds.statuses().count(201) > 40, 30, 'users are added')
            yield
        for load, good in ((self.adds, {201}), (self.reads, {200, 404}), (contests, {201, 400}), (pages, {200}),
                           (changes, {200, 404}), (removals, {204, 404})):  # fmt: skip
            self.assert_promised(load, good | {503})
        self.assert_promised(self.pings, {200})
        self.assertLessEqual({201, 400}, set(contests.statuses()), 'no email was contested')
        slowest = max(response.seconds for load in (self.adds, self.reads, pages) for response in load.responses)
        measured(f'{self.id().rpartition(".")[2]}, slowest response', slowest)
        self.check_history()

    def check_history(self) -> None:
        """Check the history of the requests, and that each acknowledged user is in the database once."""
        self.patroni.repair()
        wait_until(lambda: self.recorder.read_all().status == 200, 20, 'all users can be read')
        self.assertEqual([], check(self.recorder.history)[:5])
        stored = dict(self.patroni.leader.sql('SELECT id, lower(email) FROM users'))
        emails = collections.Counter(stored.values())
        self.assertEqual([], [email for email, count in emails.items() if count > 1])
        removed = {one.user_id for one in self.recorder.history if one.kind == 'remove'}
        added = [one for one in self.recorder.history if one.kind == 'add' and one.outcome == 'acknowledged']
        lost = [one.email for one in added if one.users[0].id not in removed | stored.keys()]
        self.assertEqual([], lost[:5])
        self.assertGreater(len(added), 40)

    def check_failover(
        self, fault: Callable[[], object], moves: bool = True, within: float = RECOVERY_SECONDS
    ) -> tuple[Node, float]:
        """Cause a fault under load, and check that writes succeed soon after the leader can commit again.

        :param moves: whether another node becomes the leader; if not, the same one may.
        :param within: the seconds until the first write succeeds, to which the time of the slowest /ping is added.
        :returns: the leader afterwards, and when the fault was caused.
        """
        old = self.patroni.leader
        with Commits(self.patroni) as self.commits:
            wait_until(lambda: self.commits.first(old, 0), 20, 'the leader commits')
            lost = time.monotonic()
            fault()
            since = lost if moves else time.monotonic()  # the old leader may have committed before the fault
            nodes = [node for node in self.patroni.nodes if not moves or node is not old]

            def committing() -> Node | None:
                return next((node for node in nodes if self.commits.first(node, since)), None)

            leader = wait_until(committing, FAILOVER_SECONDS, f'another leader commits; {self.patroni.log()}')
            can_commit = self.commits.first(leader, since) or 0.0
            wait_until(lambda: self.first_success(can_commit), 20, 'a user is added')
            time.sleep(2)  # for more of the history
        name = self.id().rpartition('.')[2]
        first = self.first_success(can_commit) - can_commit
        measured(f'{name}, from the fault until the leader can commit', can_commit - lost)
        measured(f'{name}, from then to the first 201', first)
        measured(f'{name}, longest time without a 201', self.longest_gap(lost))
        slowest_ping = max(response.seconds for response in self.pings.responses if response.started > lost - 1)
        self.assertLess(first, within + slowest_ping)
        return leader, lost

    def check_paused_standbys(self) -> None:
        """Pause all standbys for a while, and check that writes get 503 and reads succeed."""
        standbys = self.patroni.standbys
        with self.load(writers=24), Load(lambda: self.server.get('/users?limit=5'), 2) as lists:
            started = time.monotonic()
            for standby in standbys:
                standby.freeze()
            time.sleep(10)
            ended = time.monotonic()
            for standby in standbys:
                standby.thaw()
            wait_until(lambda: self.first_success(ended), 20, 'a user is added')
            time.sleep(2)  # for more of the history
        measured('all standbys paused, first 201 after they continue', self.first_success(ended) - ended)
        self.assertIn(503, self.adds.statuses(started, ended))
        for load in (self.reads, lists):
            during = [response for response in load.responses if started <= response.started < ended]
            self.assertEqual({200}, {response.status for response in during} - {404})
            self.assertGreater(len(during), 100)
            slowest = max(response.seconds for response in during)
            measured('all standbys paused, slowest read', slowest)
            self.assertLess(slowest, 1 + max(response.seconds for response in self.pings.responses))

    def first_success(self, since: float) -> float:
        """Return when the first 201 after ``since`` was complete; 0 if there is none."""
        ends = [one.started + one.seconds for one in list(self.adds.responses) if one.status == 201]
        return min((end for end in ends if end >= since), default=0.0)

    def longest_gap(self, since: float) -> float:
        """Return the longest time without a 201 after ``since``."""
        ends = sorted(one.started + one.seconds for one in list(self.adds.responses) if one.status == 201)
        ends = [since, *(end for end in ends if end >= since)]
        return max((later - earlier for earlier, later in itertools.pairwise(ends)), default=0.0)
