"""The Kubernetes manifests of docs/kubernetes against the published schemas, and against each other.

Run by name: ``python manage.py test manifests``, after ``pip install -r .ci/requirements.txt``: kubernetes-validate
provides the schemas. The schema of CloudNativePG's Cluster is not published as a package, so the names of its
fields are compared with a list.
"""

import unittest
from collections.abc import Iterator
from typing import Any

import kubernetes_validate
import yaml

import project
from project.tests.base import ROOT

FOLDER = ROOT / 'docs' / 'kubernetes'
VERSIONS = ('1.31', '1.37')
CLUSTER = 'postgresql.cnpg.io/v1'
CONNECTIONS = 15  # that a worker may hold: docs/growing.md
STOPPING = 2  # pods that may still hold connections during an update, and that a Deployment does not count
# Fields of a Cluster's spec, from the operator's API reference: https://cloudnative-pg.io/docs/1.28/cloudnative-pg.v1
# Those below resources are Kubernetes' own, and that below parameters is PostgreSQL's.
FIELDS = {
    *('imageName', 'instances', 'storage.size'),
    *('affinity.podAntiAffinityType', 'affinity.topologyKey'),
    *(f'bootstrap.initdb.{name}' for name in ('database', 'owner', 'encoding', 'dataChecksums')),
    *(f'postgresql.synchronous.{name}' for name in ('method', 'number', 'dataDurability', 'failoverQuorum')),
    'postgresql.parameters.max_connections',
    *('resources.requests.cpu', 'resources.requests.memory', 'resources.limits.memory'),
}


def documents() -> list[tuple[str, dict[str, Any]]]:
    """Return each document of each manifest, with the name of its file."""
    return [
        (file.name, document)
        for file in sorted(FOLDER.glob('*.yaml'))
        for document in yaml.safe_load_all(file.read_text())
    ]


def find(kind: str, name: str) -> dict[str, Any]:
    """Return a document by its kind and name."""
    [found] = [each for _, each in documents() if (each['kind'], each['metadata']['name']) == (kind, name)]
    return found


def fields(value: Any, path: str = '') -> Iterator[str]:
    """Yield the path of each field that has no fields of its own, such as ``storage.size``."""
    if not isinstance(value, dict):
        yield path
        return
    for name, inner in value.items():
        yield from fields(inner, f'{path}.{name}' if path else name)


def pods() -> list[dict[str, Any]]:
    """Return the pod templates."""
    return [find('Deployment', 'users-service')['spec']['template'], find('Job', 'users-migrate')['spec']['template']]


