"""The model of users: the columns, the queries, and the dict of a response."""

import datetime
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Any, ClassVar

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    ColumnElement,
    Integer,
    Select,
    String,
    UniqueConstraint,
    bindparam,
    false,
    func,
    or_,
    select,
    tuple_,
)
from sqlalchemy.orm import Mapped, QueryableAttribute, mapped_column

from project.database import database
from project.database.errors import Duplicate
from project.database.functions import folded, unindexed
from project.extensions import db
from project.timestamps import UTCDateTime, as_text, rfc3339, utcnow

MAX_ID = 2**63 - 1
TRUTH = (False, True)
# Sorts after every text of a user: 128 times the last character of Unicode.
LAST_TEXT = '\U0010ffff' * 128


class User(db.Model):
    """A user of the service."""

    __tablename__ = 'users'
    __table_args__: ClassVar[Any] = (
        # Reject timestamps that no response can express; on SQLite, whose columns accept any text, other texts too.
        CheckConstraint(
            "created_at >= '0001-01-01 00:00:00+00' AND created_at < '10000-01-01 00:00:00+00'",
            name='users_created_at_check',
        ).ddl_if(dialect='postgresql'),
        CheckConstraint(
            "created_at GLOB '????-??-??T??:??:??.[0-9][0-9][0-9][0-9][0-9][0-9]Z'"
            " AND substr(created_at, 1, 4) >= '0001'"
            " AND strftime('%Y-%m-%dT%H:%M:%S', substr(created_at, 1, 19), '+0 days') IS substr(created_at, 1, 19)",
            name='users_created_at_check',
        ).ddl_if(dialect='sqlite'),
        # Without this, SQLite uses the id of a removed user for the next one.
        {'sqlite_autoincrement': True},
    )

    id: Mapped[int] = mapped_column(BigInteger().with_variant(Integer, 'sqlite'), primary_key=True)
    username: Mapped[str] = mapped_column(String(128))
    email: Mapped[str] = mapped_column(String(128))
    active: Mapped[bool] = mapped_column(Boolean, default=False, server_default=false())
    created_at: Mapped[datetime.datetime] = mapped_column(UTCDateTime, default=utcnow)

    def __init__(self, username: str, email: str, created_at: datetime.datetime | None = None) -> None:
        """Make a user who is not stored yet.

        :param created_at: the time of creation, now by default; a naive ``datetime`` means UTC.
        """
        super().__init__(username=username, email=email, created_at=created_at or utcnow())

    @classmethod
    @cache
    def unique(cls) -> dict[str, list[str]]:
        """Return the columns of each unique index and constraint, by its name."""
        indexes = [index for index in cls.__table__.indexes if index.unique]
        constraints = [one for one in cls.__table__.constraints if isinstance(one, UniqueConstraint)]
        return {str(one.name): [column.name for column in one.columns] for one in (*indexes, *constraints)}

    @classmethod
    def taken(cls, error: Duplicate) -> list[str]:
        """Return the names of the columns whose values another user has; none if the error is not about users."""
        if error.constraint is not None:
            return cls.unique().get(error.constraint, [])
        return list(error.columns) if list(error.columns) in cls.unique().values() else []

    @classmethod
    def response_columns(cls) -> tuple[ColumnElement[Any] | QueryableAttribute[Any], ...]:
        """Return the columns of a response, in its order; :func:`to_dicts` takes their rows."""
        return cls.id, cls.username, cls.email, cls.active, as_text(cls.created_at)

    # Each statement is built once, so that SQLAlchemy compiles it once.

    @classmethod
    @cache
    def newest_first(cls, *filters: str) -> Select[Any]:
        """Return the SELECT of users by ``created_at`` descending, and then by ``id`` descending.

        :param filters: names of :data:`FILTERS`, and ``limit``. Their values are bound when the statement runs.
        """
        users = select(*cls.response_columns()).order_by(cls.created_at.desc(), cls.id.desc())
        if 'limit' in filters:
            users = users.limit(bindparam('limit'))
        return users.where(*_conditions(filters))

    @classmethod
    @cache
    def counting(cls, *filters: str) -> Select[int]:
        """Return the SELECT of the number of users; ``filters`` as in :meth:`newest_first`."""
        return select(func.count()).select_from(cls).where(*_conditions(filters))

    @classmethod
    def find(cls, user_id: int) -> dict[str, Any] | None:
        """Return the user with this id, or None.

        Calls that wait at the same time share one SELECT, and the result: do not change it.
        """
        return database.batch(_find_together, user_id)


