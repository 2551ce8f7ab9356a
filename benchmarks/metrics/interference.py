"""What erasing one concept does to every other: rows are erased concepts, columns the labels whose accuracy changed."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict

Z = 1.959963984540054
WORST = 5


class Change(BaseModel):
    """The accuracy on one label after an erasure minus before, over n images, with its 95 % interval."""

    model_config = ConfigDict(frozen=True)

    change: float
    n: int
    low: float
    high: float


class Matrix(BaseModel):
    """Changes by erased concept and label; `mean` leaves the erased concepts themselves out."""

    model_config = ConfigDict(frozen=True)

    cells: Mapping[str, Mapping[str, Change]]
    worst: Mapping[str, tuple[str, ...]]
    mean: float | None
    asymmetry: float | None


def interference(judged: Iterable[tuple[str, Sequence[Mapping[str, Any]]]]) -> Matrix:
    """The matrix of several erasures, each an erased label with its report's rows; runs of one label are pooled.

    Images that ask for the erased concept count in its own column alone: what they lose says nothing about the others.
    """
    pairs: defaultdict[str, defaultdict[str, list[tuple[bool, bool]]]] = defaultdict(lambda: defaultdict(list))
    for erased, rows in judged:
        for row in rows:
            if "before" in row and "after" in row:
                shows = erased in (row["style"], row["object"])
                for kind in ("style", "object"):
                    if not shows or row[kind] == erased:
                        hit = (row["before"][kind] == row[kind], row["after"][kind] == row[kind])
                        pairs[erased][row[kind]].append(hit)
    cells = {
        erased: {label: changed(hits) for label, hits in sorted(by_label.items())}
        for erased, by_label in sorted(pairs.items())
    }
    off = [cell.change for erased, row in cells.items() for label, cell in row.items() if label != erased]
    both = [(i, j) for i in cells for j in cells if i < j and j in cells[i] and i in cells[j]]
    lopsided = [abs(cells[i][j].change - cells[j][i].change) for i, j in both]
    return Matrix(
        cells=cells,
        worst={erased: _worst(erased, row) for erased, row in cells.items()},
        mean=math.fsum(off) / len(off) if off else None,
        asymmetry=math.fsum(lopsided) / len(lopsided) if lopsided else None,
    )


def changed(hits: Sequence[tuple[bool, bool]]) -> Change:
    """The change of paired hits (before, after), with Agresti and Min's interval: half an image added to each cell."""
    n = len(hits)
    lost, won = sum(was and not now for was, now in hits), sum(now and not was for was, now in hits)
    padded, difference, moved = n + 2, won - lost, won + lost + 1
    half = Z * math.sqrt(moved - difference**2 / padded) / padded
    middle, change = difference / padded, difference / n
    return Change(
        change=change, n=n, low=max(-1.0, min(middle - half, change)), high=min(1.0, max(middle + half, change))
    )


def _worst(erased: str, row: Mapping[str, Change]) -> tuple[str, ...]:
    """The labels that lost most, at most five, the erased one left out."""
    hurt = sorted((cell.change, label) for label, cell in row.items() if label != erased and cell.change < 0)
    return tuple(label for _, label in hurt[:WORST])
