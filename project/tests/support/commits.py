"""Commits on the nodes of a cluster, made without the service. They show when a leader can commit."""

import threading
import time
from typing import Any, Self

import psycopg2

from project.tests.support.nodes import Node
from project.tests.support.patroni import PatroniCluster

PAUSE_SECONDS = 0.05


class Commits:
    """Commits again and again on each node that accepts it, while the ``with`` block runs.

    :ivar done: for each commit that was acknowledged, its node and when it began and ended, on the monotonic clock.
    :ivar promotions: for each node, when it was first found to accept writes.
    """

    def __init__(self, cluster: PatroniCluster) -> None:
        self.done: list[tuple[Node, float, float]] = []
        self.promotions: dict[Node, float] = {}
        self._stop = threading.Event()
        cluster.leader.sql('CREATE TABLE IF NOT EXISTS commits (at timestamptz)', database='postgres')
        self._threads = [threading.Thread(target=self._run, args=(node,), daemon=True) for node in cluster.nodes]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(1)  # a thread that waits for a paused node, or for a standby, ends with it

    def first(self, node: Node, since: float) -> float | None:
        """Return when the first commit on ``node`` that began after ``since`` was acknowledged, or None."""
        return next((end for where, begin, end in list(self.done) if where is node and begin > since), None)

    def _run(self, node: Node) -> None:
        while not self._stop.wait(PAUSE_SECONDS):
            try:
                with node.connect('postgres') as connection, connection.cursor() as cursor:
                    while not self._stop.wait(PAUSE_SECONDS):
                        begin = time.monotonic()
                        cursor.execute('SELECT pg_is_in_recovery()')
                        if cursor.fetchone() == (True,):
                            self.promotions.pop(node, None)
                            continue
                        self.promotions.setdefault(node, time.monotonic())
                        cursor.execute('INSERT INTO commits VALUES (now())')
                        self.done.append((node, begin, time.monotonic()))
            except psycopg2.Error:
                continue
