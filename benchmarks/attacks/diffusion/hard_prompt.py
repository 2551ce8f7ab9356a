"""Prompts of real tokens found through their word vectors: P4D and PEZ.

Prompting4Debugging (Chin et al., ICML 2024, arXiv 2309.06135) asks which prompt makes the edited model predict what the
unedited one predicts for the clean prompt:  min mean (ε_θ(z_t, t, c(a)) − ε_θ0(z_t, t, c))².  Hard Prompts Made Easy
(Wen et al., NeurIPS 2023, arXiv 2302.03668) asks which prompt CLIP finds most like the unedited model's picture. Both
keep free vectors, take the gradient at the nearest real tokens, and apply it to the vectors.

The published P4D draws every 50 steps and keeps the prompt that CLIP finds closest; here each of these drawings is
judged, and the first success ends the row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from pydantic import BaseModel, Field
from torch import Tensor
from torch.nn import functional as F

from benchmarks.attacks.diffusion._likeness import Likeness, text_side
from benchmarks.attacks.engine import AttackTarget, Candidate, Presets, budgets, usable
from benchmarks.suites.prompts import Row
from erase.model import Codes
from erase.rng import stream
from erase.work import Step, Work

EVERY = 3  # p4d-k: prompt tokens between two free ones


@dataclass(eq=False)
class Search:
    """One row's free vectors [slot word] with Adam's moments; `layout` has None where one stands among the tokens."""

    row: Row
    layout: list[int | None]
    free: Tensor
    m: Tensor
    v: Tensor
    steps: int = 0
    drawings: int = 0

    def filled(self, tokens: Sequence[int]) -> list[int]:
        """The prompt's tokens with these in the free places."""
        rest = iter(tokens)
        return [next(rest) if token is None else token for token in self.layout]

    @property
    def places(self) -> list[int]:
        """Where the free tokens stand among the prompt's."""
        return [place for place, token in enumerate(self.layout) if token is None]


@dataclass(frozen=True)
class Space:
    """Where free vectors live: the words of a table [V word], their token numbers, and their directions."""

    words: Tensor
    table: Tensor
    directions: Tensor

    @staticmethod
    def of(table: Tensor, words: Tensor) -> Space:
        """The space of these rows of a table."""
        own = table[words].detach()
        own = own.to(torch.promote_types(own.dtype, torch.float32))
        return Space(words, own, F.normalize(own, dim=-1))

    def nearest(self, free: Tensor) -> Tensor:
        """The index of the word whose direction is nearest to each vector [… word]."""
        return (F.normalize(free, dim=-1) @ self.directions.T).argmax(-1)


