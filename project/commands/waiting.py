"""Describes the location of the database, and waits until it accepts connections and commits."""

import re
import sys
import time

from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from project import database_urls, db
from project.database import connecting, libpq

WAIT_SECONDS = 30
# libpq gives no code for the errors of connecting, so their texts decide. Temporary errors of libpq and SQLite:
PASSING = re.compile(
    'Connection refused|Connection reset|server closed the connection|did not respond in time'
    '|session is read-only|on socket .*: No such file|database is locked'
)
# The server's texts follow its severity and two spaces, in any language. All except these count as temporary.
FROM_SERVER = re.compile(':  ')
LASTING = re.compile('authentication failed|does not exist|pg_hba.conf|permission denied|not permitted|not allowed')


def describe_database() -> str:
    """Return the location of the database for messages: name, host and port, or the file; never user or password."""
    url = db.engine.url
    if db.engine.dialect.name == 'sqlite':
        return str(url.database)
    parameters = libpq.parameters(database_urls.connect_arguments(url))
    servers = (
        f'{server.host or server.hostaddr or "the default host"}:{server.port or 5432}'
        for server in libpq.servers(parameters)
    )
    return f'{parameters["dbname"]} at {", ".join(servers)}'


def wait_for_database() -> None:
    """Return once the database accepts a connection; exit with one line on stderr if it does not.

    It retries for up to ``WAIT_SECONDS`` after a temporary error, such as that of a server that is starting, and prints
    one line on stderr. Any other error, such as a wrong password, ends the command at once. If the server's messages
    are not in English, all its errors count as temporary.
    """
    end, announced = time.monotonic() + WAIT_SECONDS, False
    while True:
        try:
            with db.engine.connect():
                return
        except Exception as error:  # not only SQLAlchemy's: see _replace_unreadable in project/database/engine.py
            original = getattr(error, 'orig', error)
        reason = str(original).strip().splitlines()[0]
        passing = PASSING.search(reason) or (FROM_SERVER.search(reason) and not LASTING.search(reason))
        reason = re.sub(r'^(connection to server .*? failed: )?([^\s:]+ ?:  )?', '', reason)
        if not passing:
            sys.exit(f'Cannot connect to the database {describe_database()}: {reason}')
        if time.monotonic() > end:
            sys.exit(f'No database after {WAIT_SECONDS} s: {describe_database()}: {reason}')
        if not announced:
            print(f'Waiting up to {WAIT_SECONDS} s for the database {describe_database()}: {reason}', file=sys.stderr)
            announced = True
        time.sleep(0.5)


# The second argument: NULL where the setting does not exist.
SYNCHRONOUS = text("SELECT current_setting('synchronous_standby_names', true)")
BACKEND = text('SELECT pg_backend_pid()')
IS_RUNNING = text('SELECT EXISTS (SELECT 1 FROM pg_stat_activity WHERE pid = :pid)')
# The smallest transaction whose COMMIT waits for the standbys. It writes to the WAL and to no table.
SMALL_COMMIT = text("SELECT pg_logical_emit_message(true, 'users', '')")


def require_standby() -> None:
    """Return once the database completes a COMMIT; exit with one line on stderr if no standby confirms it.

    With ``synchronous_standby_names``, a COMMIT waits indefinitely for missing standbys. Cancelling the wait does not
    roll it back: "Synchronous Replication" in PostgreSQL's manual. So this commits an empty transaction before a
    command changes anything, and waits for that one, for up to ``WAIT_SECONDS``.
    """
    if db.engine.dialect.name != 'postgresql':
        return
    names, announced, end = '', False, time.monotonic() + WAIT_SECONDS
    while time.monotonic() < end:
        wait_for_database()
        with db.engines['writes'].connect() as connection:
            if not (names := connection.scalar(SYNCHRONOUS)):
                return
            pid = connection.scalar(BACKEND)
            try:
                with connecting.deadline(connecting.CALL_SECONDS):
                    connection.execute(SMALL_COMMIT)
                return
            except OperationalError as error:
                if not isinstance(error.orig, connecting.TimedOut):
                    raise
        if not announced:
            where, announced = describe_database(), True
            print(f'Waiting up to {WAIT_SECONDS} s for a standby of the database {where}', file=sys.stderr)
        # The backend waits for a standby, and another COMMIT would occupy another backend. If it has ended, for example
        # because the server crashed, the COMMIT is sent again.
        while time.monotonic() < end and _is_running(pid):
            time.sleep(0.5)
    sys.exit(
        f'No standby has confirmed a COMMIT within {WAIT_SECONDS} s, so nothing was changed in {describe_database()}. '
        f'Start a standby; synchronous_standby_names is {names!r}.'
    )


def _is_running(pid: int) -> bool:
    """Return whether a backend of PostgreSQL exists; False if the server is not available."""
    try:
        with connecting.deadline(connecting.CALL_SECONDS), db.engines['reads'].connect() as connection:
            return bool(connection.scalar(IS_RUNNING, {'pid': pid}))
    except OperationalError:
        return False
