"""The extensions that models and commands share: the declarative base, ``db`` and ``migrate``."""

from pathlib import Path

from flask_migrate import Migrate
from sqlalchemy import MetaData, event
from sqlalchemy.orm import DeclarativeBase

from project import timestamps
from project.guard import GuardedSQLAlchemy


class Base(DeclarativeBase):
    """The base of all models."""

    # SQLite's batch migrations can only change a constraint that has a name. Primary keys have the name that
    # PostgreSQL gives them. The others can't be those of the indexes on users, which end in _key and _idx.
    metadata = MetaData(
        naming_convention={
            'pk': '%(table_name)s_pkey',
            'uq': 'uq_%(table_name)s_%(column_0_N_name)s',
            'fk': 'fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s',
            'ix': 'ix_%(table_name)s_%(column_0_N_name)s',
        }
    )


db = GuardedSQLAlchemy(model_class=Base)
event.listen(db.Model, 'attribute_instrument', timestamps.convert_on_assignment, propagate=True)
migrate = Migrate(directory=str(Path(__file__).parent / 'migrations'))
