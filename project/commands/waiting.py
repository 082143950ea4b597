"""Waiting for a database that is still starting."""

import sys
import time

from sqlalchemy.exc import OperationalError

from project import db

WAIT_SECONDS = 30


def wait_for_database() -> None:
    """Return once the database accepts a connection; exit with one line on stderr if it does not in time."""
    end = time.monotonic() + WAIT_SECONDS
    while True:
        try:
            with db.engine.connect():
                return
        except OperationalError as error:
            if time.monotonic() > end:
                sys.exit(f'No database after {WAIT_SECONDS} s: {str(error.orig).strip().splitlines()[0]}')
            time.sleep(0.5)
