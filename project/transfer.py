"""All users into a file, and back: a backup, or the way from one database to another of either kind.

The file is JSON Lines (https://jsonlines.org): one user a line, as he is answered over HTTP, in the order
of ids. Equal tables make equal files. A name that ends in ``.gz`` is compressed, ``-`` is stdout or stdin.
"""

import contextlib
import gzip
import itertools
import os
import sys
import tempfile
import zlib
from dataclasses import dataclass

import click
import orjson
from sqlalchemy import func, select, text
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import SQLAlchemyError

from project import db, readiness
from project.api import validation
from project.api.models import User

BATCH = 1000  # users that are read, or added in a transaction, at once
MAX_LINE = 64 * 1024  # bytes; the longest user takes some 3,000
GZIP_MAGIC = b'\x1f\x8b'  # RFC 1952 section 2.3.1

# What a refused line is told by; the names of fields that no user has are the file's, and may hold anything.
NAMES = {name: name for name in validation.StoredUser.model_fields} | {'body': 'it'}

INSERTS = {
    dialect.name: module.insert(User).on_conflict_do_nothing().returning(User.id)
    for module, dialect in ((postgresql, postgresql.dialect), (sqlite, sqlite.dialect))
}
# The next id that PostgreSQL gives is higher than all that were loaded. SQLite sees to that itself.
RAISE_SEQUENCE = text(
    "SELECT setval(pg_get_serial_sequence('users', 'id'), :id)"
    " WHERE :id > coalesce(pg_sequence_last_value(pg_get_serial_sequence('users', 'id')::regclass), 0)"
)


class TransferError(Exception):
    """The users could not be written or read; the message is one line for whoever asked for it."""


@dataclass
class Loaded:
    """What became of the lines of a file."""

    lines: int = 0  # all of them, blank ones too
    added: int = 0
    there: int = 0  # users who were there already, just so
    refused: int = 0


# --- dump


def dump(name, force=False):
    """Write all users, as they were at one moment, to a file. Whoever writes meanwhile need not wait.

    The file has its name only when it is whole and on the disk; its owner alone may read it.

    :param name: its path; ``-`` for stdout.
    :param force: replace a file of this name.
    :returns: how many users were written.
    :raises TransferError: the file or the database did not let it.
    """
    _require_schema()
    if name == '-':
        with _told('stdout'), open(sys.stdout.fileno(), 'wb', closefd=False) as file:
            return _write(file)
    path = os.path.realpath(name)  # a link stays one, and what it leads to is replaced
    if os.path.lexists(path) and not os.path.isfile(path):
        raise TransferError(f'{name}: is no file; - writes to stdout.')
    if os.path.lexists(path) and not force:
        raise TransferError(f'{name}: is there already; --force replaces it.')
    folder, base = os.path.split(path)
    with _told(name):
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


def _compressing(file):
    return gzip.GzipFile('', 'wb', 6, file, mtime=0)  # no name and no time: equal tables make equal files


