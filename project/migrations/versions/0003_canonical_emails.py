"""Report users whose emails are the same by today's rules; change nothing.

Since this version, an email is one identity whichever way its domain is written (``bücher.de``, ``xn--bcher-kva.de``)
and whichever compatible characters it has (``ﬁ`` for ``fi``). Users who were stored before stay as they are.
"""

import unicodedata
from collections import defaultdict

import sqlalchemy as sa
from alembic import context, op
from email_validator import EmailNotValidError, validate_email

revision = '0003'
down_revision = '0002'
branch_labels = None
depends_on = None

USERS = sa.table('users', sa.column('id', sa.BigInteger), sa.column('email', sa.String))


def upgrade() -> None:
    """Print the ids of users who have the same email, and of those whose email is now stored in another form."""
    if context.is_offline_mode():
        return
    others = sa.select(USERS).order_by(USERS.c.id).execution_options(yield_per=1000)
    connection = op.get_bind()
    # Few emails have another form, so the ids of those users, and of users who clash with them, fit into memory.
    forms = {id: form for id, email in connection.execute(others) if (form := canonical(email)) != email.lower()}
    if not forms:
        return
    users: dict[str, list[int]] = defaultdict(list)
    wanted = set(forms.values())
    for id, email in connection.execute(others):
        form = forms.get(id, email.lower())
        if form in wanted:
            users[form].append(id)
    for ids in users.values():
        if len(ids) > 1:
            print(f'These users have the same email, written differently: {", ".join(map(str, ids))}.')
    single = [str(ids[0]) for ids in users.values() if len(ids) == 1]
    if single:
        print(
            'The emails of these users would be stored in another form today, so that the same email could be added '
            f'again; PATCH them with their own email to prevent that: {", ".join(single)}.'
        )


def downgrade() -> None:
    """Do nothing: the upgrade has changed nothing."""


def canonical(email: str) -> str:
    """Return the form of an email that identifies it, as the service stored emails when this was written."""
    if email.isascii() and 'xn--' not in email.lower():
        return email.lower()
    normal = unicodedata.normalize('NFKC', email)
    try:
        address = validate_email(normal, check_deliverability=False, test_environment=True)
    except EmailNotValidError:
        return email.lower()  # it can't be added today, so nothing clashes with it
    return unicodedata.normalize('NFKC', address.normalized.lower())
