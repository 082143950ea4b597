"""The location of the database, and waiting until it accepts connections."""

import re
import sys
import time

from sqlalchemy.exc import OperationalError

from project import database_urls, db
from project.database import libpq

WAIT_SECONDS = 30
# The connection errors that are temporary. libpq gives no code for them. A server whose lc_messages is not English
# translates its messages, and then the command ends at once.
PASSING = re.compile(
    'Connection refused|Connection reset|server closed the connection|did not answer in time'
    '|starting up|not yet accepting connections|shutting down|in recovery mode|session is read-only'
    '|too many clients|connection slots|on socket .*: No such file|database is locked'
)


def place() -> str:
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

    It retries for up to ``WAIT_SECONDS`` while the server is starting or refuses connections, and prints one line on
    stderr. Any other error, such as a wrong password, ends the command at once.
    """
    end, announced = time.monotonic() + WAIT_SECONDS, False
    while True:
        try:
            with db.engine.connect():
                return
        except OperationalError as error:
            reason = str(error.orig).strip().splitlines()[0]
        passing = PASSING.search(reason)
        reason = re.sub(r'^(connection to server .*? failed: )?(FATAL: +)?', '', reason)
        if not passing:
            sys.exit(f'Cannot connect to the database {place()}: {reason}')
        if time.monotonic() > end:
            sys.exit(f'No database after {WAIT_SECONDS} s: {place()}: {reason}')
        if not announced:
            print(f'Waiting up to {WAIT_SECONDS} s for the database {place()}: {reason}', file=sys.stderr)
            announced = True
        time.sleep(0.5)