def _sync(folder):
    """Put a file's new name on the disk, too: fsync(2)."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write(file):
    """Write all users to an open file, and return how many there are."""
    count = 0
    with _users() as (first, last, batches), _bar('Writing users', last - first + 1) as bar:
        position = first - 1
        for rows in batches:
            file.write(b''.join(orjson.dumps(user, option=orjson.OPT_APPEND_NEWLINE) for user in User.to_dicts(rows)))
            count += len(rows)
            bar.update(rows[-1].id - position, f'{count:,} users')
            position = rows[-1].id
    return count


@contextlib.contextmanager
def _users():
    """The lowest id and the highest, and an iterator of lists of rows, by id: as they are at this moment.

    One statement sees one moment, and is read as it is written: with PostgreSQL through a server-side cursor,
    which needs a transaction. With SQLite a transaction would keep others from writing.
    """
    on_postgresql = db.engine.dialect.name == 'postgresql'
    with db.engines[None if on_postgresql else 'autocommit'].connect() as connection:
        first, last = connection.execute(select(func.min(User.id), func.max(User.id))).one()
        if on_postgresql:  # pragma: no cover, which is measured on SQLite
            # For this transaction: start at once, along the index, instead of after a sort of the whole table.
            connection.execute(text('SET LOCAL cursor_tuple_fraction = 0.0001'))
        statement = select(*User.on_the_wire()).order_by(User.id)
        rows = connection.execution_options(stream_results=True, yield_per=BATCH).execute(statement)
        yield first or 0, last or 0, rows.partitions()


# --- load


def load(name, stop=False):
    """Add the users of a file, each with the id and the moment of creation that he had.

    Each batch is a transaction. What was added stays when a later line is refused or the run is
    interrupted; a second run finds it there and adds the rest. A line is refused, and told on stderr, when
    it is no user, or when another user has its id or its address.

    Nobody else should add users meanwhile: they would be given ids that stand in lines still to come.

    :param name: the file's path; ``-`` for stdin.
    :param stop: end at the first line that is refused, and leave out the batch that it is in.
    :returns: a :class:`Loaded`.
    :raises TransferError: the file or the database did not let it, or a line was refused and ``stop`` was set.
    """
    _require_schema()
    done = Loaded()
    try:
        with (
            _told('stdin' if name == '-' else name),
            _opened(name) as (file, size, position),
            _bar('Adding users', size) as bar,
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
                    _tell(bar, f'Line {line}: {reason}.')
                bar.update(position() - bar.pos, f'{done.lines:,} lines')
    except TransferError as error:
        if not done.lines:
            raise
        raise TransferError(f'{error} The first {done.lines} lines are done; a second run skips them.') from None
    return done


@contextlib.contextmanager
def _opened(name):
    """The open file, how many bytes there are to read (0 when nobody knows), and a function for how many are read."""
    with open(sys.stdin.fileno() if name == '-' else name, 'rb', closefd=name != '-') as file:
        compressed, by_name = file.peek(2)[:2] == GZIP_MAGIC, name.endswith('.gz')
        if compressed and not by_name:
            raise TransferError(f'{name}: is compressed, so its name must end in .gz (gunzip unpacks for stdin).')
        if by_name and not compressed:
            raise TransferError(f'{name}: is no gzip file.')
        with gzip.open(file) if by_name else contextlib.nullcontext(file) as lines:
            if file.seekable():
                yield lines, os.fstat(file.fileno()).st_size, file.tell
            else:
                yield lines, 0, lambda: 0


def _batches(file):
    """The lines of a file, numbered from 1, in lists. When it is damaged, what could be read comes first."""
    numbered = enumerate(_lines(file), 1)
    while True:
        batch = []
        try:
            for line in itertools.islice(numbered, BATCH):
                batch.append(line)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            yield batch
            raise TransferError(f'The file is damaged: {_sentence(error)}') from None
        if not batch:
            return
        yield batch


def _lines(file):
    """The lines of a file; of one that is too long only its beginning."""
    while line := file.readline(MAX_LINE):
        yield line
        while len(line) == MAX_LINE and not line.endswith(b'\n'):
            line = file.readline(MAX_LINE)


def _parse(batch):
    """The users in numbered lines, and the reasons why others are none; two dicts by line. Blank lines are neither."""
    users, refused = {}, {}
    for number, line in batch:
        if len(line) == MAX_LINE:
            refused[number] = f'it has {MAX_LINE:,} bytes or more'
        elif line.strip():
            try:
                users[number] = validation.fields(validation.StoredUser, line)
            except validation.Invalid as error:
                refused[number] = ', '.join(
                    f'{NAMES.get(field) or ascii(field)} {reason}' for field, reason in error.errors.items()
                )
    return users, refused


def _add(connection, users):
    """Add users, a dict by line.

    :returns: how many were there already, and the reasons why others were refused, by line.
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
    columns = [User.__table__.c[name] for name in validation.StoredUser.model_fields]
    stored = {row.id: row._asdict() for row in connection.execute(select(*columns).where(User.id.in_(ids)))}
    there, refused = 0, {}
    for line, user in users.items():
        other = stored.get(user['id'])
        if other == user:
            there += user['id'] not in added
            added.discard(user['id'])  # a second line with this user is one who is there
        elif other:
            differing = ' and '.join(name for name in user if user[name] != other[name])
            refused[line] = f'the user with the id {user["id"]} is there already, with another {differing}'
        else:
            # What is unique and no id is taken.
            names = dict.fromkeys(name for columns in User.unique().values() for name in columns)
            refused[line] = f'another user has its {" or ".join(names)}'
    return there, refused


# --- what both tell


def _require_schema() -> None:
    """Raise :class:`TransferError` unless the database has the tables and columns of the code."""
    with _told():
        if problem := readiness.inspect_schema(patient=True).problem():
            raise TransferError(problem)


@contextlib.contextmanager
def _told(name=''):
    """Turn what the system says of the file ``name``, and what the database says, into a line for people."""
    try:
        yield
    except OSError as error:
        raise TransferError(f'{name}: {_sentence(error.strerror or error)}') from None
    except SQLAlchemyError as error:
        raise TransferError(f'The database: {_sentence(getattr(error, "orig", error))}') from None


def _sentence(error):
    """The first line of an error, with a full stop."""
    return f'{str(error).strip().splitlines()[0].rstrip(".")}.'


def _bar(label, length):
    """A progress bar on stderr for whoever looks at it; none when nobody does, or nobody knows the length."""
    hidden = not (length and sys.stderr.isatty())
    return click.progressbar(
        length=length, label=label, hidden=hidden, file=sys.stderr, item_show_func=lambda item: item
    )


def _tell(bar, line):
    """A line on stderr, in place of the bar, which comes again below it."""
    click.echo(line if bar.hidden else f'\r\x1b[K{line}', err=True)
