"""The user: columns, queries, and what a user looks like on the wire."""

from datetime import datetime
from functools import cache

from sqlalchemy import (
    BigInteger,
    Boolean,
    Insert,
    Integer,
    String,
    UniqueConstraint,
    bindparam,
    delete,
    false,
    func,
    insert,
    select,
    tuple_,
    update,
)
from sqlalchemy.exc import IntegrityError

from project import db
from project.timestamps import UTCDateTime, as_text, rfc3339, utcnow

MAX_ID = 2**63 - 1
TRUTH = (False, True)


class User(db.Model):
    """A user of the service."""

    __tablename__ = 'users'
    # Without it SQLite gives the id of a removed user to the next one.
    __table_args__ = {'sqlite_autoincrement': True}

    id = db.Column(BigInteger().with_variant(Integer, 'sqlite'), primary_key=True)
    username = db.Column(String(128), nullable=False)
    email = db.Column(String(128), nullable=False)
    active = db.Column(Boolean, nullable=False, default=False, server_default=false())
    created_at = db.Column(UTCDateTime, nullable=False, default=utcnow)

    def __init__(self, username: str, email: str, created_at: datetime | None = None) -> None:
        """Make a user who is not stored yet.

        :param created_at: the time of creation, now by default; a naive ``datetime`` means UTC.
        """
        super().__init__(username=username, email=email, created_at=created_at or utcnow())

    @classmethod
    def on_the_wire(cls):
        """The columns of an answer, in its order; :meth:`to_dicts` takes their rows."""
        return cls.id, cls.username, cls.email, cls.active, as_text(cls.created_at)

    # Each statement is made once: SQLAlchemy then compiles it once.

    @classmethod
    @cache
    def newest_first(cls, *filters):
        """The users, newest first; of equal timestamps the higher id.

        :param filters: names of :data:`FILTERS`, whose values are bound when the statement runs.
            ``limit`` takes its value so, too.
        """
        users = select(*cls.on_the_wire()).order_by(cls.created_at.desc(), cls.id.desc())
        for name in filters:
            users = users.limit(bindparam('limit')) if name == 'limit' else users.where(FILTERS[name])
        return users

    @classmethod
    @cache
    def by_id(cls):
        """The user with the ``id`` that is bound when the statement runs."""
        return select(*cls.on_the_wire()).where(cls.id == bindparam('id'))

    @classmethod
    @cache
    def adding(cls) -> Insert:
        """Insert a user and return it; the database decides whether its email, and all that is unique, is free."""
        return insert(cls).returning(*cls.on_the_wire())

    @classmethod
    @cache
    def changing(cls, *columns, unchanged=False):
        """Set ``columns`` of the user with the id ``user_id``, and return it.

        :param unchanged: only if it still has the values bound as ``old_username``, ``old_email``, ``old_active``.
        """
        return cls._only(update(cls).values({name: bindparam(f'new_{name}') for name in columns}), unchanged)

    @classmethod
    @cache
    def removing(cls, unchanged=False):
        """Delete the user with the id ``user_id``, and return it; ``unchanged`` as in :meth:`changing`."""
        return cls._only(delete(cls), unchanged)

    @classmethod
    def _only(cls, statement, unchanged):
        statement = statement.where(cls.id == bindparam('user_id'))
        if unchanged:
            for column in (cls.username, cls.email, cls.active):
                statement = statement.where(column == bindparam(f'old_{column.name}'))
        return statement.returning(*cls.on_the_wire())

    @classmethod
    @cache
    def unique(cls) -> dict[str, list[str]]:
        """Return the columns that are unique, alone or together, by the name of their index or constraint."""
        indexes = [index for index in cls.__table__.indexes if index.unique]
        constraints = [one for one in cls.__table__.constraints if isinstance(one, UniqueConstraint)]
        return {one.name: [column.name for column in one.columns] for one in (*indexes, *constraints)}

    @classmethod
    def taken(cls, error: IntegrityError) -> list[str]:
        """Return the names of the columns whose values another user has; none if ``error`` is another breach."""
        if diagnostics := getattr(error.orig, 'diag', None):  # of PostgreSQL
            return cls.unique().get(diagnostics.constraint_name, [])
        _, _, place = str(error.orig).partition('UNIQUE constraint failed: ')
        # SQLite names an index only if it is on an expression, else the columns.
        if place.startswith('index '):
            return cls.unique().get(place.removeprefix('index ').strip("'"), [])
        names = [name.removeprefix(f'{cls.__tablename__}.') for name in place.split(', ')]
        return names if names in cls.unique().values() else []

    @staticmethod
    def to_dicts(rows):
        """Rows of :meth:`on_the_wire` as they are served."""
        # SQLite says 0 and 1 for false and true; indexing takes a third of the time of bool().
        # A timestamp with all its digits, as nearly each has, is written here, which is quicker than rfc3339().
        return [
            {
                'id': id,
                'username': username,
                'email': email,
                'active': TRUTH[active],
                'created_at': f'{stored[:10]}T{stored[11:26]}Z' if len(stored) > 25 else rfc3339(stored),
            }
            for id, username, email, active, stored in rows
        ]


db.Index('users_email_key', func.lower(User.email), unique=True)
db.Index('users_created_at_id_idx', User.created_at.desc(), User.id.desc())
db.Index('users_username_idx', User.username, User.created_at.desc(), User.id.desc())
db.Index('users_active_idx', User.active, User.created_at.desc(), User.id.desc())

FILTERS = {
    'after': tuple_(User.created_at, User.id) < tuple_(bindparam('created_at', type_=String), bindparam('id')),
    'email': func.lower(User.email) == func.lower(bindparam('email')),
    'username': User.username == bindparam('username'),
    'active': User.active == bindparam('active'),
}
