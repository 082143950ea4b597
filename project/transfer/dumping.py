"""Export of all users to a file."""

import contextlib
import gzip
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO

import orjson
from sqlalchemy import Row, func, select, text

from project.api.models import User, to_dicts
from project.extensions import db
from project.transfer.common import TransferError, progress_bar, reported, require_schema

BATCH = 1000  # users that are read at once


def dump(name: str, force: bool = False) -> int:
    """Write all users to a file, as one snapshot. Other processes can write to the database at the same time.

    The file appears under its name when it is complete and synced to the disk. Only its owner may read it.

    :param name: its path; ``-`` for stdout.
    :param force: overwrite a file of this name.
    :returns: the number of users.
    :raises TransferError: the file could not be written, or the database could not be read.
    """
    require_schema()
    if name == '-':
        with reported('stdout'), open(sys.stdout.fileno(), 'wb', closefd=False) as file:
            return _write(file)
    path = os.path.realpath(name)  # a symbolic link is kept, and its target is overwritten
    if os.path.lexists(path) and not os.path.isfile(path):
        raise TransferError(f'{name}: is not a file; use - to write to stdout.')
    if os.path.lexists(path) and not force:
        raise TransferError(f'{name}: already exists; use --force to overwrite it.')
    folder, base = os.path.split(path)
    with reported(name):
        descriptor, part = tempfile.mkstemp(prefix=f'.{base}.', suffix='.part', dir=folder)
        try:
            with open(descriptor, 'wb') as file:
                with _compressing(file) if name.endswith('.gz') else contextlib.nullcontext(file) as lines:
                    count = _write(lines)
                file.flush()
                os.fsync(file.fileno())
            os.replace(part, path)
        except BaseException:
            os.unlink(part)
            raise
        _sync(folder)
    return count


def _compressing(file: BinaryIO) -> gzip.GzipFile:
    return gzip.GzipFile('', 'wb', 6, file, mtime=0)  # without name and time, so that equal tables make equal files


def _sync(folder: str) -> None:
    """Sync the new name of a file to the disk, too: fsync(2)."""
    if os.name == 'nt':
        return  # Windows opens no folders
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write(file: Any) -> int:
    """Write all users to an open file, and return their number."""
    count = 0
    with _users() as (first, last, batches), progress_bar('Writing users', last - first + 1) as bar:
        position = first - 1
        for rows in batches:
            file.write(b''.join(orjson.dumps(user, option=orjson.OPT_APPEND_NEWLINE) for user in to_dicts(rows)))
            count += len(rows)
            bar.update(rows[-1].id - position, f'{count:,} users')
            position = rows[-1].id
    return count


@contextlib.contextmanager
def _users() -> Iterator[tuple[int, int, Iterator[Sequence[Row[Any]]]]]:
    """Return the lowest id, the highest id, and an iterator of lists of rows. All of it is one snapshot."""
    with db.engines['streams'].connect() as connection:
        first, last = connection.execute(select(func.min(User.id), func.max(User.id))).one()
        if connection.dialect.name == 'postgresql':  # pragma: no cover, which is measured on SQLite
            # For this transaction: read along the index at once, instead of sorting the whole table first.
            connection.execute(text('SET LOCAL cursor_tuple_fraction = 0.0001'))
        statement = select(*User.response_columns()).order_by(User.id)
        rows = connection.execution_options(stream_results=True, yield_per=BATCH).execute(statement)
        yield first or 0, last or 0, rows.partitions()
