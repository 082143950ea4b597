"""The hashes are those of the pinned versions."""

import re
import unittest

from project.tests.base import ROOT


class RequirementsTest(unittest.TestCase):
    def pins(self, name: str) -> dict[str, str]:
        """Return the versions in a file of requirements, by normalised name, without those for Windows only."""
        lines = [line for line in (ROOT / name).read_text().splitlines() if 'sys_platform == "win32"' not in line]
        pins = re.findall(r'^([A-Za-z0-9._-]+)==(\S+)', '\n'.join(lines), re.MULTILINE)
        return {re.sub('[._-]+', '-', package).lower(): version for package, version in pins}

    def test_every_pinned_version_has_hashes(self) -> None:
        self.assertEqual(self.pins('project/requirements.hashes.txt'), self.pins('requirements.txt'))
        packages = re.split(r'^(?=\w)', (ROOT / 'project/requirements.hashes.txt').read_text(), flags=re.MULTILINE)[1:]
        for package in packages:
            self.assertIn('--hash=sha256:', package)
