"""Litestream replicates the SQLite file of the service, which is killed while clients write, and restores it.

Run by name, after ``pip install -r .ci/requirements.txt``: ``python manage.py test litestream``. Litestream's settings
are those of docs/backup.md, with other directories.
"""

import contextlib
import re
import shutil
import sqlite3
import subprocess
import sysconfig
import time
from datetime import UTC, datetime

from project.tests.support.fault_case import FaultCase, measured
from project.tests.support.loads import Writers
from project.tests.support.servers import ROOT, SLACK_SECONDS, wait_until

PROGRAM = shutil.which('litestream', path=sysconfig.get_path('scripts')) or shutil.which('litestream')
MOST_SECONDS_LOST = 5.0  # without a sync by hand; Litestream syncs every second


class LitestreamTest(FaultCase):
    """The service under gunicorn with two workers on an SQLite file, and Litestream."""

    def setUp(self):
        super().setUp()
        if not PROGRAM:
            self.fail('this test needs Litestream: pip install -r .ci/requirements.txt')
        self.folder = self.directory / 'users'
        self.folder.mkdir()
        self.file = self.folder / 'users.db'
        documented = re.search('```yaml\n(.*?)```', (ROOT / 'docs' / 'backup.md').read_text(), re.DOTALL)
        self.config = self.folder / 'litestream.yml'
        self.config.write_text(documented[1].replace('/srv/', f'{self.directory}/'))
        self.socket = self.folder / 'litestream.sock'
        self.server = self.start_server(f'sqlite:///{self.file}')
        self.replicate()

    def replicate(self):
        """Start Litestream, and wait until it accepts commands."""
        self.socket.unlink(missing_ok=True)
        with (self.folder / 'litestream.log').open('ab') as log:
            command = [PROGRAM, 'replicate', '-config', self.config]
            self.litestream = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self.addCleanup(self.litestream.wait)
        self.addCleanup(self.litestream.kill)
        wait_until(self.socket.exists, SLACK_SECONDS, 'Litestream has started')

    def run_litestream(self, *arguments):
        """Run a command of Litestream to its end."""
        run = subprocess.run([PROGRAM, *arguments], capture_output=True, text=True, timeout=60, check=False)
        self.assertEqual(0, run.returncode, run.stderr)

    def sync(self):
        """Wait until everything is in the replica that was committed before this call."""
        self.run_litestream('sync', '-wait', '-socket', self.socket, self.file)

    def restore(self, *options):
        """Restore the file from the replica beside the original, and return the emails in it, ordered by id."""
        restored = self.directory / 'restored.db'
        checked = ('-integrity-check', 'full', '-force', '-config', self.config)
        self.run_litestream('restore', *checked, *options, '-o', restored, self.file)
        return self.emails(restored)

    def emails(self, file):
        """Return the emails in an SQLite file, ordered by id."""
        with contextlib.closing(sqlite3.connect(file)) as connection:
            return [email for (email,) in connection.execute('SELECT email FROM users ORDER BY id')]

    def lose_machine(self):
        """Send SIGKILL to the service and to Litestream."""
        self.server.kill()
        self.litestream.kill()
        self.litestream.wait()

    def check_restored(self, acknowledged):
        """Check that the restored users are a snapshot of the table, and that none of ``acknowledged`` is missing."""
        restored = self.restore()
        self.assertEqual([], sorted(set(acknowledged) - set(restored)), 'acknowledged before the sync, and lost')
        self.assertEqual(self.emails(self.file)[: len(restored)], restored)

    def test_lost_machine_is_restored_up_to_the_last_sync(self):
        for _ in range(3):
            with Writers(self.server, 8, 0) as writers:
                wait_until(lambda writers=writers: len(writers.acknowledged) > 100, SLACK_SECONDS, 'writers are served')
                synced = list(writers.acknowledged)
                self.sync()
                self.lose_machine()
            self.assert_served(writers)
            self.check_restored(synced)
            self.server.start()
            self.replicate()

    def test_without_a_sync_by_hand_the_last_seconds_are_lost(self):
        with Writers(self.server, 8, 0) as writers:
            begun = time.monotonic()
            wait_until(lambda: time.monotonic() > begun + 4, SLACK_SECONDS, 'Litestream has synced a few times')
            lost_at = time.monotonic()
            self.lose_machine()
        self.assert_served(writers)
        restored = set(self.restore())
        times = {
            response.body['data']['email']: response.started + response.seconds
            for response in writers.responses
            if response.body['data']['email'] not in restored
        }
        print(f'  {len(writers.acknowledged)} users acknowledged, {len(times)} of them not restored')
        seconds = max([lost_at - time for time in times.values()], default=0.0)
        measured('Litestream, age of the oldest user that is not restored', seconds)
        self.assertLess(seconds, MOST_SECONDS_LOST)

    def test_killed_service_loses_no_user_and_replication_goes_on(self):
        acknowledged = []
        for _ in range(2):
            with Writers(self.server, 8, 0) as writers:
                wait_until(lambda writers=writers: len(writers.acknowledged) > 100, SLACK_SECONDS, 'writers are served')
                self.server.kill()
            self.assert_served(writers)
            acknowledged += writers.acknowledged
            self.server.start()
        self.sync()
        self.check_restored(acknowledged)

    def test_restored_file_serves_and_is_replicated_again(self):
        before = [self.server.post(f'{number}@example.com').body['data'] for number in range(20)]
        self.sync()
        self.lose_machine()
        for file in self.folder.glob('users.db*'):
            file.unlink()
        self.run_litestream('restore', '-config', self.config, self.file)
        self.server.start()
        self.replicate()
        self.assertEqual(before[::-1], self.server.get('/users').body['data']['users'])
        after = self.server.post('after@example.com').body['data']['email']
        self.sync()
        self.assertEqual([*(user['email'] for user in before), after], self.restore())

    def test_removed_user_is_restored_from_an_earlier_time(self):
        user = self.server.post('ann@example.com').body['data']
        self.sync()
        earlier = datetime.now(UTC).isoformat()
        self.assertEqual(204, self.server.request('DELETE', f'/users/{user["id"]}').status)
        self.sync()
        self.assertEqual([], self.restore())
        self.assertEqual(['ann@example.com'], self.restore('-timestamp', earlier.replace('+00:00', 'Z')))

    def assert_served(self, writers):
        """Check that Litestream has not disturbed the service: each response was a success."""
        self.assertEqual({201}, {response.status for response in writers.responses})
