"""``gunicorn --preload`` is rejected, because every gevent worker would hang on its first query."""

import os
import subprocess
import sys
import unittest

from project.tests.base import ROOT


class PreloadTest(unittest.TestCase):
    def test_preload_is_rejected_with_the_reason(self):
        command = [sys.executable, '-m', 'gunicorn', '-b', '127.0.0.1:0', '--preload', 'manage:app']
        environ = {'PATH': os.environ['PATH'], 'LOG_LEVEL': 'ERROR'}
        ended = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=60, check=False)
        self.assertEqual((ended.returncode, ended.stdout), (1, ''))
        self.assertRegex(ended.stderr, r'\Agunicorn --preload does not work with .*: remove --preload\.\n\Z')
