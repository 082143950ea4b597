"""A model of the service for comparison in tests: existing users, unique emails, the order, and entity tags."""

from typing import Any

User = dict[str, Any]  # as in a response

# There are few emails, so that duplicates are frequent. Each line has the spellings of one email.
SPELLINGS = (
    ('ann@example.com', 'Ann@Example.com', ' ANN@EXAMPLE.COM'),
    ('anna@example.com', 'ANNA@example.com'),
    ('bob@bücher.de', 'Bob@Bücher.de', 'bob@xn--bcher-kva.de', 'BOB@XN--BCHER-KVA.DE'),
    ('örjan@example.com', 'Örjan@example.com'),
    ('b_b@example.com', 'B_B@example.com'),
    ('bob@example.com', 'Bob@example.com'),
    ('cy@example.com', 'CY@example.com'),
    ('dee@example.com', 'Dee@example.com'),
    ('eve@example.com', 'EVE@EXAMPLE.com '),
)
IDENTITIES = {spelling.strip(): line[0] for line in SPELLINGS for spelling in line}


def identity(email: str) -> str:
    """Return the same text for all spellings of an email."""
    return IDENTITIES[email.strip()]


def position(user: User) -> tuple[str, int]:
    """Return the sort key of a user in the list, in ascending order."""
    return user['created_at'], user['id']


def matches(user: User, q: str = '', active: str = '', username: str = '', email: str = '', **_: Any) -> bool:
    """Return whether a user matches the parameters of a list; others than these are ignored."""
    return (
        (not q or any(_folded(user[name]).startswith(_folded(q)) for name in ('username', 'email')))
        and (not active or user['active'] == (active == 'true'))
        and (not username or user['username'] == username)
        and (not email or identity(user['email']) == identity(email))
    )


def _folded(text: str) -> str:
    """Return a text with its ASCII letters in lower case."""
    return text.encode().lower().decode()


class UsersModel:
    """The users of the service.

    :ivar users: each user by id.
    :ivar tags: the state for which each entity tag was sent.
    """

    def __init__(self) -> None:
        self.users: dict[int, User] = {}
        self.tags: dict[str, User] = {}

    def newest_first(self, parameters: dict[str, Any]) -> list[User]:
        """Return the users that match the parameters of a list, in its order."""
        return sorted((user for user in self.users.values() if matches(user, **parameters)), key=position, reverse=True)

    def owner(self, email: str) -> int | None:
        """Return the id of the user with this email, or None."""
        return next((id for id, user in self.users.items() if identity(user['email']) == identity(email)), None)

    def store(self, user: User, tag: str) -> tuple[int, str]:
        """Note the state of a user and its entity tag, and return the id and the tag.

        :raises AssertionError: another state had this tag, or this state had another tag.
        """
        assert self.tags.setdefault(tag, user) == user, 'two states have the same entity tag'
        assert [tag] == [other for other, state in self.tags.items() if state == user], 'a state has two entity tags'
        self.users[user['id']] = user
        return user['id'], tag

    def holds(self, condition: str, user_id: int, tag: str, weakly: bool) -> bool:
        """Return whether a condition is true for a user who exists.

        :param condition: the value of ``If-Match`` or ``If-None-Match``, with ``{}`` in place of the tag.
        :param tag: one that was sent for this user.
        :param weakly: whether ``W/`` makes no difference (RFC 9110 section 8.8.3.2).
        """
        if condition == '*':
            return True
        return '{}' in condition and self.tags[tag] == self.users[user_id] and (weakly or 'W/' not in condition)
