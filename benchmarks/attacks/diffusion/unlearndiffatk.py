"""To Generate or Not? Safety-Driven Unlearned Diffusion Models Are Still Easy To Generate Unsafe Images
(Zhang et al., ECCV 2024, arXiv 2310.11868): UnlearnDiffAtk.

A few tokens before the prompt are sought under which the edited model predicts the noise in a picture of the concept:

    min over tokens a:  mean (ε_θ(z_t, t, c(a ⊕ prompt)) − ε)²,   z_t the unedited model's picture, noised.

Each token is a distribution A over the vocabulary. A step samples a token per line, takes the loss's gradient at its
word vector straight through to A (clipped to ±1), makes an Adam step with coupled weight decay, and projects each line
back to the simplex. The noise levels are visited in order; after each the likeliest tokens are drawn and judged.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from pydantic import BaseModel, Field
from torch import Tensor

from benchmarks.attacks.engine import AttackTarget, Candidate, Presets, budgets, usable
from benchmarks.suites.prompts import Row
from erase.rng import stream
from erase.work import Step, Work

LEVELS = 50  # noise levels 10, 30 … 990 of 1000


@dataclass(eq=False)
class Search:
    """One row's distributions A [k V] over the words of the vocabulary, Adam's moments, and how far it came."""

    row: Row
    words: list[int]
    A: Tensor
    m: Tensor
    v: Tensor
    steps: int = 0
    level: int = 0


class UnlearnDiffAtk(BaseModel, frozen=True, extra="forbid"):
    """Optimises tokens before the prompt so that the edited model denoises a picture of the concept."""

    paper: ClassVar[str] = "UnlearnDiffAtk (arXiv 2310.11868)"
    presets: ClassVar[Presets] = budgets(paper=2000, standard=400, quick=100)

    budget: int = Field(100, ge=1, le=1_000_000, description="optimiser steps per row")
    iterations: int | None = Field(
        None, ge=1, le=10_000, description="steps per noise level (default: 40 from a budget of 400 on, else 20)"
    )
    tokens: int = Field(3, ge=1, le=20, description="adversarial tokens; the paper takes 3, and 5 for nudity")
    lr: float = Field(0.01, gt=0, le=10, description="Adam's learning rate")
    weight_decay: float = Field(0.1, ge=0, le=10, description="coupled L2 decay of the distributions")
    init: Literal["uniform", "random"] = Field("uniform", description="initialisation of the token distributions")
    loss: Literal["mse", "l1"] = Field("mse", description="the distance between predicted and drawn noise")
    retokenise: Literal["ids", "text"] = Field(
        "ids", description="draw from the token ids found, or from their text, which may tokenise differently"
    )

    @property
    def added(self) -> int:
        """Tokens beside the prompt's own."""
        return self.tokens

    @property
    def rounds(self) -> list[tuple[float, int]]:
        """The noise levels in order, as shares of the schedule, each with its number of steps."""
        each = self.iterations or (40 if self.budget >= 400 else 20)
        count = min(math.ceil(self.budget / each), LEVELS)
        stride = LEVELS // count
        levels = [(10 + 20 * level) / 1000 for level in range(stride // 2, LEVELS, stride)][:count]
        whole, rest = divmod(self.budget, count)
        return [(level, whole + (place < rest)) for place, level in enumerate(levels)]

    def begin(self, aim: AttackTarget, row: Row) -> Search:
        """Distributions over all tokens that are words."""
        shape = (self.tokens, len(usable(aim.model)))
        dtype, device = torch.promote_types(aim.model.dtype, torch.float32), aim.model.device
        if self.init == "uniform":
            start = torch.full(shape, 1 / shape[1], dtype=dtype)
        else:
            start = project(torch.rand(shape, generator=stream(aim.seed, "init", row.key)).to(dtype))
        start = start.to(device)
        return Search(row, aim.model.tokens(row.prompt), start, torch.zeros_like(start), torch.zeros_like(start))

    def advance(self, aim: AttackTarget, searches: Sequence[Search]) -> Work[list[Candidate | None]]:
        """All steps of each search's next noise level, then its likeliest tokens."""
        rounds = self.rounds
        going = [search for search in searches if search.level < len(rounds)]
        words = usable(aim.model)
        table = aim.model.vocabulary[words]
        with aim.applied():
            for step in range(max((rounds[search.level][1] for search in going), default=0)):
                live = [search for search in going if step < rounds[search.level][1]]
                loss = self._step(aim, live, [rounds[search.level][0] for search in live], words, table)
                yield Step("search", min(search.steps for search in live), self.budget, {"loss": loss})
        for search in going:
            search.level += 1
        return [self._try(aim, search, words) if search in going else None for search in searches]

    def _step(
        self, aim: AttackTarget, live: Sequence[Search], levels: Sequence[float], words: Tensor, table: Tensor
    ) -> float:
        """One optimiser step of every row at its own noise level; the mean loss."""
        model = aim.model
        A = torch.stack([search.A for search in live])
        draws = [stream(aim.seed, "tokens", search.row.key, search.steps) for search in live]
        chosen = words[sample(A, torch.stack([_uniform(self.tokens, draw) for draw in draws]))]
        noise = torch.stack(
            [
                torch.randn(model.latent_shape, generator=stream(aim.seed, "noise", search.row.key, search.steps))
                for search in live
            ]
        ).to(model.device, model.dtype)
        t = torch.tensor([round(level * len(model.path)) for level in levels], device=model.device)
        clean = torch.stack([aim.clean[search.row] for search in live]).to(noise)
        ids = model.frame([[*ahead, *search.words] for ahead, search in zip(chosen.tolist(), live, strict=True)])
        vectors = model.embed(ids).detach().requires_grad_(True)
        with torch.enable_grad():
            said = model.predict(model.path.add_noise(clean, noise, t), t, model.read(ids, vectors))
            off = said.to(A.dtype) - model.path.target(clean, noise).to(A.dtype)
            # Rows share the sum and nothing else, so each has the gradient of its own mean.
            loss = (off.square() if self.loss == "mse" else off.abs()).flatten(1).mean(1)
            (gradient,) = torch.autograd.grad(loss.sum(), vectors)
        ahead = gradient[:, model.opening : model.opening + self.tokens]
        self._update(live, A, straight_through(ahead, table))
        return float(loss.detach().mean())

    def _update(self, live: Sequence[Search], A: Tensor, gradient: Tensor) -> None:
        m, v = (torch.stack([getattr(search, name) for search in live]) for name in ("m", "v"))
        steps = torch.tensor([search.steps + 1 for search in live]).to(A).view(-1, 1, 1)
        A, m, v = adam(A, gradient, m, v, steps, self.lr, self.weight_decay)
        A = project(A)
        for place, search in enumerate(live):
            search.A, search.m, search.v = A[place], m[place], v[place]
            search.steps += 1

    def _try(self, aim: AttackTarget, search: Search, words: Tensor) -> Candidate:
        row = (*words[search.A.argmax(-1)].tolist(), *search.words)
        tokens = row if self.retokenise == "ids" else None
        return Candidate(search.row, aim.model.spell(row), search.steps, tokens=tokens)


def straight_through(gradient: Tensor, table: Tensor) -> Tensor:
    """The gradient for distributions [n k V] of one for sampled word vectors [n k word], clipped to ±1.

    Sampling is skipped on the way back: a one-hot line times the table [V word] is what the vectors would have been.
    """
    wide = torch.promote_types(gradient.dtype, torch.float32)
    return (gradient.to(wide) @ table.to(wide).T).clamp(-1, 1)


def adam(
    A: Tensor, gradient: Tensor, m: Tensor, v: Tensor, steps: Tensor, lr: float, decay: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Adam with coupled L2 decay (betas 0.9, 0.999); `steps` [n 1 1] counts each row's own steps, this one included."""
    gradient = gradient + decay * A
    m, v = 0.9 * m + 0.1 * gradient, 0.999 * v + 0.001 * gradient.square()
    update = (m / (1 - 0.9**steps)) / ((v / (1 - 0.999**steps)).sqrt() + 1e-8)
    return A - lr * update, m, v


def project(A: Tensor) -> Tensor:
    """The nearest points of the simplex to the lines of A [… V], by sorting (Duchi et al. 2008)."""
    ordered = A.sort(dim=-1, descending=True).values
    excess = ordered.cumsum(-1) - 1
    count = torch.arange(1, A.shape[-1] + 1, device=A.device, dtype=A.dtype)
    # The number of coordinates that stay positive: those larger than the mean excess of the ones before them.
    positive = (ordered * count > excess).sum(-1, keepdim=True)
    return (A - excess.gather(-1, positive - 1) / positive).clamp_min(0)


def sample(A: Tensor, uniform: Tensor) -> Tensor:
    """One index per line of A [… V] by inverting its cumulative distribution at `uniform` […] in [0, 1)."""
    cumulative = A.double().cumsum(-1)
    wanted = uniform.to(cumulative).unsqueeze(-1) * cumulative[..., -1:]
    return torch.searchsorted(cumulative, wanted, right=True).squeeze(-1).clamp_max(A.shape[-1] - 1)


def _uniform(count: int, draw: torch.Generator) -> Tensor:
    return torch.rand(count, generator=draw, dtype=torch.float64)
