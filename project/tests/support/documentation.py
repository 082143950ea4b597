"""The Markdown pages of the project: their code blocks, their headings and their links."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from project.tests.base import ROOT

FENCE = re.compile(r'^```(\w*)\n(.*?)^```$', re.MULTILINE | re.DOTALL)
INLINE_CODE = re.compile(r'`[^`\n]*`')
HEADING = re.compile(r'^#+ +(.+?) *$', re.MULTILINE)
# The target in [text](target), which may be an image in a link, and in a definition [name]: target.
LINK = re.compile(r'\]\(([^)\s]+)\)|^\[[^\]]+]: +(\S+)', re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """A code block.

    :ivar language: the word after the fence, such as ``sh``.
    :ivar line: the number of its first line in the page.
    """

    language: str
    text: str
    line: int

    def commands(self) -> Iterator[tuple[str, str]]:
        """Return each command with the output that the page shows: of a ``console`` block, after each ``$``."""
        for part in re.split(r'^\$ ', self.text, flags=re.MULTILINE)[1:]:
            command, _, output = part.partition('\n')
            yield command, output.rstrip()


def pages() -> list[Path]:
    """Return the pages that are in the repository; none if this is a copy without its README."""
    found = [ROOT / 'README.md', ROOT / 'CHANGELOG.md', ROOT / 'project/client/README.md', *ROOT.glob('docs/**/*.md')]
    return [page for page in found if page.is_file()]


def blocks(page: Path) -> list[Block]:
    """Return the code blocks of a page, in their order."""
    text = page.read_text(encoding='utf-8')
    return [Block(match[1], match[2], text[: match.start()].count('\n') + 2) for match in FENCE.finditer(text)]


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them: lower case, hyphens, numbered if repeated."""
    found: set[str] = set()
    for heading in HEADING.findall(FENCE.sub('', page.read_text(encoding='utf-8'))):
        text = re.sub(r'\[([^\]]*)]\([^)]*\)', r'\1', heading).lower()
        name = anchor = re.sub(r'[^\w\- ]', '', text).replace(' ', '-')
        number = 0
        while anchor in found:
            number += 1
            anchor = f'{name}-{number}'
        found.add(anchor)
    return found


def links(page: Path) -> list[str]:
    """Return the targets of a page's links that are within the repository."""
    text = INLINE_CODE.sub('', FENCE.sub('', page.read_text(encoding='utf-8')))
    targets = [inline or defined for inline, defined in LINK.findall(text)]
    return [target for target in targets if not re.match('[a-z]+:', target)]


def broken_links(page: Path) -> list[str]:
    """Return the targets of links to a file, a folder or a heading that does not exist."""
    broken = []
    for target in links(page):
        path, _, anchor = target.partition('#')
        file = (page.parent / path).resolve() if path else page
        if not file.exists() or (anchor and anchor not in anchors(file)):
            broken.append(target)
    return broken
