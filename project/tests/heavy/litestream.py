"""Litestream replicates the SQLite file of the service, which is killed while clients write, and restores it.

Run by name, after ``pip install -r .ci/requirements.txt``: ``python manage.py test litestream``. Litestream starts the
service, with the settings of docs/backup.md and other directories.
"""

import contextlib
import os
import re
import shlex
import shutil
import signal
import sqlite3
import subprocess
import sysconfig
import time
from datetime import UTC, datetime

from project.tests.support.fault_case import FaultCase, measured
from project.tests.support.loads import Writers
from project.tests.support.servers import ROOT, SLACK_SECONDS, Server, children, is_running, manage, wait_until

PROGRAM = shutil.which('litestream', path=sysconfig.get_path('scripts')) or shutil.which('litestream')
MOST_SECONDS_LOST = 5.0  # without a sync by hand; Litestream syncs every second


class ReplicatedServer(Server):
    """The service as a child of Litestream, which ends with it."""

    def __init__(self, folder, url, config):
        super().__init__(folder, url)
        self._command = [PROGRAM, 'replicate', '-config', config, '-exec', shlex.join(self._command)]

    def kill_service(self):
        """Send SIGKILL to the service's processes, and wait until Litestream has ended."""
        masters = self.workers()
        service = [*masters, *(worker for master in masters for worker in children(master))]
        for pid in service:
            os.kill(pid, signal.SIGKILL)
        self.process.wait(SLACK_SECONDS)
        wait_until(lambda: not any(map(is_running, service)), SLACK_SECONDS, 'the service has ended')


class LitestreamTest(FaultCase):
    """Litestream and the service under gunicorn with two workers, on an SQLite file."""

    def setUp(self):
        super().setUp()
        if not PROGRAM:
            self.fail('this test needs Litestream: pip install -r .ci/requirements.txt')
        self.folder = self.directory / 'users'
        self.folder.mkdir()
        self.file, self.config = self.folder / 'users.db', self.folder / 'litestream.yml'
        documented = re.search('```yaml\n(.*?)```', (ROOT / 'docs' / 'backup.md').read_text(), re.DOTALL)
        self.config.write_text(documented[1].replace('/srv/', f'{self.directory}/'))
        manage(f'sqlite:///{self.file}', 'db', 'upgrade')
        self.server = ReplicatedServer(self.directory, f'sqlite:///{self.file}', self.config)
        self.addCleanup(self.server.kill)
        self.server.start()

    def run_litestream(self, *arguments):
        """Run a command of Litestream to its end."""
        run = subprocess.run([PROGRAM, *arguments], capture_output=True, text=True, timeout=60, check=False)
        self.assertEqual(0, run.returncode, run.stderr)

    def sync(self):
        """Wait until everything is in the replica that was committed before this call."""
        self.run_litestream('sync', '-wait', '-socket', self.folder / 'litestream.sock', self.file)

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
                self.server.kill()
            self.assert_served(writers)
            self.check_restored(synced)
            self.server.start()

    def test_without_a_sync_by_hand_the_last_seconds_are_lost(self):
        with Writers(self.server, 8, 0) as writers:
            begun = time.monotonic()
            wait_until(lambda: time.monotonic() > begun + 4, SLACK_SECONDS, 'Litestream has synced a few times')
            lost_at = time.monotonic()
            self.server.kill()
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
                self.server.kill_service()
            self.assert_served(writers)
            acknowledged += writers.acknowledged
            self.server.start()
        self.sync()
        self.check_restored(acknowledged)

    def test_restored_file_serves_and_is_replicated_again(self):
        before = [self.server.post(f'{number}@example.com').body['data'] for number in range(20)]
        self.sync()
        self.server.kill()
        for file in self.folder.glob('users.db*'):
            file.unlink()
        self.run_litestream('restore', '-config', self.config, self.file)
        self.server.start()
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
