"""What closed forms are solved from: rows of codes of concepts, of their anchors, and of what is to stay."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from erase.edit import Edit
from erase.model import Rows
from erase.prompts.templates import Templates, chosen
from erase.request import Request
from erase.work import Step, Work

POOLED = "The pooled text vector is a second way into this model; a closed form does not reach it."


@dataclass(frozen=True)
class Gathered:
    """Codes in float64 on the CPU: concepts and their anchors row by row, kept concepts, and what every image reads."""

    present: Tensor
    absent: Tensor
    kept: Tensor
    resting: Tensor
    owners: tuple[int, ...]  # how many of the rows of `present` are each concept's
    pooled: bool

    @property
    def counts(self) -> dict[str, int]:
        """How many rows there are of each sort, for the record."""
        return {"pushed": len(self.present), "kept": len(self.kept), "resting": len(self.resting)}


def gather(request: Request, space: str, *, rows: Rows, kept_rows: Rows, templates: Templates) -> Work[Gathered]:
    """Everything a closed form reads of one code space, one Step per concept; words alone, nothing is drawn."""
    model, concepts, keep = request.model, request.concepts, request.keep
    pushed, kept = [], []
    with torch.no_grad():
        resting = model.resting_codes(space)
        pooled = len(model.spaces) == 1 and model.encode([""]).pooled is not None
    for done, concept in enumerate((*concepts, *keep), 1):
        erased = done <= len(concepts)
        with torch.no_grad():
            gaps = ("{}", *chosen(templates, concept))
            pair = model.contrast(concept, rows if erased else kept_rows, gaps, space)
        (pushed if erased else kept).append(pair)
        yield Step("encode", done, len(concepts) + len(keep))
    width = resting.shape[1]
    return Gathered(
        present=_rows([pair.present for pair in pushed], width),
        absent=_rows([pair.absent for pair in pushed], width),
        kept=_rows([pair.present for pair in kept], width),
        resting=_rows([resting], width),
        owners=tuple(len(pair.present) for pair in pushed),
        pooled=pooled,
    )


def each_space(request: Request, solve: Callable[[str], Work[Edit]]) -> Work[Edit]:
    """One edit of the solutions in every code space; what each says of itself stands under the space's name."""
    found: dict[str, Edit] = {}
    for space in request.model.spaces:
        found[space] = yield from solve(space)
    if len(found) == 1:
        return next(iter(found.values()))
    notes = dict.fromkeys(edit.about["note"] for edit in found.values() if "note" in edit.about)
    about: dict[str, Any] = {"spaces": {space: dict(edit.about) for space, edit in found.items()}}
    deltas = {name: delta for edit in found.values() for name, delta in edit.deltas.items()}
    return Edit(deltas, about | ({"note": " ".join(notes)} if notes else {}))


def _rows(parts: Sequence[Tensor], width: int) -> Tensor:
    """The rows of all parts, [0 width] if there are none, in float64 on the CPU."""
    return torch.cat([torch.empty(0, width, dtype=torch.float64), *(part.to("cpu", torch.float64) for part in parts)])
