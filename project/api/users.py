"""The users over HTTP."""

import re
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from itertools import chain
from typing import Any, NoReturn
from urllib.parse import quote

import orjson
from flask import Blueprint, Response, abort, current_app, request
from flask.typing import ResponseReturnValue
from sqlalchemy import Row
from werkzeug.exceptions import BadRequest

from project.api import changes, paging, parsing, schemas
from project.api.models import FILTERS, MAX_ID, User, bind, to_dicts
from project.database import REQUEST_SECONDS, database, deadline
from project.database.errors import Duplicate
from project.errors import envelope
from project.observability import USER_KEY
from project.service import EncodedJSON

JSON = 'application/json'
ID = re.compile('[0-9]{1,19}')
STREAM_ROWS = 2000  # an unpaginated list that is longer is streamed, in parts of this size

users_blueprint = Blueprint('users', __name__)


@users_blueprint.post('/users')
def add_user() -> ResponseReturnValue:
    """Add a user."""
    values = parsing.body(schemas.NewUser, request)
    with deadline(REQUEST_SECONDS):
        user = changes.add(values)
    request.environ[USER_KEY] = user['id']
    location = f'{quote(request.script_root)}/users/{user["id"]}'
    return respond(user, 201, f'{user["email"]} was added!', Location=location)


@users_blueprint.get('/users/<user_id>')
def get_single_user(user_id: str) -> ResponseReturnValue:
    """Return one user."""
    response = respond(find_user(user_id))
    tag = response.headers['ETag']
    if 'HTTP_IF_NONE_MATCH' in request.environ and request.if_none_match.contains_weak(tag.strip('"')):
        return '', 304, {'ETag': tag}
    return response


@users_blueprint.get('/users')
def get_all_users() -> ResponseReturnValue:
    """Return the users, newest first: all of them, or a page."""
    query = parsing.users_query(request)
    with deadline(REQUEST_SECONDS):
        total = b'"total":%d,' % count_users(query) if query.pop('count', False) else b''
        head = b'{"status":"success","data":{' + total
        limit = query.pop('limit', None)
        page = database.share(('page', limit, *query.items()), lambda: read_page(query, limit))
        if page is None:
            return stream_users(query, head)
    users, last = page
    if last is None:
        return EncodedJSON(b'%b"users":%b}}' % (head, users))
    url = paging.next_url(request, last)
    body = b'%b"users":%b,"next":%b}}' % (head, users, orjson.dumps(url))
    return EncodedJSON(body, headers={'Link': f'<{url}>; rel="next"'})


@users_blueprint.patch('/users/<user_id>')
def change_user(user_id: str) -> ResponseReturnValue:
    """Change the fields of a user that the body names."""
    values = parsing.body(schemas.Changes, request)
    with deadline(REQUEST_SECONDS):
        user = find_user(user_id)
        unless_changed = check_if_match(user)
        if values:
            user = changes.change(user['id'], values, unless_changed) or abort_changed(unless_changed)
            request.environ[USER_KEY] = user['id']
    return respond(user)


@users_blueprint.delete('/users/<user_id>')
def remove_user(user_id: str) -> ResponseReturnValue:
    """Remove a user."""
    with deadline(REQUEST_SECONDS):
        user = find_user(user_id)
        unless_changed = check_if_match(user)
        if not changes.remove(user['id'], unless_changed):
            abort_changed(unless_changed)
        request.environ[USER_KEY] = user['id']
    return '', 204, {'Content-Type': JSON}


@users_blueprint.errorhandler(Duplicate)
def reject_duplicate(error: Duplicate) -> ResponseReturnValue:
    """Return 400 for a value that must be unique and that another user has."""
    taken = User.taken(error)
    if not taken:
        raise error
    if taken == ['email']:
        return envelope(BadRequest('Sorry. That email already exists.'))
    return envelope(parsing.Invalid('Invalid payload.', dict.fromkeys(taken, 'is already taken')))


def find_user(user_id: str) -> dict[str, Any]:
    """Return the user with the id in the path; 404 if there is none."""
    number = int(user_id) if ID.fullmatch(user_id) else 0
    return (0 < number <= MAX_ID and User.find(number)) or abort(404, 'User does not exist')


def check_if_match(user: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Check ``If-Match`` (RFC 9110 section 13.1.1), which names the state that the client has seen; 412 on mismatch.

    :returns: the state that the user must still have when the change is made; None if it may have any.
    """
    if 'If-Match' not in request.headers or request.if_match.star_tag:
        return None
    if not request.if_match.contains(etag(orjson.dumps(user)).strip('"')):
        abort_changed(user)
    return user


def abort_changed(unless_changed: Mapping[str, Any] | None) -> NoReturn:
    """Return 412 if the change required a state that the user no longer has, else 404: the user does not exist."""
    if unless_changed is not None:
        abort(412, 'The user has changed since it was read.')
    abort(404, 'User does not exist')


def etag(text: bytes) -> str:
    """Return a strong entity tag (RFC 9110 section 8.8.3) for the JSON of a user, the same on every instance."""
    return f'"{blake2b(text, digest_size=12).hexdigest()}"'


def respond(user: Mapping[str, Any], status: int = 200, message: str | None = None, **headers: str) -> Response:
    """Return the response with a user, and its ``ETag``.

    The JSON is made once, for the body and the ``ETag``. Flask would make it again.
    """
    text = orjson.dumps(user)
    more = b'' if message is None else b'"message":%b,' % orjson.dumps(message)
    body = b'{"status":"success",%b"data":%b}' % (more, text)
    return EncodedJSON(body, status, {'ETag': etag(text), **headers})


def count_users(query: Mapping[str, Any]) -> int:
    """Return the number of users that match, on all pages together."""
    values = {name: value for name, value in query.items() if name in FILTERS and name != 'after'}
    statement = User.counting(*values)
    return database.share(('count', *values.items()), lambda: database.read(statement, bind(values))[0][0])


def read_page(query: Mapping[str, Any], limit: int | None) -> tuple[bytes, dict[str, Any] | None] | None:
    """Read the users that match.

    :param query: the values of :data:`FILTERS`.
    :param limit: the number of users on a page; None for all.
    :returns: the JSON array of the users, and the last user if there is a next page. None for a list to stream.
    """
    size = limit or STREAM_ROWS
    # One more than needed: if it exists, there is another page.
    rows = database.read(User.newest_first('limit', *query), bind(query) | {'limit': size + 1})
    more = len(rows) > size
    if more and limit is None:
        return None
    users = to_dicts(rows[:size])
    return orjson.dumps(users), users[-1] if more else None


def stream_users(query: Mapping[str, Any], head: bytes) -> Response:
    """Return a response with all users that match: one snapshot, in memory that does not grow with the table.

    :param query: as for :func:`read_page`.
    :param head: the body up to the key ``users``.
    """
    if request.method == 'HEAD':
        return current_app.response_class(iter(()), mimetype=JSON)  # its length is not known
    parts = database.stream(User.newest_first(*query), bind(query), STREAM_ROWS)
    texts = map(to_json, parts)
    # The first part is read before the response begins, so that an unavailable database is still a 503.
    first = b'%b"users":[%b' % (head, next(texts, b''))
    body = chain([first], map(b','.__add__, texts), [b']}}'])
    response = current_app.response_class(body, mimetype=JSON)
    response.call_on_close(parts.close)
    return response


def to_json(rows: Sequence[Row[Any]]) -> bytes:
    """Return rows as the elements of a JSON array."""
    return orjson.dumps(to_dicts(rows))[1:-1]
