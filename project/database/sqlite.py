"""SQLite: the settings of each connection, and the write lock, for which transactions wait in turn."""

import time
from typing import Any
from weakref import WeakKeyDictionary

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import OperationalError

from project.database import connecting
from project.database.errors import DeadlineExceeded, RolledBack, translate

PAUSE_SECONDS = 0.0005  # between two tries to take the write lock
TURN_SECONDS = 0.002  # for another worker to take the lock after this one had to wait for it

_waited: WeakKeyDictionary[Engine, bool] = WeakKeyDictionary()


def set_pragmas(connection: Any, record: Any) -> None:
    """Configure a new connection.

    :param connection: the connection of the driver.
    :param record: SQLAlchemy's record of the connection.
    """
    # begin_immediate() begins transactions: the driver would begin them late, and not at all before DDL.
    connection.isolation_level = None
    # The default of "synchronous", FULL, stays: an acknowledged write survives a power cut.
    for pragma in ('busy_timeout=3000', 'journal_mode=WAL', 'foreign_keys=ON'):
        connection.execute(f'PRAGMA {pragma}')


def begin_immediate(connection: Connection) -> None:
    """Begin a transaction with SQLite's write lock; wait for the lock without blocking gevent's other greenlets.

    A transaction that reads first and writes later could not wait for its turn: SQLite fails it at once.
    SQLite's own ``busy_timeout`` would block the thread, and with it all requests of a gevent worker.

    SQLite does not queue those who wait, so that a busy worker could take the lock again and again. After a worker had
    to wait for the lock, it leaves the lock to the others for ``TURN_SECONDS``, once.

    :param connection: the connection whose transaction begins.
    :raises DeadlineExceeded: other processes had the lock all the time.
    """
    end = connecting.end_of_call()
    if _waited.pop(connection.engine, False):
        time.sleep(TURN_SECONDS)
    while time.monotonic() < end:
        try:
            connection.exec_driver_sql('BEGIN IMMEDIATE')
            return
        except OperationalError as error:
            if not isinstance(translate(error), RolledBack):
                raise
        _waited[connection.engine] = True
        time.sleep(PAUSE_SECONDS)
    raise DeadlineExceeded
