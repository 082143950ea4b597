"""Timestamps: the column type, the text, and parsing. All are in UTC; a naive ``datetime`` means UTC."""

import re
from datetime import UTC, date, datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, DateTime, Dialect, String, TextClause
from sqlalchemy.dialects.sqlite import DATETIME
from sqlalchemy.event import listens_for
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import ColumnProperty, QueryableAttribute
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.sql.operators import OperatorType
from sqlalchemy.types import TypeDecorator, TypeEngine

RFC3339 = re.compile(r'[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{6}Z')


def utcnow() -> datetime:
    """Return the current time, timezone-aware and in UTC."""
    return datetime.now(UTC)


def as_utc(value: datetime) -> datetime:
    """Return ``value`` timezone-aware and in UTC.

    :param value: a naive ``datetime``, which means UTC, or an aware one, which is converted.
    :raises OverflowError: the year in UTC is not one of 1 to 9999.
    """
    return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def to_text(value: datetime) -> str:
    """Return the RFC 3339 text with six digits of a second, such as ``2026-11-22T16:13:51.482913Z``.

    :param value: as for :func:`as_utc`, which raises the same errors.
    """
    return as_utc(value).replace(tzinfo=None).isoformat(timespec='microseconds') + 'Z'


def parse(text: str) -> datetime:
    """Parse a text in the form that :func:`to_text` writes, and return the ``datetime``.

    :raises ValueError: it has another form, or there is no such day or time.
    """
    if not RFC3339.fullmatch(text):
        raise ValueError('a timestamp must have the form 2026-11-22T16:13:51.482913Z')
    return datetime.fromisoformat(text)


class _Text(DATETIME):
    """SQLite's text of a timestamp, read in any form of ISO 8601."""

    def result_processor(self, dialect: Dialect, coltype: object) -> Any:
        """Return the function that parses a stored text. CURRENT_TIMESTAMP has a space for the T, and no zone."""
        return lambda text: None if text is None else datetime.fromisoformat(text)


class UTCDateTime(TypeDecorator[datetime]):
    """A column of timestamps, whatever the time zone of the machine or of the session.

    PostgreSQL has a type for it. SQLite has none and drops the zone, so there the column holds the text of
    :func:`to_text`, which sorts as the timestamps do. SQL expressions that are assigned to an attribute, or are the
    default of a column, are converted to it; a ``server_default`` or a statement of one's own is not.
    """

    impl = DateTime(timezone=True)
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """Return the column's type on ``dialect``."""
        if dialect.name == 'sqlite':
            stored = '%(year)04d-%(month)02d-%(day)02dT%(hour)02d:%(minute)02d:%(second)02d.%(microsecond)06dZ'
            return _Text(storage_format=stored)
        return super().load_dialect_impl(dialect)

    def column_expression(self, column: ColumnElement[Any]) -> ColumnElement[Any]:
        """Return what a SELECT reads: the time in UTC.

        In the time zone of PostgreSQL's session, a time in the year 1 or 9999 may have a year that a ``datetime``
        cannot have.
        """
        return _in_utc(column, type_=self)

    def coerce_compared_value(self, op: OperatorType | None, value: Any) -> TypeEngine[Any]:
        """Return this type for a value that a statement compares with the column.

        :raises TypeError: it is a date, a text, a number or a ``timedelta``. The databases treat these differently.
        """
        if isinstance(value, date | str | int | float | timedelta) and not isinstance(value, datetime):
            raise TypeError(
                f'a timestamp can be compared with a datetime, not with a {type(value).__name__}; '
                'to add a timedelta, add it to the datetime'
            )
        return self

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Return ``value`` in UTC, as it is stored and compared."""
        return value and as_utc(value)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Return a stored ``value`` timezone-aware and in UTC."""
        return value and as_utc(value)