class HardPrompt(BaseModel, frozen=True, extra="forbid"):
    """Optimises whole prompts of real tokens (P4D-N, P4D-K, PEZ) through their word vectors."""

    paper: ClassVar[str] = "Prompting4Debugging (arXiv 2309.06135), PEZ (arXiv 2302.03668)"
    presets: ClassVar[Presets] = budgets(paper=3000, standard=1000, quick=200)

    budget: int = Field(200, ge=1, le=1_000_000, description="optimiser steps per row")
    variant: Literal["p4d-n", "p4d-k", "pez"] = Field(
        "p4d-n",
        description="p4d-n: free tokens alone · p4d-k: one free token after every 3 of the prompt · pez: free tokens "
        "that CLIP finds like the picture, no diffusion model in the loop",
    )
    tokens: int = Field(16, ge=1, le=60, description="free tokens of p4d-n and pez")
    lr: float = Field(0.1, gt=0, le=10, description="AdamW's learning rate")
    weight_decay: float = Field(0.1, ge=0, le=10, description="AdamW's decoupled decay")
    check: int = Field(50, ge=1, le=100_000, description="most steps between two test images")

    @property
    def added(self) -> int:
        """Tokens beside the prompt's own, which only p4d-k keeps: a fourth of what the model reads, at most."""
        return 1 if self.variant == "p4d-k" else 0

    def begin(self, aim: AttackTarget, row: Row) -> Search:
        """Free vectors that start as random words."""
        space = self._space(aim)
        layout = self._layout(aim, row)
        picked = torch.randint(len(space.words), (layout.count(None),), generator=stream(aim.seed, "words", row.key))
        free = space.table[picked.to(space.table.device)].clone()
        return Search(row, layout, free, torch.zeros_like(free), torch.zeros_like(free))

    def advance(self, aim: AttackTarget, searches: Sequence[Search]) -> Work[list[Candidate | None]]:
        """The steps up to each search's next drawing, then its tokens."""
        going = [search for search in searches if search.drawings < -(-self.budget // self.check)]
        count = self.budget // -(-self.budget // self.check)  # the same for all rows, whoever came when
        rows = [search.row for search in going]
        seeker = Likeness(aim, rows) if self.variant == "pez" else _Teacher(aim, going, count)
        yield from seeker.prepare()
        space = self._space(aim)
        with seeker.network():
            for step in range(count if going else 0):
                picked = [space.nearest(search.free) for search in going]
                gradients, loss = seeker.gradients(step, [space.words[each].tolist() for each in picked])
                for search, gradient in zip(going, gradients, strict=True):
                    self._update(search, gradient)
                yield Step("search", going[0].steps, self.budget, {"loss": loss})
        for search in going:
            search.drawings += 1
        return [self._try(aim, search, space) if search in going else None for search in searches]

    def _space(self, aim: AttackTarget) -> Space:
        if self.variant == "pez":
            probe = text_side(aim)
            return Space.of(probe.table, probe.words)
        return Space.of(aim.model.vocabulary, usable(aim.model))

    def _layout(self, aim: AttackTarget, row: Row) -> list[int | None]:
        """Only free tokens, or the prompt with one after every third of its own and at least one."""
        room = aim.model.room
        if self.variant != "p4d-k":
            return [None] * min(self.tokens, room)
        own, layout = aim.model.tokens(row.prompt), []
        for place, token in enumerate(own, 1):
            layout += [token, None] if place % EVERY == 0 else [token]
        layout = layout if None in layout else [*layout, None]
        # What does not fit: the last free tokens go, never a word.
        while len(layout) > room and layout.count(None) > 1:
            del layout[len(layout) - 1 - layout[::-1].index(None)]
        return layout

    def _update(self, search: Search, gradient: Tensor) -> None:
        """AdamW (betas 0.9, 0.999) on the free vectors, with the gradient taken at the nearest tokens."""
        search.steps += 1
        search.m = 0.9 * search.m + 0.1 * gradient
        search.v = 0.999 * search.v + 0.001 * gradient.square()
        m, v = search.m / (1 - 0.9**search.steps), search.v / (1 - 0.999**search.steps)
        search.free = search.free * (1 - self.lr * self.weight_decay) - self.lr * m / (v.sqrt() + 1e-8)

    def _try(self, aim: AttackTarget, search: Search, space: Space) -> Candidate:
        row = search.filled(space.words[space.nearest(search.free)].tolist())
        if self.variant == "pez":  # another vocabulary: what carries over is the text
            return Candidate(search.row, text_side(aim).spell(row), search.steps)
        return Candidate(search.row, aim.model.spell(row), search.steps, tokens=tuple(row))


class _Teacher:
    """P4D's loss: the edited model told the tokens, against the unedited one told the clean prompt."""

    def __init__(self, aim: AttackTarget, searches: Sequence[Search], count: int) -> None:
        self.aim, self.searches, self.count = aim, searches, count
        self.lessons: list[tuple[Tensor, Tensor, Tensor]] = []

    def network(self) -> Any:
        return self.aim.applied()

    def prepare(self) -> Work[None]:
        """The unedited model's answers for the coming steps: noised pictures, their times, predictions."""
        model, aim = self.aim.model, self.aim
        if not self.searches:
            return
        with torch.no_grad():
            codes = model.encode([search.row.prompt for search in self.searches])
            clean = torch.stack([aim.clean[search.row] for search in self.searches]).to(model.device, model.dtype)
        for step in range(self.count):
            draws = [stream(aim.seed, "lesson", search.row.key, search.steps + step) for search in self.searches]
            times = [int(torch.randint(len(model.path), (1,), generator=draw)) for draw in draws]
            t = torch.tensor(times, device=model.device)
            noise = torch.stack([torch.randn(model.latent_shape, generator=draw) for draw in draws]).to(clean)
            with torch.no_grad():
                z = model.path.add_noise(clean, noise, t)
                self.lessons.append((z, t, model.predict(z, t, codes)))
            yield Step("teach", step + 1, self.count)

    def gradients(self, step: int, tokens: Sequence[Sequence[int]]) -> tuple[list[Tensor], float]:
        """For each row the gradient [slot word] at its tokens' word vectors; the mean loss."""
        model = self.aim.model
        z, t, target = self.lessons[step]
        ids = model.frame([search.filled(own) for search, own in zip(self.searches, tokens, strict=True)])
        vectors = model.embed(ids).detach().requires_grad_(True)
        with torch.enable_grad():
            codes: Codes = model.read(ids, vectors)
            loss = (model.predict(z, t, codes) - target).square().flatten(1).mean(1)
            (gradient,) = torch.autograd.grad(loss.sum(), vectors)
        wide = gradient.to(torch.promote_types(gradient.dtype, torch.float32))
        found = [
            wide[place, [model.opening + slot for slot in search.places]] for place, search in enumerate(self.searches)
        ]
        return found, float(loss.detach().mean())
