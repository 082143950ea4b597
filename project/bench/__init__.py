"""Measure the service over HTTP: gunicorn as in production, on temporary databases.

Compare the CPU time of a request, of the service and of PostgreSQL together. Requests per second and latencies also
depend on the other load of the machine, which includes the clients of the measurement.
"""

import contextlib
import signal
import sys
import tempfile
from collections.abc import Collection, Iterator, Mapping

import click
from sqlalchemy.exc import SQLAlchemyError

from project.bench import scratch
from project.bench.measuring import WORKLOADS, Result, measure_workload
from project.bench.reporting import GROWTH, chart, conditions, table
from project.bench.scratch import BenchError

__all__ = ['WORKLOADS', 'BenchError', 'chart', 'conditions', 'measure', 'measure_growth', 'table']


def measure(seconds: float, rows: int, names: Collection[str] | None) -> list[Result]:
    """Measure workloads.

    :param seconds: the duration of each workload.
    :param rows: the number of users in the largest table.
    :param names: of :data:`WORKLOADS`, in any order; None for all.
    :raises BenchError: a database cannot be created, or the service does not start.
    """
    stages: dict[int, list[str]] = {}
    for name, (users, _) in WORKLOADS.items():
        if name in (names or WORKLOADS):
            stages.setdefault(users or rows, []).append(name)
    return _measure(seconds, stages)


def measure_growth(seconds: float, rows: int) -> list[Result]:
    """Measure the workloads of :data:`GROWTH` in tables of 10, 100, ... ``rows`` users, as :func:`measure`."""
    sizes = [10**power for power in range(1, 10) if 10**power < rows]
    return _measure(seconds, dict.fromkeys((*sizes, rows), GROWTH))


def _measure(seconds: float, stages: Mapping[int, Collection[str]]) -> list[Result]:
    steps = sum(-(-users // scratch.CHUNK) + len(names) for users, names in stages.items())
    hidden = not sys.stderr.isatty()
    results = []

    def shown(item: str | None) -> str | None:
        return item

    bar = click.progressbar(length=steps, label='Measuring', hidden=hidden, file=sys.stderr, item_show_func=shown)
    with _ending_on_signals(), bar:

        def show(step: str) -> None:
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
                            results.append(measure_workload(service, name, users, seconds))
                            bar.update(1)
        except SQLAlchemyError as error:
            raise BenchError(f'Database error: {str(getattr(error, "orig", error)).strip().splitlines()[0]}') from None
        bar.current_item = None
    return results


@contextlib.contextmanager
def _ending_on_signals() -> Iterator[None]:
    """Let SIGTERM end the block as Ctrl-C does, so that it cleans up."""
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
