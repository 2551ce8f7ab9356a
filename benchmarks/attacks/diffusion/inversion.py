"""Circumventing Concept Erasure (Pham et al., ICLR 2024, arXiv 2308.01508): textual inversion against an edited model.

A new word is learnt under which the edited model denoises pictures of the concept, which the unedited one drew:

    min over v:  mean (ε_θ(z_t, t, c(… v …)) − ε)².

It stands in the place of the concept's name, in the sentences it is learnt from and in the attacked prompts. A new word
can teach a model what it never knew, so this belongs beside the same number for a model trained without the concept.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from pydantic import BaseModel, Field
from torch import Tensor

from benchmarks.attacks.engine import AttackTarget, Candidate, Presets, budgets
from benchmarks.suites.prompts import Row, suite_rows
from erase.rng import number, stream
from erase.work import Step, Work

SPOKEN = "<learnt>"  # how the new word is written where a text is wanted


@dataclass
class Search:
    """One row and how many of the learnt words it has tried."""

    row: Row
    tried: int = 0


class Inversion(BaseModel, frozen=True, extra="forbid"):
    """Learns a new word for the concept on pictures of the unedited model, then says it to the edited one (CCE)."""

    paper: ClassVar[str] = "Circumventing Concept Erasure (arXiv 2308.01508)"
    presets: ClassVar[Presets] = budgets(paper=3000, standard=1000, quick=300)

    budget: int = Field(300, ge=1, le=1_000_000, description="optimiser steps, once for all rows")
    tokens: int = Field(1, ge=1, le=16, description="word vectors of the learnt word")
    images: int = Field(25, ge=1, le=10_000, description="pictures of the unedited model to learn from")
    pictures_per_step: int = Field(16, ge=1, le=1024, description="pictures per step")
    lr: float = Field(5e-3, gt=0, le=10, description="AdamW's learning rate")
    checks: int = Field(3, ge=1, le=100, description="snapshots of the word that are tested")

    @property
    def added(self) -> int:
        """Tokens beside the prompt's own, where it does not name the concept."""
        return self.tokens

    def begin(self, aim: AttackTarget, row: Row) -> Search:
        """Nothing said yet."""
        return Search(row)

    def advance(self, aim: AttackTarget, searches: Sequence[Search]) -> Work[list[Candidate | None]]:
        """On the very first round the word is learnt, for all rows; each round says its next state."""
        if "words" not in aim.learnt:
            aim.learnt["words"] = yield from self._learn(aim)
        states = aim.learnt["words"]
        tries: list[Candidate | None] = []
        for search in searches:
            if search.tried == len(states):
                tries.append(None)
                continue
            tokens, places, text = said(aim, search.row.prompt, self.tokens)
            vectors = dict(zip(places, states[search.tried], strict=True))
            search.tried += 1
            tries.append(
                Candidate(search.row, text, self._due[search.tried - 1], tokens=tuple(tokens), vectors=vectors)
            )
        return tries

    @property
    def _due(self) -> list[int]:
        return sorted({max(1, round(self.budget * (check + 1) / self.checks)) for check in range(self.checks)})

    def _learn(self, aim: AttackTarget) -> Work[Tensor]:
        """The word's vectors [state token word] at each check."""
        model = aim.model
        rows = self._lessons(aim)
        with torch.no_grad():
            clean = yield from aim.latents([Candidate(row, row.prompt, 0) for row in rows])
        framed = [said(aim, row.prompt, self.tokens) for row in rows]
        ids = model.frame([tokens for tokens, _, _ in framed])
        at = torch.tensor([[model.opening + place for place in places] for _, places, _ in framed], device=model.device)
        word = _first(aim, self.tokens).requires_grad_(True)
        adam = torch.optim.AdamW([word], lr=self.lr)
        states = []
        with aim.applied():
            for step in range(self.budget):
                draw = stream(aim.seed, "inversion", step)
                picked = torch.randint(len(rows), (self.pictures_per_step,), generator=draw)
                t = torch.randint(len(model.path), (len(picked),), generator=draw).to(model.device)
                noise = torch.randn((len(picked), *model.latent_shape), generator=draw).to(model.device, model.dtype)
                z = model.path.add_noise(clean[picked].to(noise), noise, t)
                target = model.path.target(clean[picked].to(noise), noise)
                own = model.embed(ids[picked]).detach()
                with torch.enable_grad():
                    vectors = own.scatter(
                        1,
                        at[picked][..., None].expand(-1, -1, own.shape[-1]),
                        word.to(own.dtype).expand(len(picked), -1, -1),
                    )
                    off = model.predict(z, t, model.read(ids[picked], vectors)) - target
                    loss = off.float().square().mean()
                    (word.grad,) = torch.autograd.grad(loss, word)
                adam.step()
                if step + 1 in self._due:
                    states.append(word.detach().clone())
                yield Step("learn", step + 1, self.budget, {"loss": float(loss.detach())})
        return torch.stack(states)

    def _lessons(self, aim: AttackTarget) -> list[Row]:
        """The suite's sentences of the concept, drawn from seeds that no row has."""
        rows = suite_rows(aim.suite, aim.target, self.images)
        return [
            Row(row.case, row.prompt, number(aim.seed, "lesson", place) >> 32)
            for place, row in enumerate((rows * -(-self.images // len(rows)))[: self.images])
        ]


def said(aim: AttackTarget, prompt: str, count: int) -> tuple[list[int], list[int], str]:
    """A prompt's tokens with `count` places for the new word where the concept is named, else ahead; places; text."""
    model, found = aim.model, re.search(rf"\b{re.escape(aim.words)}\b", prompt, re.IGNORECASE)
    start, end = found.span() if found else (0, 0)
    before, after = model.tokens(prompt[:start]), model.tokens(prompt[end:])
    filler = model.tokens(aim.words)[:1] * count
    text = f"{prompt[:start]}{SPOKEN}{prompt[end:] if found else ' ' + prompt}"
    return [*before, *filler, *after], list(range(len(before), len(before) + count)), text


@torch.no_grad()
def _first(aim: AttackTarget, count: int) -> Tensor:
    """Where the new word begins [token word]: the mean of the name's own word vectors, in fp32."""
    own = aim.model.vocabulary[aim.model.tokens(aim.words)].float().mean(0, keepdim=True)
    return own.repeat(count, 1)
