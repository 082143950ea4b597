"""Pydantic models of what clients may send, and of a line of a dump. Their rules are plain functions.

The rules for usernames and emails are in ``texts.py``.
"""

import contextlib
import re
from datetime import datetime
from typing import Annotated

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict
from pydantic_core import PydanticCustomError

from project import timestamps
from project.api import paging
from project.api.texts import column, email, storable, text, wrong

MAX_LIMIT = 1000  # users on a page
MIN_PREFIX = 2  # characters of a search
MAX_LOADED_ID = 2**63 - 2**32  # leaves the database ids for four billion more users


Username = Annotated[str, AfterValidator(text)]
Email = Annotated[str, AfterValidator(text), AfterValidator(email)]


class NewUser(BaseModel):
    """The body of ``POST /users``."""

    model_config = ConfigDict(strict=True)
    username: Username
    email: Email


class Changes(BaseModel):
    """The body of ``PATCH /users/<id>``: a merge patch (RFC 7396) of these fields, none of which can be removed."""

    model_config = ConfigDict(strict=True)
    username: Username = ''
    email: Email = ''
    active: bool = False


# --- query strings


def page_size(value: str) -> int:
    """Return the number of users on a page."""
    if not re.fullmatch('[0-9]{1,4}', value) or not 1 <= int(value) <= MAX_LIMIT:
        raise wrong(f'must be a whole number from 1 to {MAX_LIMIT}')
    return int(value)


def position(value: str) -> tuple[str, int]:
    """Return the position in the list that a cursor names."""
    try:
        return paging.position(value)
    except ValueError:
        raise wrong('is not a valid cursor') from None


def stored_email(value: str) -> tuple[str, str]:
    """Return two forms of an email to look for: as :func:`email` stores it now, and unchanged, as stored before."""
    value = value.strip()
    try:
        return email(value), value
    except PydanticCustomError:
        return value, value  # the 2017 service accepted any text


def prefix(value: str) -> str:
    """Return the prefix to look for, with its ASCII letters in lower case."""
    value = value.strip()
    if len(value) < MIN_PREFIX:
        raise wrong(f'must have at least {MIN_PREFIX} characters')
    return value.encode().lower().decode()  # bytes.lower() changes ASCII letters only


def boolean(value: str) -> bool:
    """Return whether ``value`` is ``true``."""
    if value not in ('true', 'false'):
        raise wrong('must be true or false')
    return value == 'true'


class UsersQuery(BaseModel):
    """The query string of ``GET /users``. Each parameter is optional."""

    limit: Annotated[str, AfterValidator(page_size)] = ''
    after: Annotated[str, AfterValidator(position)] = ''
    email: Annotated[str, AfterValidator(storable), AfterValidator(stored_email)] = ''
    username: Annotated[str, AfterValidator(storable)] = ''
    active: Annotated[str, AfterValidator(boolean)] = ''
    q: Annotated[str, AfterValidator(storable), AfterValidator(prefix)] = ''
    count: Annotated[str, AfterValidator(boolean)] = ''


# --- lines of a dump


def loadable_id(value: int) -> int:
    """Return the id; reject one that no request can name, or after which the database would run out of ids."""
    if not 1 <= value <= MAX_LOADED_ID:
        raise wrong(f'must be a whole number from 1 to {MAX_LOADED_ID}')
    return value


def timestamp(value: object) -> datetime:
    """Return the timestamp."""
    if isinstance(value, str):
        with contextlib.suppress(ValueError):
            return timestamps.parse(value)
    raise wrong('must be a timestamp such as 2026-11-22T16:13:51.482913Z')


class StoredUser(BaseModel):
    """A line of a dump: all columns of a user.

    It accepts everything that the table can hold: a backup must also restore users that older rules accepted, such as
    a user with a blank name.
    """

    model_config = ConfigDict(strict=True, extra='forbid')
    id: Annotated[int, AfterValidator(loadable_id)]
    username: Annotated[str, AfterValidator(column)]
    email: Annotated[str, AfterValidator(column)]
    active: bool
    created_at: Annotated[datetime, BeforeValidator(timestamp)]
