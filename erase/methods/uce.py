"""Unified Concept Editing in Diffusion Models (Gandikota et al., WACV 2024, arXiv 2308.14761), in closed form.

With concept codes C, anchor codes A and kept codes R as columns, every reader W gets the W' that minimises

    e‖W'C − WA‖² + h‖W'R − WR‖² + λ‖W' − W‖².

All readers take the same codes, so the solution is one map of code space, folded into each of them:

    W' = W(I + Δ),   Δ = e(A − C)Cᵀ G⁻¹,   G = eCCᵀ + hRRᵀ + λI.

The published code moves one row of each prompt (`paper`). By default all that follows the concept moves too, inside a
few sentences as well: a text encoder spreads a word over what comes after it. λ is larger in return, for rows are many.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from pydantic import BaseModel, Field
from torch import Tensor

from erase.closed_form.fold import fold
from erase.closed_form.gather import POOLED, each_space, gather
from erase.edit import Edit
from erase.model import Denoiser, Rows
from erase.prompts.templates import Templates
from erase.request import Request
from erase.work import Step, Work

FULL_HOLD = 10  # a list of more rows than this shares the hold of this many, so that its length does not matter


def change(C: Tensor, A: Tensor, R: Tensor, *, e: float, h: Tensor, damping: float) -> Tensor:
    """Δ [code code] for rows C, A [n code] and kept rows R [m code] with a weight each, h [m]; all float64."""
    G = e * C.T @ C + R.T @ (h[:, None] * R) + damping * torch.eye(C.shape[1], dtype=C.dtype)
    return torch.linalg.solve(G, e * C.T @ (A - C)).T  # G is symmetric, so this is e(A − C)Cᵀ G⁻¹ of column notation


def hold_weights(hold: float, rows: int) -> Tensor:
    """h of each of `rows` kept rows: `hold`, or less for long lists."""
    return torch.full((rows,), hold * min(1.0, FULL_HOLD / max(rows, 1)), dtype=torch.float64)


class UCE(BaseModel, frozen=True, extra="forbid"):
    """Moves the words of a concept onto its anchor's, in seconds and without training."""

    paper: ClassVar[str] = "Unified Concept Editing in Diffusion Models (arXiv 2308.14761)"
    needs: ClassVar[type] = Denoiser
    joint: ClassVar[bool] = True  # any set of concepts is one solve, so one of them can be taken off exactly
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "style": {},
        "object": {},
        "nudity": {},
        "paper": {"rows": "last", "templates": False, "damping": 0.5, "rest": False},
    }

    push: float = Field(1.0, gt=0, le=1e4, description="weight of the concept (e)")
    hold: float = Field(1.0, ge=0, le=1e6, description="weight of kept concepts (h)")
    damping: float = Field(6.0, gt=0, le=1e4, description="regularisation towards the unedited weights (λ)")
    rows: Rows = Field(
        "tail", description="moved token codes: the concept's last token, also all after it, or the whole prompt"
    )
    kept_rows: Rows = Field("last", description="held token codes of each kept concept, in the same terms")
    templates: Templates = Field(
        True, description="also move the concept inside sentences: true, or a list such as 'a photo of {}'"
    )
    rest: bool = Field(
        True, description="also hold the codes of the start token and of the empty prompt, which every image reads"
    )

    def solve(self, request: Request) -> Work[Edit]:
        """One solve for all concepts; nothing is drawn, so the seed has no part in it."""
        return (yield from each_space(request, lambda space: self._solve_space(request, space)))

    def _solve_space(self, request: Request, space: str) -> Work[Edit]:
        codes = yield from gather(request, space, rows=self.rows, kept_rows=self.kept_rows, templates=self.templates)
        held = [codes.kept, codes.resting if self.rest else codes.resting[:0]]
        h = torch.cat([hold_weights(self.hold, len(rows)) for rows in held])
        delta = change(codes.present, codes.absent, torch.cat(held), e=self.push, h=h, damping=self.damping)
        yield Step("solve", 1, 1)
        deltas = yield from fold(request.model.readers(space), delta)
        about: dict[str, Any] = {"rows": codes.counts | {"resting": len(held[1])}}
        if codes.pooled:
            about["note"] = POOLED
        return Edit(deltas, about)
