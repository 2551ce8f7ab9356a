"""Erasing in the directions that what is kept does not use: SPEED (Li et al., arXiv 2503.07392), in closed form.

With concept codes C, anchor codes A and kept codes R as columns, Q an orthonormal basis of the directions that R hardly
uses and P = QQᵀ, every reader W gets W(I + Δ), where Δ = E·Qᵀ minimises

    ‖W(I + Δ)C − WA‖² + β‖WΔ‖²,   so   Δ = (A − C)(CᵀPC + βI)⁻¹CᵀP.

UCE's hold is a penalty, and many concepts outweigh it; here Δr = 0 for every r outside Q, however many there are. With
`target="kept"` (after Double Projections) a concept goes to (I − P)C, the part of it that kept words already say: then
I + Δ has its spectrum in [0, 1] and amplifies no code.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, Field
from torch import Tensor

from erase.closed_form.fold import fold
from erase.closed_form.gather import POOLED, Gathered, each_space, gather
from erase.closed_form.subspace import Rule, centres, free_share, gram, held_change, outside, unused
from erase.concept import Concept
from erase.edit import Edit
from erase.model import BadInput, Denoiser, Rows
from erase.prompts.templates import Templates
from erase.request import Request
from erase.work import Step, Work

NEARLY_KEPT = 0.05  # of a concept's codes free to change, less than this: what is kept nearly contains it
# Of the way to its anchor such a concept may go: with less nothing is erased, with more the little that is free of it
# is amplified 1/√ρ-fold, and whatever else shares it is torn along.
SENSIBLE = (1e-3, 1 - 1e-3)


class NullSpace(BaseModel, frozen=True, extra="forbid"):
    """Moves the words of many concepts at once, and none of what is kept, in seconds and without training."""

    paper: ClassVar[str] = "SPEED: Scalable, Precise, and Efficient Concept Erasure (arXiv 2503.07392)"
    needs: ClassVar[type] = Denoiser
    joint: ClassVar[bool] = True  # any set of concepts is one solve, so one of them can be taken off exactly
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "style": {},
        "object": {},
        "nudity": {},
        "safe": {"target": "kept"},
        "paper": {"rows": "last", "kept_rows": "last", "templates": False, "rule": "speed",
                  "beta": 1.0, "readers": "v", "filter": True},
    }  # fmt: skip

    beta: float = Field(1.0, gt=0, le=1e4, description="regularisation (β); more is gentler on other pictures")
    hold: float = Field(
        0.99,
        ge=0,
        le=1,
        description="share of the kept codes' energy that may not move; more keeps better and erases less",
    )
    rule: Rule = Field(
        "energy", description="rule for the null space: the share `hold`, or the published fixed threshold"
    )
    target: Literal["anchor", "kept"] = Field(
        "anchor", description="drawn instead: the anchor, or the concept's projection onto the kept codes"
    )
    readers: Literal["kv", "v"] = Field("kv", description="edited layers: keys and values, or values alone")
    rows: Rows = Field(
        "tail", description="moved token codes: the concept's last token, also all after it, or the whole prompt"
    )
    kept_rows: Rows = Field("tail", description="held token codes of each kept concept, in the same terms")
    templates: Templates = Field(
        True, description="also move and hold words inside sentences: true, or a list such as 'a photo of {}'"
    )
    rest: Literal["all", "centres", "none"] = Field(
        "centres",
        description="held codes of the empty prompt: all, its start and three cluster centres, or none",
    )
    filter: bool = Field(False, description="hold only the kept codes that an unconstrained edit would move most")

    def solve(self, request: Request) -> Work[Edit]:
        """One solve for all concepts; nothing is drawn, so the seed has no part in it."""
        return (yield from each_space(request, lambda space: self._solve_space(request, space)))

    def _solve_space(self, request: Request, space: str) -> Work[Edit]:
        codes = yield from gather(request, space, rows=self.rows, kept_rows=self.kept_rows, templates=self.templates)
        B, Q = self.free(codes)
        shares = self._erasable(codes, B, Q, request.concepts)
        C = codes.present
        A = codes.absent if self.target == "anchor" else C - C @ Q @ Q.T
        change = held_change(C, A, Q, self.beta)
        yield Step("solve", 1, 1)
        readers = {
            name: layer
            for name, layer in request.model.readers(space).items()
            if self.readers == "kv" or not name.endswith("to_k")
        }
        deltas = yield from fold(readers, change)
        about: dict[str, Any] = {"rows": codes.counts, "free_directions": Q.shape[1], "erasability": shares}
        if notes := [*_warnings(shares), *([POOLED] if codes.pooled else [])]:
            about["note"] = " ".join(notes)
        return Edit(deltas, about)

    def free(self, codes: Gathered) -> tuple[Tensor, Tensor]:
        """B and Q [code q]: the directions that not every image reads, and those of them that may change.

        What is kept is weighed in B: codes of all words have much in common, which would pass for most of their energy.
        """
        rest = {"all": codes.resting, "centres": centres(codes.resting), "none": codes.resting[:0]}[self.rest]
        B = outside(rest)
        kept = codes.kept
        if self.filter and len(kept):
            moved = (kept @ held_change(codes.present, codes.absent, B, self.beta).T).norm(dim=1)
            kept = kept[moved > moved.mean()]
        return B, B @ unused(gram(kept @ B), self.hold, self.rule)

    def _erasable(self, codes: Gathered, B: Tensor, Q: Tensor, concepts: Sequence[Concept]) -> dict[str, float]:
        """ρ of each concept, the mean over its rows; BadInput for one that cannot be erased without what is kept."""
        shares = {}
        for concept, C in zip(concepts, codes.present.split(codes.owners), strict=True):
            rho = float(free_share(C, Q, B).mean())
            size = float((C @ Q).square().sum(1).mean())
            if rho < NEARLY_KEPT and not SENSIBLE[0] < size / (size + self.beta) < SENSIBLE[1]:
                raise BadInput(
                    f"What is kept contains {concept.name!r}: only {rho:.1%} of it is free to change. "
                    "Keep fewer concepts, lower --hold, or raise --beta if it is near 0."
                )
            shares[concept.name] = round(rho, 6)
        return shares


def _warnings(shares: Mapping[str, float]) -> list[str]:
    return [
        f"What you keep nearly contains {name!r}: only {share:.1%} of it is free to change, so it may stay."
        for name, share in shares.items()
        if share < NEARLY_KEPT
    ]
