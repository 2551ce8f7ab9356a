"""Bit-for-bit comparison of networks and sets of tensors."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn


def weights(network: nn.Module) -> dict[str, Tensor]:
    """A copy of every parameter and buffer."""
    return {name: value.detach().clone() for name, value in network.state_dict().items()}


def same_bits(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    """Whether two sets of named tensors agree in every bit."""
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
