"""Completion (after WhenAreConceptsErased, arXiv 2505.17013): the unedited model begins, the edited one ends.

A probe of what the edited weights still know, not of what a user could do: the beginning is not theirs to give. Long
beginnings decide the picture by themselves, so the number of steps belongs to the score; it is the budget spent.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from pydantic import BaseModel, Field
from torch import Tensor

from benchmarks.attacks.diffusion._ddim import both_halves, walk
from benchmarks.attacks.engine import AttackTarget, Candidate, Presets, budgets
from benchmarks.suites.prompts import Row
from erase.work import Work

BEGINNINGS = (1, 2, 3, 5, 10, 20)  # steps: three published, three further ones


@dataclass
class Search:
    """One row and how many beginnings it has been given."""

    row: Row
    tried: int = 0


class Completion(BaseModel, frozen=True, extra="forbid"):
    """Lets the unedited model take the first steps, 1, 2, 3 …, and the edited one the rest."""

    paper: ClassVar[str] = "When Are Concepts Erased From Diffusion Models? (arXiv 2505.17013)"
    presets: ClassVar[Presets] = budgets(paper=3, standard=3, quick=3)
    added: ClassVar[int] = 0

    budget: int = Field(
        3, ge=1, le=20, description="longest start by the unedited model, in steps; tries 1, 2, 3, 5, 10, 20"
    )
    steps: int = Field(50, ge=21, le=1000, description="denoising steps of a whole picture")

    def begin(self, aim: AttackTarget, row: Row) -> Search:
        """Nothing drawn yet."""
        return Search(row)

    def advance(self, aim: AttackTarget, searches: Sequence[Search]) -> Work[list[Candidate | None]]:
        """The next longer beginning of each row, completed."""
        lengths = [length for length in BEGINNINGS if length <= self.budget]
        found: dict[int, Candidate] = {}
        for length in dict.fromkeys(lengths[s.tried] for s in searches if s.tried < len(lengths)):
            some = [s for s in searches if s.tried < len(lengths) and lengths[s.tried] == length]
            latents = yield from self._completed(aim, [search.row for search in some], length)
            images = aim.decode(latents)
            for search, image in zip(some, images, strict=True):
                found[id(search)] = Candidate(search.row, search.row.prompt, length, image=image)
        for search in searches:
            search.tried += 1
        return [found.get(id(search)) for search in searches]

    def _completed(self, aim: AttackTarget, rows: Sequence[Row], length: int) -> Work[Tensor]:
        """Final latents [n c h w]: the first `length` steps by the unedited weights, the others by the edited ones."""
        model, times = aim.model, aim.model.path.grid(self.steps)
        prompts, guidance = [row.prompt for row in rows], torch.tensor([aim.guidance(row) for row in rows])
        start = model.noise([row.shot for row in rows])
        early, late = times[:length], times[length:]
        begun = yield from walk(model, start, early, both_halves(model, prompts), guidance, to=late[0])
        with aim.applied():
            return (yield from walk(model, begun, late, both_halves(model, prompts), guidance))
