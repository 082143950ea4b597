"""The rules for usernames and emails: plain functions that return the text to store, or raise an error for Pydantic."""

import re
import unicodedata

from email_validator import SPECIAL_USE_DOMAIN_NAMES, EmailNotValidError, validate_email
from pydantic_core import PydanticCustomError

MAX_LENGTH = 128  # characters, of a username and of an email
MAX_LOCAL_BYTES = 64  # of an email, before the @ (RFC 5321 section 4.5.3.1.1)


def wrong(reason: str) -> PydanticCustomError:
    """Return the error for a value that a rule rejects.

    :param reason: the rule as a predicate, such as "must not be blank". The field's name goes before it.
    """
    return PydanticCustomError('wrong', '{reason}', {'reason': reason})


def text(value: str) -> str:
    """Return ``value`` trimmed; reject blank or too long text, control and invisible characters, and line separators.

    Control characters and line separators are Unicode's categories Cc, Zl and Zp.
    """
    if not value.isprintable() and any(unicodedata.category(c) in ('Cc', 'Zl', 'Zp') for c in value):
        raise wrong('must not contain control characters')
    value = value.strip()
    if not any(c.isprintable() and c != ' ' for c in value):
        raise wrong('must not be blank')
    if not value.isascii() and INVISIBLE.search(JOINED.sub('', value)):
        raise wrong('must not contain invisible characters')
    return column(value)


# Unicode's default-ignorable code points. They are not displayed, so texts with and without them look the same.
INVISIBLE = re.compile(
    '[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f'
    '\ufeff\uffa0\ufff0-\ufff8\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]'
)
_EMOJI = '\u00a9\u00ae\u203c\u2049\u2122\u2139\u2190-\u2bff\u3030\u303d\u3297\u3299\U0001f000-\U0001faff'
# Sequences whose invisible characters are allowed, because they can change the display. The rule for joiners is coarse:
# it also allows some that change nothing.
JOINED = re.compile(
    '|'.join(
        (
            # A joiner after any letter of a script that has joiners: Arabic and related scripts, and those of India.
            '(?<=[\u0620-\u08ff\u0900-\u0dff])[\u200c\u200d]',
            # An emoji sequence: with a presentation selector, joined, a keycap, a flag with tags.
            f'(?<=[{_EMOJI}])[\ufe0e\ufe0f]?\u200d(?=[{_EMOJI}])',
            f'(?<=[{_EMOJI}])[\ufe0e\ufe0f]',
            '(?<=[0-9#*])\ufe0f(?=\u20e3)',
            '(?<=\U0001f3f4)[\U000e0030-\U000e0039\U000e0061-\U000e007a]{2,6}\U000e007f',
            # A variant of a Chinese character, or of a Mongolian letter.
            '(?<=[\u3400-\u9fff\U00020000-\U0003ffff])[\U000e0100-\U000e01ef]',
            '(?<=[\u1820-\u18aa])[\u180b-\u180d\u180f]',
        )
    )
)


# email-validator rejects these domains, because no mail reaches them over the Internet. Its README says how to change
# its list.
INTRANET = ('local', 'internal', 'test', 'localhost')
SPECIAL_USE_DOMAIN_NAMES[:] = [name for name in SPECIAL_USE_DOMAIN_NAMES if name not in INTRANET]
# Most emails match this. email-validator would accept each match unchanged, but take a tenth of the time of a POST.
# Domains with a hyphen do not match, and neither do those that end in a name of the list.
_SPECIAL = '|'.join(map(re.escape, SPECIAL_USE_DOMAIN_NAMES))
ORDINARY = re.compile(
    rf'(?=[^@]{{1,64}}@)(?!.*[@.](?i:{_SPECIAL})\Z)'
    r'[A-Za-z0-9]+(?:[._+-][A-Za-z0-9]+)*@(?:[A-Za-z0-9]{1,63}\.)+[A-Za-z]{2,63}'
)
LOCALHOST = re.compile(r'@localhost\Z', re.IGNORECASE)  # the one domain without a period that is accepted
# The reasons for emails that email-validator rejects; the first match decides.
NOT_EMAILS = (
    (re.compile(r'".*"@.*'), 'must not have quotes before the @'),
    (re.compile(r'[^@]+@\[[^@]*]'), 'must have a domain name after the @, not an IP address in brackets'),
    (
        re.compile(r'[^@\s]+@(?!localhost\Z)[\w-]+', re.IGNORECASE),
        'must have a domain with a period, or localhost, after the @',
    ),
)


def email(value: str) -> str:
    """Return an email as it is stored; reject one with invalid syntax (RFC 5321, RFC 5322, RFC 6531).

    Quoted local parts and address literals are rejected, and domains without a period, except ``localhost``. The
    special-use domains of intranets are accepted (RFC 6761, RFC 6762, RFC 9476).

    An email is one identity whatever its letter case, and whichever way its domain is written (IDNA 2008). The unique
    index ignores the case of ASCII letters only, in every locale of the database. So an email is stored as typed if all
    of it is ASCII, and no part of its domain begins with ``xn--``. Otherwise it is stored in Unicode, normalised (NFKC)
    and in lower case.
    """
    if len(value) <= MAX_LENGTH and ORDINARY.fullmatch(value):
        return value
    if not value.isascii() and INVISIBLE.search(value):
        raise wrong('must not contain invisible characters')
    value = unicodedata.normalize('NFKC', value)
    try:
        address = validate_email(value, check_deliverability=False, globally_deliverable=not LOCALHOST.search(value))
    except EmailNotValidError:
        reasons = (reason for pattern, reason in NOT_EMAILS if pattern.fullmatch(value))
        raise wrong(next(reasons, 'must be an email address')) from None
    if len(address.local_part.encode()) > MAX_LOCAL_BYTES:
        raise wrong(f'must have at most {MAX_LOCAL_BYTES} bytes before the @')
    if value.isascii() and address.normalized.isascii():
        return value
    return column(unicodedata.normalize('NFKC', address.normalized.lower()))


def column(value: str) -> str:
    """Return ``value``; reject one that is too long for its column."""
    if len(value) > MAX_LENGTH:
        raise wrong(f'must have at most {MAX_LENGTH} characters')
    return storable(value)


def storable(value: str) -> str:
    """Return ``value``; reject NUL, which PostgreSQL cannot store."""
    if '\0' in value:
        raise wrong('must not contain control characters')
    return value