# PostgreSQL's planner and SQLite's use these for the queries below; see tests/heavy/plans.py.
db.Index('users_email_key', folded(User.email), unique=True)
db.Index('users_username_prefix_idx', folded(User.username))
db.Index('users_created_at_id_idx', User.created_at.desc(), User.id.desc())
db.Index('users_username_idx', User.username, User.created_at.desc(), User.id.desc())
db.Index('users_active_idx', User.active, User.created_at.desc(), User.id.desc())

_PREFIX = bindparam('q', type_=String)
_ACTIVE = bindparam('active', type_=Boolean)
_POSITION = tuple_(bindparam('created_at', type_=String), bindparam('id'))
FILTERS: dict[str, ColumnElement[bool]] = {
    'after': tuple_(User.created_at, User.id) < _POSITION,
    'email': folded(User.email).in_(
        [folded(bindparam(name, type_=String)) for name in ('email', 'email_as_is')]  # by current and older rules
    ),
    'username': User.username == bindparam('username'),
    'active': User.active == _ACTIVE,
    # Ranges instead of LIKE: no character of the prefix has a special meaning, and both databases use an index.
    'q': or_(*(folded(column).between(_PREFIX, _PREFIX.concat(LAST_TEXT)) for column in (User.username, User.email))),
}
# With q, SQLite would otherwise scan all active users, or all older ones, for the few that match.
_WITH_Q = {
    'after': tuple_(unindexed(User.created_at), User.id) < _POSITION,
    'active': unindexed(User.active) == _ACTIVE,
}


def _conditions(filters: Iterable[str]) -> list[ColumnElement[bool]]:
    conditions = FILTERS | _WITH_Q if 'q' in filters else FILTERS
    return [conditions[name] for name in filters if name != 'limit']


def bind(query: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values that a statement with the filters in ``query`` binds."""
    values = dict(query)
    if 'email' in values:
        values['email'], values['email_as_is'] = values.pop('email')
    if 'after' in values:
        values['created_at'], values['id'] = values.pop('after')
    return values


def to_dicts(rows: Iterable[Sequence[Any]]) -> list[dict[str, Any]]:
    """Return rows of :meth:`User.response_columns` as the dicts of a response."""
    # SQLite returns 0 and 1 for false and true. Indexing TRUTH takes a third of the time of bool(). Slicing most
    # timestamps here takes less time than calling rfc3339.
    return [
        {
            'id': id,
            'username': username,
            'email': email,
            'active': TRUTH[active],
            'created_at': f'{created_at[:10]}T{created_at[11:26]}Z' if len(created_at) > 25 else rfc3339(created_at),
        }
        for id, username, email, active, created_at in rows
    ]


@cache
def _select_by_ids(count: int) -> Select[Any]:
    ids = [bindparam(f'id{number}', type_=BigInteger) for number in range(count)]
    return select(*User.response_columns()).where(User.id.in_(ids))


def _find_together(ids: Sequence[int]) -> list[dict[str, Any] | None]:
    # The last id fills the statement up to a power of two, so that there are few different statements to compile.
    wanted = list(set(ids))
    count = 1 << (len(wanted) - 1).bit_length()
    wanted += wanted[-1:] * (count - len(wanted))
    rows = database.read(_select_by_ids(count), {f'id{number}': user_id for number, user_id in enumerate(wanted)})
    users = {user['id']: user for user in to_dicts(rows)}
    return [users.get(user_id) for user_id in ids]
