"""A real, tiny, untrained StyleGAN2 with its critic, and the eyes a method may look through."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from erase.concept import Concept
from generators.stylegan2.adapter import StyleGan
from generators.stylegan2.discriminator import Critic
from generators.stylegan2.io.checkpoint import Checkpoint
from generators.stylegan2.network import Shape, StyleGenerator

SHAPE = Shape(resolution=8, z_dim=6, w_dim=6, mapping_layers=2, widths={4: 8, 8: 6})


class Brightness:
    """Says that an image shows the concept when its upper half is bright, or brighter than the lower."""

    name = "brightness"

    def __init__(self, half: str, usual: Tensor) -> None:
        self.half = half
        self.threshold = float(self._of(usual).median())

    def _of(self, images: Tensor) -> Tensor:
        if self.half == "upper":
            return images[:, :, :4].mean((1, 2, 3))
        return (images[:, :, :4] - images[:, :, 4:]).mean((1, 2, 3))  # another direction among the codes

    def __call__(self, images: Tensor) -> Tensor:
        return ((self._of(images) - self.threshold) * 20).sigmoid()


class Pixels:
    """A stand-in for CLIP: images are their pixels seen through one fixed matrix, texts are hashed into that space."""

    name = "pixels"

    def __init__(self) -> None:
        self.matrix = torch.randn(48, 12, generator=torch.Generator().manual_seed(5))

    def images(self, images: Tensor) -> Tensor:
        return F.normalize((F.avg_pool2d(images, 2).flatten(1) - 0.5) @ self.matrix, dim=1)

    def texts(self, texts: Sequence[str]) -> Tensor:
        rows = [torch.randn(12, generator=torch.Generator().manual_seed(len(text))) for text in texts]
        return F.normalize(torch.stack(rows), dim=1)


class ToyGan(StyleGan):
    """A Gan of random weights, in which about half of the images show any concept."""

    def __init__(self, *, critic: bool = True) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(3)
            generator, judge = StyleGenerator(SHAPE), Critic(SHAPE)
            for conv in generator.synthesis.convs():
                conv.noise_strength.data.fill_(0.1)
                conv.bias.data.normal_()
        read = Checkpoint(
            generator, judge if critic else None, {"name": "toy-gan", "folded": True, "world": "pocket-faces"}
        )
        super().__init__(read, "toy-gan", device=torch.device("cpu"), dtype=torch.float32)
        with torch.no_grad():
            self.usual = self.synthesis(self.mapping(self.latents(range(64)))) / 2 + 0.5

    def scorer(self, concept: Concept) -> Brightness:  # type: ignore[override]
        return Brightness("balance" if concept.name == "hat" else "upper", self.usual)

    def encoder(self, name: str) -> Pixels:  # type: ignore[override]
        return Pixels()