class _in_utc(FunctionElement[datetime]):  # noqa: N801, since SQL functions have lower-case names
    inherit_cache = True

    def __init__(self, column: ColumnElement[Any], type_: UTCDateTime) -> None:
        super().__init__(column)
        self.type = type_


@compiles(_in_utc, 'postgresql')
def _in_utc_postgresql(element: _in_utc, compiler: SQLCompiler, **kw: Any) -> str:
    return f"timezone('UTC'::text, {compiler.process(element.clauses, **kw)})"


@compiles(_in_utc, 'sqlite')
def _in_utc_sqlite(element: _in_utc, compiler: SQLCompiler, **kw: Any) -> str:
    return compiler.process(element.clauses, **kw)


class as_stored(FunctionElement[datetime]):  # noqa: N801, since SQL functions have lower-case names
    """``as_stored(expression)``: a timestamp in the form that a UTCDateTime column has.

    SQLite's own functions return other forms, such as ``2026-11-22 16:13:51``, which would sort differently. They have
    milliseconds at most.
    """

    type = UTCDateTime()
    inherit_cache = True


@compiles(as_stored, 'postgresql')
def _as_stored_postgresql(element: as_stored, compiler: SQLCompiler, **kw: Any) -> str:
    return compiler.process(element.clauses, **kw)


@compiles(as_stored, 'sqlite')
def _as_stored_sqlite(element: as_stored, compiler: SQLCompiler, **kw: Any) -> str:
    text = compiler.process(element.clauses, **kw)
    return (
        f"CASE WHEN {text} LIKE '____-__-__T__:__:__.______Z' THEN {text} "
        f"ELSE strftime('%Y-%m-%dT%H:%M:%f000Z', {text}) END"
    )


def convert_on_assignment(model: type, name: str, attribute: QueryableAttribute[Any]) -> None:
    """Convert values assigned to ``attribute``, and its SQL defaults, to UTC if its column is a UTCDateTime.

    So an attribute has the same value before and after it is stored. This is a listener for SQLAlchemy's event
    ``attribute_instrument`` (its manual: "ORM Events").
    """
    prop = attribute.property
    if not (isinstance(prop, ColumnProperty) and isinstance(prop.columns[0].type, UTCDateTime)):
        return
    for default in (prop.columns[0].default, prop.columns[0].onupdate):
        if getattr(default, 'is_clause_element', False) and not isinstance(default.arg, as_stored):
            default.arg = as_stored(default.arg)

    @listens_for(attribute, 'set', retval=True)
    def convert(target: object, value: Any, *rest: Any) -> Any:
        if isinstance(value, datetime):
            return as_utc(value)
        return as_stored(value) if isinstance(value, ColumnElement | QueryableAttribute | TextClause) else value


class as_text(FunctionElement[str]):  # noqa: N801, since SQL functions have lower-case names
    """``as_text(column)``: a UTCDateTime column in UTC, as the database's own text.

    Making a ``datetime`` and then its text would take longer than everything else in a row, and PostgreSQL's
    ``to_char`` takes longer than :func:`rfc3339`.
    """

    type = String()
    inherit_cache = True


@compiles(as_text, 'postgresql')
def _as_text_postgresql(element: as_text, compiler: SQLCompiler, **kw: Any) -> str:
    # ISO 8601, since psycopg2 sets DateStyle. AT TIME ZONE is written as its function with explicit types.
    return f"timezone('UTC'::text, {compiler.process(element.clauses, **kw)})::text"


@compiles(as_text, 'sqlite')
def _as_text_sqlite(element: as_text, compiler: SQLCompiler, **kw: Any) -> str:
    return compiler.process(element.clauses, **kw)


def rfc3339(text: str) -> str:
    """Return the text of :func:`to_text` for a text that :class:`as_text` selected.

    :param text: PostgreSQL, and CURRENT_TIMESTAMP of SQLite, have a space for the T, no Z, and no zeros at the end.
    """
    return f'{text[:10]}T{text[11:19]}.{text[20:26].rstrip("Z"):0<6}Z'
