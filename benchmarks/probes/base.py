"""What a probe is: a network that names the style and object of an image. The judge scores; the eye steers only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor

# Fixed, so that what an image is called never depends on how many were asked about.
BATCH = 64


@dataclass(frozen=True)
class Seen:
    """What a probe saw in n images: softmax shares per style [n s] and object [n o], and its last features [n f]."""

    style_prob: Tensor
    object_prob: Tensor
    features: Tensor


class Probe(Protocol):
    """A named, versioned, hashed reader of images; `held_out` are its own accuracies on pictures it never saw."""

    name: str
    version: str
    sha256: str
    held_out: Mapping[str, Any]
    styles: tuple[str, ...]
    objects: tuple[str, ...]

    def __call__(self, images: Tensor) -> Seen:
        """Reads images [n 3 h w] in [0, 1] of any size."""
        ...


def identity(probe: Probe) -> str:
    """A probe as scores name it: pocket-judge@1a2b3c4d."""
    return f"{probe.name}@{probe.sha256[:8]}"
