"""Metrics for Prometheus. ``prometheus_client`` adds up those of gunicorn's workers, which store them in files.

This module is imported only with ``METRICS=1``, after gunicorn.conf.py has set the directory of the files.
"""

import os
import platform
import time

from flask import Flask, Response, g, request
from flask.typing import ResponseReturnValue
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

import project
from project.database import database

# A label has few values. No value comes from a client, as a path or an unknown method would.
METHODS = frozenset(('GET', 'HEAD', 'POST', 'PATCH', 'DELETE', 'OPTIONS', 'PUT'))

REQUESTS = Counter('users_http_requests', 'Responses sent', ['route', 'method', 'status'])
SECONDS = Histogram(
    'users_http_request_duration_seconds',
    'From the start of a request to the last byte of its response',
    ['route', 'method'],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)
IN_FLIGHT = Gauge('users_http_requests_in_flight', 'Requests being served', multiprocess_mode='livesum')
DATABASE_ERRORS = Counter('users_database_errors', 'Failures of the database that led to a 503', ['kind'])
POOL_IN_USE = Gauge('users_database_connections_in_use', 'Connections out of the pools', multiprocess_mode='livesum')
BUILD = Gauge('users_build_info', 'Versions in use; the value is 1', ['version', 'python'], multiprocess_mode='max')


def init_app(app: Flask) -> None:
    """Count the requests of ``app``, and the connections in use when each of them starts and ends.

    Call it before other modules add functions that may reject a request, so that rejected requests are counted.
    """
    BUILD.labels(project.__version__, platform.python_version()).set(1)
    app.before_request(start)
    app.after_request(finish_on_close)
    app.add_url_rule('/metrics', 'metrics', serve)


def start() -> None:
    """Store the time at which a request starts, and count it as in flight."""
    IN_FLIGHT.inc()
    POOL_IN_USE.set(database.connections_in_use())
    g.started = time.perf_counter()


def finish_on_close(response: Response) -> Response:
    """Count a request when its response has been sent. For a stream, that is long after the view has returned."""
    route = request.url_rule.rule if request.url_rule else 'unmatched'
    method = request.method if request.method in METHODS else 'OTHER'
    started, connections_in_use = g.started, database.connections_in_use  # not available without an app context

    @response.call_on_close
    def finish() -> None:
        IN_FLIGHT.dec()
        POOL_IN_USE.set(connections_in_use())
        SECONDS.labels(route, method).observe(time.perf_counter() - started)
        REQUESTS.labels(route, method, response.status_code).inc()

    return response


def serve() -> ResponseReturnValue:
    """Return the metrics of all workers, in Prometheus's text format."""
    registry = REGISTRY
    if 'PROMETHEUS_MULTIPROC_DIR' in os.environ:
        registry = CollectorRegistry()
        multiprocess.MultiProcessCollector(registry)
    return generate_latest(registry), 200, {'Content-Type': CONTENT_TYPE_LATEST}
