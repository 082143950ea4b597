"""Validates bodies and query strings with the schemas, and raises 400 for invalid ones."""

from typing import Any

from flask import Request
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails
from werkzeug.exceptions import BadRequest, RequestEntityTooLarge

from project.api.schemas import UsersQuery

# The service's messages for the errors of Pydantic.
REASONS = {
    'missing': 'is required',
    'string_type': 'must be a string',
    'bool_type': 'must be true or false',
    'string_unicode': 'must be valid Unicode',
    'int_type': 'must be a whole number',
    'extra_forbidden': 'is not a field of a user',
}


class Invalid(BadRequest):
    """400 for a request with invalid fields.

    :param message: the ``message`` of the response.
    :param errors: the rule that each invalid field breaks, by the field's name.
    """

    def __init__(self, message: str, errors: dict[str, str]) -> None:
        super().__init__(message)
        self.errors = errors


def body(schema: type[BaseModel], request: Request) -> dict[str, Any]:
    """Return the fields in the body of a request.

    :param schema: the model that they must fit.
    :param request: its media type must be ``application/json`` or end in ``+json``.
    :raises Invalid: naming every wrong field, or ``body`` if it is not a JSON object.
    """
    if not request.is_json:
        raise Invalid('Invalid payload.', {'body': 'must have the Content-Type application/json'})
    try:
        data = request.get_data(cache=False)
        if request.content_length is None:
            request.stream.read(1)  # raises RequestEntityTooLarge for a chunked body that was cut off at the limit
    except RequestEntityTooLarge:
        raise
    except Exception:  # each server has its own errors for an incomplete or badly chunked body
        raise Invalid('Invalid payload.', {'body': 'could not be read to its end'}) from None
    if len(data) < (request.content_length or 0):
        raise Invalid('Invalid payload.', {'body': 'could not be read to its end'})
    return fields(schema, data)


def fields(schema: type[BaseModel], data: bytes) -> dict[str, Any]:
    """Return the fields of a JSON object.

    :param schema: the model that they must fit.
    :param data: the JSON text.
    :raises Invalid: naming every wrong field, or ``body`` if it is not a JSON object.
    """
    try:
        return schema.model_validate_json(data).model_dump(exclude_unset=True)
    except ValidationError as error:
        raise Invalid('Invalid payload.', dict(map(_field_and_reason, error.errors(include_url=False)))) from None


def users_query(request: Request) -> dict[str, Any]:
    """Return the parameters of a request for a list of users. Unknown parameters are ignored.

    :returns: those that were sent: ``limit``, an int; ``after``, a position ``(created_at, id)``; ``email``, two
        forms of it; ``username`` and ``q``, strings; ``active`` and ``count``, bools.
    :raises Invalid: naming every wrong parameter.
    """
    if not request.query_string:
        return {}
    args = request.args
    sent = {name: args.getlist(name) for name in UsersQuery.model_fields if name in args}
    errors = {name: 'must be given once' for name, values in sent.items() if len(values) > 1}
    try:
        found = UsersQuery.model_validate({name: values[0] for name, values in sent.items()})
        if not errors:
            return {name: getattr(found, name) for name in sent}
    except ValidationError as error:
        errors = dict(map(_field_and_reason, error.errors(include_url=False))) | errors
    raise Invalid('Invalid query.', errors)


def _field_and_reason(error: ErrorDetails) -> tuple[str, str]:
    field = str(error['loc'][0]) if error['loc'] else 'body'
    if error['type'] == 'wrong':
        return field, error.get('ctx', {})['reason']
    if field == 'body':
        return field, 'must be a JSON object'
    if error['type'] != 'missing' and error.get('input', 0) is None:
        return field, 'must not be null'
    return field, REASONS.get(error['type'], 'is not valid')
