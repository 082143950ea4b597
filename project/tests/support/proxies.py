"""HAProxy and PgBouncer in front of PostgreSQL. On Debian: ``apt-get install haproxy pgbouncer``."""

from pathlib import Path

from project.tests.support.nodes import Process
from project.tests.support.patroni import PatroniCluster
from project.tests.support.servers import HOST, free_port

HAPROXY = """
global
    maxconn 1000

defaults
    mode tcp
    maxconn 1000
    retries 1
    timeout connect 500ms
    timeout client 30m
    timeout server 30m
    timeout check 500ms

listen primary
    bind {host}:{port}
    option httpchk OPTIONS /primary
    http-check expect status 200
    default-server inter 500ms fall 2 rise 1 on-marked-down shutdown-sessions
"""
PGBOUNCER = """
[databases]
users = host={host} port={server_port}

[pgbouncer]
listen_addr = {host}
listen_port = {port}
unix_socket_dir =
auth_type = trust
auth_file = {folder}/users.txt
pool_mode = transaction
default_pool_size = {pool_size}
max_client_conn = 500
server_login_retry = 1
"""


class HAProxy(Process):
    """HAProxy, which forwards connections to the node that its Patroni reports as the primary.

    :ivar port: where it listens.
    """

    def __init__(self, folder: Path, cluster: PatroniCluster) -> None:
        self.port = free_port()
        config = folder / 'haproxy.cfg'
        servers = ''.join(
            f'    server {node.name} {HOST}:{node.port} check port {node.api_port}\n' for node in cluster.nodes
        )
        config.write_text(HAPROXY.format(host=HOST, port=self.port) + servers)
        super().__init__(folder / 'haproxy.log', 'haproxy', '-f', str(config))


class PgBouncer(Process):
    """PgBouncer in transaction mode.

    :param server_port: of the PostgreSQL server, or of a proxy in front of it.
    :param pool_size: the number of its connections to the server, for any number of clients.
    :ivar port: where it listens.
    """

    def __init__(self, folder: Path, server_port: int, pool_size: int = 40) -> None:
        self.port = free_port()
        (folder / 'users.txt').write_text('"users" ""\n')
        config = folder / 'pgbouncer.ini'
        text = PGBOUNCER.format(host=HOST, port=self.port, server_port=server_port, folder=folder, pool_size=pool_size)
        config.write_text(text)
        super().__init__(folder / 'pgbouncer.log', 'pgbouncer', str(config))
