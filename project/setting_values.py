"""The values of settings. Each function checks the text of one kind of setting, and returns its value.

White space around a value is ignored. A message names the setting and shows a valid value. It never contains the
invalid value, which may be secret.
"""

import re
from collections.abc import Iterable, Sequence

MIN_TOKEN_LENGTH = 32
TOKEN_NAME = re.compile(r'[A-Za-z0-9._-]{0,32}')
TOKEN = re.compile(r'[!-~]+')  # visible ASCII characters
PORT = r'(?!6553[6-9]|655[4-9].|65[6-9]..|6[6-9]...|[7-9]....)[1-9][0-9]{0,4}'  # 1 to 65535
# A serialized origin as browsers send it (RFC 6454 section 6.2). The host is a name, an IPv4 or an IPv6 address.
ORIGIN = re.compile(rf'[a-z][a-z0-9+.-]*://(?:[a-z0-9_-]+(?:\.[a-z0-9_-]+)*|\[[0-9a-f:.]+])(?::{PORT})?')
DEFAULT_PORT = re.compile(r'http://.*:80|https://.*:443')
# The form that Werkzeug compares with the Host header, without its port.
HOST = re.compile(r'\.?[a-z0-9-]+(?:\.[a-z0-9-]+)*(?::[0-9]{1,5})?')
# Segments of unreserved characters (RFC 3986 section 2.3), none of which is "." or "..".
PATH_PREFIX = re.compile(r'(?=.{1,256}\Z)(?:/(?!\.{1,2}(?:/|\Z))[A-Za-z0-9._~-]+)+')


class SettingsError(ValueError):
    """A setting is missing or wrong; the message names its variable."""


def integer(name: str, value: object, least: int, most: int, example: int = 1) -> int:
    """Return a number from ``least`` to ``most``.

    :param example: a valid value, for the message.
    :raises SettingsError: the value is not such a number.
    """
    text = str(value).strip()
    if not re.fullmatch('[0-9]{1,10}', text) or text != str(int(text)) or not least <= int(text) <= most:
        allowed = '0 or 1' if (least, most) == (0, 1) else f'a whole number from {least} to {most}, such as {example}'
        raise SettingsError(f'{name} must be {allowed}.')
    return int(text)


def choice(name: str, value: object, choices: Sequence[str]) -> str:
    """Return the item of ``choices`` that equals the value, whatever its letter case.

    :raises SettingsError: no item equals the value.
    """
    found = next((choice for choice in choices if choice.lower() == str(value).strip().lower()), None)
    if found is None:
        raise SettingsError(f'{name} must be one of {", ".join(choices)}.')
    return found


def origins(name: str, value: str | Iterable[str] | None) -> list[str]:
    """Return the origins of a list, in lower case, as browsers send them in ``Origin``; ``*`` is any origin.

    :raises SettingsError: an item can equal no ``Origin`` header.
    """
    items = [item.lower() for item in _items(value)]
    if any(
        item not in ('*', 'null') and (not ORIGIN.fullmatch(item) or DEFAULT_PORT.fullmatch(item)) for item in items
    ):
        raise SettingsError(
            f'{name} must be * or origins separated by commas, such as http://localhost:3000,https://example.com: '
            "each without a path, a slash at its end, or the scheme's default port."
        )
    return items


def hosts(name: str, value: str | Iterable[str] | None) -> list[str]:
    """Return the host names of a list, in lower case and encoded as in a Host header (IDNA).

    :raises SettingsError: an item can equal no host name.
    """
    try:
        items = [item.lower() for item in _items(value)]
        items = ['.' * item.startswith('.') + item.removeprefix('.').encode('idna').decode() for item in items]
    except UnicodeError:
        items = ['']  # a label is empty or too long
    if not all(map(HOST.fullmatch, items)):
        raise SettingsError(
            f'{name} must be host names separated by commas, such as users.example.com,.example.org: '
            'each without a scheme and a path; one that begins with a period includes its subdomains.'
        )
    return items


def tokens(name: str, value: str | Iterable[str] | None) -> list[str]:
    """Return the bearer tokens of a list, each perhaps with a name and a colon before it.

    :raises SettingsError: a token is too short or has characters that an Authorization header cannot have, or a name is
        invalid.
    """
    items = _items(value)
    for owner, token in map(name_and_token, items):
        if not TOKEN_NAME.fullmatch(owner) or len(token) < MIN_TOKEN_LENGTH or not TOKEN.fullmatch(token):
            raise SettingsError(
                f'{name}: each token must have at least {MIN_TOKEN_LENGTH} visible ASCII characters. Commas separate '
                'tokens. A name before a token, as in ops:TOKEN, has at most 32 letters, digits, ".", "_" or "-", and '
                'a token that contains a colon needs one. '
                "Make a token with: python3 -c 'import secrets; print(secrets.token_urlsafe(32))'"
            )
    return items


def name_and_token(item: str) -> tuple[str, str]:
    """Return the name and the token of an item of API_TOKENS; the name of a bare token is empty."""
    name, colon, token = item.partition(':')
    return (name, token) if colon else ('', item)


def path_prefix(name: str, value: str) -> str:
    """Return the path below which the service is reached. An empty path is the root.

    :raises SettingsError: the path is invalid.
    """
    if value and not PATH_PREFIX.fullmatch(value):
        raise SettingsError(
            f'{name} must be a path without a slash at its end, such as /api, of letters, digits, ".", "_", "~" or "-".'
        )
    return value


def _items(value: str | Iterable[str] | None) -> list[str]:
    return [item.strip() for item in value.split(',') if item.strip()] if isinstance(value, str) else list(value or ())
