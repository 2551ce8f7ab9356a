"""UnlearnCanvas' style-transfer track (arXiv 2402.11846): photographs put into styles, beside its own such pictures.

Every picture THEME/OBJECT/n of the data set is the photograph Seed_Images/OBJECT/n in that theme. A model that
transfers styles is asked for the same; told to forget one, it should fail at that one alone. Style is compared by the
Gram matrices of VGG-19's conv1_1 … conv5_1, content by its conv4_2 (Gatys et al., CVPR 2016, arXiv 1508.06576).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from benchmarks.judging.reference import ENDINGS, opened, whole
from benchmarks.metrics.accuracy import bootstrap
from benchmarks.metrics.alignment import resized
from benchmarks.probes.vit import weights_alone
from benchmarks.report import Better, Report, Score
from benchmarks.suites.suite import Suite
from erase.errors import BadInput
from erase.work import Step, Work

STYLE, CONTENT = (0, 5, 10, 19, 28), 21  # places of these convolutions among torchvision's `features`
SIDE = 256
MEAN, STD = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))  # of ImageNet's pictures


@dataclass(frozen=True)
class Pair:
    """A photograph and what a perfect transfer would make of it."""

    style: str
    object: str
    photo: Path
    styled: Path

    def result(self, folder: Path) -> Path | None:
        """What was made of it, whatever the file's ending."""
        return _pictures(folder / self.style / self.object).get(self.styled.stem)


class Vgg:
    """VGG-19 up to conv5_1 from torchvision's weights file, of which nothing is run; its shapes say how wide it is."""

    def __init__(self, path: Path, side: int = SIDE, device: str = "cpu") -> None:
        weights = weights_alone(path)
        self.side, self.device = side, device
        self.name = f"{path.stem}@{hashlib.sha256(path.read_bytes()).hexdigest()[:8]}"
        self.layers: list[nn.Module] = []
        try:
            for place in range(max(STYLE) + 1):
                self.layers.append(_layer(weights, place, self.layers[-1:]))
        except (KeyError, ValueError, IndexError):
            raise BadInput(f"{path} is not a VGG-19 of torchvision: it lacks features.0 … features.28.") from None
        if not all(isinstance(self.layers[place], nn.Conv2d) for place in (*STYLE, CONTENT)):
            raise BadInput(f"{path} is another network than VGG-19: its convolutions stand elsewhere.")

    @torch.inference_mode()
    def __call__(self, image: Tensor) -> dict[int, Tensor]:
        """What the compared layers see [c h w] in one picture [1 3 h w] in [0, 1]."""
        pixels = resized(image.to(self.device, torch.float32), (self.side, self.side))
        x = (pixels - torch.tensor(MEAN).view(1, 3, 1, 1).to(pixels)) / torch.tensor(STD).view(1, 3, 1, 1).to(pixels)
        seen = {}
        for place, layer in enumerate(self.layers):
            x = layer(x)
            if place in (*STYLE, CONTENT):
                seen[place] = x[0].double()
        return seen


def _layer(weights: Mapping[str, Tensor], place: int, before: Sequence[nn.Module]) -> nn.Module:
    """A convolution where the file has one; behind each stands a ReLU, and what else there is pools."""
    if (weight := weights.get(f"features.{place}.weight")) is None:
        if not before:
            raise KeyError(place)
        return nn.ReLU() if isinstance(before[0], nn.Conv2d) else nn.MaxPool2d(2)
    layer = nn.Conv2d(weight.shape[1], weight.shape[0], weight.shape[2], padding="same")
    layer.weight, layer.bias = nn.Parameter(weight), nn.Parameter(weights[f"features.{place}.bias"])
    return layer.requires_grad_(False)


def style_loss(one: Mapping[int, Tensor], other: Mapping[int, Tensor]) -> float:
    """Gatys' E = Σ_l 1/5 · 1/(4 N² M²) Σ (G − A)², G = F Fᵀ of N maps with M places each."""
    apart = [float((_gram(one[place]) - _gram(other[place])).square().sum()) for place in STYLE]
    return math.fsum(apart) / len(STYLE) / 4


