"""The metrics for Prometheus."""

from unittest import mock

import psycopg2
from sqlalchemy.exc import OperationalError

from project.tests.base import BaseTestCase
from project.tests.support.concurrency import Request


class MetricsTest(BaseTestCase):
    def setUp(self):
        super().setUp()
        self.metered = self.client_of(METRICS='1')

    def request(self, path, method='GET'):
        """Return a response that has been read to its end, so that the request has ended."""
        return self.metered.open(path, method=method, buffered=True)

    def value(self, line):
        """Return the number of a metric; 0 when the metric does not exist."""
        text = self.request('/metrics').text
        return next((float(found.split()[-1]) for found in text.splitlines() if found.startswith(f'{line} ')), 0)

    def test_metrics_are_off_by_default(self):
        self.assertEqual(self.client.get('/metrics').status_code, 404)
        self.assertEqual(self.request('/metrics').status_code, 200)

    def test_request_is_counted_by_its_route(self):
        counted = 'users_http_requests_total{method="GET",route="/users/<user_id>",status="404"}'
        timed = 'users_http_request_duration_seconds_count{method="GET",route="/users/<user_id>"}'
        before = self.value(counted), self.value(timed)
        self.request('/users/1')
        self.request('/users/2')
        self.assertEqual((self.value(counted), self.value(timed)), (before[0] + 2, before[1] + 2))

    def test_values_from_clients_are_no_labels(self):
        self.request('/made-up', 'MADEUP')
        self.assertGreaterEqual(
            self.value('users_http_requests_total{method="OTHER",route="unmatched",status="404"}'), 1
        )
        text = self.request('/metrics').text
        self.assertNotIn('made-up', text)
        self.assertNotIn('MADEUP', text)

    def test_request_is_counted_after_its_context_has_ended(self):
        counted = 'users_http_requests_total{method="GET",route="/users",status="200"}'
        before = self.value(counted)
        # In a thread there is no other app context, as under gunicorn.
        self.assertEqual(Request(self.metered.application, 'GET', '/users', buffered=True).ended().status_code, 200)
        self.assertEqual(self.value(counted), before + 1)

    def test_gauges_return_to_zero(self):
        before = self.value('users_http_requests_in_flight')
        self.request('/users')
        self.assertEqual(self.value('users_http_requests_in_flight'), before)
        self.assertEqual(self.value('users_database_connections_in_use'), 0)

    def test_failure_of_the_database_is_counted(self):
        counted = 'users_database_errors_total{kind="OperationalError"}'
        before = self.value(counted)
        failure = OperationalError('SELECT 1', {}, psycopg2.OperationalError('secret inside'))
        with mock.patch('project.database.Database.read', side_effect=failure), self.assertLogs('project'):
            self.assert_failure(self.request('/users/1'), 503)
        self.assertEqual(self.value(counted), before + 1)

    def test_metrics_are_sums_of_all_workers(self):
        with (
            mock.patch.dict('os.environ', PROMETHEUS_MULTIPROC_DIR='of all workers'),
            mock.patch('prometheus_client.multiprocess.MultiProcessCollector') as collector,
        ):
            self.assertEqual(self.request('/metrics').data, b'')
        self.assertEqual(collector.call_args.args[1:], ())
        collector.assert_called_once()
