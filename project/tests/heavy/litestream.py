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
from datetime import UTC, datetime, timedelta

from project.tests.support.fault_case import FaultCase, measured
from project.tests.support.loads import Writers
from project.tests.support.servers import ROOT, SLACK_SECONDS, Server, children, is_running, manage, wait_until

PROGRAM = shutil.which('litestream', path=sysconfig.get_path('scripts')) or shutil.which('litestream')
MOST_SECONDS_LOST = 5.0  # Litestream copies changes once a second, and sends them once a second


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

    def restore(self, *options):
        """Restore the file from the replica beside the original, and return the emails in it, ordered by id."""
        restored = self.directory / 'restored.db'
        restored.unlink(missing_ok=True)
        self.run_litestream('restore', '-config', self.config, *options, '-o', restored, self.file)
        return self.emails(restored)

    def wait_for_sync(self, emails):
        """Wait until the replica has these users, and return all its users."""
        wait_until(lambda: set(emails) <= set(self.restore()), SLACK_SECONDS, 'Litestream has synced')
        return self.restore()

    def emails(self, file):
        """Return the emails in an SQLite file, ordered by id; its integrity is checked."""
        with contextlib.closing(sqlite3.connect(file)) as connection:
            self.assertEqual([('ok',)], connection.execute('PRAGMA integrity_check').fetchall())
            return [email for (email,) in connection.execute('SELECT email FROM users ORDER BY id')]

    def test_lost_machine_is_restored_up_to_the_last_sync(self):
        with Writers(self.server, 8, 0) as writers:
            begun = time.monotonic()
            wait_until(lambda: time.monotonic() > begun + 8, SLACK_SECONDS, 'Litestream has synced a few times')
            lost_at = time.monotonic()
            self.server.kill()
        self.assert_served(writers)
        restored = self.restore()
        self.assertEqual(self.emails(self.file)[: len(restored)], restored)
        ages = {
            response.body['data']['email']: lost_at - response.started - response.seconds
            for response in writers.responses
        }
        lost = {email: age for email, age in ages.items() if email not in restored}
        print(f'  {len(ages)} users acknowledged, {len(lost)} of them not restored')
        measured('Litestream, age of the oldest user that is not restored', max(lost.values(), default=0.0))
        self.assertLess(max(lost.values(), default=0.0), MOST_SECONDS_LOST)

    def test_killed_service_loses_no_user_and_replication_continues(self):
        acknowledged = []
        for _ in range(2):
            with Writers(self.server, 8, 0) as writers:
                wait_until(lambda writers=writers: len(writers.acknowledged) > 100, SLACK_SECONDS, 'writers are served')
                self.server.kill_service()
            self.assert_served(writers)
            acknowledged += writers.acknowledged
            self.server.start()
        self.assertEqual(self.emails(self.file), self.wait_for_sync(acknowledged))

    def test_killed_workers_lose_no_user_and_replication_continues(self):
        master = self.server.workers()[0]
        with Writers(self.server, 8, 0) as writers:
            for number in range(1, 5):
                wait_until(lambda n=number: len(writers.acknowledged) > 60 * n, SLACK_SECONDS, 'writers are served')
                os.kill(children(master)[0], signal.SIGKILL)
        self.assertEqual(self.emails(self.file), self.wait_for_sync(writers.acknowledged))

    def test_restored_file_serves_and_is_replicated_again(self):
        before = [self.server.post(f'{number}@example.com').body['data'] for number in range(20)]
        emails = [user['email'] for user in before]
        self.wait_for_sync(emails)
        self.server.kill()
        for file in (*self.folder.glob('users.db*'), *self.folder.glob('.users.db*')):
            shutil.rmtree(file) if file.is_dir() else file.unlink()
        self.run_litestream('restore', '-config', self.config, self.file)
        self.server.start()
        self.assertEqual(before[::-1], self.server.get('/users').body['data']['users'])
        after = self.server.post('after@example.com').body['data']['email']
        self.assertEqual([*emails, after], self.wait_for_sync([after]))

    def test_removed_user_is_restored_from_an_earlier_time(self):
        user = self.server.post('ann@example.com').body['data']
        self.wait_for_sync([user['email']])
        earlier = datetime.now(UTC) + timedelta(seconds=2)
        wait_until(lambda: datetime.now(UTC) > earlier, 5, 'the time has come')
        self.assertEqual(204, self.server.request('DELETE', f'/users/{user["id"]}').status)
        wait_until(lambda: self.restore() == [], SLACK_SECONDS, 'Litestream has synced')
        self.assertEqual([user['email']], self.restore('-timestamp', earlier.strftime('%Y-%m-%dT%H:%M:%SZ')))

    def assert_served(self, writers):
        """Check that Litestream has not disturbed the service: each response was a success."""
        self.assertEqual({201}, {response.status for response in writers.responses})