def content_loss(one: Mapping[int, Tensor], other: Mapping[int, Tensor]) -> float:
    """½ mean (F − P)²: Gatys' sum, divided by what a layer holds so that the pictures' size does not matter."""
    return float((one[CONTENT] - other[CONTENT]).square().mean()) / 2


def _gram(seen: Tensor) -> Tensor:
    rows = seen.flatten(1)
    return rows @ rows.T / rows.numel()


def pairs(root: Path, suite: Suite) -> list[Pair]:
    """Every photograph that the data set also has in a style; BadInput when a folder is missing altogether."""
    if suite.photo is None:
        raise BadInput(f"Suite {suite.name} says of no theme that it is the photographs'; transfer needs one.")
    whole(root, suite)
    styles = [style for style in suite.styles if style != suite.photo]
    found = []
    for thing in suite.objects:
        styled = {style: _pictures(root / style / thing) for style in styles}
        for name, photo in _pictures(root / suite.photo / thing).items():
            found += [Pair(style, thing, photo, styled[style][name]) for style in styles if name in styled[style]]
    return found


def transfer(root: Path, results: Path, suite: Suite, target: str, probe: Vgg) -> Work[Report]:
    """How near results (THEME/OBJECT/n in a folder) come to the data set's own: the erased style, and the others.

    The baseline is a photograph left as it is. BadInput for folders without a single pair.
    """
    erased = suite.target(target).label
    asked, losses = pairs(root, suite), []
    last: tuple[Path, dict[int, Tensor]] | None = None  # pairs of one photograph follow each other
    for done, pair in enumerate(asked):
        if (made := pair.result(results)) is not None:
            if last is None or last[0] != pair.photo:
                last = pair.photo, probe(opened(pair.photo))
            photo, styled, result = last[1], probe(opened(pair.styled)), probe(opened(made))
            losses.append((pair, style_loss(result, styled), style_loss(photo, styled), content_loss(result, photo)))
        yield Step("compare", done + 1, len(asked))
    if not losses:
        raise BadInput(f"{results} holds no picture that belongs to {root}; the layout is THEME/OBJECT/1.jpg.")
    scores: dict[str, Score] = {}
    groups: tuple[tuple[str, Better], ...] = (("erased", "high"), ("kept", "low"))
    for group, better in groups:
        rows = [row for row in losses if (row[0].style == erased) == (group == "erased")]
        scores[f"style_loss.{group}"] = _score([row[1] for row in rows], [row[2] for row in rows], better, probe)
        scores[f"content_loss.{group}"] = _score([row[3] for row in rows], [0.0 for _ in rows], "low", probe)
    missing = len(asked) - len(losses)
    return Report(
        job={"suite": suite.name, "concepts": [erased], "data": root.name, "results": results.name},
        scores=scores,
        excluded={"no result of this pair": missing} if missing else {},
        about={"side": probe.side, "layers": {"style": STYLE, "content": CONTENT}},
        rows=tuple(
            {"style": pair.style, "object": pair.object, "picture": pair.styled.stem, "style_loss": style,
             "style_loss_of_photo": left, "content_loss": content}
            for pair, style, left, content in losses
        ),
    )  # fmt: skip


def _score(values: Sequence[float], left: Sequence[float], better: Better, probe: Vgg) -> Score:
    if not values:
        nan = math.nan
        return Score(
            value=nan, n=0, low=nan, high=nan, baseline=nan, better=better, probe=probe.name, note="no results"
        )
    value, (low, high) = math.fsum(values) / len(values), bootstrap(values)
    return Score(
        value=value, n=len(values), low=min(low, value), high=max(high, value), better=better, probe=probe.name,
        baseline=math.fsum(left) / len(left), interval="bootstrap-over-pictures",
        note="baseline: photographs left as they are",
    )  # fmt: skip


def _pictures(folder: Path) -> dict[str, Path]:
    """The pictures of a folder by their names without endings; none where there is no folder."""
    return {path.stem: path for path in sorted(folder.glob("*")) if path.suffix.lower() in ENDINGS}
