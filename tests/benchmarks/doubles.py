"""A model that paints one bright tile per label in its prompt, and a probe that reads tiles: all answers are known."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from benchmarks.probes.base import Seen
from benchmarks.suites.suite import Suite
from erase.edit import Edit
from erase.model import Codes, Shot
from erase.work import Step, Work

TILE, ACROSS = 8, 8

TINY = Suite(
    name="tiny",
    version=1,
    styles=("Ink_Art", "Seed_Images", "Van_Gogh"),
    objects=("Cats", "Dogs"),
    photo="Seed_Images",
    seeds=(188, 288),
    grid_seeds=(188,),
)


class Painter:
    """Reads labels in a prompt, passes them through one linear layer (`unet`), and paints the outputs as tiles."""

    name = "painter"
    default_steps = 1
    default_guidance = 1.0
    fingerprint = "painter"

    def __init__(self, suite: Suite = TINY) -> None:
        self.suite = suite
        self.labels = [*suite.styles, *suite.objects]
        layer = nn.Linear(len(self.labels), len(self.labels), bias=False)
        with torch.no_grad():
            layer.weight.copy_(torch.eye(len(self.labels)))
        self.network = nn.ModuleDict({"unet": layer})
        self.drawn: list[Shot] = []

    @property
    def device(self) -> torch.device:
        return torch.device("cpu")

    @property
    def dtype(self) -> torch.dtype:
        return torch.float32

    def asked(self, prompt: str) -> Tensor:
        words = [self.suite.spoken(label) for label in self.labels]
        return torch.tensor([float(bool(re.search(rf"\b{word}\b", prompt, re.I))) for word in words])

    def encode(self, prompts: Sequence[str]) -> Codes:
        return Codes(torch.stack([self.asked(prompt) for prompt in prompts])[:, None])

    def sample(
        self, shots: Sequence[Shot], *, steps: int | None = None, guidance: float | None = None, batch: int = 32
    ) -> Work[Tensor]:
        self.drawn += shots
        with torch.no_grad():
            bright = self.network["unet"](torch.stack([self.asked(shot.prompt) for shot in shots]))
        yield Step("draw", 1, 1)
        tiles = torch.zeros(len(shots), ACROSS * ACROSS)
        tiles[:, : len(self.labels)] = bright
        images = tiles.view(-1, 1, ACROSS, ACROSS).repeat_interleave(TILE, 2).repeat_interleave(TILE, 3)
        noise = torch.stack([torch.rand(64, 64, generator=torch.Generator().manual_seed(s.seed)) for s in shots])
        return (0.1 + 0.8 * images + 0.02 * noise[:, None]).expand(-1, 3, -1, -1)


class Reader:
    """The probe that knows the tiles."""

    name, version, sha256 = "reader", "1", "0" * 64
    held_out = {"style": 1.0}

    def __init__(self, suite: Suite = TINY) -> None:
        self.styles, self.objects = suite.styles, suite.objects

    def __call__(self, images: Tensor) -> Seen:
        tiles = images.mean(1).unfold(1, TILE, TILE).unfold(2, TILE, TILE).mean((3, 4)).flatten(1)
        n, m = len(self.styles), len(self.objects)
        return Seen((40 * tiles[:, :n]).softmax(1), (40 * tiles[:, n : n + m]).softmax(1), tiles)


def turned(painter: Painter, label: str, into: str | None, *, strength: float = 1.0) -> Edit:
    """The edit after which `label` is painted as `into`, or as nothing at all."""
    weight = torch.zeros(len(painter.labels), len(painter.labels))
    here = painter.labels.index(label)
    weight[here, here] = -strength
    if into is not None:
        weight[painter.labels.index(into), here] = strength
    return Edit({"unet.weight": weight}, {"method": "turned", "concepts": [{"name": label}]})


def write_suite(path: Path, **changes: object) -> Path:
    """TINY as a TOML file with some keys changed."""
    values = {
        "name": "mine", "version": 1, "styles": list(TINY.styles), "objects": list(TINY.objects),
        "photo": "Seed_Images", "seeds": [188, 288], "grid_seeds": [188],
    } | changes  # fmt: skip
    lines = [f"{key} = {repr(value).replace(chr(39), chr(34))}" for key, value in values.items()]
    path.write_text("\n".join(lines), encoding="utf-8")
    return path
