"""What a verb answers: one JSON document for programs, some lines for people, and an exit code."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Answer:
    """`document` is printed with --json, `text` without."""

    document: Any
    text: str
    code: int = 0


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Aligned columns under a ruled head."""
    lines = [tuple(map(str, line)) for line in (head, *rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    lines.insert(1, tuple("-" * width for width in widths))
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )
