"""The contract in the tools of client authors: it is valid OpenAPI, and generates types for TypeScript.

Not among the tests that run by default: ``python manage.py test client_types``, after
``pip install -r .ci/requirements.txt``. It needs Node with npm, which fetches the generator and the compiler.
"""

import re
import subprocess
import tempfile
import unittest
from pathlib import Path

import yaml
from jsonschema import Draft202012Validator
from openapi_spec_validator import validate

from project.tests.base import ROOT

DOCUMENT = ROOT / 'project' / 'api' / 'openapi.yaml'
# The usual generator, and the newest compiler that it supports.
PACKAGES = ('openapi-typescript@7.13.0', 'typescript@5.9.3')
USAGE = """
import type { components, operations, paths } from './users'

type User = components['schemas']['User']
type Users = paths['/users']['get']['responses'][200]['content']['application/json']
type Failure = operations['addUser']['responses'][400]['content']['application/json']

export async function firstPage(limit: number): Promise<User[]> {
  const query: NonNullable<paths['/users']['get']['parameters']['query']> = { limit, active: true }
  const response = await fetch(`/users?limit=${query.limit}`)
  const body = (await response.json()) as Users
  const next: string | undefined = body.data.next
  return next ? body.data.users : []
}

export function wrongFields(failure: Failure): string[] {
  const status: 'fail' = failure.status
  return [status, ...Object.keys(failure.errors ?? {})]
}

export const ann: components['schemas']['NewUser'] = { username: 'ann', email: 'ann@example.com' }
export const change: components['schemas']['Changes'] = { active: true }
export const created: User['created_at'] = '2026-11-22T16:13:51.482913Z'
export const id: User['id'] = 1

// @ts-expect-error: a user has an address
export const incomplete: components['schemas']['NewUser'] = { username: 'ann' }
// @ts-expect-error: the list has no DELETE
export const removal: paths['/users']['delete'] = {}
"""


class DocumentTest(unittest.TestCase):
    def setUp(self):
        self.document = yaml.safe_load(DOCUMENT.read_text())

    def test_document_is_valid_openapi(self):
        validate(self.document)

    def test_every_example_satisfies_its_schema(self):
        examples = list(self.examples(self.document))
        self.assertGreater(len(examples), 30)
        for schema, example in examples:
            with self.subTest(schema=schema, example=example):
                # The references in a schema are resolved from its root.
                whole = {**schema, 'components': self.document['components']}
                Draft202012Validator(whole, format_checker=Draft202012Validator.FORMAT_CHECKER).validate(example)

    def examples(self, node):
        """Every example below ``node``, with the schema beside it."""
        if isinstance(node, list):
            node = dict(enumerate(node))
        if not isinstance(node, dict):
            return
        if 'schema' in node:
            if 'example' in node:
                yield node['schema'], node['example']
            for example in node.get('examples', {}).values():
                yield node['schema'], example['value']
        for child in node.values():
            yield from self.examples(child)


def without_comments(declarations: str) -> list[str]:
    """Return the lines of a generated file that mean something to a compiler."""
    lines = re.sub(r'/\*.*?\*/', '', declarations, flags=re.DOTALL).splitlines()
    return [line.strip() for line in lines if line.strip()]


class TypeScriptTest(unittest.TestCase):
    def run_in(self, folder, *command):
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=300)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

    def test_types_compile_under_strict_know_the_contract_and_are_those_of_the_page(self):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            self.run_in(folder, 'npm', 'install', '--no-audit', '--no-fund', '--ignore-scripts', *PACKAGES)
            self.run_in(folder, 'npx', '--no-install', 'openapi-typescript', DOCUMENT, '--output', 'users.d.ts')
            generated = without_comments((folder / 'users.d.ts').read_text())
            of_the_page = without_comments((ROOT / 'project' / 'client' / 'src' / 'contract.d.ts').read_text())
            self.assertEqual(of_the_page, generated, 'run "npm run contract" in project/client')
            (folder / 'usage.ts').write_text(USAGE)
            options = ('--strict', '--noEmit', '--target', 'es2022', '--lib', 'es2022,dom', '--skipLibCheck', 'false')
            self.run_in(folder, 'npx', '--no-install', 'tsc', *options, 'usage.ts', 'users.d.ts')
