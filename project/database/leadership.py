"""Checks that the server of a connection is still the leader, if the URL names several servers.

A standby can be promoted while the old primary still accepts connections, for example if only the Patroni of the old
primary hangs. Commits on the old primary then wait forever for standbys that follow the new leader, and its reads are
stale. The timeline decides between two primaries: each promotion begins a higher one (PostgreSQL's manual,
"Timelines").

The rule that keeps reads from being stale, for any number of processes that share nothing but the databases:

1. A connection is used only if its server has passed a check within the last ``CHECK_SECONDS``. A server passes if a
   standby receives its WAL, or if no other server is a primary with a higher timeline.
2. A server that does not pass is abandoned. All connections to it are replaced, and new ones try it last.
3. When a process finds that another server than before can commit, because it has a standby or has just committed,
   the process waits for ``SETTLE_SECONDS`` before it responds. By then, all other processes have checked their servers.

The rule requires that a new leader cannot commit before all standbys have left the old one. An example is three nodes
under Patroni with ``synchronous_mode_strict``.

A database role without privileges sees that a server sends its WAL, but not to what. So a backup tool such as
``pg_receivewal`` counts as a standby. While one is connected to an abandoned primary, reads leave it only after a write
has timed out.
"""

import contextlib
import threading
import time
from math import inf
from typing import Any

import psycopg2

from project.database import connecting, hosts, libpq

CHECK_SECONDS = 0.15
SETTLE_SECONDS = 0.3  # more than CHECK_SECONDS: a process may pause between a check and its statement
PROBE_SECONDS = 0.25  # for another server to report whether it is a primary
SKIP_SECONDS = 5.0  # for which a server that timed out is not probed
POSITION = (
    'SELECT CASE WHEN NOT pg_is_in_recovery() THEN left(pg_walfile_name(pg_current_wal_lsn()), 8) END,'
    ' EXISTS (SELECT FROM pg_stat_get_wal_senders())'
)

_probing = threading.Lock()
_checked: dict[libpq.Server, float] = {}  # when the server last passed; infinity where it need not
_suspects: set[libpq.Server] = set()  # a write to them timed out
_settled: dict[libpq.Server, float] = {}  # the leader, and the end of the wait of rule 3


def is_abandoned(connection: Any, server: libpq.Server, arguments: dict[str, Any]) -> bool:
    """Return whether another server is now the leader instead of this one.

    :param connection: the psycopg2 connection, idle.
    :param server: the server to which it is connected.
    :param arguments: those of ``psycopg2.connect()``, with all servers.
    :raises psycopg2.Error: the server did not respond, or closed the connection.
    """
    now = time.monotonic()
    if now < _checked.get(server, -inf) + CHECK_SECONDS:
        return False
    if server not in _checked:
        # One of several hosts whose names are unknown now may be the leader later.
        several = len(libpq.servers(libpq.parameters(arguments))) > 1 or _others(server, arguments)
        _checked[server] = -inf if several else inf
        return is_abandoned(connection, server, arguments)
    timeline, has_standby = _position(connection)
    if timeline and (not has_standby or server in _suspects):
        with _probing:
            now = time.monotonic()
            if any(_timeline(other, arguments) > timeline for other in _others(server, arguments)):
                hosts.try_last(server)
                return True
        _suspects.discard(server)
    if timeline and has_standby and settle(server):
        return is_abandoned(connection, server, arguments)
    if not timeline or has_standby or server in _settled:
        _checked[server] = now
    return False


def suspect(server: libpq.Server) -> None:
    """Let the next check of a server include the other servers, because a write to it has timed out."""
    if _checked.get(server) != inf:
        _suspects.add(server)
        _checked[server] = -inf


def settle(server: libpq.Server) -> bool:
    """Wait until rows of a server that can commit may be returned, and its commits acknowledged (rule 3).

    :param server: a server that has a standby, or has just committed.
    :returns: whether this function waited.
    """
    if _checked.get(server) == inf:
        return False
    now = time.monotonic()
    end = _settled.get(server)
    if end is None:
        end = now + SETTLE_SECONDS
        _settled.clear()  # a thread that finds another leader may do so at any time
        _settled[server] = end
    if waits := now < end:
        time.sleep(end - now)
    return waits


def is_superseded(server: libpq.Server) -> bool:
    """Return whether this process has found another leader than this server. It takes no round trip."""
    return bool(_settled) and server not in _settled and _checked.get(server) != inf


def _others(server: libpq.Server, arguments: dict[str, Any]) -> list[libpq.Server]:
    """Return the other servers; none if no name can be resolved now."""
    with contextlib.suppress(psycopg2.OperationalError):
        return [other for other in hosts.addresses(libpq.parameters(arguments)) if other != server]
    return []


def _position(connection: Any) -> tuple[str | None, bool]:
    """Return a primary's timeline, None for a standby and other databases, and whether a standby receives its WAL."""
    try:
        with connection.cursor() as cursor:
            cursor.execute(POSITION)
            return cursor.fetchone() or (None, True)
    except psycopg2.OperationalError:
        raise
    except psycopg2.DatabaseError:  # it is no PostgreSQL, and lacks the functions
        return None, True
    finally:
        if not connection.closed:
            connection.rollback()


def _timeline(server: libpq.Server, arguments: dict[str, Any]) -> str:
    """Return the timeline of a server, which is empty if it is no primary, or does not respond."""
    if time.monotonic() < hosts.timed_out_at(server) + SKIP_SECONDS:
        return ''
    with contextlib.suppress(psycopg2.Error, UnicodeDecodeError), connecting.deadline(PROBE_SECONDS):
        try:
            connection = psycopg2.connect(**{**arguments, **server._asdict()})
        except connecting.TimedOut:
            hosts.record_timeout(server)
            raise
        with contextlib.closing(connection):
            return _position(connection)[0] or ''
    return ''
