"""Chooses among the hosts of PostgreSQL that the URL names, and their addresses."""

import random
import socket
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg2

from project.database import libpq
from project.database.connecting import TimedOut, as_driver_error, deadline, is_probe, seconds_left

CONNECT_SECONDS = 1.0  # for one address of a database host to accept a connection
# The same, if the address has timed out within UNRESPONSIVE_SECONDS, and another one has just responded.
RETRY_SECONDS = 0.2
UNRESPONSIVE_SECONDS = 30.0

_resolver = ThreadPoolExecutor(4, 'resolver')
_timed_out: dict[libpq.Server, float] = {}  # when an address timed out or was abandoned


def timed_out_at(address: libpq.Server) -> float:
    """Return when an address timed out or was abandoned, on the monotonic clock; 0 if a connection succeeded since."""
    return _timed_out.get(address, 0.0)


def try_last(address: libpq.Server) -> None:
    """Let new connections try an address after all others, until a connection to it succeeds."""
    _timed_out[address] = time.monotonic()


def record_timeout(address: libpq.Server) -> None:
    """Let new connections try an address last, because it did not respond. A health check records nothing."""
    if not is_probe():
        try_last(address)


def addresses(parameters: Mapping[str, str]) -> list[libpq.Server]:
    """Return the addresses of the database's hosts, in the order of the URL.

    :param parameters: as :func:`project.database.libpq.parameters` returned them.
    :raises psycopg2.OperationalError: no host has one.
    """
    error = psycopg2.OperationalError('no host of the database has an address')
    found: list[libpq.Server] = []
    for server in libpq.servers(parameters):
        try:
            found += [server._replace(hostaddr=address) for address in _resolve(server)]
        except psycopg2.OperationalError as reason:
            error = reason
    if not found:
        raise error
    return found


def connect(arguments: dict[str, Any]) -> tuple[Any, libpq.Server]:
    """Connect to the first address of the database's hosts that accepts, each within its own deadline.

    The hosts are those that libpq would choose: from the URL, a service file or its variables. libpq's parameter
    ``connect_timeout`` has no effect.

    :param arguments: those of ``psycopg2.connect()``.
    :returns: the psycopg2 connection, and the address.
    :raises psycopg2.Error: the error of the last address, or of one that timed out.
    """
    parameters = libpq.parameters(arguments)
    found = addresses(parameters)
    error: psycopg2.Error = psycopg2.OperationalError('no host of the database accepts connections')
    responded = False  # an address that has rejected the connection
    if parameters.get('load_balance_hosts') == 'random':
        random.shuffle(found)
    # libpq knows one address at a time, so it cannot prefer a standby among several.
    prefers_standby = parameters.get('target_session_attrs') == 'prefer-standby'
    for attributes in ('standby', 'any') if prefers_standby else (None,):
        wanted = {'target_session_attrs': attributes} if attributes else {}
        # Try addresses that timed out last: each would cost a new connection its deadline.
        for address in sorted(found, key=timed_out_at):
            # If the last leader does not respond, the others are tried often, since one of them will be promoted.
            late = responded and time.monotonic() < timed_out_at(address) + UNRESPONSIVE_SECONDS
            try:
                with deadline(RETRY_SECONDS if late else CONNECT_SECONDS):
                    connection = psycopg2.connect(**{**arguments, **address._asdict(), **wanted})
                _timed_out.pop(address, None)
                return connection, address
            except Exception as reason:
                if isinstance(reason, TimedOut) and not late:
                    record_timeout(address)
                responded = responded or not isinstance(reason, TimedOut)
                if not isinstance(error, TimedOut):
                    error = as_driver_error(reason)
    raise error


def _resolve(server: libpq.Server) -> list[str]:
    """Return the IP addresses of a server; an empty one for a Unix socket."""
    host = server.host
    if server.hostaddr or not host or host.startswith(('/', '@')):
        return [server.hostaddr]
    seconds = max(0, min(CONNECT_SECONDS, seconds_left()))
    future = _resolver.submit(socket.getaddrinfo, host, None, type=socket.SOCK_STREAM)
    try:
        found = future.result(seconds)
    except TimeoutError:
        future.cancel()  # else look-ups that have no thread yet would delay those of later requests
        raise TimedOut('the name service did not respond in time') from None
    except OSError:
        raise psycopg2.OperationalError('the name of a database host is unknown') from None
    return [str(address[0]) for *_, address in found]
