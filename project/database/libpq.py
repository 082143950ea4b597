"""The parameters by which libpq chooses a server and a database: from the URL, a service file and ``PG*`` variables.

libpq reads all its other parameters itself. These are needed here, because :mod:`project.database.connecting` tries
one host after the other, and because two URLs may name the same database. PostgreSQL's manual, chapter "libpq":
"Parameter Key Words", "Environment Variables" and "The Connection Service File".
"""

import os
import re
from collections.abc import Mapping
from getpass import getuser
from pathlib import Path
from typing import Any, NamedTuple

import psycopg2
from psycopg2.extensions import make_dsn, parse_dsn

VARIABLES = {
    'dbname': 'PGDATABASE',
    'host': 'PGHOST',
    'hostaddr': 'PGHOSTADDR',
    'load_balance_hosts': 'PGLOADBALANCEHOSTS',
    'port': 'PGPORT',
    'target_session_attrs': 'PGTARGETSESSIONATTRS',
    'user': 'PGUSER',
}


class Server(NamedTuple):
    """A server that libpq would try. An empty text stands for libpq's built-in default."""

    host: str
    hostaddr: str
    port: str


def parameters(arguments: Mapping[str, Any]) -> dict[str, str]:
    """Return the effective parameters of :data:`VARIABLES`, and all others that are given.

    :param arguments: those of ``psycopg2.connect()``.
    :raises psycopg2.Error: libpq has no such parameter, or the service file does not define the service.
    """
    given: dict[str, str] = parse_dsn(make_dsn(**arguments)) if arguments else {}
    variables = {name: os.environ[variable] for name, variable in VARIABLES.items() if variable in os.environ}
    service = given.get('service', os.environ.get('PGSERVICE'))
    found = variables | (_read_service(service) if service is not None else {}) | given
    found['user'] = found.get('user') or _system_user()
    found['dbname'] = found.get('dbname') or found['user']
    return found


def servers(found: Mapping[str, str]) -> list[Server]:
    """Return the servers in the order in which libpq would try them.

    :param found: as :func:`parameters` returned them.
    :raises psycopg2.OperationalError: the numbers of hosts, addresses and ports differ.
    """
    hosts, addresses, ports = (found.get(name, '').split(',') for name in ('host', 'hostaddr', 'port'))
    count = len(addresses if found.get('hostaddr') else hosts)
    if not found.get('host'):
        hosts *= count
    if not found.get('hostaddr'):
        addresses *= count
    if len(ports) == 1:
        ports *= count
    if not len(hosts) == len(addresses) == len(ports):
        raise psycopg2.OperationalError('the numbers of hosts, host addresses and ports of the database differ')
    return [Server(*each) for each in zip(hosts, addresses, ports, strict=True)]


def check(arguments: Mapping[str, Any]) -> None:
    """Check parameters as libpq does before it sends anything.

    :param arguments: those of ``psycopg2.connect()``.
    :raises psycopg2.Error: libpq has no such parameter, or a value is invalid. The message does not contain the value.
    """
    count = len(servers(parameters(arguments)))
    try:
        # No connection to the broadcast address is possible. Before it tries, libpq has checked the values.
        psycopg2.connect(**{**arguments, 'hostaddr': ','.join(['255.255.255.255'] * count)}).close()
    except psycopg2.Error as error:
        if found := re.search('(?:^|failed: )((?:invalid|weak) .*)', str(error).strip(), re.DOTALL):
            message = re.sub(': ".*"$| ".*"(?= for )', '', found[1], flags=re.DOTALL)
            raise psycopg2.OperationalError(message) from None


def _read_service(name: str) -> dict[str, str]:
    """Return the parameters of a service, as libpq reads them."""
    # A user without a home has no file there.
    home = os.path.join(os.environ.get('APPDATA', ''), 'postgresql') if os.name == 'nt' else os.path.expanduser('~')
    own = os.environ.get('PGSERVICEFILE') or os.path.join(home, '.pg_service.conf')
    shared = Path(os.environ.get('PGSYSCONFDIR') or '/etc/postgresql-common') / 'pg_service.conf'
    for file in (Path(own), shared):
        found: dict[str, str] | None = None
        for line in file.read_text(encoding='utf-8', errors='replace').splitlines() if file.is_file() else ():
            text = line.strip()
            if text.startswith('['):
                if found is not None:
                    break
                found = {} if text.startswith(f'[{name}]') else None
            elif found is not None and text and not text.startswith('#'):
                key, _, value = text.partition('=')
                found.setdefault(key, value)
        if found is not None:
            return found
    raise psycopg2.OperationalError(
        f'the service {name!r} is not in {own} or {shared}; PGSERVICEFILE names another file'
    )


def _system_user() -> str:
    """Return the name of the user who runs this process. Except on Windows, ``LOGNAME`` and the like do not count."""
    try:
        import pwd  # not on Windows

        return pwd.getpwuid(os.geteuid()).pw_name
    except ImportError:
        return getuser()
    except KeyError:
        return ''
