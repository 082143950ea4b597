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
# PostgreSQL's next id is higher than all loaded ones. SQLite does that itself.
RAISE_SEQUENCE = text(
    "SELECT setval(pg_get_serial_sequence('users', 'id'), :id)"
    " WHERE :id > coalesce(pg_sequence_last_value(pg_get_serial_sequence('users', 'id')::regclass), 0)"
)


@dataclass
class Loaded:
    """The outcome of an import."""

    lines: int = 0  # all of them, blank ones too
    added: int = 0
    there: int = 0  # users who existed already, with equal columns
    refused: int = 0


def load(name: str, stop: bool = False) -> Loaded:
    """Add the users of a file, each with its id and its time of creation.

    Each batch is a transaction. What was added stays when a later line is rejected or the run is interrupted. A second
    run skips it and adds the rest. A line is rejected, and reported on stderr, if it is not a user, or if another user
    has its id or its email.

    Nothing else should add users meanwhile: they would get ids that lines still to come have.

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
                users, refused = _parse(batch)
                with db.engine.begin() as connection:
                    there, taken = _add(connection, users)
                    refused = sorted((refused | taken).items())
                    if refused and stop:
                        raise TransferError('Line {}: {}. Stopped.'.format(*refused[0]))
                done.lines += len(batch)
                done.added += len(users) - there - len(taken)
                done.there += there
                done.refused += len(refused)
                for line, reason in refused:
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
            raise TransferError(f'{name}: is compressed, so its name must end in .gz (gunzip unpacks for stdin).')
        if by_name and not compressed:
            raise TransferError(f'{name}: is not a gzip file.')
        with gzip.open(file) if by_name else contextlib.nullcontext(file) as lines:
            if file.seekable():
                yield lines, os.fstat(file.fileno()).st_size, file.tell
            else:
                yield lines, 0, lambda: 0


def _batches(file: Any) -> Iterator[list[tuple[int, bytes]]]:
    """Yield the lines of a file, numbered from 1, in lists. If it is damaged, its readable lines come first."""
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
    """Yield the lines of a file, and of one that is too long its beginning."""
    while line := file.readline(MAX_LINE):
        yield line
        while len(line) == MAX_LINE and not line.endswith(b'\n'):
            line = file.readline(MAX_LINE)


def _parse(batch: list[tuple[int, bytes]]) -> tuple[dict[int, dict[str, Any]], dict[int, str]]:
    """Return the users in numbered lines, and the reasons for rejecting other lines, by line. Skip blank ones."""
    users: dict[int, dict[str, Any]] = {}
    refused: dict[int, str] = {}
    for number, line in batch:
        if len(line) == MAX_LINE:
            refused[number] = f'it has {MAX_LINE:,} bytes or more'
        elif line.strip():
            try:
                users[number] = parsing.fields(StoredUser, line)
            except parsing.Invalid as error:
                refused[number] = ', '.join(
                    f'{NAMES.get(field) or ascii(field)} {reason}' for field, reason in error.errors.items()
                )
    return users, refused


def _add(connection: Connection, users: dict[int, dict[str, Any]]) -> tuple[int, dict[int, str]]:
    """Add users.

    :param users: by line.
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
    there = 0
    refused: dict[int, str] = {}
    for line, user in users.items():
        other = stored.get(user['id'])
        if other == user:
            there += user['id'] not in added
            added.discard(user['id'])  # a second line with this user is not added
        elif other:
            differing = ' and '.join(name for name in user if user[name] != other[name])
            refused[line] = f'the user with the id {user["id"]} already exists, with another {differing}'
        else:
            # One of the other unique columns.
            names = dict.fromkeys(name for columns in User.unique().values() for name in columns)
            refused[line] = f'another user has its {" or ".join(names)}'
    return there, refused
