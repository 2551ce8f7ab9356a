"""What a verb answers: one JSON document for programs, some lines for people, and an exit code."""

from __future__ import annotations

import shutil
import sys
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

NARROW = 20  # columns are not made narrower


@dataclass(frozen=True)
class Answer:
    """`document` is printed with --json, `text` without."""

    document: Any
    text: str
    code: int = 0


def fitted(head: Sequence[str], rows: Sequence[Sequence[object]], columns: int | None = None) -> str:
    """The same within a terminal: its widest column is broken into lines. None asks stdout, which may be a file."""
    if columns is None:
        # A verb's own stdout is stderr, so that libraries print there.
        if sys.__stdout__ is None or not sys.__stdout__.isatty():
            return table(head, rows)
        columns = shutil.get_terminal_size().columns
    lines = [tuple(map(str, line)) for line in (head, *rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    while sum(widths) + 2 * (len(widths) - 1) > columns and max(widths) > NARROW:
        widths[widths.index(max(widths))] -= 1
    broken = []
    for row in lines[1:]:
        cells = [textwrap.wrap(cell, width) or [""] for cell, width in zip(row, widths, strict=True)]
        broken += [[cell[at] if at < len(cell) else "" for cell in cells] for at in range(max(map(len, cells)))]
    return table(head, broken)


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Aligned columns under a ruled head."""
    lines = [tuple(map(str, line)) for line in (head, *rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    lines.insert(1, tuple("-" * width for width in widths))
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )
