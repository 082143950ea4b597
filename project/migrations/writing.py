"""The files that ``db migrate`` writes: hooks of Alembic's autogenerate, which env.py sets."""

from decimal import Decimal
from enum import Enum
from typing import Any, Literal

from alembic import context
from alembic.autogenerate.api import AutogenContext
from alembic.operations.ops import AddColumnOp, MigrationScript, ModifyTableOps
from alembic.runtime.migration import MigrationContext
from alembic.util import CommandError
from sqlalchemy import Column

from project.timestamps import UTCDateTime


def render_item(kind: str, item: Any, autogen: AutogenContext) -> str | Literal[False]:
    """Return the code for a timestamp's type in a migration, and add its import; return False for all other items."""
    if kind == 'type' and isinstance(item, UTCDateTime):
        autogen.imports.add('from project.timestamps import UTCDateTime')
        return 'UTCDateTime'
    return False


def complete_script(migration: MigrationContext, revision: Any, scripts: list[MigrationScript]) -> None:
    """Write no file if the models have not changed. Give new columns a server default for the existing rows.

    :raises CommandError: a new column must not be NULL, and the model names no value for it.
    """
    # "db check" needs the script, even if it is empty.
    [upgrade] = scripts[0].upgrade_ops_list
    if getattr(context.config.cmd_opts, 'autogenerate', False) and upgrade.is_empty():
        scripts.clear()
        print('The models have not changed: no migration was written.')
        return
    for table in upgrade.ops:
        for operation in table.ops if isinstance(table, ModifyTableOps) else ():
            if isinstance(operation, AddColumnOp):
                operation.column = with_server_default(operation.table_name, operation.column)


def with_server_default(table: str, column: Column) -> Column:
    """Return ``column``, or a copy whose server default is the default of the model.

    :raises CommandError: the column must not be NULL, and has no default that can be written into a migration.
    """
    if column.nullable or column.server_default is not None:
        return column
    is_scalar = column.default is not None and column.default.is_scalar
    default = getattr(column.default, 'arg', None) if is_scalar else None
    # SQLAlchemy stores the name of an enumeration's member, not its value.
    if not isinstance(default, bool | int | float | Decimal | str) or isinstance(default, Enum):
        raise CommandError(
            f'the column {table}.{column.name} must not be NULL, so existing rows need a value: '
            "give it a default such as default=0, a server_default such as server_default='0', or nullable=True"
        )
    # Both databases read '0' and '1' as booleans.
    server_default = str(int(default)) if isinstance(default, bool) else str(default)
    return Column(column.name, column.type, server_default=server_default, nullable=False, comment=column.comment)
