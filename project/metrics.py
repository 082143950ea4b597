"""Metrics for Prometheus, right across gunicorn's workers: ``prometheus_client`` adds them up in files.

Imported only with ``METRICS=1``, and after gunicorn.conf.py has named the folder of the files.
"""

import os
import platform
import time

from flask import g, request
from prometheus_client import (
    CONTENT_TYPE_LATEST,
    REGISTRY,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
    multiprocess,
)
from sqlalchemy import event

import project

# A label takes one value of a few: never what a client makes up, such as a path or the name of a method.
METHODS = frozenset(('GET', 'HEAD', 'POST', 'PATCH', 'DELETE', 'OPTIONS', 'PUT'))

REQUESTS = Counter('users_http_requests', 'Requests answered', ['route', 'method', 'status'])
SECONDS = Histogram(
    'users_http_request_duration_seconds',
    'From the start of a request to the last byte of its answer',
    ['route', 'method'],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)
IN_FLIGHT = Gauge('users_http_requests_in_flight', 'Requests being served', multiprocess_mode='livesum')
DATABASE_ERRORS = Counter('users_database_errors', 'Failures of the database answered with 503', ['kind'])
POOL_IN_USE = Gauge('users_database_connections_in_use', 'Connections out of the pools', multiprocess_mode='livesum')
BUILD = Gauge('users_build_info', 'What is running; the value is 1', ['version', 'python'], multiprocess_mode='max')


def init_app(app):
    """Count the requests of ``app`` and the connections of its pools."""
    BUILD.labels(project.__version__, platform.python_version()).set(1)
    with app.app_context():
        for engine in app.extensions['sqlalchemy'].engines.values():
            event.listen(engine, 'checkout', lambda *_: POOL_IN_USE.inc())
            event.listen(engine, 'checkin', lambda *_: POOL_IN_USE.dec())

    # First of all, so that a request that another function refuses is counted too.
    app.before_request_funcs.setdefault(None, []).insert(0, start)
    app.after_request(finish_on_close)
    app.add_url_rule('/metrics', 'metrics', serve)


def start():
    """A request begins."""
    IN_FLIGHT.inc()
    g.started = time.perf_counter()


def finish_on_close(response):
    """The request ends when its answer has been sent, which for a long list is long after the view."""
    route = request.url_rule.rule if request.url_rule else 'unmatched'
    method = request.method if request.method in METHODS else 'OTHER'
    started = g.started

    @response.call_on_close
    def finish():
        IN_FLIGHT.dec()
        SECONDS.labels(route, method).observe(time.perf_counter() - started)
        REQUESTS.labels(route, method, response.status_code).inc()

    return response


def serve():
    """The metrics of all workers, in Prometheus's text format."""
    registry = REGISTRY
    if 'PROMETHEUS_MULTIPROC_DIR' in os.environ:
        registry = CollectorRegistry()
        multiprocess.MultiProcessCollector(registry)
    return generate_latest(registry), 200, {'Content-Type': CONTENT_TYPE_LATEST}
