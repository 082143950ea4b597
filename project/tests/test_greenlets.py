"""The database package under gevent, in a process of its own."""

import importlib.util
import os
import subprocess
import sys
import unittest

from project.tests.base import ROOT

# gevent patches before the project is imported, as in gunicorn's workers.
PATCHED = """
import os
if 'COVERAGE_PROCESS_START' in os.environ:
    import coverage
    coverage.process_startup()
from gevent import monkey
monkey.patch_all()
import unittest
unittest.main('project.tests.support.in_greenlets')
"""


@unittest.skipUnless(importlib.util.find_spec('gevent'), 'gevent is for gunicorn, which does not run on Windows')
class GreenletsTest(unittest.TestCase):
    def test_batcher_and_socket_waits_work_in_greenlets(self) -> None:
        """Run the tests of support/in_greenlets.py; ``manage.py cov`` adds the lines that they run."""
        environ = dict(os.environ)
        if 'coverage' in sys.modules:
            environ |= {
                'COVERAGE_PROCESS_START': str(ROOT / 'pyproject.toml'),
                'COVERAGE_FILE': str(ROOT / '.coverage.greenlets'),
            }
        ended = subprocess.run(
            [sys.executable, '-W', 'error', '-c', PATCHED],
            cwd=ROOT,
            env=environ,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        self.assertEqual(ended.returncode, 0, ended.stderr)
        self.assertRegex(ended.stderr, r'Ran 5 tests')
