"""What closed forms are solved from: rows of codes of concepts, of their anchors, and of what is to stay."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

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


def gather(request: Request, *, rows: Rows, kept_rows: Rows, templates: Templates) -> Work[Gathered]:
    """Everything a closed form reads of a model, one Step per concept; words alone, nothing is drawn."""
    model, concepts, keep = request.model, request.concepts, request.keep
    pushed, kept = [], []
    with torch.no_grad():
        resting, pooled = model.resting_codes(), model.encode([""]).pooled is not None
    for done, concept in enumerate((*concepts, *keep), 1):
        erased = done <= len(concepts)
        with torch.no_grad():
            pair = model.contrast(concept, rows if erased else kept_rows, ("{}", *chosen(templates, concept)))
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


def _rows(parts: Sequence[Tensor], width: int) -> Tensor:
    """The rows of all parts, [0 width] if there are none, in float64 on the CPU."""
    return torch.cat([torch.empty(0, width, dtype=torch.float64), *(part.to("cpu", torch.float64) for part in parts)])
