"""The service under a mixed load for minutes, while its workers are killed and PostgreSQL is restarted.

Run by name, after ``pip install -r .ci/requirements.txt``: ``python manage.py test endurance.OneMinute``, or
``endurance.FiveMinutes``. Only the second one limits the growth after a worker's first minute.

The tests always kill the youngest worker, so that the others run for long.
"""

import contextlib
import itertools
import math
import os
import random
import signal
import time
import unittest
from collections import defaultdict

import psutil

from project.tests.support.fault_case import PROMISED_SECONDS, FaultCase
from project.tests.support.loads import Load, Writers
from project.tests.support.servers import SLACK_SECONDS, wait_until

WORKERS = 3
CLIENTS, LEAVERS = 4, 2  # of each kind
SAMPLES = 3  # of the greenlets of a worker
POOLS, POOL_SIZE = 3, 5  # engines for requests, and the connections that each keeps
KILL_EVERY = 10  # seconds
MIB = 1024 * 1024
MOST_GROWTH = 10 * MIB
WATCHED = """
import gc
import os
import threading

import gevent

from manage import app


@app.get('/greenlets')
def count_greenlets():
    gc.collect()
    found = [o for o in gc.get_objects() if issubclass(type(o), gevent.Greenlet) and not o.dead]
    resolvers = [one for one in threading.enumerate() if one.name.startswith('resolver')]  # a pool, which stays
    return {'pid': os.getpid(), 'greenlets': len(found) - len(resolvers)}
"""
PATHS = ('/users?limit=20', '/users?q=wr&limit=10', '/users?active=true&limit=5', '/users/1', '/ping', '/health')


class Lives(Load):
    """Clients that add, change, find and remove users, on one connection for each user.

    :ivar removed: the emails whose removal was acknowledged.
    """

    def __init__(self, server, clients):
        super().__init__(self._live, clients)
        self.server = server
        self.removed = []
        self._numbers = itertools.count()

    def _live(self):
        email = f'life{next(self._numbers)}@example.com'
        with contextlib.closing(self.server.connect()) as connection:
            response = self.server.post(email, connection)
            if response.status != 201:
                return response
            self.responses.append(response)
            path, added = f'/users/{response.body["data"]["id"]}', response.headers['ETag']
            response = self.server.request('PATCH', path, {'active': True}, connection, If_Match=added)
            if response.status != 200:
                return response
            self.responses.append(response)
            for at, headers in ((f'/users?q={email}&count=true', {}), (path, {'If_None_Match': added})):
                self.responses.append(self.server.request('GET', at, connection=connection, **headers))
            response = self.server.request('DELETE', path, connection=connection)
        if response.status == 204:
            self.removed.append(email)
        return response


