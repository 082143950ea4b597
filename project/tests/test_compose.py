"""The compose files: which ports of the machine they publish."""

import re
import unittest

import yaml

from project.tests.base import ROOT


# The image has no compose files in it, and the tests run there too.
@unittest.skipUnless((ROOT / 'docker-compose.yml').exists(), 'needs the compose files')
class PublishedPortsTest(unittest.TestCase):
    def published(self, name: str, **environ: str) -> dict[str, list[str]]:
        """Return the ports that each service of a compose file publishes, with ``environ`` as the environment."""
        text = (ROOT / name).read_text()
        text = re.sub(r'\$\{(\w+):-(.*?)}', lambda match: environ.get(match[1]) or match[2], text)
        services = yaml.safe_load(text)['services']
        return {service: settings['ports'] for service, settings in services.items() if 'ports' in settings}

    def test_development_publishes_the_page_on_ports_80_and_9000(self) -> None:
        self.assertEqual(
            self.published('docker-compose.yml'),
            {'users-db': ['5435:5432'], 'users-service': ['5001:5000'], 'web-service': ['80:8080', '9000:8080']},
        )

    def test_web_port_replaces_port_80(self) -> None:
        ports = self.published('docker-compose.yml', WEB_PORT='8081')['web-service']
        self.assertEqual(ports, ['8081:8080', '9000:8080'])

    def test_production_publishes_port_80_only(self) -> None:
        self.assertEqual(self.published('docker-compose-prod.yml'), {'web-service': ['80:8080']})
