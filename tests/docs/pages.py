"""The pages of the documentation, cut into what can be checked: code blocks, tables, links."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
BY_NAME = {str(page.relative_to(ROOT)): page for page in PAGES}

_BLOCK = re.compile(r"^```(?P<info>[^\n`]+)\n(?P<code>.*?)^```\s*$", re.M | re.S)
_LINK = re.compile(r"\[[^\]]*\]\((?P<target>[^)\s]+)\)")


@dataclass(frozen=True)
class Block:
    """One fenced block: its page, its first word (`python`), whether it may be run, its first line, its text."""

    page: str
    kind: str
    runs: bool
    line: int
    code: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def blocks(page: str, *kinds: str) -> list[Block]:
    """The blocks of these kinds on a page, in order."""
    text = BY_NAME[page].read_text(encoding="utf-8")
    found = []
    for match in _BLOCK.finditer(text):
        kind, *flags = match["info"].split()
        line = text.count("\n", 0, match.start("code")) + 1
        found.append(Block(page, kind, "no-run" not in flags, line, match["code"]))
    return [block for block in found if block.kind in kinds]


def prose(page: str) -> str:
    """A page without its blocks."""
    return _BLOCK.sub("", BY_NAME[page].read_text(encoding="utf-8"))


def links(page: str) -> list[str]:
    """The targets of a page's links that point into this repository."""
    targets = [match["target"] for match in _LINK.finditer(prose(page))]
    return [t for t in targets if not re.match(r"[a-z]+:", t)]


def anchors(path: Path) -> set[str]:
    """What links to a page's headings look like."""
    headings = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), re.M)
    return {re.sub(r"[^\w\- ]", "", h.lower()).strip().replace(" ", "-") for h in headings}


def tables(page: str) -> list[list[list[str]]]:
    """The tables of a page; each is a list of rows, each row a list of cells; the first row is the header."""
    found: list[list[list[str]]] = [[]]
    for line in prose(page).splitlines():
        if line.startswith("|"):
            found[-1].append([cell.strip() for cell in line.strip("|").split("|")])
        elif found[-1]:
            found.append([])
    return [[table[0], *table[2:]] for table in found if len(table) > 2]


def table(page: str, first: str) -> list[list[str]]:
    """The rows of the one table of a page whose first column has this title."""
    chosen = [t for t in tables(page) if t[0][0] == first and t[1][0].startswith("`")]
    assert len(chosen) == 1, f"{page} has {len(chosen)} tables that begin with {first!r}"
    return chosen[0][1:]


def commands(page: str) -> list[tuple[Block, list[str]]]:
    """What follows `expunge` in the terminal blocks of a page, as words."""
    found = []
    for block in blocks(page, "console", "bash", "sh", "shell"):
        for line in block.code.replace("\\\n", " ").splitlines():
            words = shlex.split(line.removeprefix("$ "), comments=True)
            while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):  # variables set for this command
                words.pop(0)
            if words and words[0] == "expunge":
                found.append((block, words[1:]))
    return found
