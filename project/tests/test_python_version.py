"""An older Python is rejected in one line. This machine may not have one, so the tests simulate its version."""

import ast
import subprocess
import sys
import unittest

from packaging.requirements import Requirement

from project.tests.base import ROOT

AS_OLD = """
import runpy, sys

BEFORE = set(sys.modules)

sys.version_info = (3, 10, 4, 'final', 0)
try:
    runpy.run_path(sys.argv[1], run_name='__main__')
finally:
    print(*{'project', 'contextlib', 'datetime', 'gevent', 'orjson'} & sys.modules.keys() - BEFORE)
"""


class PythonVersionTest(unittest.TestCase):
    def test_older_python_is_rejected_in_one_line_before_anything_is_imported(self) -> None:
        for file in ('manage.py', 'gunicorn.conf.py'):
            with self.subTest(file=file):
                command = [sys.executable, '-c', AS_OLD, file]
                done = subprocess.run(command, check=False, cwd=ROOT, capture_output=True, text=True, timeout=60)
                message = 'The users service needs Python 3.11 or later; this is 3.10.\n'
                self.assertEqual((done.returncode, done.stdout, done.stderr), (1, '\n', message))

    def test_python_2_can_read_manage_py(self) -> None:
        tree = ast.parse((ROOT / 'manage.py').read_text(encoding='ascii'))
        for node in ast.walk(tree):
            self.assertNotIsInstance(node, ast.JoinedStr | ast.AnnAssign | ast.NamedExpr)
            self.assertNotEqual(getattr(node, 'id', ''), 'print')  # a statement, which takes no file=

    def test_first_requirement_fails_on_older_pythons_only_and_its_url_says_why(self) -> None:
        lines = [line for line in (ROOT / 'requirements.txt').read_text().splitlines() if line and line[0] != '#']
        first = Requirement(lines[0])
        assert first.marker and first.url
        for version, stops in (('3.9', True), ('3.10', True), ('3.11', False), ('3.14', False)):
            self.assertEqual(first.marker.evaluate({'python_version': version}), stops, version)
        self.assertEqual(first.url, 'file:///the-users-service-needs-Python-3.11-or-later')
