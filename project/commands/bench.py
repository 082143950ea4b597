"""The command that measures the service."""

import os
import sys
from pathlib import Path

from project.commands.script_compat import Command, Option
from project.commands.waiting import wait_for_database


class Bench(Command):
    """Measure the service on temporary databases."""

    option_list = [
        Option('--seconds', type=float, default=5, help='duration of each workload in seconds; default 5'),
        Option('--rows', type=int, default=1_000_000, help='users in the largest table; default 1,000,000'),
        Option('--workload', action='append', metavar='NAME', help='run only this one; may be repeated; default all'),
        Option('--chart', metavar='FILE.svg', help='measure tables of 10 users up to --rows, and draw a chart'),
    ]

    def run(self, seconds: float, rows: int, workload: list[str] | None, chart: str | None) -> int | str:
        """Print the results, and write the chart if ``chart`` is given.

        :param seconds: the duration of each workload.
        :param rows: users in the largest table.
        :param workload: names of workloads; all of them when None.
        :param chart: path of an SVG file. If it is given, each workload of the chart runs in tables of growing size.
        :returns: 0, or a message for stderr if requests failed.
        """
        if not hasattr(os, 'fork'):
            sys.exit('bench needs gunicorn, which does not run on Windows.')
        from project import bench

        unknown = set(workload or ()) - bench.WORKLOADS.keys()
        if unknown:
            sys.exit(f'There is no workload {", ".join(sorted(unknown))}; use {", ".join(bench.WORKLOADS)}.')
        if not 0 < seconds <= 3600 or not 10 <= rows <= 10**8:
            sys.exit('--seconds must be more than 0 and at most 3600, --rows from 10 to 100,000,000.')
        if chart and (workload or not os.access(os.path.dirname(os.path.abspath(chart)), os.W_OK)):
            sys.exit('--chart cannot be combined with --workload, and its folder must be writable.')
        wait_for_database()
        try:
            results = bench.measure_growth(seconds, rows) if chart else bench.measure(seconds, rows, workload)
            print(bench.table(results), bench.conditions(), sep='\n\n')
            if chart:
                Path(chart).write_text(bench.chart(results), encoding='utf-8')
        except bench.BenchError as error:
            sys.exit(str(error))
        failed = sum(result['failed'] for result in results)
        return f'{failed} requests failed.' if failed else 0
