"""Measure the service over HTTP: gunicorn as in production, on temporary databases.

The figure to compare is the CPU time of a request, of the service and of PostgreSQL together. Requests per second and
latencies depend on what else the machine does, which includes the clients of the measurement.
"""

import contextlib
import http.client
import json
import os
import platform
import secrets
import signal
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import click
from sqlalchemy import func, select, text
from sqlalchemy.exc import SQLAlchemyError

from project.api import paging
from project.api.models import User
from project.bench import scratch
from project.bench.chart import draw
from project.bench.scratch import BenchError
from project.extensions import db

CLIENT = Path(__file__).with_name('client.py')
CLIENTS, CONNECTIONS = 2, 16  # client processes, and the connections of all of them together
PAGE = 50  # users
DEPTH = 0.9  # the part of the table before a deep page
WARM_UP = 0.3  # seconds, after which every worker has its connections

# The workloads by name: the users in the table (None for the --rows of the command line), and the kind of request.
WORKLOADS = {
    'list10': (10, 'list'),
    'list1000': (1_000, 'list'),
    'post': (1_000, 'post'),
    'mixed': (1_000, 'mixed'),
    'list10000': (10_000, 'list'),
    'one': (None, 'one'),
    'page': (None, 'page'),
    'deep': (None, 'deep'),
    'all': (None, 'all'),
}
# The workloads of the chart, and their labels.
GROWTH = {'one': 'One user by id', 'page': f'First page of {PAGE}', 'deep': f'Page at {DEPTH:.0%} depth'}
COLUMNS = (
    'workload',
    'users',
    'requests/s',
    'p50 ms',
    'p99 ms',
    '1st byte ms',
    'service CPU µs',
    'PostgreSQL CPU µs',
    'memory MiB',
)
LEGEND = 'CPU is per request. Memory is the peak of a worker above its memory before. - means not available here.'


def measure(seconds, rows, names):
    """Measure workloads.

    :param seconds: the duration of each workload.
    :param rows: the number of users in the largest table.
    :param names: of :data:`WORKLOADS`, in any order; None for all.
    :returns: a list of results, dicts by name.
    :raises BenchError: a database cannot be created, or the service does not start.
    """
    stages = {}
    for name, (users, _) in WORKLOADS.items():
        if name in (names or WORKLOADS):
            stages.setdefault(users or rows, []).append(name)
    return _measure(seconds, stages)


def measure_growth(seconds, rows):
    """Measure the workloads of :data:`GROWTH` in tables of 10, 100, ... ``rows`` users, as :func:`measure`."""
    sizes = [10**power for power in range(1, 10) if 10**power < rows]
    return _measure(seconds, dict.fromkeys((*sizes, rows), GROWTH))


