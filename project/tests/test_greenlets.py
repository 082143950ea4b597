"""The database package under gevent, in a process of its own."""

import subprocess
import sys
import unittest

from project.tests.base import ROOT

# Before the project is imported, as in gunicorn's workers.
PATCHED = 'from gevent import monkey; monkey.patch_all(); import unittest; unittest.main("{}")'


class GreenletsTest(unittest.TestCase):
    def test_batcher_and_socket_waits_work_in_greenlets(self) -> None:
        """Run the tests of support/in_greenlets.py."""
        ended = subprocess.run(
            [sys.executable, '-W', 'error', '-c', PATCHED.format('project.tests.support.in_greenlets')],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        self.assertEqual(ended.returncode, 0, ended.stderr)
        self.assertRegex(ended.stderr, r'Ran 4 tests')
