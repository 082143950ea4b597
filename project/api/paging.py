"""Positions in the list of users: cursors, and the URL of the next page."""

from collections.abc import Mapping
from functools import cache
from typing import Any
from urllib.parse import quote, urlencode

import orjson
from flask import Request, current_app
from itsdangerous import BadData, Signer
from itsdangerous.encoding import base64_decode, base64_encode


def cursor(user: Mapping[str, Any]) -> str:
    """Return the opaque text for the position of a user in the list. It is signed, so that clients cannot make one.

    :param user: the last user of a page.
    """
    position = base64_encode(orjson.dumps([user['created_at'], user['id']]))
    return _signer(current_app.secret_key).sign(position).decode()


def position(text: str) -> tuple[str, int]:
    """Return the ``created_at`` and the ``id`` of the user whose :func:`cursor` is ``text``.

    :raises ValueError: it is not a cursor of this service.
    """
    try:
        created_at, user_id = orjson.loads(base64_decode(_signer(current_app.secret_key).unsign(text)))
    except (BadData, TypeError) as error:
        raise ValueError from error
    return created_at, user_id


def next_url(request: Request, user: Mapping[str, Any]) -> str:
    """Return the URL of the page after ``user``: that of ``request``, with another position."""
    kept = [(name, value) for name, value in request.args.items(multi=True) if name != 'after']
    return f'{quote(request.script_root)}{request.path}?{urlencode(kept)}&after={cursor(user)}'


@cache
def _signer(key: str | bytes) -> Signer:
    return Signer(key, salt='users-after')
