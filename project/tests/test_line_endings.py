"""Files have LF at the end of their lines, in the repository and in a checkout on Windows."""

import shutil
import subprocess
import tempfile
import unittest
from pathlib import Path

from project.tests.base import ROOT

CRLF = b'\r\n'


def git(*arguments: str) -> str:
    """Return the output of a git command for this repository."""
    return subprocess.run(['git', *arguments], cwd=ROOT, check=True, capture_output=True, text=True, timeout=60).stdout


@unittest.skipUnless((ROOT / '.git').exists() and shutil.which('git'), 'these files are not in a git repository')
class LineEndingsTest(unittest.TestCase):
    def test_no_file_has_crlf(self):
        text_files = 0
        for line in git('ls-files', '--eol').splitlines():
            attributes, path = line.split('\t')
            stored, _, attribute = attributes.split(maxsplit=2)
            with self.subTest(path=path):
                self.assertIn(stored, ('i/lf', 'i/none', 'i/-text'))
                if stored == 'i/-text':
                    self.assertIn(Path(path).suffix, ('.png', '.gz'))
                    self.assertEqual(attribute.strip(), 'attr/-text')
                elif (ROOT / path).is_file():  # otherwise it was deleted, and the deletion is not committed yet
                    text_files += 1
                    self.assertNotIn(CRLF, (ROOT / path).read_bytes())
        self.assertGreater(text_files, 50)

    def test_checkout_on_windows_has_no_crlf(self):
        with tempfile.TemporaryDirectory() as folder:
            windows = ('-c', 'core.autocrlf=true', '-c', 'core.eol=crlf')
            git(*windows, 'checkout-index', '--all', '--force', f'--prefix={folder}/')
            for name in ('.ci/run', 'project/client/nginx.envsh', 'project/client/nginx.conf', 'manage.py'):
                with self.subTest(name=name):
                    self.assertNotIn(CRLF, (Path(folder) / name).read_bytes())
            for picture in Path(folder).rglob('*.png'):
                self.assertEqual(picture.read_bytes(), (ROOT / picture.relative_to(folder)).read_bytes())
