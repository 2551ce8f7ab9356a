"""UnlearnCanvas' classifiers (arXiv 2402.11846): two timm ViTs, `style50.pth` and `style50_cls.pth`, as one probe.

Each file is a dict with a state dict under `model_state_dict`. Its shapes say how large the network is; nothing in the
file is run. Label order is the suite's. Pictures are resized straight to the network's square, antialiased as PIL does.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.probes.base import Probe
from benchmarks.probes.canvas import CanvasProbe
from erase.errors import BadInput
from generators.checkpoints.restricted import read_pt

FILES = {"style": "style50.pth", "object": "style50_cls.pth"}
HEAD_WIDTH = 64  # of one attention head, in every ViT that timm trains at these widths


class Pair(nn.Module):
    """Two ViTs on one resized picture; the style network's last features are the pair's."""

    def __init__(
        self, style: nn.Module, thing: nn.Module, styles: tuple[str, ...], objects: tuple[str, ...], size: int
    ) -> None:
        super().__init__()
        self.style, self.object = style, thing
        self.styles, self.objects = styles, objects
        self.about: dict[str, Any] = {"size": size, "held_out": {}}

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Style logits, object logits and features of pixels in [0, 1]."""
        pixels = (pixels - 0.5) / 0.5
        with torch.autocast(pixels.device.type, torch.float16, enabled=pixels.device.type == "cuda"):
            features = self.style.forward_head(self.style.forward_features(pixels), pre_logits=True)  # type: ignore[operator]
            seen = self.style.head(features), self.object(pixels), features  # type: ignore[operator]
        return seen[0].float(), seen[1].float(), seen[2].float()


def canvas_classifiers(folder: Path, styles: tuple[str, ...], objects: tuple[str, ...], device: str) -> Probe:
    """The probe in a folder; BadInput for a missing file, a file that is no such checkpoint, or other labels."""
    for file in FILES.values():
        if not (folder / file).is_file():
            raise BadInput(f"{folder} has no {file}; UnlearnCanvas' classifiers are {' and '.join(FILES.values())}.")
    changed = tuple((folder / file).stat().st_mtime_ns for file in FILES.values())
    return _opened(folder, styles, objects, device, changed)


@lru_cache(maxsize=2)
def _opened(folder: Path, styles: tuple[str, ...], objects: tuple[str, ...], device: str, changed: Any) -> Probe:
    (style, size), (thing, other) = (
        _network(folder / FILES[kind], labels, kind) for kind, labels in (("style", styles), ("object", objects))
    )
    if size != other:
        raise BadInput(f"The two classifiers in {folder} read pictures of {size} and {other} pixels; they must agree.")
    digest = hashlib.sha256()
    for file in FILES.values():
        with (folder / file).open("rb") as opened:
            digest.update(hashlib.file_digest(opened, "sha256").digest())
    return CanvasProbe("unlearncanvas-vit", Pair(style, thing, styles, objects, size), digest.hexdigest(), device)


def _network(path: Path, labels: tuple[str, ...], kind: str) -> tuple[nn.Module, int]:
    """One ViT with its weights, and the side of the pictures it reads."""
    weights = weights_alone(path)
    try:
        width, classes = weights["head.weight"].shape[1], weights["head.weight"].shape[0]
        patch = weights["patch_embed.proj.weight"].shape[-1]
        size = patch * round((weights["pos_embed"].shape[1] - 1) ** 0.5)
        depth = 1 + max(int(found[1]) for name in weights if (found := re.match(r"blocks\.(\d+)\.", name)))
    except (KeyError, ValueError, IndexError):
        raise BadInput(f"{path} holds no ViT of timm: it lacks head, patch_embed, pos_embed or blocks.") from None
    if classes != len(labels):
        raise BadInput(f"{path} tells {classes} {kind}s apart and the suite has {len(labels)}; they must be the same.")
    try:
        from timm.models.vision_transformer import VisionTransformer
    except ImportError:
        raise BadInput("These classifiers need timm: `pip install timm`.") from None
    with torch.device("meta"):
        network = VisionTransformer(
            img_size=size, patch_size=patch, num_classes=classes, embed_dim=width, depth=depth,
            num_heads=max(1, width // HEAD_WIDTH),
        )  # fmt: skip
    try:
        network.load_state_dict(weights, assign=True)
    except RuntimeError as error:
        raise BadInput(f"{path} is not a plain ViT: {str(error).splitlines()[1].strip()}") from None
    return network, size


def weights_alone(path: Path) -> Mapping[str, Tensor]:
    """The state dict in a file, read without running anything in it."""
    content = read_pt(path)
    found = content.get("model_state_dict", content) if isinstance(content, Mapping) else None
    if not isinstance(found, Mapping) or not all(isinstance(value, Tensor) for value in found.values()):
        raise BadInput(f"{path} holds no weights under `model_state_dict`.")
    return {name.removeprefix("module."): value.float() for name, value in found.items()}
