"""Gradients in the weights themselves, beside those by which a method steps its deltas."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from erase.training.deltas import DeltaOptimizer


def slopes(network: nn.Module, names: Sequence[str], loss: Tensor) -> dict[str, Tensor]:
    """The gradient of a loss, computed with the network as it is, in its named weights; nothing is where none leads."""
    known = dict(network.named_parameters())
    found = torch.autograd.grad(loss, [known[name] for name in names], allow_unused=True, materialize_grads=True)
    return dict(zip(names, found, strict=True))


def overheard(masters: DeltaOptimizer) -> dict[str, Tensor]:
    """Filled with the gradient of the next step, which is not made."""
    seen: dict[str, Tensor] = {}
    masters.descend = seen.update  # type: ignore[method-assign]
    return seen


def assert_same_slopes(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    """Equal up to the rounding of sums that are taken in another order."""
    assert found.keys() == expected.keys()
    largest = max(float(part.abs().max()) for part in expected.values())
    assert largest > 1e-7
    for name, part in expected.items():
        torch.testing.assert_close(found[name], part, rtol=1e-3, atol=1e-4 * largest)


def strayed(masters: DeltaOptimizer, network: nn.Module, by: float = 0.02) -> None:
    """Moves the deltas and then the network itself by as much, so that both ways compute with the same weights."""
    known = dict(network.named_parameters())
    with torch.no_grad():
        for name, delta in masters.deltas.items():
            masters.frozen[name] = nn.Parameter(known[name].detach().clone())
            delta.add_(by)
            known[name].add_(by)
