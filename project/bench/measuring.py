"""The workloads, and the measurement of one of them."""

import contextlib
import http.client
import json
import secrets
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from project.api import paging
from project.api.models import User
from project.bench import scratch
from project.bench.scratch import BenchError

CLIENT = Path(__file__).with_name('client.py')
CLIENTS, CONNECTIONS = 2, 16  # client processes, and the connections of all of them together
PAGE = 50  # users
DEPTH = 0.9  # the part of the table before a deep page
WARM_UP = 0.3  # seconds, after which every worker has its connections

Result = dict[str, Any]  # the values of one measurement by the names of their columns

# The workloads by name: the users in the table (None for the --rows of the command line), and the kind of request.
WORKLOADS: dict[str, tuple[int | None, str]] = {
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


def measure_workload(service: scratch.Service, name: str, users: int, seconds: float) -> Result:
    """Measure a workload, and return its result."""
    kind = WORKLOADS[name][1]
    job: dict[str, Any] = {
        'port': service.port,
        'kind': kind,
        'users': users,
        'path': '/users',
        'run': secrets.token_hex(4),
    }
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
        max(0.0, peak - resident)
        for pid, (resident, _) in memory.items()
        if resident is not None and pid in peaks and (peak := peaks[pid][1]) is not None
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


def _check(service: scratch.Service, path: str, expected: int | None) -> None:
    """Check one response before the measurement.

    :raises BenchError: the response is not a 200, or has another number of users.
    """
    response = service.get(path)
    if response.status != http.client.OK or (expected and len(response.body['data']['users']) != expected):
        raise BenchError(f'The response to GET {path} was {response.status}: {str(response.body)[:200]}')


def _together(jobs: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
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


def _percentile(values: Sequence[int], percent: int) -> int:
    """Return a percentile of sorted ``values`` by the nearest-rank method."""
    return values[max(0, -(-len(values) * percent // 100) - 1)]


def _each(before: float | None, after: float | None, count: int) -> float | None:
    """Return the microseconds for each of ``count`` requests; None if the seconds are not known."""
    return None if before is None or after is None else (after - before) / count * 1e6
