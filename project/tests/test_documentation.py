"""The README and the pages in ``docs``: their links, their length, and the paths and commands that they name."""

import re
import tempfile
import unittest
from pathlib import Path

from project.tests.base import ROOT
from project.tests.support import documentation

README = ROOT / 'README.md'
MOST_LINES = 170
PATH = re.compile(r'`((?:project|docs|\.ci|\.github)/[\w./-]+)`')
COMMAND = re.compile(r'manage\.py (db )?([a-z]\w+)')


# The tests also run in the image, which has no pages.
@unittest.skipUnless(README.exists(), 'needs the README')
class PagesTest(unittest.TestCase):
    def test_every_relative_link_leads_to_a_file_or_a_heading(self) -> None:
        for page in documentation.pages():
            with self.subTest(page=page.relative_to(ROOT)):
                self.assertEqual(documentation.broken_links(page), [])

    def test_readme_links_every_page(self) -> None:
        linked = {(ROOT / target.partition('#')[0]).resolve() for target in documentation.links(README)}
        self.assertEqual([page.name for page in ROOT.glob('docs/*.md') if page not in linked], [])

    def test_readme_is_two_screens(self) -> None:
        self.assertLessEqual(len(README.read_text(encoding='utf-8').splitlines()), MOST_LINES)

    def test_the_two_lines_of_the_readme_differ_in_their_last_word(self) -> None:
        lines = [block.text.strip() for block in documentation.blocks(README) if 'python3 -m venv' in block.text]
        start, test = (line.rpartition(' ') for line in lines)
        self.assertEqual((start[0], start[2], test[2]), (test[0], 'runserver', 'test'))

    def test_every_path_that_is_named_exists(self) -> None:
        for page in documentation.pages():
            for path in PATH.findall(page.read_text(encoding='utf-8')):
                with self.subTest(page=page.relative_to(ROOT), path=path):
                    self.assertTrue((ROOT / path).exists())

    def commands(self) -> list[str]:
        """Return the names of the commands of manage.py."""
        return re.findall(r"add_command\('(\w+)'", (ROOT / 'manage.py').read_text(encoding='utf-8'))

    def test_readme_lists_every_command(self) -> None:
        rows = [line for line in README.read_text(encoding='utf-8').splitlines() if line.startswith('| `')]
        named = set(re.findall(r'`(\w+)', ' '.join(rows)))
        self.assertEqual(set(self.commands()) - named, set())

    def test_every_command_that_is_named_exists(self) -> None:
        schema = (ROOT / 'project/commands/schema.py').read_text(encoding='utf-8')
        known = {('', name) for name in self.commands()}
        known |= {('db ', name) for name in re.findall(r'^def ([a-z]\w+)', schema, re.MULTILINE)}
        for page in documentation.pages():
            for command in COMMAND.findall(page.read_text(encoding='utf-8')):
                with self.subTest(page=page.relative_to(ROOT), command=''.join(command)):
                    self.assertIn(command, known)


class DocumentationTest(unittest.TestCase):
    """The functions that read the pages."""

    def page(self, text: str) -> Path:
        """Return a page with this text."""
        page = Path(self.enterContext(tempfile.TemporaryDirectory()), 'page.md')
        page.write_text(text, encoding='utf-8')
        return page

    def test_broken_links_are_found(self) -> None:
        page = self.page(
            '# One `two`: three!\n\n## Again\n\n## Again\n\n[a](#one-two-three) [b](#again-1) [c](page.md#again)\n'
            '[d](#again-2) [e](missing.md) [![f](missing.png)](#one) [g](https://example.com/x) `[h](x.md)`\n\n'
            '```sh\n[i](x.md)\n# not a heading\n```\n\n[j]: missing.txt\n[k](#not-a-heading)\n'
        )
        broken = ['#again-2', 'missing.md', 'missing.png', '#one', 'missing.txt', '#not-a-heading']
        self.assertEqual(documentation.broken_links(page), broken)

    def test_commands_of_a_console_block(self) -> None:
        page = self.page('text\n\n```console\n$ one\n1\n\n2\n\n$ two $3\n```\n')
        [block] = documentation.blocks(page)
        self.assertEqual((block.language, block.line), ('console', 4))
        self.assertEqual(list(block.commands()), [('one', '1\n\n2'), ('two $3', '')])
