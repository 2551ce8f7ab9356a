"""What the attacks on GANs share: what an attacker has, and the descent to codes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from erase.model import Gan, Scorer
from erase.work import Step, Work

POOL = 1024  # codes over which a direction is fitted
LENGTHS = (1.0, 2.0, 3.0)  # how far codes are moved, in usual differences


@dataclass(frozen=True)
class AttackTarget:
    """What an attacker has: codes [n w] and images of the concept that the GAN drew, codes without, and a scorer."""

    concept: str
    with_it: Tensor
    images: Tensor
    without: Tensor
    scorer: Scorer
    directions: Callable[[], Sequence[tuple[str, Tensor]]]
    average: Tensor
    spread: Tensor
    seed: int


def descend(
    model: Gan, start: Tensor, aim: AttackTarget, lr: float, steps: int, loss: Callable[[Tensor], Tensor]
) -> Work[Tensor]:
    """Codes [n layer w] that Adam finds from some, in units of the usual spread, never further out than three of it."""
    layers, spread = start.shape[1], aim.spread.clamp(min=1e-6)
    middle = (start[:, :1] - aim.average) / spread
    shared = middle.clone().requires_grad_(True)
    each = torch.zeros_like(start).requires_grad_(True)
    optimiser = torch.optim.Adam([shared], lr=lr)
    for step in range(steps):
        if step == steps // 2:
            optimiser = torch.optim.Adam([each], lr=lr)
        with torch.enable_grad():
            codes = ((shared + each).clamp(-3, 3) * spread + aim.average).expand(-1, layers, -1)
            drawn = model.synthesis(codes)
            leaf = optimiser.param_groups[0]["params"][0]
            (leaf.grad,) = torch.autograd.grad(loss(drawn), leaf)
        optimiser.step()
        yield Step("search", step + 1, steps)
    return ((shared + each).detach().clamp(-3, 3) * spread + aim.average).expand(-1, layers, -1)
