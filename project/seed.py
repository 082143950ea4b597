"""Sample users."""

import secrets
from datetime import timedelta

import click
from sqlalchemy import func, insert, select

from project import db
from project.api.models import User
from project.database import utcnow

BATCH = 1000
ORIGINAL = (('michael', 'michael@realpython.com'), ('michaelherman', 'michael@mherman.org'))


def seed_original():
    """Add the two users of the original lesson who are not there yet.

    :returns: how many were added.
    """
    added = 0
    for username, email in ORIGINAL:
        if not db.session.scalar(select(User.id).where(func.lower(User.email) == email)):
            db.session.add(User(username, email))
            added += 1
    db.session.commit()
    return added


def seed_many(count):
    """Add ``count`` users, all different and each created a minute before the other, with a progress bar.

    :param count: how many; batches are committed on their own, so that no reader waits for all of them.
    :returns: how many were added.
    """
    run, now = secrets.token_hex(4), utcnow()  # a second run makes other addresses
    with click.progressbar(length=count, label='Adding users', show_pos=True) as bar:
        for start in range(0, count, BATCH):
            numbers = range(start, min(start + BATCH, count))
            db.session.execute(
                insert(User),
                [
                    {
                        'username': f'user{number}',
                        'email': f'user{number}.{run}@example.com',
                        'active': number % 2 == 0,
                        'created_at': now - timedelta(minutes=count - number),
                    }
                    for number in numbers
                ],
            )
            db.session.commit()
            bar.update(len(numbers))
    return count
