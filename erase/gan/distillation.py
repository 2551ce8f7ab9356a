"""The student at one code must equal the teacher at another: what the cheap GAN methods have in common."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from erase.borrow import substituted
from erase.errors import BadInput
from erase.gan.adversarial import folded_adam
from erase.model import Gan
from erase.training.deltas import DeltaOptimizer

Part = Literal["synthesis", "readers"]


def students(model: Gan, part: Part, lr: float) -> DeltaOptimizer:
    """The trained deltas of a part of a Gan, stepped as if gains were applied at run time.

    synthesis: the constant and all style convolutions, without ToRGB · readers: how all layers read their styles.
    """
    if part == "readers" and not model.readers():
        raise BadInput(f"No layer of {model.name} reads a style, so it has no readers; possible: synthesis.")
    affine = {f"{name}.{leaf}" for name in model.readers() for leaf in ("weight", "bias")}
    names = [
        name
        for name, _ in model.network.named_parameters()
        if (name in affine if part == "readers" else name.startswith("synthesis.") and ".torgb." not in name)
    ]
    return DeltaOptimizer(model.network, names, lr, optimiser=lambda deltas: folded_adam(deltas, model.gains, lr))


def teaching(model: Gan, ws: Tensor) -> Tensor:
    """The unedited model's images of codes."""
    with torch.no_grad():
        return model.synthesis(ws)


def learning(model: Gan, masters: DeltaOptimizer, work: Callable[[], Mapping[str, Tensor]]) -> dict[str, float]:
    """One step down the sum of the losses that `work` computes with the student's weights in place."""
    with torch.enable_grad(), substituted(model.network, masters.weights()):
        losses = work()
        masters.step(torch.stack(list(losses.values())).sum())
    return {name: float(loss.detach()) for name, loss in losses.items()}


def multiscale_l1(one: Tensor, other: Tensor) -> Tensor:
    """How far images [n 3 h w] are apart: mean absolute difference, fine and coarse."""
    parts = [F.l1_loss(one, other)]
    for _ in range(2):
        one, other = F.avg_pool2d(one, 2), F.avg_pool2d(other, 2)
        parts.append(F.l1_loss(one, other))
    return torch.stack(parts).mean()


def drawn_codes(model: Gan, seeds: Sequence[int], psi: float = 1.0) -> Tensor:
    """Codes w [n w] of seeds, before they are copied to every layer."""
    with torch.no_grad():
        return model.mapping(model.latents(seeds), psi)[:, 0]


def layered(model: Gan, w: Tensor) -> Tensor:
    """The same w at every layer: [n w] to [n layer w]."""
    layers = model.mapping(model.latents([0])).shape[1]
    return w[:, None].expand(-1, layers, -1)


def aside(direction: Tensor, kept: Sequence[Tensor]) -> Tensor:
    """The part of a direction [w] at right angles to the kept ones; BadInput where next to nothing is left of it."""
    if not kept:
        return direction
    basis = torch.linalg.qr(torch.stack(list(kept), 1).double())[0]
    left = direction.double() - basis @ (basis.T @ direction.double())
    if float(left.norm()) < 0.3 * float(direction.norm()):
        raise BadInput(
            "In this model's codes, what is to be erased lies along what is to be kept; keep less, or use "
            "adapt-unlearn, which needs no direction."
        )
    return left.to(direction)
