"""What a client may send: the bodies and query strings, each checked by a Pydantic model; and the lines of a dump."""

import re
import unicodedata
from datetime import datetime
from functools import cache
from typing import Annotated

import orjson
from email_validator import EmailNotValidError, validate_email
from flask import current_app
from itsdangerous import BadData, Signer
from itsdangerous.encoding import base64_decode, base64_encode
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, ValidationError
from pydantic_core import PydanticCustomError
from werkzeug.exceptions import BadRequest, RequestEntityTooLarge

from project import timestamps

MAX_LENGTH = 128  # characters, of a username and of an email address
MAX_LIMIT = 1000  # users on a page


class Invalid(BadRequest):
    """400: what the client sent is wrong.

    :param message: the envelope's ``message``.
    :param errors: what is wrong, by the name of the field.
    """

    def __init__(self, message, errors):
        super().__init__(message)
        self.errors = errors


def _wrong(reason):
    return PydanticCustomError('wrong', '{reason}', {'reason': reason})


def _text(value):
    """Trimmed, not blank, not too long, and without control characters or line separators (Unicode's Cc, Zl, Zp)."""
    if not value.isprintable() and any(unicodedata.category(c) in ('Cc', 'Zl', 'Zp') for c in value):
        raise _wrong('must not contain control characters')
    value = value.strip()
    if not any(c.isprintable() and c != ' ' for c in value):
        raise _wrong('must not be blank')
    if len(value) > MAX_LENGTH:
        raise _wrong(f'must have at most {MAX_LENGTH} characters')
    return value


def _email(value):
    """An address by its syntax (RFC 5321, RFC 5322, RFC 6531), as typed.

    The index that keeps addresses unique folds ASCII letters only, as both databases do in every locale;
    so an address with other letters is stored normalised and in lower case.
    """
    try:
        address = validate_email(value, check_deliverability=False, test_environment=True)
    except EmailNotValidError:
        raise _wrong('must be an email address') from None
    if value.isascii():
        return value
    normalized = address.normalized.lower()
    if len(normalized) > MAX_LENGTH:
        raise _wrong(f'must have at most {MAX_LENGTH} characters')
    return normalized


Username = Annotated[str, AfterValidator(_text)]
Email = Annotated[str, AfterValidator(_text), AfterValidator(_email)]


class NewUser(BaseModel):
    """The body of ``POST /users``."""

    model_config = ConfigDict(strict=True)
    username: Username
    email: Email


class Changes(BaseModel):
    """The body of ``PATCH /users/<id>``: a merge patch (RFC 7396) of these fields; none of them can be removed."""

    model_config = ConfigDict(strict=True)
    username: Username = None
    email: Email = None
    active: bool = None


# Pydantic's names of errors, in the words of this service.
REASONS = {
    'missing': 'is required',
    'string_type': 'must be a string',
    'bool_type': 'must be true or false',
    'string_unicode': 'must be valid Unicode',
    'int_type': 'must be a whole number',
    'extra_forbidden': 'is no field of a user',
}


def body(model, request):
    """The body of a request, checked.

    :param model: the Pydantic model to check it with.
    :param request: the Flask request; its type must be ``application/json`` or end in ``+json``.
    :returns: a dict of the fields that were sent.
    :raises Invalid: naming every wrong field, or ``body`` when it is no JSON object.
    """
    if not request.is_json:
        raise Invalid('Invalid payload.', {'body': 'must have the Content-Type application/json'})
    try:
        data = request.get_data(cache=False)
        if request.content_length is None:
            request.stream.read(1)  # a chunked body that is over the limit was only cut until here
    except RequestEntityTooLarge:
        raise
    except Exception:  # each server has its own errors for a body that is cut short or badly chunked
        raise Invalid('Invalid payload.', {'body': 'could not be read to its end'}) from None
    if len(data) < (request.content_length or 0):
        raise Invalid('Invalid payload.', {'body': 'could not be read to its end'})
    return fields(model, data)


def fields(model, data):
    """The fields of a JSON object, checked.

    :param model: the Pydantic model to check it with.
    :param data: the JSON text, as bytes.
    :returns: a dict of the fields that are there.
    :raises Invalid: naming every wrong field, or ``body`` when it is no JSON object.
    """
    try:
        return model.model_validate_json(data).model_dump(exclude_unset=True)
    except ValidationError as error:
        raise Invalid('Invalid payload.', dict(map(_field_and_reason, error.errors(include_url=False)))) from None


