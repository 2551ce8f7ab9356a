"""The two canvas probes, two heads each (style, object); built differently, so that one may steer, the other judge."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from generators.pocket.canvas.words import OBJECTS, THEMES


class _Residual(nn.Module):
    def __init__(self, inner: int, outer: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(inner, outer, 3, stride, 1, bias=False)
        self.second = nn.Conv2d(outer, outer, 3, 1, 1, bias=False)
        self.norms = nn.ModuleList((nn.GroupNorm(8, outer), nn.GroupNorm(8, outer)))
        self.short = nn.Conv2d(inner, outer, 1, stride, bias=False) if inner != outer or stride > 1 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.norms[0](self.first(x)))
        return F.relu(self.norms[1](self.second(y)) + self.short(x))


class _Depthwise(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.spread = nn.Conv2d(width, width, 7, 1, 3, groups=width)
        self.norm = nn.GroupNorm(1, width)
        self.up, self.down = nn.Conv2d(width, 3 * width, 1), nn.Conv2d(3 * width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.down(F.gelu(self.up(self.norm(self.spread(x)))))


def _residual_trunk() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 32, 4, 2, 1), _Residual(32, 64, 1), _Residual(64, 96, 2),
        _Residual(96, 160, 2), _Residual(160, 160, 1),
    )  # fmt: skip


def _depthwise_trunk() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 64, 4, 4), _Depthwise(64), _Depthwise(64),
        nn.Conv2d(64, 128, 2, 2), _Depthwise(128), _Depthwise(128), _Depthwise(128),
        nn.Conv2d(128, 160, 2, 2), _Depthwise(160),
    )  # fmt: skip


TRUNKS = {"judge": _depthwise_trunk, "eye": _residual_trunk}


class CanvasProbe(nn.Module):
    """Images [n 3 64 64] in [0, 1] → style logits [n style], object logits [n object], features [n 160]."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.trunk = TRUNKS[kind]()
        self.style, self.object = nn.Linear(160, len(THEMES)), nn.Linear(160, len(OBJECTS))
        self.styles, self.objects = THEMES, OBJECTS
        self.about: dict[str, Any] = {"kind": kind}

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        features = self.trunk(images * 2 - 1).mean(dim=(2, 3))
        return self.style(features), self.object(features), features

    def save(self, path: Path) -> None:
        """Half-precision safetensors; the header says how it was made and what it reaches on held-out renders."""
        path.parent.mkdir(parents=True, exist_ok=True)
        about = {**self.about, "styles": self.styles, "objects": self.objects}
        save_file(
            {k: v.half().contiguous().cpu() for k, v in self.state_dict().items()}, path, {"about": json.dumps(about)}
        )


def load_probe(path: Path) -> CanvasProbe:
    """A probe read back from its file, in fp32 and evaluation mode; `about` is the file's header."""
    with safe_open(path, "pt") as file:
        about = json.loads(file.metadata()["about"])
    probe = CanvasProbe(about["kind"])
    probe.load_state_dict({k: v.float() for k, v in load_file(path).items()})
    probe.styles, probe.objects, probe.about = tuple(about["styles"]), tuple(about["objects"]), about
    return probe.eval().requires_grad_(False)


@torch.no_grad()
def accuracy(
    probe: nn.Module, images: Tensor, styles: Tensor, objects: Tensor, batch: int = 512
) -> tuple[float, float]:
    """Share of images [n 3 64 64] whose style and whose object the probe names rightly."""
    right = torch.zeros(2, dtype=torch.float64)
    for at in range(0, len(images), batch):
        part = slice(at, at + batch)
        style, thing, _ = probe(images[part])
        right[0] += (style.argmax(1) == styles[part]).sum().item()
        right[1] += (thing.argmax(1) == objects[part]).sum().item()
    return right[0].item() / len(images), right[1].item() / len(images)
