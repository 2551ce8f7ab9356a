"""The same prompt from other seeds: an edit that holds only for some noise has not forgotten."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import ClassVar

from pydantic import BaseModel, Field

from benchmarks.attacks.engine import AttackTarget, Candidate, Presets, budgets, following
from benchmarks.suites.prompts import Row
from erase.rng import number
from erase.work import Work


class SeedSearch(BaseModel, frozen=True, extra="forbid"):
    """Draws the unchanged prompt from other seeds."""

    paper: ClassVar[str] = "any of n draws; the rate of a single draw is the curve's first point"
    presets: ClassVar[Presets] = budgets(paper=50, standard=20, quick=10)
    added: ClassVar[int] = 0

    budget: int = Field(10, ge=1, le=100_000, description="further seeds per row")

    def begin(self, aim: AttackTarget, row: Row) -> Iterator[Candidate]:
        """The row's further seeds."""
        for spent in range(1, self.budget + 1):
            yield Candidate(row, row.prompt, spent, seed=number(aim.seed, "seed", row.key, spent) >> 32)

    def advance(self, aim: AttackTarget, searches: Sequence[Iterator[Candidate]]) -> Work[list[Candidate | None]]:
        """The next seed of each row."""
        return following(searches)
