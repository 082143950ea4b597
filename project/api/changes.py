"""Adding, changing and removing users: each is one statement, and the database decides about conflicts."""

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from sqlalchemy import ColumnElement, bindparam, delete, insert, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.sql.dml import ReturningDelete, ReturningInsert, ReturningUpdate

from project.api.models import User, to_dicts
from project.database import database
from project.database.errors import DatabaseError, RolledBack, Unavailable

LOCK_MILLISECONDS = 100  # how long the shared INSERT waits for a lock


def add(values: Mapping[str, Any]) -> dict[str, Any]:
    """Add a user and return it. Calls that wait at the same time share one INSERT and one COMMIT.

    :param values: ``username`` and ``email``.
    :raises Duplicate: a unique column has one of the values already.
    :raises DatabaseError: the database could not add the user; Unavailable if the outcome may be unknown.
    """
    user = database.batch(_add_together, values)
    # The plain INSERT waits indefinitely for a lock, and its error names the constraint.
    return user or to_dicts(database.write(_insert(), values))[0]


def change(user_id: int, values: Mapping[str, Any], unless_changed: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Change a user and return its new state, or None if the user does not exist or has another state.

    :param values: the new values by column.
    :param unless_changed: make the change only if the user still equals this dict.
    :raises Duplicate: another user has one of the values of a unique column.
    :raises DatabaseError: as for :func:`add`.
    """
    statement = _update(tuple(values), unless_changed is not None)
    new = {f'new_{name}': value for name, value in values.items()}
    users = to_dicts(database.write(statement, new | _identify(user_id, unless_changed)))
    return users[0] if users else None


def remove(user_id: int, unless_changed: Mapping[str, Any] | None) -> bool:
    """Remove a user, and return whether it existed; ``unless_changed`` and errors as in :func:`change`."""
    return bool(database.write(_delete(unless_changed is not None), _identify(user_id, unless_changed)))


def _add_together(batch: Sequence[Mapping[str, Any]]) -> list[dict[str, Any] | None]:
    """Add users in one transaction. Return each of them, or None for one that has to be added alone.

    Of several users with one email, the first is added here. The others have to be added alone, so that each gets its
    own error. So have users with other fields than the first, because all rows of a statement have the same columns.
    """
    first: dict[str, Mapping[str, Any]] = {}
    for values in batch:
        if values.keys() == batch[0].keys():
            first.setdefault(values['email'].lower(), values)
    # In the order of the unique index. Otherwise two workers could each wait for a row of the other: a deadlock.
    rows = [first[email] for email in sorted(first)]
    try:
        # SQLAlchemy executes a dict with less work than a list of one.
        parameters = rows if len(rows) > 1 else rows[0]
        stored = database.write(_insert_if_free(database.dialect), parameters, LOCK_MILLISECONDS)
    except Unavailable as error:
        if not isinstance(error, RolledBack):
            raise
        return [None] * len(batch)  # another session has an uncommitted row with one of the emails
    except DatabaseError:
        return [None] * len(batch)  # one of the rows is wrong
    users = {user['email']: user for user in to_dicts(stored)}
    return [users.get(values['email']) if first.get(values['email'].lower()) is values else None for values in batch]


# Each statement is built once, so that SQLAlchemy compiles it once.


@cache
def _insert() -> ReturningInsert[Any]:
    return insert(User).returning(*User.response_columns())


@cache
def _insert_if_free(dialect: str) -> ReturningInsert[Any]:
    module = postgresql if dialect == 'postgresql' else sqlite
    return module.insert(User).on_conflict_do_nothing().returning(*User.response_columns())


@cache
def _update(columns: tuple[str, ...], only_unchanged: bool) -> ReturningUpdate[Any]:
    statement = update(User).values({name: bindparam(f'new_{name}') for name in columns})
    return statement.where(*_identity(only_unchanged)).returning(*User.response_columns())


@cache
def _delete(only_unchanged: bool) -> ReturningDelete[Any]:
    return delete(User).where(*_identity(only_unchanged)).returning(User.id)


def _identity(only_unchanged: bool) -> list[ColumnElement[bool]]:
    unchanged = (User.username, User.email, User.active) if only_unchanged else ()
    return [User.id == bindparam('user_id'), *(column == bindparam(f'old_{column.name}') for column in unchanged)]


def _identify(user_id: int, unless_changed: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the values that :func:`_identity` binds."""
    old = {f'old_{name}': unless_changed[name] for name in ('username', 'email', 'active')} if unless_changed else {}
    return {'user_id': user_id, **old}
