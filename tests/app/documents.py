"""The fenced blocks of our documents, so that tests can run what readers are told to type."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
BUNDLED = "<!-- needs the bundled model -->"


@dataclass(frozen=True)
class Block:
    """One fenced block: its language, its text, and whether it is marked as needing the bundled model."""

    language: str
    text: str
    needs_model: bool

    @property
    def commands(self) -> list[list[str]]:
        """The words of each `$ command` of a console block."""
        return [shlex.split(line[2:]) for line in self.text.splitlines() if line.startswith("$ ")]


def blocks(name: str, language: str) -> list[Block]:
    """All blocks of a language in a document, in order."""
    text = (ROOT / name).read_text(encoding="utf-8")
    found = re.findall(rf"(?ms)^(?:({re.escape(BUNDLED)})\n)?```{language}\n(.*?)^```$", text)
    return [Block(language, body, bool(mark)) for mark, body in found]
