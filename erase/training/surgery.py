"""Surgery on gradients: what one of them may not undo of another (DoCo), and which weights it may move (SalUn)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

Gradients = Mapping[str, Tensor]


def project(gradient: Gradients, retain: Gradients, strength: float) -> dict[str, Tensor]:
    """Takes out of each tensor what would raise the retain loss:  g − λ (⟨g, r⟩ / ‖r‖²) r  where ⟨g, r⟩ < 0.

    At λ = 1 what is left is orthogonal to r, tensor by tensor, hence as a whole does not conflict with it.
    """
    return {name: _without(part, retain[name], strength) for name, part in gradient.items()}


def _without(g: Tensor, r: Tensor, strength: float) -> Tensor:
    inner = (g.double() * r.double()).sum()
    if inner >= 0:
        return g
    return g - (strength * inner / r.double().square().sum()).to(g.dtype) * r


def steer(gradient: Gradients, retain: Gradients, strength: float) -> dict[str, Tensor]:
    """The second release of DoCo's code:  g − λ cos(g, r) r / ‖r‖  where they conflict, both cut to norm 1 before.

    That is no projection: ⟨g', r⟩ = −cos · ‖r‖ · (λ − ‖g‖), a push towards what is retained wherever ‖g‖ < λ.
    """
    gradient, retain = _cut(gradient), _cut(retain)
    changed = {}
    for name, g in gradient.items():
        r = retain[name]
        inner = (g.double() * r.double()).sum()
        size = g.double().norm() * r.double().square().sum()
        changed[name] = g if inner >= 0 else g - (strength * inner / size).to(g.dtype) * r
    return changed


def _cut(gradients: Gradients) -> dict[str, Tensor]:
    """The gradients scaled so that all of them together have at most norm 1."""
    scale = (1 / torch.nn.utils.get_total_norm(gradients.values())).clamp(max=1)
    return {name: part * scale for name, part in gradients.items()}


def salient(scores: Mapping[str, Tensor], share: float) -> dict[str, Tensor]:
    """Which weights have the highest scores: masks with ⌊share · P⌋ ones over all P weights together.

    Equal scores are ranked by position.
    """
    flat = torch.cat([score.flatten() for score in scores.values()])
    count = int(share * len(flat))
    mask = torch.zeros(len(flat), dtype=torch.bool, device=flat.device)
    if count:
        least = flat.kthvalue(len(flat) - count + 1).values
        mask = flat > least
        mask[(flat == least).nonzero()[: count - int(mask.sum()), 0]] = True
    parts = mask.split([score.numel() for score in scores.values()])
    return {name: part.view(score.shape) for (name, score), part in zip(scores.items(), parts, strict=True)}
