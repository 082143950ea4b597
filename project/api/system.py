"""What is not about users: alive, ready."""

from flask import Blueprint

from project import database

HEALTH_SECONDS = 1.0

system_blueprint = Blueprint('system', __name__)


@system_blueprint.get('/ping')
def ping():
    """Alive: answers whatever the database does."""
    return {'status': 'success', 'message': 'pong!'}


@system_blueprint.get('/health')
def health():
    """Ready: 200 with the database's round trip in milliseconds, or 503 when it takes over a second."""
    milliseconds = database.round_trip(HEALTH_SECONDS) * 1000
    return {'status': 'success', 'data': {'database_ms': round(milliseconds, 1)}}
