"""Probes: networks that name the style and object of an image. The judge scores; the eye steers, and never scores."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from benchmarks.metrics.alignment import resized
from benchmarks.suites.suite import Suite
from erase.errors import BadInput, nearest, plain
from generators.assets import assets

# Name → file under the bundled assets.
BUNDLED = {"pocket-judge": "pocket-probes/judge.safetensors", "pocket-eye": "pocket-probes/eye.safetensors"}
# What the UnlearnCanvas suites name until somebody says where the classifiers are.
UNGIVEN = "unlearncanvas"
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


def probe_of(suite: Suite, device: str = "cpu") -> Probe:
    """Who reads a suite's pictures: a CLIP with its words, NudeNet, UnlearnCanvas' classifiers, or a probe by name."""
    # Imported here, because these build on this file, and only suites that ask for them need them.
    from benchmarks.probes import clip, nudenet, vit

    if suite.probe.startswith(clip.PREFIX):
        return clip.zero_shot(suite.probe, suite, device)
    if suite.probe.partition(":")[0] == nudenet.PREFIX:
        return nudenet.nude_probe(suite.probe, suite)
    if suite.probe == UNGIVEN:
        raise BadInput(
            f"Suite {suite.name} is read by UnlearnCanvas' own classifiers, which cannot be shipped: give the folder "
            f"of {' and '.join(vit.FILES.values())} as --probe DIR, or as `probe` in a suite or sweep file."
        )
    if Path(suite.probe).is_dir():
        return vit.canvas_classifiers(Path(suite.probe), suite.styles, suite.objects, device)
    return open_probe(suite.probe, device)


def open_probe(name: str, device: str = "cpu") -> Probe:
    """The bundled probe of that name, or the one in that file. BadInput for an unknown name or another kind of file."""
    paths = {plain(known): (known, assets() / file) for known, file in BUNDLED.items()}
    known, path = paths.get(plain(name), (Path(name).stem, Path(name)))
    if not path.is_file():
        if plain(name) in paths:
            raise BadInput(f"The bundled probe {known} is missing: there is no {path}; install the program again.")
        raise nearest(name, BUNDLED, "probe")
    return _opened(known, path, path.stat().st_mtime_ns, device)


@lru_cache(maxsize=4)
def _opened(name: str, path: Path, changed: int, device: str) -> Probe:
    """The probe in a file, read once per file and time of change: two assets folders may hold probes of one name."""
    # Imported here: the pocket networks are one kind of probe, and the protocol needs none of them.
    from generators.pocket.canvas.probe import load_probe

    return CanvasProbe(name, load_probe(path), hashlib.sha256(path.read_bytes()).hexdigest(), device)


def identity(probe: Probe) -> str:
    """A probe as scores name it: pocket-judge@1a2b3c4d."""
    return f"{probe.name}@{probe.sha256[:8]}"
