"""The results as a table and as a chart."""

import os
import platform
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

from sqlalchemy import func, select, text

from project.bench.chart import draw
from project.bench.measuring import CONNECTIONS, DEPTH, PAGE, Result
from project.bench.scratch import BenchError
from project.extensions import db

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


def conditions() -> str:
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


def table(results: Sequence[Result]) -> str:
    """Return the results as a table of text, and its legend."""
    rows = [COLUMNS, *([_cell(result[column]) for column in COLUMNS] for result in results)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ['  '.join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    return '\n'.join((*lines, '', LEGEND))


def _cell(value: Any) -> str:
    if value is None:
        return '-'
    if isinstance(value, float):
        return f'{value:,.0f}' if value >= 100 else f'{value:.1f}'
    return f'{value:,}' if isinstance(value, int) else value


def chart(results: Sequence[Result]) -> str:
    """Return the chart of :func:`measure_growth`, the CPU time of a request, as the text of an SVG file."""
    series: dict[str, list[tuple[int, float]]] = {}
    costs: list[float | None] = [None, None]
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
