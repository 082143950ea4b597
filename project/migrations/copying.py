"""SQLite's batch migrations, which copy a table, drop it and rename the copy."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, Table, event, text

# The prefix that Alembic gives the copy.
COPY = '_alembic_tmp_'
# A column number of -2 means that the index is on an expression.
INDEXES = text(
    'SELECT name, sql, EXISTS (SELECT 1 FROM pragma_index_xinfo(sqlite_master.name) WHERE cid = -2) FROM sqlite_master'
    " WHERE type = 'index' AND tbl_name = :table AND sql IS NOT NULL"
)


@contextmanager
def complete_copies(connection: Connection) -> Iterator[Callable[..., None]]:
    """Add to a copy what SQLAlchemy does not reflect: AUTOINCREMENT, its counter, expressions and DESC in indexes.

    Without them a new user could get the id of a deleted one, or the email of another, and lists would be slow.

    :param connection: the connection that runs the migrations.
    :returns: a function that makes the indexes again, for Alembic's ``on_version_apply``.
    """
    indexes: dict[str, list[Any]] = {}  # SQL, and whether it is on an expression, by name

    def before_create(copy: Table, connection: Connection, **options: Any) -> None:
        if copy.name.startswith(COPY):
            table = {'table': copy.name.removeprefix(COPY)}
            sql = connection.scalar(text("SELECT sql FROM sqlite_master WHERE type = 'table' AND name = :table"), table)
            copy.dialect_options['sqlite']['autoincrement'] = 'AUTOINCREMENT' in sql
            indexes.update((name, rest) for name, *rest in connection.execute(INDEXES, table))

    def after_create(copy: Table, connection: Connection, **options: Any) -> None:
        if copy.name.startswith(COPY) and copy.dialect_options['sqlite']['autoincrement']:
            connection.execute(
                text('INSERT INTO sqlite_sequence SELECT :copy, seq FROM sqlite_sequence WHERE name = :table'),
                {'copy': copy.name, 'table': copy.name.removeprefix(COPY)},
            )

    def make_indexes(**options: Any) -> None:
        present = dict(connection.execute(text("SELECT name, sql FROM sqlite_master WHERE type = 'index'")).all())
        for name, (sql, on_expression) in indexes.items():
            if name in present and present[name] == sql.replace(' DESC', '') != sql:
                connection.exec_driver_sql(f'DROP INDEX "{name}"')
                connection.exec_driver_sql(sql)
            elif name not in present and on_expression:
                connection.exec_driver_sql(sql)
        indexes.clear()

    event.listen(Table, 'before_create', before_create)
    event.listen(Table, 'after_create', after_create)
    try:
        yield make_indexes
    finally:
        event.remove(Table, 'before_create', before_create)
        event.remove(Table, 'after_create', after_create)
