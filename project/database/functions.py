"""SQL functions that SQLite and PostgreSQL spell differently."""

from typing import Any

from sqlalchemy import String
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement


class folded(FunctionElement[str]):  # noqa: N801, since SQL functions have lower-case names
    """``folded(column)``: a text with its ASCII letters in lower case, compared character code by character code.

    It is the same in every locale of the database, and an index on it finds prefixes.
    """

    type = String()
    inherit_cache = True


@compiles(folded, 'postgresql')
def _folded_postgresql(element: folded, compiler: SQLCompiler, **kw: Any) -> str:
    return f'lower({compiler.process(element.clauses, **kw)} COLLATE "C")'


@compiles(folded, 'sqlite')
def _folded_sqlite(element: folded, compiler: SQLCompiler, **kw: Any) -> str:
    return f'lower({compiler.process(element.clauses, **kw)})'


class unindexed(FunctionElement[Any]):  # noqa: N801
    """``unindexed(column)``: the column, for which SQLite does not choose an index."""

    inherit_cache = True


@compiles(unindexed, 'postgresql')
def _unindexed_postgresql(element: unindexed, compiler: SQLCompiler, **kw: Any) -> str:
    return compiler.process(element.clauses, **kw)


@compiles(unindexed, 'sqlite')
def _unindexed_sqlite(element: unindexed, compiler: SQLCompiler, **kw: Any) -> str:
    return f'+{compiler.process(element.clauses, **kw)}'


class encoding(FunctionElement[str]):  # noqa: N801
    """``encoding()``: the name of the database's encoding, by PostgreSQL's names."""

    type = String()
    inherit_cache = True


@compiles(encoding, 'postgresql')
def _encoding_postgresql(element: encoding, compiler: SQLCompiler, **kw: Any) -> str:
    return 'getdatabaseencoding()::text'


@compiles(encoding, 'sqlite')
def _encoding_sqlite(element: encoding, compiler: SQLCompiler, **kw: Any) -> str:
    return "'UTF8'"  # or UTF-16, which holds the same characters
