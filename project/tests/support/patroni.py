"""A cluster of PostgreSQL nodes under Patroni, with etcd, in processes on the loopback address.

It needs Patroni (.ci/requirements.txt), and on Debian ``apt-get install postgresql etcd-server``.
"""

import atexit
import contextlib
import http.client
import json
import os
import shutil
import signal
import tempfile
import time
from functools import cache
from pathlib import Path

import psycopg2

from project.tests.support.nodes import Node, Process
from project.tests.support.servers import HOST, free_port, manage, wait_until


class PatroniCluster:
    """The nodes, and the etcd that elects their leader.

    :param folder: a directory for all files, which the user postgres can enter.
    :param size: the number of nodes.
    """

    def __init__(self, folder: Path, size: int = 3) -> None:
        if not shutil.which('etcd'):
            raise RuntimeError('these tests need etcd: apt-get install etcd-server')
        folder.mkdir()
        if os.geteuid() == 0:
            shutil.chown(folder, 'postgres', 'postgres')
        port = free_port()
        client, peer = f'http://{HOST}:{port}', f'http://{HOST}:{free_port()}'
        options = {
            'data-dir': str(folder / 'etcd'),
            'listen-client-urls': client,
            'advertise-client-urls': client,
            'listen-peer-urls': peer,
            'initial-advertise-peer-urls': peer,
            'initial-cluster': f'default={peer}',
        }
        self.etcd = Process(folder / 'etcd.log', 'etcd', *(f'--{name}={value}' for name, value in options.items()))
        self.nodes = [Node(folder, f'node{number}', port) for number in range(1, size + 1)]

    def start(self) -> None:
        """Start it, and wait until it has its database, and every standby follows."""
        self.etcd.start()
        for node in self.nodes:
            node.start()
        leader = wait_until(self.find_leader, 60, f'a leader is elected; {self.log()}')
        leader.sql('CREATE ROLE users LOGIN', database='postgres')
        leader.sql('CREATE DATABASE users OWNER users', database='postgres')
        self.wait_until_whole()

    def stop(self) -> None:
        """Kill all processes."""
        for node in self.nodes:
            node.kill()
        self.etcd.kill()

    def find_leader(self) -> Node | None:
        """Return the node that is the primary, or None."""
        return next((node for node in self.nodes if node.is_primary()), None)

    @property
    def leader(self) -> Node:
        """The node that is the primary."""
        return wait_until(self.find_leader, 60, 'there is a primary')

    @property
    def standbys(self) -> list[Node]:
        """The other nodes."""
        leader = self.leader
        return [node for node in self.nodes if node is not leader]

    def is_whole(self) -> bool:
        """Return whether there is one primary, and commits wait for any one of the other nodes."""
        primaries = [node for node in self.nodes if node.is_primary()]
        with contextlib.suppress(psycopg2.Error):
            count = "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming' AND sync_state = 'quorum'"
            return len(primaries) == 1 and primaries[0].sql(count) == [(len(self.nodes) - 1,)]
        return False

    def wait_until_whole(self) -> None:
        """Wait until every standby follows."""
        wait_until(self.is_whole, 90, f'all standbys follow; {self.log()}')

    def repair(self) -> None:
        """Let paused processes continue, start those that have ended, and wait until every standby follows."""
        for process in (self.etcd, *self.nodes):
            if process.process is None or process.process.poll() is not None:
                process.start()
            process.signal(signal.SIGCONT)
        for node in self.nodes:
            node.thaw()
        self.wait_until_whole()

    def switch_over(self) -> None:
        """Make a standby the leader, as ``patronictl switchover`` does: through the REST API of the leader."""
        leader, candidate = self.leader, self.standbys[0]
        connection = http.client.HTTPConnection(HOST, leader.api_port, timeout=60)
        with contextlib.closing(connection):
            connection.request('POST', '/switchover', json.dumps({'leader': leader.name, 'candidate': candidate.name}))
            response = connection.getresponse()
            if response.status != 200:
                raise RuntimeError(f'the switchover failed: {response.read().decode()}')

    def url(self) -> str:
        """Return the DATABASE_URL that names all nodes."""
        hosts = '&'.join(f'host={HOST}:{node.port}' for node in self.nodes)
        return f'postgresql://users@/users?{hosts}&target_session_attrs=read-write'

    def log(self) -> str:
        """Return the ends of all logs."""
        return '\n'.join(process.log()[-1500:] for process in (self.etcd, *self.nodes))


@cache
def shared_cluster() -> PatroniCluster:
    """Return a running cluster with the tables of the service, which all tests share. It ends with the process."""
    folder = Path(tempfile.mkdtemp(prefix='users-patroni-'))
    folder.chmod(0o755)
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    cluster = PatroniCluster(folder / 'cluster')
    atexit.register(cluster.stop)
    started = time.monotonic()
    cluster.start()
    manage(cluster.url(), 'db', 'upgrade')
    print(f'  measured: Patroni cluster of {len(cluster.nodes)} nodes, built in {time.monotonic() - started:.1f} s')
    return cluster
