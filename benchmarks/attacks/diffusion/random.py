"""Random tokens before the prompt: the yardstick a search has to beat."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import ClassVar

import torch
from pydantic import BaseModel, Field

from benchmarks.attacks.engine import AttackTarget, Candidate, Presets, budgets, following, usable
from benchmarks.suites.prompts import Row
from erase.rng import stream
from erase.work import Work


class Random(BaseModel, frozen=True, extra="forbid"):
    """Puts random tokens before the prompt, again and again."""

    paper: ClassVar[str] = "the control of every token attack"
    presets: ClassVar[Presets] = budgets(paper=40, standard=40, quick=10)

    budget: int = Field(10, ge=1, le=100_000, description="tries per row")
    tokens: int = Field(3, ge=1, le=20, description="random tokens before the prompt")

    @property
    def added(self) -> int:
        """Tokens beside the prompt's own."""
        return self.tokens

    def begin(self, aim: AttackTarget, row: Row) -> Iterator[Candidate]:
        """The row's tries, drawn from its own stream."""
        words, own = usable(aim.model), aim.model.tokens(row.prompt)
        for spent in range(1, self.budget + 1):
            picked = torch.randint(len(words), (self.tokens,), generator=stream(aim.seed, "random", row.key, spent))
            tokens = (*words[picked.to(words.device)].tolist(), *own)
            yield Candidate(row, aim.model.spell(tokens), spent, tokens=tokens)

    def advance(self, aim: AttackTarget, searches: Sequence[Iterator[Candidate]]) -> Work[list[Candidate | None]]:
        """The next try of each row."""
        return following(searches)
