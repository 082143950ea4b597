"""Checks the alert rules and the dashboard of docs/operating against the metrics of a running service.

Not among the tests that run by default: ``python manage.py test prometheus``, after ``apt-get install prometheus``,
which has promtool.
"""

import json
import re
import subprocess
import tempfile
import unittest
import urllib.request
from pathlib import Path

import yaml

from project import metrics
from project.database import errors
from project.tests.base import ROOT, scratch_database
from project.tests.support.servers import HOST, Server, manage

ALERTS = ROOT / 'docs' / 'operating' / 'alerts.yml'
DASHBOARD = ROOT / 'docs' / 'operating' / 'dashboard.json'
METRIC = re.compile(r'\busers_\w+')
KIND = re.compile(r'users_database_errors_total\{kind="(\w+)"')


def promtool(*arguments, text=None):
    """Run promtool; return its exit code and what it printed."""
    ended = subprocess.run(['promtool', *arguments], input=text, capture_output=True, text=True, check=False)
    return ended.returncode, ended.stdout + ended.stderr


def dashboard_expressions():
    """Return the PromQL expressions of the dashboard, with a value for Grafana's variable."""
    panels = json.loads(DASHBOARD.read_text())['panels']
    return [target['expr'].replace('$__rate_interval', '5m') for panel in panels for target in panel['targets']]


def alerts():
    """Return the alert rules."""
    return [rule for group in yaml.safe_load(ALERTS.read_text())['groups'] for rule in group['rules']]


class PrometheusTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        folder = cls.enterClassContext(tempfile.TemporaryDirectory())
        url = cls.enterClassContext(scratch_database())
        manage(url, 'db', 'upgrade')
        server = Server(folder, url, METRICS='1')
        cls.addClassCleanup(server.kill)
        server.start()
        server.post('ann@example.com')
        with urllib.request.urlopen(f'http://{HOST}:{server.port}/metrics', timeout=20) as response:
            cls.metrics = response.read().decode()

    def test_metrics_follow_the_conventions_of_prometheus(self):
        self.assertEqual(promtool('check', 'metrics', text=self.metrics), (0, ''))

    def test_alerts_are_valid_and_fire_as_their_tests_say(self):
        for arguments in (('check', 'rules', str(ALERTS)), ('test', 'rules', str(ROOT / '.ci' / 'alerts_test.yml'))):
            code, printed = promtool(*arguments)
            self.assertEqual(code, 0, printed)

    def test_each_alert_says_what_to_do(self):
        for rule in alerts():
            with self.subTest(alert=rule['alert']):
                self.assertIn(rule['labels']['severity'], ('page', 'ticket'))
                self.assertTrue(rule['annotations']['summary'] and rule['annotations']['action'])

    def test_expressions_of_the_dashboard_are_valid(self):
        rules = [{'record': f'panel{number}', 'expr': expr} for number, expr in enumerate(dashboard_expressions())]
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder, 'rules.yml')
            file.write_text(yaml.safe_dump({'groups': [{'name': 'panels', 'rules': rules}]}))
            code, printed = promtool('check', 'rules', str(file))
        self.assertEqual(code, 0, printed)

    def test_every_metric_of_an_alert_or_of_the_dashboard_exists(self):
        existing = set(re.findall(r'^(users_\w+)', self.metrics, re.MULTILINE))
        # A counter with labels is absent before its first event.
        existing |= {f'{family.name}_total' for family in metrics.DATABASE_ERRORS.describe()}
        for expr in (*dashboard_expressions(), *(rule['expr'] for rule in alerts())):
            with self.subTest(expr=expr):
                self.assertLessEqual(set(METRIC.findall(expr)), existing)
                for kind in KIND.findall(expr):
                    self.assertEqual(getattr(errors, kind)().kind, kind)
