"""A two-headed classifier of styles and objects as a probe."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.metrics.alignment import resized
from benchmarks.probes.base import BATCH, Seen


class CanvasProbe:
    """A two-headed network from a file: images in, style and object logits and features out."""

    def __init__(self, name: str, network: nn.Module, sha256: str, device: torch.device | str = "cpu") -> None:
        about: Mapping[str, Any] = network.about  # type: ignore[assignment]
        self.name, self.sha256, self.device = name, sha256, torch.device(device)
        self.version = str(about.get("version", "1"))
        self.held_out: Mapping[str, Any] = about.get("held_out", {})
        self.size = int(about.get("size", 64))
        self.styles: tuple[str, ...] = tuple(network.styles)  # type: ignore[arg-type]
        self.objects: tuple[str, ...] = tuple(network.objects)  # type: ignore[arg-type]
        self.network = network.to(self.device, torch.float32).eval().requires_grad_(False)

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> Seen:
        """Reads images [n 3 h w] in [0, 1] of any size; the answer is on the CPU, in float32."""
        parts = [self._read(chunk) for chunk in images.split(BATCH)]
        return Seen(*(torch.cat(column) for column in zip(*parts, strict=True)))

    def _read(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        pixels = resized(images.to(self.device, torch.float32), (self.size, self.size))
        styles, objects, features = self.network(pixels)
        return styles.softmax(1).cpu(), objects.softmax(1).cpu(), features.flatten(1).cpu()
