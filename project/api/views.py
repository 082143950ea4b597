"""The users over HTTP."""

import re
from hashlib import blake2b
from urllib.parse import urlencode

import orjson
from flask import Blueprint, abort, current_app, request, stream_with_context
from sqlalchemy.exc import IntegrityError

from project import database
from project.api import validation
from project.api.models import MAX_ID, User

ID = re.compile('[0-9]{1,19}')
JSON = 'application/json'
CHUNK = 2000  # users that are in memory at once while the whole table is answered

users_blueprint = Blueprint('users', __name__)


@users_blueprint.post('/users')
def add_user():
    """Add a user."""
    new_user = validation.body(validation.NewUser, request)
    user = write_user(User.adding(), new_user)
    headers = {'Location': f'{request.script_root}/users/{user["id"]}', 'ETag': etag(user)}
    return {'status': 'success', 'message': f'{user["email"]} was added!', 'data': user}, 201, headers


@users_blueprint.get('/users/<user_id>')
def get_single_user(user_id):
    """One user."""
    user = find_user(user_id)
    tag = etag(user)
    if 'HTTP_IF_NONE_MATCH' in request.environ and request.if_none_match.contains_weak(tag.strip('"')):
        return '', 304, {'ETag': tag}
    return {'status': 'success', 'data': user}, {'ETag': tag}


@users_blueprint.get('/users')
def get_all_users():
    """The users, newest first: all of them, or a page."""
    query = validation.query(request)
    filters, values = tuple(query), dict(query)
    if 'after' in query:
        values['created_at'], values['id'] = values.pop('after')
    limit = values.get('limit', CHUNK)
    # One more than are asked for: it tells whether there are more.
    statement = User.newest_first(*filters) if 'limit' in query else User.newest_first('limit', *filters)
    rows = database.read(statement, values | {'limit': limit + 1})
    users = User.to_dicts(rows[:limit])
    if len(rows) <= limit:
        return {'status': 'success', 'data': {'users': users}}
    if 'limit' not in query:
        return stream_users(users, filters, values)
    following = next_url(users[-1])
    body = {'status': 'success', 'data': {'users': users, 'next': following}}
    return body, {'Link': f'<{following}>; rel="next"'}


@users_blueprint.patch('/users/<user_id>')
def change_user(user_id):
    """Change what the body names of a user."""
    changes = validation.body(validation.Changes, request)
    with database.deadline(database.REQUEST_SECONDS):
        user, unchanged = find_unchanged(user_id)
        if changes:
            values = {f'new_{name}': value for name, value in changes.items()}
            user = write_user(User.changing(*changes, unchanged=unchanged), values | bound_to(user))
    return {'status': 'success', 'data': user}, {'ETag': etag(user)}


@users_blueprint.delete('/users/<user_id>')
def remove_user(user_id):
    """Remove a user."""
    with database.deadline(database.REQUEST_SECONDS):
        user, unchanged = find_unchanged(user_id)
        write_user(User.removing(unchanged=unchanged), bound_to(user))
    return '', 204, {'Content-Type': JSON}


def find_user(user_id):
    """The user with the id in the path, as a dict; 404 when there is none."""
    rows = ()
    if ID.fullmatch(user_id) and int(user_id) <= MAX_ID:
        rows = database.read(User.by_id(), {'id': int(user_id)})
    return User.to_dicts(rows)[0] if rows else abort(404, 'User does not exist')


def find_unchanged(user_id):
    """The user with the id in the path, and whether a change needs him as he is now: 412 when he is not.

    ``If-Match`` (RFC 9110 section 13.1.1) names the state that the client has seen.
    """
    user = find_user(user_id)
    unchanged = 'If-Match' in request.headers
    if unchanged and not request.if_match.contains(etag(user).strip('"')):
        abort(412, 'The user has changed since it was read.')
    return user, unchanged


def bound_to(user):
    """The values by which a statement finds ``user``, and finds him unchanged."""
    return {'user_id': user['id']} | {f'old_{name}': user[name] for name in ('username', 'email', 'active')}


def write_user(statement, values):
    """Run a statement that writes one user, and return the user as a dict.

    The database checks and writes in one statement, so a change that another request made meanwhile is noticed:
    400 for a value that is unique and taken, 412 for a user who changed, 404 for one who was removed.
    """
    try:
        rows = database.write(statement, values)
    except IntegrityError as error:
        taken = User.taken(error)
        if not taken:
            raise
        if taken == ['email']:
            abort(400, 'Sorry. That email already exists.')
        raise validation.Invalid('Invalid payload.', dict.fromkeys(taken, 'is already taken')) from None
    if not rows:
        if 'If-Match' in request.headers:
            abort(412, 'The user has changed since it was read.')
        abort(404, 'User does not exist')
    return User.to_dicts(rows)[0]


def etag(user):
    """A strong entity tag (RFC 9110 section 8.8.3): the same as long as the user is the same, on any instance."""
    return f'"{blake2b(orjson.dumps(user), digest_size=12).hexdigest()}"'


def next_url(user):
    """The URL of this request for the page that follows ``user``."""
    kept = [(name, value) for name, value in request.args.items(multi=True) if name != 'after']
    return f'{request.script_root}{request.path}?{urlencode(kept)}&after={validation.cursor(user)}'


def stream_users(users, filters, values):
    """The answer with all users, the first of whom are read already, in memory that does not grow with the table."""
    if request.method == 'HEAD':
        return current_app.response_class(iter(()), mimetype=JSON)  # whose length nobody knows yet
    last = users[-1]
    values = {name: value for name, value in values.items() if name != 'limit'}
    values |= {'created_at': last['created_at'], 'id': last['id']}
    parts = database.stream(User.newest_first(*dict.fromkeys((*filters, 'after'))), values, CHUNK)

    def chunks(part):
        yield b'{"status":"success","data":{"users":' + orjson.dumps(users)[:-1]
        while part:
            yield b',' + orjson.dumps(User.to_dicts(part))[1:-1]
            part = next(parts, None)
        yield b']}}'

    # The first part is read before the answer begins: a database in trouble is still a 503.
    response = current_app.response_class(stream_with_context(chunks(next(parts, None))), mimetype=JSON)
    response.call_on_close(parts.close)
    return response