class ManifestsTest(unittest.TestCase):
    def test_schemas_of_kubernetes_accept_each_document(self):
        kinds = set()
        for name, document in documents():
            if document['apiVersion'] != CLUSTER:
                kinds.add(document['kind'])
                for version in VERSIONS:
                    with self.subTest(file=name, kind=document['kind'], version=version):
                        kubernetes_validate.validate(document, version, strict=True)
        expected = {'Deployment', 'Service', 'PodDisruptionBudget', 'HorizontalPodAutoscaler', 'Job', 'NetworkPolicy'}
        self.assertEqual(kinds, expected)

    def test_schemas_reject_a_misspelt_field(self):
        document = find('Deployment', 'users-service')
        document['spec']['template']['spec']['containers'][0]['livenesProbe'] = {}
        with self.assertRaises(kubernetes_validate.ValidationError):
            kubernetes_validate.validate(document, VERSIONS[-1], strict=True)

    def test_pods_are_as_restricted_as_the_containers(self):
        for pod in pods():
            spec = pod['spec']
            [container] = spec['containers']
            with self.subTest(container=container['name']):
                self.assertIs(spec['automountServiceAccountToken'], False)
                self.assertIs(spec['securityContext']['runAsNonRoot'], True)
                # The user of the Dockerfile.
                self.assertIn(f'--uid {spec["securityContext"]["runAsUser"]} ', (ROOT / 'Dockerfile').read_text())
                expected = {
                    'readOnlyRootFilesystem': True,
                    'allowPrivilegeEscalation': False,
                    'capabilities': {'drop': ['ALL']},
                }
                self.assertEqual(container['securityContext'], expected)
                self.assertEqual([mount['mountPath'] for mount in container['volumeMounts']], ['/tmp'])
                self.assertIn('memory', container['resources']['limits'])

    def test_probes_request_paths_that_exist(self):
        [container] = find('Deployment', 'users-service')['spec']['template']['spec']['containers']
        paths = {probe: container[f'{probe}Probe']['httpGet']['path'] for probe in ('startup', 'liveness', 'readiness')}
        self.assertEqual(paths, {'startup': '/ping', 'liveness': '/ping', 'readiness': '/health'})
        contract = yaml.safe_load((ROOT / 'project' / 'api' / 'openapi.yaml').read_text())
        self.assertLessEqual(set(paths.values()), set(contract['paths']))

    def test_selectors_match_the_pods(self):
        deployment, job = pods()
        labels = deployment['metadata']['labels']
        selected = find('Deployment', 'users-service')['spec']['selector']['matchLabels']
        self.assertLessEqual(selected.items(), labels.items())
        self.assertLessEqual(find('Service', 'users-service')['spec']['selector'].items(), labels.items())
        for kind, selector in (('PodDisruptionBudget', 'selector'), ('NetworkPolicy', 'podSelector')):
            matched = find(kind, 'users-service')['spec'][selector]['matchLabels']
            self.assertLessEqual(matched.items(), labels.items(), kind)
        matched = find('NetworkPolicy', 'users-migrate')['spec']['podSelector']['matchLabels']
        self.assertLessEqual(matched.items(), job['metadata']['labels'].items())
        allowed = find('NetworkPolicy', 'users-db')['spec']['ingress'][0]['from'][0]['podSelector']['matchLabels']
        for pod in (deployment, job):
            self.assertLessEqual(allowed.items(), pod['metadata']['labels'].items())
        scaled = find('HorizontalPodAutoscaler', 'users-service')['spec']['scaleTargetRef']
        self.assertEqual(find(scaled['kind'], scaled['name'])['apiVersion'], scaled['apiVersion'])

    def test_database_is_a_cluster_that_replicates_synchronously(self):
        cluster = find('Cluster', 'users-db')
        self.assertEqual(cluster['apiVersion'], CLUSTER)
        spec = cluster['spec']
        self.assertEqual(spec['instances'], 3)
        expected = {'method': 'any', 'number': 1, 'dataDurability': 'required', 'failoverQuorum': True}
        self.assertEqual(spec['postgresql']['synchronous'], expected)
        self.assertTrue(all(isinstance(value, str) for value in spec['postgresql']['parameters'].values()))
        self.assertEqual(spec['bootstrap']['initdb']['encoding'], 'UTF8')
        self.assertRegex(spec['storage']['size'], r'^\d+Gi$')

    def test_names_of_the_fields_of_the_cluster_are_those_of_the_operator(self):
        self.assertEqual(set(fields(find('Cluster', 'users-db')['spec'])) - FIELDS, set())

    def test_operator_makes_the_secret_that_the_pods_read(self):
        cluster = find('Cluster', 'users-db')['metadata']['name']
        for pod in pods():
            [container] = pod['spec']['containers']
            [url] = [entry for entry in container['env'] if entry['name'] == 'DATABASE_URL']
            self.assertEqual(url['valueFrom']['secretKeyRef'], {'name': f'{cluster}-app', 'key': 'uri'})

    def test_all_pods_together_have_enough_connections(self):
        deployment = find('Deployment', 'users-service')['spec']
        [container] = deployment['template']['spec']['containers']
        [workers] = [int(entry['value']) for entry in container['env'] if entry['name'] == 'WEB_CONCURRENCY']
        most = find('HorizontalPodAutoscaler', 'users-service')['spec']['maxReplicas']
        most += deployment['strategy']['rollingUpdate']['maxSurge'] + STOPPING
        parameters = find('Cluster', 'users-db')['spec']['postgresql']['parameters']
        self.assertLess(most * workers * CONNECTIONS, int(parameters['max_connections']))

    def test_both_workloads_have_the_image_of_this_version(self):
        images = {container['image'] for pod in pods() for container in pod['spec']['containers']}
        self.assertEqual(images, {f'registry.example.com/users-service:{project.__version__}'})
