"""The code blocks of the documentation: what they are, and how their output is compared with what a page promises.

A page's blocks follow four conventions, so that the tests can run what a reader would:

* a block whose first line is a comment with a path (`# models/doubler/1/model.py`) is that file;
* a `python` block whose first line names a script (`# export_squares.py`) runs before the server starts, any other
  one after that; a `text` block right behind it is its output;
* a `console` block has commands behind `$ `, each followed by its output;
* in outputs `...` stands for any text, and white space counts as one blank.
"""

import doctest
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])

_FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_FILE = re.compile(r"\A(?:#|//) ((?:[\w.-]+/)*[\w.-]+\.\w+)\n")


class Block(NamedTuple):
    """One fenced block; `line` is that of its opening fence. `follower` is the next block if nothing lies between."""

    page: Path
    line: int
    language: str
    text: str
    follower: "Block | None" = None

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    @property
    def file(self) -> str:
        """The path in the block's first line, "" when there is none."""
        match = _FILE.match(self.text)
        return match[1] if match else ""

    @property
    def output(self) -> str:
        """What the block is said to print."""
        return self.follower.text if self.follower is not None and self.follower.language == "text" else ""


class Command(NamedTuple):
    """One command of a `console` block, and what it prints."""

    block: Block
    text: str
    output: str


def blocks(*languages: str) -> list[Block]:
    """The blocks in these languages, in the order of pages and lines."""
    return [block for page in PAGES for block in _blocks_of(page) if block.language in languages]


def commands(block: Block) -> Iterator[Command]:
    """The commands of a `console` block; a line that ends in a backslash goes on in the next."""
    for part in re.split(r"^\$ ", block.text, flags=re.MULTILINE)[1:]:
        lines = part.splitlines(keepends=True)
        end = next(number for number, line in enumerate(lines, 1) if not line.endswith("\\\n"))
        yield Command(block, "".join(lines[:end]).strip(), "".join(lines[end:]))


def matches(promised: str, printed: str) -> bool:
    """Is the output what the page says?"""
    options = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    return doctest.OutputChecker().check_output(promised.strip(), printed.strip(), options)


def _blocks_of(page: Path) -> Iterator[Block]:
    text = page.read_text()
    found = list(_FENCE.finditer(text))
    follower: Block | None = None
    made: list[Block] = []
    for index, match in reversed(list(enumerate(found))):
        if index + 1 < len(found) and text[match.end() : found[index + 1].start()].strip():
            follower = None
        block = Block(page, text.count("\n", 0, match.start()) + 1, match[1], match[2], follower)
        made.append(block)
        follower = block
    yield from reversed(made)
