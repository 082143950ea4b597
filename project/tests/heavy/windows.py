"""The default suite without what Python lacks on Windows: ``python manage.py test windows`` takes about a minute.

It needs ``pip install -r .ci/requirements.txt``, for the time zones of the package tzdata.
"""

import getpass
import importlib.util
import os
import re
import subprocess
import sys
import unittest

from project.tests.base import ROOT
from project.tests.test_platforms import WINDOWS


class DefaultSuiteTest(unittest.TestCase):
    def test_default_suite_passes_or_skips(self) -> None:
        if not importlib.util.find_spec('tzdata'):
            raise RuntimeError('this test needs tzdata: pip install -r .ci/requirements.txt')
        path = os.pathsep.join(filter(None, (str(WINDOWS), os.environ.get('PYTHONPATH'))))
        environ = os.environ | {'PYTHONPATH': path, 'PYTHONTZPATH': '', 'PYTHONIOENCODING': 'cp1252', 'PYTHONUTF8': '0'}
        environ['USERNAME'] = getpass.getuser()
        done = subprocess.run(
            [sys.executable, '-W', 'error', 'manage.py', 'test'],
            cwd=ROOT,
            env=environ,
            capture_output=True,
            text=True,
            errors='replace',
            check=False,
        )
        self.assertEqual(done.returncode, 0, done.stderr[-5000:])
        ran, skipped = re.search(r'Ran (\d+) tests.*OK \(skipped=(\d+)\)', done.stderr, re.DOTALL).groups()
        self.assertGreater(int(ran) - int(skipped), 400, 'most of the suite runs')
