"""Schemathesis sends valid and invalid requests, and checks each response against the OpenAPI document.

Not among the tests that run by default: ``python manage.py test fuzz``, after
``pip install -r .ci/requirements.txt``. The service runs under gunicorn, on an empty database beside the one of
DATABASE_TEST_URL. ``FUZZ_SEED=N`` tries other requests than the usual ones.

All checks of Schemathesis are on except two. :func:`valid_data_is_accepted` replaces ``positive_data_acceptance``,
since it knows the rejections that no schema can describe. ``object_level_authorization`` needs an API whose users may
see only their own objects. A token of this service allows every request.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
import unicodedata
import unittest
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import schemathesis
import yaml
from schemathesis.openapi.checks import RejectedPositiveData
from schemathesis.specs.openapi.checks import positive_data_acceptance

from project.tests.base import scratch_database
from project.tests.support.fault_case import PROMISED_SECONDS
from project.tests.support.servers import HOST, ROOT, TOKEN, Server, manage

DOCUMENT = ROOT / 'project' / 'api' / 'openapi.yaml'
LEAST_CASES = 1000
LEAST_SCENARIOS, LEAST_LINKS = 10, 5
CONFIG = f"""
hooks = "{__name__}"
seed = {os.environ.get('FUZZ_SEED') or 1}
continue-on-failure = true

[generation]
max-examples = 250
database = "none"

[auth.openapi.bearer]
bearer = "{TOKEN}"

[checks]
max_response_time = {PROMISED_SECONDS}
object_level_authorization.enabled = false
negative_data_rejection.expected-statuses = [400, 401, 404]

[checks.positive_data_acceptance]
enabled = false
expected-statuses = ["2xx", 304, 404, 412]

# Half of the requests use existing values, which are not found by chance.
[parameters]
"path.user_id" = {{dictionary = "ids", probability = 0.5}}
"query.after" = {{dictionary = "cursors", probability = 0.5}}
"header.If-Match" = {{dictionary = "tags", probability = 0.5}}
"header.If-None-Match" = {{dictionary = "tags", probability = 0.5}}

[dictionaries]
"""


@schemathesis.check
def valid_data_is_accepted(ctx, response, case):
    """Check that a request that satisfies the schema is accepted, unless :func:`is_beyond_schemas`."""
    try:
        positive_data_acceptance(ctx, response, case)
    except RejectedPositiveData:
        if response.status_code != 400 or not is_beyond_schemas(response.json(), case):
            raise


def is_beyond_schemas(refusal, case):
    """Return whether no schema and no regular expression can describe the reasons of a 400."""
    if refusal['message'] == 'Sorry. That email already exists.':
        return True
    return all(
        (field == 'after' and reason == 'is not a valid cursor')
        or (field == 'username' and reason == 'must not be blank' and not is_visible(case.body['username']))
        for field, reason in refusal['errors'].items()
    )


def is_visible(text):
    """Return whether a text has a visible character: a letter, mark, number, punctuation or symbol."""
    return any(unicodedata.category(character)[0] in 'LMNPS' for character in text)


class FuzzTest(unittest.TestCase):
    def setUp(self):
        self.directory = Path(self.enterContext(tempfile.TemporaryDirectory()))
        url = self.enterContext(scratch_database())
        manage(url, 'db', 'upgrade')
        self.server = Server(self.directory, url, METRICS='1')
        self.addCleanup(self.server.kill)
        self.server.start()

    def test_every_response_is_as_the_contract_says(self):
        config, report = self.directory / 'schemathesis.toml', self.directory / 'report.json'
        known = (f'{name}.values = {json.dumps(values)}\n' for name, values in self.add_users().items())
        config.write_text(CONFIG + ''.join(known))
        run = subprocess.run(
            [
                *(sys.executable, '-m', 'schemathesis.cli', '--config-file', config, 'run', DOCUMENT),
                *('--url', f'http://{HOST}:{self.server.port}', '--no-color'),
                *('--report', 'json', '--report-json-path', report),
            ],
            check=False,
            cwd=self.directory,
            env=os.environ | {'PYTHONPATH': str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=600,
        )
        self.assertEqual(run.returncode, 0, run.stdout)
        result = json.loads(report.read_text())
        print(f'{result["test_cases"]["generated"]} cases in {result["running_time"]:.0f} s')
        self.assertGreaterEqual(result['test_cases']['generated'], LEAST_CASES)
        self.assertEqual(result['operations']['tested'], self.count_operations())
        self.assertEqual({'success'}, {phase['status'] for phase in result['phases'].values()}, result['phases'])
        # The report has no figures of the stateful phase, which follows links from response to request.
        links = re.search(r'Stateful .*Scenarios: +([0-9]+)\s+API Links: +([0-9]+) covered', run.stdout, re.DOTALL)
        self.assertIsNotNone(links, run.stdout)
        scenarios, covered = map(int, links.groups())
        print(f'stateful: {scenarios} scenarios, {covered} links')
        self.assertGreaterEqual(scenarios, LEAST_SCENARIOS)
        self.assertGreaterEqual(covered, LEAST_LINKS)
        self.check_reach()

    def add_users(self):
        """Add users, and return their ids, cursors and entity tags."""
        users = [self.server.post(f'user{number}@example.com').body['data'] for number in range(20)]
        pages = [self.server.get(f'/users?limit={limit}').body['data'] for limit in range(1, len(users))]
        ids = [user['id'] for user in users]
        return {
            'ids': ids,
            'cursors': [parse_qs(urlsplit(page['next']).query)['after'][0] for page in pages],
            'tags': [self.server.get(f'/users/{user_id}').headers['ETag'] for user_id in ids] + ['*'],
        }

    def count_operations(self):
        document = yaml.safe_load(DOCUMENT.read_text())
        return sum('operationId' in operation for item in document['paths'].values() for operation in item.values())

    def check_reach(self):
        """Check in the service's log that every kind of response occurred, and no unexpected error."""
        lines = [json.loads(line) for line in self.server.log().splitlines() if line.startswith('{')]
        reached = {(line['method'], line['route'], line['status']) for line in lines if line['event'] == 'request'}
        for method, route, *statuses in (
            ('GET', '/users', 200, 400),
            ('POST', '/users', 201, 400),
            ('GET', '/users/<user_id>', 200, 304, 404),
            ('PATCH', '/users/<user_id>', 200, 400, 401, 404, 412),
            ('DELETE', '/users/<user_id>', 204, 401, 404, 412),
        ):
            for status in statuses:
                self.assertIn((method, route, status), reached)
        self.assertEqual([line for line in lines if line['level'] in ('error', 'critical')], [])