def _field_and_reason(error):
    field = error['loc'][0] if error['loc'] else 'body'
    if error['type'] == 'wrong':
        return field, error['ctx']['reason']
    if field == 'body':
        return field, 'must be a JSON object'
    if error['type'] != 'missing' and error.get('input', 0) is None:
        return field, 'must not be null'
    return field, REASONS.get(error['type'], 'is not valid')


# --- lines of a dump


def _id(value):
    if not -(2**63) <= value < 2**63:
        raise _wrong('must fit in 64 bits')
    return value


def _column(value):
    if len(value) > MAX_LENGTH:
        raise _wrong(f'must have at most {MAX_LENGTH} characters')
    return _storable(value)


def _timestamp(value: object) -> datetime:
    try:
        return timestamps.parse(value)
    except (TypeError, ValueError):
        raise _wrong('must be a timestamp such as 2026-11-22T16:13:51.482913Z') from None


class StoredUser(BaseModel):
    """A line of a dump: a user as he was answered, with all that the table keeps of him.

    It takes what the table can hold. A user who was stored by rules that have since become stricter
    (a blank name, a word that is no address) is a user still, whom a backup must bring back.
    """

    model_config = ConfigDict(strict=True, extra='forbid')
    id: Annotated[int, AfterValidator(_id)]
    username: Annotated[str, AfterValidator(_column)]
    email: Annotated[str, AfterValidator(_column)]
    active: bool
    created_at: Annotated[datetime, BeforeValidator(_timestamp)]


# --- query strings


def _limit(value):
    if not re.fullmatch('[0-9]{1,4}', value) or not 1 <= int(value) <= MAX_LIMIT:
        raise _wrong(f'must be a whole number from 1 to {MAX_LIMIT}')
    return int(value)


def _position(value):
    try:
        created_at, user_id = orjson.loads(base64_decode(_signer(current_app.secret_key).unsign(value)))
    except (BadData, ValueError, TypeError):
        raise _wrong('must be the cursor of a page before') from None
    return created_at, user_id


def _storable(value):
    if '\0' in value:
        raise _wrong('must not contain control characters')
    return value


def _as_stored(value):
    value = value.strip()
    try:
        return _email(value)
    except PydanticCustomError:
        return value  # at most somebody of the 2017 service has it


def _boolean(value):
    if value not in ('true', 'false'):
        raise _wrong('must be true or false')
    return value == 'true'


class UsersQuery(BaseModel):
    """The query string of ``GET /users``."""

    limit: Annotated[str, AfterValidator(_limit)] = None
    after: Annotated[str, AfterValidator(_position)] = None
    email: Annotated[str, AfterValidator(_storable), AfterValidator(_as_stored)] = None
    username: Annotated[str, AfterValidator(_storable)] = None
    active: Annotated[str, AfterValidator(_boolean)] = None


PARAMETERS = tuple(UsersQuery.model_fields)


def query(request):
    """The query string of a request to list users, checked; parameters that it doesn't know are ignored.

    :param request: the Flask request.
    :returns: a dict of the parameters that were sent: ``limit`` an int, ``after`` a position
        ``(created_at, id)``, ``email``, ``username``, ``active`` a bool.
    :raises Invalid: naming every wrong parameter.
    """
    if not request.query_string:
        return {}
    args = request.args
    sent = {name: args.getlist(name) for name in PARAMETERS if name in args}
    errors = {name: 'must be given once' for name, values in sent.items() if len(values) > 1}
    try:
        found = UsersQuery.model_validate({name: values[0] for name, values in sent.items()})
    except ValidationError as error:
        errors = dict(map(_field_and_reason, error.errors(include_url=False))) | errors
    if errors:
        raise Invalid('Invalid query.', errors)
    return {name: getattr(found, name) for name in sent}


def cursor(user):
    """The opaque, signed text for the position of a user in the list: no client can make one up.

    :param user: the last user of a page, as a dict.
    """
    position = base64_encode(orjson.dumps([user['created_at'], user['id']]))
    return _signer(current_app.secret_key).sign(position).decode()


@cache
def _signer(key):
    return Signer(key, salt='users-after')
