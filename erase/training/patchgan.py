"""A patch discriminator (Isola et al., CVPR 2017): tells teacher's predictions from student's, patch by patch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from erase.errors import BadInput
from erase.training.deltas import finite, moments, remember

WIDTHS = (64, 128, 256, 512)


def patchgan(channels: int, side: int, maps: int, randomness: torch.Generator) -> nn.Sequential:
    """Convolutions from [n channels side side] to logits [n maps 3 3]: log2(side) − 2 of them halve the side.

    Beyond four the logits grow instead (side 128: 7 × 7). Raises BadInput for a side under 8.
    """
    halvings = min(int(math.log2(side)) - 2, len(WIDTHS))
    if halvings < 1:
        raise BadInput(f"DoCo's discriminator needs latents of at least 8 × 8; this model's are {side} × {side}.")
    layers: list[nn.Module] = []
    for number, width in enumerate(WIDTHS[:halvings]):
        layers.append(_convolution(channels, width, 2, randomness))
        if number:  # no norm on what comes in, as published
            layers.append(nn.GroupNorm(32, width))
        layers.append(nn.LeakyReLU(0.2))
        channels = width
    return nn.Sequential(*layers, _convolution(channels, maps, 1, randomness))


def _convolution(channels: int, width: int, stride: int, randomness: torch.Generator) -> nn.Conv2d:
    # Not initialised by torch, which would draw from the randomness of the whole process.
    made: Any = nn.utils.skip_init(nn.Conv2d, channels, width, kernel_size=4, stride=stride, padding=1)
    nn.init.normal_(made.weight, 0.0, 0.02, generator=randomness)
    nn.init.zeros_(made.bias)
    return made


class Critic:
    """A discriminator with one output map per concept, and its own optimiser."""

    def __init__(
        self, shape: tuple[int, int, int], concepts: int, lr: float, randomness: torch.Generator, device: torch.device
    ) -> None:
        channels, *sides = shape
        self.network = patchgan(channels, min(sides), concepts, randomness).to(device)
        self.named = dict(self.network.named_parameters())
        self.optimiser = torch.optim.Adam(self.named.values(), lr=lr, betas=(0.5, 0.999))

    def logits(self, seen: Tensor, concept: Tensor) -> Tensor:
        """How sure it is that each of seen [n c h w] is the teacher's, on the map of its concept [n]: [n h w]."""
        return self.network(seen)[torch.arange(len(seen), device=seen.device), concept]

    def doubts(self, seen: Tensor, concept: Tensor) -> Tensor:
        """What the student minimises: −log of the chance that its predictions are taken for the teacher's."""
        return softplus(-self.logits(seen, concept)).mean()

    def learn(self, teacher: Tensor, student: Tensor, concept: Tensor) -> float:
        """One step towards telling the teacher's [n c h w] from the student's; raises FloatingPointError if it cannot.

        The student's graph plays no part.
        """
        with torch.enable_grad():
            real, fake = self.logits(teacher, concept), self.logits(student.detach(), concept)
            loss = softplus(-real).mean() + softplus(fake).mean()
            value = finite(loss, "discriminator's loss")
            gradients = torch.autograd.grad(loss, list(self.named.values()))
        finite(torch.nn.utils.get_total_norm(gradients), "discriminator's gradient")
        for leaf, gradient in zip(self.named.values(), gradients, strict=True):
            leaf.grad = gradient
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        return value

    def state(self) -> dict[str, Tensor]:
        """Weights and moments by name."""
        named = {f"critic.{name}": leaf for name, leaf in self.named.items()}
        return {name: leaf.detach() for name, leaf in named.items()} | moments(self.optimiser, named)

    def load(self, flat: Mapping[str, Tensor]) -> None:
        """Goes on from `state()`."""
        with torch.no_grad():
            for name, leaf in self.named.items():
                leaf.copy_(flat[f"critic.{name}"])
        remember(self.optimiser, {f"critic.{name}": leaf for name, leaf in self.named.items()}, flat)