class Endurance(FaultCase):
    """A run. Its subclasses set the durations, in seconds."""

    seconds: int
    restart_every: int
    first: int  # after this age of a worker its growth is limited

    def setUp(self):
        if type(self) is Endurance:
            raise unittest.SkipTest('the classes OneMinute and FiveMinutes run it')
        super().setUp()
        self.cluster = self.start_cluster('cluster')
        (self.directory / 'watched.py').write_text(WATCHED)
        self.server = self.start_server(self.cluster.dsn(), app='watched:app', WEB_CONCURRENCY=str(WORKERS))
        self.born = {}  # when each worker was first seen, on the monotonic clock
        self.memory = {}  # of each worker: pairs of its age and its own memory in bytes
        self.restarts = []  # start and end

    def test_workers_do_not_grow_and_leave_nothing_behind(self):
        server = self.server
        self.assertEqual('/users/1', server.post('first@example.com').headers['Location'])
        resources = self.resources()
        readers = Load(lambda: server.get(random.choice(PATHS)), CLIENTS)
        leavers, lives, writers = Load(self.leave, LEAVERS, 0.5), Lives(server, CLIENTS), Writers(server, CLIENTS)
        loads = (readers, leavers, lives, writers)
        with readers, leavers, lives, writers:
            kills = self.disturb()
        self.check_resources(resources)
        self.check_growth()
        self.check_responses(loads, kills)
        self.assertTrue(writers.acknowledged and lives.removed, 'no client added a user, or none removed one')
        stored = self.cluster.emails()
        self.assertEqual(len(stored), len(set(stored)))
        self.assertEqual([], sorted(set(writers.acknowledged) - set(stored)), 'acknowledged, and lost')
        self.assertEqual([], sorted(set(lives.removed) & set(stored)), 'removed, and still there')
        print(f'  {len(writers.acknowledged)} users added, {len(lives.removed)} added and removed')

    def leave(self):
        """Request all users, and disconnect after the first byte."""
        with contextlib.closing(self.server.connect()) as connection:
            connection.request('GET', '/users')
            connection.getresponse().read(1)
        return self.server.get('/ping')

    def disturb(self):
        """Kill workers and restart PostgreSQL during the run; return the number of kills."""
        start = time.monotonic()
        kill_at, restart_at, kills = KILL_EVERY, self.restart_every, 0
        while (elapsed := time.monotonic() - start) < self.seconds:
            self.sample()
            if elapsed >= kill_at:
                # A worker that no sample has is the youngest.
                os.kill(max(self.server.workers(), key=lambda pid: self.born.get(pid, math.inf)), signal.SIGKILL)
                kill_at, kills = kill_at + KILL_EVERY, kills + 1
            if elapsed >= restart_at:
                began = time.monotonic()
                self.cluster.restart()
                self.restarts.append((began, time.monotonic()))
                restart_at += self.restart_every
            time.sleep(0.5)
        return kills

    def sample(self):
        """Record the memory of each worker that no other process shares."""
        now = time.monotonic()
        for pid in self.server.workers():
            with contextlib.suppress(psutil.NoSuchProcess):
                memory = psutil.Process(pid).memory_full_info().uss
                self.memory.setdefault(pid, []).append((now - self.born.setdefault(pid, now), memory))

    def resources(self):
        """Return for each worker its greenlets, its descriptors without database connections, and the latter."""
        counts = defaultdict(list)
        # Each worker several times, since the connection of the previous request may not be closed yet.
        while len(counts) < WORKERS or min(map(len, counts.values())) < SAMPLES:
            body = self.server.get('/greenlets').body
            counts[body['pid']].append(body['greenlets'])
        found = {}
        for pid, greenlets in counts.items():
            process, port = psutil.Process(pid), self.cluster.port
            connections = [one for one in process.net_connections('tcp') if one.raddr and one.raddr.port == port]
            found[pid] = min(greenlets), process.num_fds() - len(connections), connections
        return found

    def check_resources(self, before):
        """Check that no greenlet, descriptor or busy connection remains after the clients have disconnected."""
        most = [max(values) for values in zip(*((one[0], one[1]) for one in before.values()), strict=True)]

        def rest():
            after = self.resources()
            return after if all(one[0] <= most[0] and one[1] <= most[1] for one in after.values()) else None

        after = wait_until(rest, SLACK_SECONDS, f'no worker has more greenlets and descriptors than before: {most}')
        backends = self.cluster.sql(
            "SELECT client_port, state FROM pg_stat_activity WHERE datname = 'users' AND pid <> pg_backend_pid()"
        )
        held = {
            one.laddr.port for *_, found in after.values() for one in found if one.status == psutil.CONN_ESTABLISHED
        }
        self.assertEqual(held, {port for port, _ in backends}, 'connections that no worker has, or no server')
        self.assertEqual({'idle'}, {state for _, state in backends})
        self.assertLessEqual(max(len(found) for *_, found in after.values()), POOLS * POOL_SIZE)
        print(f'  of each worker: greenlets, descriptors: {most} before, {[one[:2] for one in after.values()]} after')
        print(f'  {len(backends)} connections, all idle')

    def check_growth(self):
        """Check the growth of each worker that has reached the age."""
        old = {pid: samples for pid, samples in self.memory.items() if samples[-1][0] > self.first + KILL_EVERY}
        self.assertGreaterEqual(len(old), WORKERS - 1)
        for samples in old.values():
            late = [memory for age, memory in samples if age >= self.first]
            first, then, most, last = (memory / MIB for memory in (samples[0][1], late[0], max(late), late[-1]))
            print(
                f'  a worker of {samples[-1][0]:.0f} s: {first:.1f} MiB at first, {then:.1f} after {self.first} s, '
                f'then at most {most:.1f}, {last:.1f} at the end'
            )
            self.assertLess(max(late) - late[0], MOST_GROWTH)

    def check_responses(self, loads, kills):
        """Check that killed workers lost at most the requests that they held, and that only restarts caused 503."""
        responses = [response for load in loads for response in load.responses]
        failures = [failure for load in loads for failure in load.failures]
        self.assertLessEqual(len(failures), (3 * CLIENTS + LEAVERS) * kills, failures[:3])
        self.assertLessEqual({response.status for response in responses}, {200, 201, 204, 503})
        self.assertLess(max(response.seconds for response in responses), PROMISED_SECONDS)
        unavailable = [response for response in responses if response.status == 503]
        for response in unavailable:
            near = (begin - 1 < response.started < end + PROMISED_SECONDS for begin, end in self.restarts)
            self.assertTrue(any(near), response.body)
        print(
            f'  {len(responses)} responses, {len(unavailable)} of them 503; {len(failures)} requests failed; '
            f'{kills} workers killed, {len(self.restarts)} restarts'
        )


class OneMinute(Endurance):
    seconds, restart_every, first = 60, 25, 15


class FiveMinutes(Endurance):
    seconds, restart_every, first = 300, 60, 60