def _measure(seconds, stages):
    steps = sum(-(-users // scratch.CHUNK) + len(names) for users, names in stages.items())
    hidden = not sys.stderr.isatty()
    results = []

    def shown(item: str | None) -> str | None:
        return item

    bar = click.progressbar(length=steps, label='Measuring', hidden=hidden, file=sys.stderr, item_show_func=shown)
    with _ending_on_signals(), bar:

        def show(step):
            bar.current_item = step
            bar.render_progress()

        try:
            for users, names in stages.items():
                with tempfile.TemporaryDirectory() as folder, scratch.database(folder) as app, app.app_context():
                    show(f'filling a table of {users:,}')
                    for _ in scratch.fill(users):
                        bar.update(1)
                    with scratch.served(app, folder) as service:
                        for name in names:
                            show(f'{name} of {users:,}')
                            results.append(_run(service, name, users, seconds))
                            bar.update(1)
        except SQLAlchemyError as error:
            raise BenchError(f'Database error: {str(getattr(error, "orig", error)).strip().splitlines()[0]}') from None
        bar.current_item = None
    return results


@contextlib.contextmanager
def _ending_on_signals():
    """Let SIGTERM end the block as Ctrl-C does, so that it cleans up."""
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


# --- measuring


def _run(service, name, users, seconds):
    """Measure a workload, and return its result."""
    kind = WORKLOADS[name][1]
    job = {'port': service.port, 'kind': kind, 'users': users, 'path': '/users', 'run': secrets.token_hex(4)}
    if kind in ('list', 'page', 'deep', 'all'):
        job['kind'] = 'get'
    if kind in ('page', 'deep'):
        job['path'] = f'/users?limit={PAGE}'
    if kind == 'deep':
        before = User.find(users - int(users * DEPTH) + 1)
        if before is None:
            raise BenchError(f'No user of the workload {name} exists any more.')
        job['path'] += f'&after={paging.cursor(before)}'
    if kind == 'all':
        job |= {'connections': 1, 'seconds': 0}
        _check(service, '/users?limit=1', 1)
        jobs = [job]
    else:
        expected = {'list': users, 'page': min(users, PAGE), 'deep': min(users - int(users * DEPTH), PAGE)}
        _check(service, job['path'] if kind in expected else '/users/1', expected.get(kind))
        job |= {'connections': CONNECTIONS // CLIENTS, 'seconds': seconds}
        _together([job | {'seconds': WARM_UP, 'run': f'{job["run"]}.warm.{number}'} for number in range(CLIENTS)])
        jobs = [job | {'run': f'{job["run"]}.{number}'} for number in range(CLIENTS)]
    service.forget_peaks()
    memory, cpu, backends = service.memory(), service.cpu(), scratch.backends_cpu()
    reports = _together(jobs)
    used, used_by_backends, peaks = service.cpu(), scratch.backends_cpu(), service.memory()
    whole, first = (sorted(value for one in reports for value in one[key]) for key in ('whole', 'first'))
    failed = sum(one['failed'] for one in reports)
    if not whole:
        raise BenchError(f'No request of the workload {name} succeeded.')
    count = len(whole) + failed
    grown = [
        max(0.0, peaks[pid][1] - memory[pid][0])
        for pid in memory
        if pid in peaks and None not in (*memory[pid], *peaks[pid])
    ]
    return {
        'workload': name,
        'users': users,
        'requests/s': len(whole) / max(one['seconds'] for one in reports),
        'p50 ms': _percentile(whole, 50) / 1000,
        'p99 ms': _percentile(whole, 99) / 1000,
        '1st byte ms': _percentile(first, 50) / 1000,
        'service CPU µs': _each(cpu, used, count),
        'PostgreSQL CPU µs': _each(backends, used_by_backends, count),
        'memory MiB': max(grown, default=None),
        'failed': failed,
    }


def _check(service, path, expected):
    """Check one response before the measurement.

    :raises BenchError: the response is not a 200, or has another number of users.
    """
    response = service.get(path)
    if response.status != http.client.OK or (expected and len(response.body['data']['users']) != expected):
        raise BenchError(f'The response to GET {path} was {response.status}: {str(response.body)[:200]}')


def _together(jobs):
    """Run one client for each job at the same time, and return their results."""
    with contextlib.ExitStack() as stack:
        clients = []
        for job in jobs:
            client = stack.enter_context(
                subprocess.Popen(
                    [sys.executable, '-I', CLIENT],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    text=True,
                    start_new_session=True,
                )
            )
            stack.callback(client.kill)
            print(json.dumps(job), file=client.stdin, flush=True)
            clients.append(client)
        for client in clients:
            client.stdout.readline()
        for client in clients:
            with contextlib.suppress(BrokenPipeError):
                client.stdin.write('\n')
                client.stdin.flush()
        results = []
        for client in clients:
            line = client.stdout.readline()
            if not line:
                raise BenchError(f'A client ended: {client.stderr.read().strip() or "without an error message"}')
            results.append(json.loads(line))
        return results


def _percentile(values, percent):
    """Return a percentile of sorted ``values`` by the nearest-rank method."""
    return values[max(0, -(-len(values) * percent // 100) - 1)]


def _each(before, after, count):
    """Return the microseconds for each of ``count`` requests; None if the seconds are not known."""
    return None if None in (before, after) else (after - before) / count * 1e6


# --- reporting


def conditions():
    """Return a line with the versions, the number of workers and clients, and the number of CPUs."""
    parts = [f'{name} {version(name)}' for name in ('Flask', 'gunicorn', 'SQLAlchemy')]
    with db.engine.connect() as connection:
        if connection.dialect.name == 'postgresql':
            parts.insert(0, f'PostgreSQL {connection.scalar(text("SHOW server_version")).split()[0]}')
        else:
            parts.insert(0, f'SQLite {connection.scalar(select(func.sqlite_version()))}')
    workers = os.environ.get('WEB_CONCURRENCY') or 2
    return (
        f'Python {platform.python_version()}, {", ".join(parts)}; '
        f'{workers} workers, {CONNECTIONS} clients, {os.cpu_count()} CPUs'
    )


def table(results):
    """Return the results as a table of text, and its legend."""
    rows = [COLUMNS, *([_cell(result[column]) for column in COLUMNS] for result in results)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ['  '.join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    return '\n'.join((*lines, '', LEGEND))


def _cell(value):
    if value is None:
        return '-'
    if isinstance(value, float):
        return f'{value:,.0f}' if value >= 100 else f'{value:.1f}'
    return f'{value:,}' if isinstance(value, int) else value


def chart(results):
    """Return the chart of :func:`measure_growth`, the CPU time of a request, as the text of an SVG file."""
    series, costs = {}, [None, None]
    for result in results:
        costs = [result['service CPU µs'], result['PostgreSQL CPU µs']]
        if costs[0] is None:
            raise BenchError('No chart was drawn: this system does not report the CPU time of a process.')
        series.setdefault(GROWTH[result['workload']], []).append((result['users'], sum(filter(None, costs))))
    of = 'the service and PostgreSQL' if costs[1] is not None else 'the service'
    return draw(
        series,
        'What a request costs as the table grows',
        f'CPU of {of} in µs per request, by the users in the table; both axes logarithmic',
        [
            f'A page has up to {PAGE} users.',
            f'{datetime.now(UTC):%-d %B %Y}: {conditions()}.',
        ],
    )
