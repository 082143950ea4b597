"""The compose files: which ports of the machine they publish, and what the cluster adds to production."""

import re
import subprocess
import unittest
from typing import Any

import yaml

from project.tests.base import ROOT


# The tests also run in the image, which has no compose files.
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


CLUSTER = ROOT / 'project' / 'db' / 'cluster'


def merge(base: Any, added: Any) -> Any:
    """Return two values of compose files as Compose 2 merges them: mappings by key, lists one after the other."""
    if isinstance(base, dict) and isinstance(added, dict):
        return base | {key: merge(base.get(key), value) for key, value in added.items()}
    return base + added if isinstance(base, list) and isinstance(added, list) else added


def lists_in(value: Any) -> list[list[Any]]:
    """Return all lists within a value."""
    if isinstance(value, list):
        return [value]
    return [each for inner in value.values() for each in lists_in(inner)] if isinstance(value, dict) else []


@unittest.skipUnless(CLUSTER.exists(), 'needs the files of the cluster')
class ClusterTest(unittest.TestCase):
    NODES = ('users-db', 'users-db-2', 'users-db-3')
    ETCD = ('etcd-1', 'etcd-2', 'etcd-3')

    def setUp(self) -> None:
        production, overlay = (
            yaml.safe_load(file.read_text())
            for file in (ROOT / 'docker-compose-prod.yml', CLUSTER / 'docker-compose.yml')
        )
        self.production, self.merged = production['services'], merge(production, overlay)
        self.services = self.merged['services']

    def config(self, name: str) -> Any:
        """Return the content of a configuration file of Patroni."""
        return yaml.safe_load((CLUSTER / name).read_text())

    def test_each_service_is_hardened_like_those_of_production(self) -> None:
        self.assertEqual(set(self.services) - set(self.production), {*self.NODES[1:], *self.ETCD})
        for name, service in self.services.items():
            with self.subTest(service=name):
                hardening = {key: service.get(key) for key in ('read_only', 'cap_drop', 'security_opt', 'logging')}
                self.assertEqual(hardening, {key: self.production['web-service'][key] for key in hardening})
                self.assertEqual(service['pids_limit'], 256)
                self.assertIn(service['mem_limit'], ('512m', '1g', '1536m'))
                self.assertEqual(service['restart'], 'no' if name == 'migrate' else 'unless-stopped')

    def test_no_list_has_an_entry_of_the_other_file_again(self) -> None:
        for name, service in self.services.items():
            for entries in lists_in(service):
                with self.subTest(service=name, entries=entries):
                    self.assertEqual(len(entries), len({str(entry) for entry in entries}))

    def test_no_port_is_published_besides_that_of_the_page(self) -> None:
        published = {name: service['ports'] for name, service in self.services.items() if 'ports' in service}
        self.assertEqual(published, {'web-service': ['80:8080']})

    def test_only_nodes_and_etcd_are_in_the_internal_network(self) -> None:
        self.assertTrue(self.merged['networks']['cluster']['internal'])
        inside = {name for name, service in self.services.items() if 'cluster' in service.get('networks', ())}
        self.assertEqual(inside, {*self.NODES, *self.ETCD})
        # The service reaches the nodes, and no etcd.
        both = {name for name in inside if 'default' in self.services[name]['networks']}
        self.assertEqual(both, set(self.NODES))

    def test_service_knows_each_node(self) -> None:
        for service in ('users-service', 'migrate'):
            for variable in ('DATABASE_URL', 'DATABASE_TEST_URL'):
                url = self.services[service]['environment'][variable]
                self.assertEqual(tuple(re.findall('host=([^&]+):5432', url)), self.NODES)
                self.assertIn('target_session_attrs=read-write', url)

    def test_each_node_and_each_etcd_has_a_name_and_a_volume_of_its_own(self) -> None:
        for name in (*self.NODES, *self.ETCD):
            volume = f'{name}-prod' if name == 'users-db' else name
            self.assertIn(volume, self.merged['volumes'])
            self.assertRegex(self.services[name]['volumes'][0], f'^{volume}:')
        for name in self.NODES:
            self.assertEqual(self.services[name]['environment']['PATRONI_NAME'], name)
            self.assertEqual(self.services[name]['networks']['cluster'], {'aliases': [f'{name}.cluster']})
        for name in self.ETCD:
            self.assertEqual(set(re.findall(r'etcd-\d', self.services[name]['command'])), {name})

    def test_only_the_first_node_can_create_the_database(self) -> None:
        # Patroni reads a folder, or one file. The image's own command names the file.
        commands = {name: self.services[name].get('command') for name in self.NODES}
        folder = 'sh /etc/cluster/node.sh /etc/cluster'
        self.assertEqual(commands, {'users-db': folder, **dict.fromkeys(self.NODES[1:])})
        self.assertIn('CMD ["sh", "/etc/cluster/node.sh", "/etc/cluster/node.yml"]', self.dockerfile())
        self.assertNotIn('bootstrap', self.config('node.yml'))
        self.assertEqual(set(self.config('first.yml')), {'bootstrap'})

    def dockerfile(self) -> str:
        """Return the text of the nodes' Dockerfile."""
        return (CLUSTER / 'Dockerfile').read_text()

    def test_replication_is_synchronous_and_strict(self) -> None:
        settings = self.config('first.yml')['bootstrap']['dcs']
        self.assertEqual(settings['synchronous_mode'], 'quorum')
        self.assertIs(settings['synchronous_mode_strict'], True)
        self.assertIs(settings['failsafe_mode'], True)
        # Patroni's manual, "Dynamic Configuration Settings", for loop_wait, retry_timeout and ttl.
        self.assertLessEqual(settings['loop_wait'] + 2 * settings['retry_timeout'], settings['ttl'])

    def test_single_database_waits_for_no_standby(self) -> None:
        # After a cluster, PostgreSQL's configuration in the volume still has this setting. The command line wins.
        self.assertIn('-c synchronous_standby_names=', f'{self.production["users-db"]["command"]} ')

    def test_passwords_come_from_the_environment(self) -> None:
        node = self.config('node.yml')
        for section in (node['restapi']['authentication'], *node['postgresql']['authentication'].values()):
            self.assertEqual(set(section), {'username'})
        for name in self.NODES:
            for role in ('SUPERUSER', 'REPLICATION', 'RESTAPI'):
                password = self.services[name]['environment'][f'PATRONI_{role}_PASSWORD']
                self.assertRegex(password, r'^\$\{POSTGRES_PASSWORD\b')

    def test_shell_can_read_the_script_of_a_node(self) -> None:
        subprocess.run(['sh', '-n', CLUSTER / 'node.sh'], check=True)
