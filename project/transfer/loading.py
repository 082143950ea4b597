"""Import of users from a file."""

import contextlib
import gzip
import itertools
import os
import sys
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, select, text
from sqlalchemy.dialects import postgresql, sqlite

from project.api import parsing
from project.api.models import User
from project.api.schemas import StoredUser
from project.extensions import db
from project.transfer.common import TransferError, print_above, progress_bar, reported, require_schema, sentence

BATCH = 1000  # users that are added in one transaction
MAX_LINE = 64 * 1024  # bytes; the longest user takes some 3,000
GZIP_MAGIC = b'\x1f\x8b'  # RFC 1952 section 2.3.1

# The names of fields in error messages. Other names come from the file, and may contain anything.
NAMES = {name: name for name in StoredUser.model_fields} | {'body': 'it'}

INSERTS = {
    dialect.name: module.insert(User).on_conflict_do_nothing().returning(User.id)
    for module, dialect in ((postgresql, postgresql.dialect), (sqlite, sqlite.dialect))
}
# Afterwards the next id that PostgreSQL makes is higher than all loaded ones. SQLite needs no such statement.
RAISE_SEQUENCE = text(
    "SELECT setval(pg_get_serial_sequence('users', 'id'), :id)"
    " WHERE :id > coalesce(pg_sequence_last_value(pg_get_serial_sequence('users', 'id')::regclass), 0)"
)


@dataclass
class Loaded:
    """The outcome of an import."""

    lines: int = 0  # all of them, blank ones too
    added: int = 0
    existing: int = 0  # users who existed already, with equal columns
    rejected: int = 0


def load(name: str, stop: bool = False) -> Loaded:
    """Add the users of a file with their ids and times of creation.

    Each batch is a transaction, so that its users stay if a later line is rejected or the run is interrupted. A second
    run skips them and adds the rest. A line is rejected if it is not a user, or if another user has its id or its
    email. Rejected lines are reported on stderr.

    No other process should add users at the same time: they would get ids that later lines have.

    :param name: the file's path; ``-`` for stdin.
    :param stop: stop at the first line that is rejected, without adding its batch.
    :raises TransferError: the file could not be read, the database could not be written, or a line was rejected and
        ``stop`` was set.
    """
    require_schema()
    done = Loaded()
    try:
        with (
            reported('stdin' if name == '-' else name),
            _opened(name) as (file, size, position),
            progress_bar('Adding users', size) as bar,
        ):
            for batch in _batches(file):
                users, rejected = _parse(batch)
                with db.engine.begin() as connection:
                    existing, taken = _add(connection, users)
                    rejected = sorted((rejected | taken).items())
                    if rejected and stop:
                        raise TransferError('Line {}: {}. Stopped.'.format(*rejected[0]))
                done.lines += len(batch)
                done.added += len(users) - existing - len(taken)
                done.existing += existing
                done.rejected += len(rejected)
                for line, reason in rejected:
                    print_above(bar, f'Line {line}: {reason}.')
                bar.update(position() - bar.pos, f'{done.lines:,} lines')
    except TransferError as error:
        if not done.lines:
            raise
        raise TransferError(f'{error} The first {done.lines} lines are done; a second run skips them.') from None
    return done


@contextlib.contextmanager
def _opened(name: str) -> Iterator[tuple[Any, int, Callable[[], int]]]:
    """Return the open file, its size in bytes (0 if it is not known), and a function for the bytes read so far."""
    with open(sys.stdin.fileno() if name == '-' else name, 'rb', closefd=name != '-') as file:
        compressed, by_name = file.peek(2)[:2] == GZIP_MAGIC, name.endswith('.gz')
        if compressed and not by_name:
            raise TransferError(f'{name}: is compressed, so its name must end in .gz; unpack it with gunzip for stdin.')
        if by_name and not compressed:
            raise TransferError(f'{name}: is not a gzip file.')
        with gzip.open(file) if by_name else contextlib.nullcontext(file) as lines:
            if file.seekable():
                yield lines, os.fstat(file.fileno()).st_size, file.tell
            else:
                yield lines, 0, lambda: 0


def _batches(file: Any) -> Iterator[list[tuple[int, bytes]]]:
    """Yield lists of numbered lines, starting at 1. If the file is damaged, yield the readable lines, then raise."""
    numbered = enumerate(_lines(file), 1)
    while True:
        batch = []
        try:
            for line in itertools.islice(numbered, BATCH):
                batch.append(line)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            yield batch
            raise TransferError(f'The file is damaged: {sentence(error)}') from None
        if not batch:
            return
        yield batch


def _lines(file: Any) -> Iterator[bytes]:
    """Yield the lines of a file. If a line is too long, yield only its beginning."""
    while line := file.readline(MAX_LINE):
        yield line
        while len(line) == MAX_LINE and not line.endswith(b'\n'):
            line = file.readline(MAX_LINE)


def _parse(batch: list[tuple[int, bytes]]) -> tuple[dict[int, dict[str, Any]], dict[int, str]]:
    """Return the users in numbered lines, and the reasons for rejecting other lines, by line. Skip blank lines."""
    users: dict[int, dict[str, Any]] = {}
    rejected: dict[int, str] = {}
    for number, line in batch:
        if len(line) == MAX_LINE:
            rejected[number] = f'it has {MAX_LINE:,} bytes or more'
        elif line.strip():
            try:
                users[number] = parsing.fields(StoredUser, line)
            except parsing.Invalid as error:
                rejected[number] = ', '.join(
                    f'{NAMES.get(field) or ascii(field)} {reason}' for field, reason in error.errors.items()
                )
    return users, rejected


def _add(connection: Connection, users: dict[int, dict[str, Any]]) -> tuple[int, dict[int, str]]:
    """Add users.

    :param users: the users by the number of their line.
    :returns: the number of users who existed already, and the reasons for rejecting others, by line.
    """
    if not users:
        return 0, {}
    dialect = connection.dialect.name
    added = set(connection.scalars(INSERTS[dialect], list(users.values())))
    if added and dialect == 'postgresql':  # pragma: no cover, which is measured on SQLite
        connection.execute(RAISE_SEQUENCE, {'id': max(added)})
    if len(added) == len(users):
        return 0, {}
    ids = {user['id'] for user in users.values()}
    columns = [User.__table__.c[name] for name in StoredUser.model_fields]
    stored = {row.id: row._asdict() for row in connection.execute(select(*columns).where(User.id.in_(ids)))}
    existing = 0
    rejected: dict[int, str] = {}
    for line, user in users.items():
        other = stored.get(user['id'])
        if other == user:
            existing += user['id'] not in added
            added.discard(user['id'])  # a second line with this user is not added
        elif other:
            differing = ' and '.join(name for name in user if user[name] != other[name])
            rejected[line] = f'the user with the id {user["id"]} already exists, with another {differing}'
        else:
            # Another user has the value of another unique column.
            names = dict.fromkeys(name for columns in User.unique().values() for name in columns)
            rejected[line] = f'another user has its {" or ".join(names)}'
    return existing, rejected
