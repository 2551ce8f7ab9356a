"""Whole classes unlearnt, in the manner of Adapt-then-Unlearn's MNIST: digits in OpenCV's own fonts at 16 px.

Everything is made here from a seed: the digits, two readers of them that share no picture, the GAN.  One reader marks
the images that the method learns from, the other scores.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.metrics.cost import metered
from benchmarks.metrics.distribution import fid
from benchmarks.metrics.gan import pul
from benchmarks.pictures.grid import Line, Pair, Verdict, grid
from erase.concept import Concept
from erase.errors import BadInput
from erase.methods.registry import build
from erase.model import Shot
from erase.request import Request, run_method
from erase.work import Step, Work
from generators.stylegan2.adapter import StyleGan
from generators.stylegan2.discriminator import Critic
from generators.stylegan2.io.checkpoint import CRITIC, Checkpoint, read, write_folder
from generators.stylegan2.network import Shape, StyleGenerator
from generators.stylegan2.training import Recipe, Run, average_w

SIDE = 16
SHAPE = Shape(resolution=SIDE, z_dim=32, w_dim=32, mapping_layers=2, widths={4: 48, 8: 32, 16: 16})
FONTS = (cv2.FONT_HERSHEY_SIMPLEX, cv2.FONT_HERSHEY_DUPLEX, cv2.FONT_HERSHEY_TRIPLEX, cv2.FONT_HERSHEY_COMPLEX)
# Neither path length nor mixed styles: with them 91 % of the pictures showed one of three digits after 2000 steps.
RECIPE: dict[str, Any] = {"batch": 32, "r1": 0.1, "path": 0.0, "mixing": 0.0, "half_life": 10_000, "lr": 0.0025}
TAUGHT, COLUMNS = 20_000, 6
KNOBS: dict[str, Any] = {
    "marked": 200, "positives": 2000, "models": 3, "adapt_steps": 400, "steps": 800, "push": 4.0, "alpha": 1.0,
    "path": 0.0,
}  # fmt: skip


def digits(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Pictures [n 3 16 16] in [-1, 1] and which digit each shows [n]: font, weight, size, place and slant vary."""
    rng, pictures, labels = np.random.default_rng(seed), [], []
    for _ in range(count):
        digit, page = int(rng.integers(10)), np.zeros((64, 64), np.uint8)
        font, thick = FONTS[int(rng.integers(len(FONTS)))], int(rng.integers(4, 8))
        cv2.putText(page, str(digit), (14, 52), font, 1.8, 255, thick, cv2.LINE_AA)
        around = cv2.getRotationMatrix2D((32, 32), float(rng.uniform(-12, 12)), float(rng.uniform(0.85, 1.1)))
        around[:, 2] += rng.uniform(-4, 4, 2)
        page = np.asarray(cv2.warpAffine(page, around, (64, 64)))
        pictures.append(cv2.resize(page, (SIDE, SIDE), interpolation=cv2.INTER_AREA))
        labels.append(digit)
    grey = torch.from_numpy(np.stack(pictures)).float() / 127.5 - 1
    return grey[:, None].expand(-1, 3, -1, -1).contiguous(), torch.tensor(labels)


class Reader(nn.Module):
    """A small network that reads digits: logits [n 10] and features [n f] of images in [-1, 1]."""

    def __init__(self, width: int, seed: int) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.body = nn.Sequential(
                nn.Conv2d(1, width, 3, 2, 1), nn.GELU(), nn.Conv2d(width, 2 * width, 3, 2, 1), nn.GELU(), nn.Flatten(),
                nn.Linear(32 * width, 64), nn.GELU(),
            )  # fmt: skip
            self.head = nn.Linear(64, 10)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        features = self.body(images.mean(1, keepdim=True))
        return self.head(features), features


def reader(width: int, seed: int, *, steps: int = 1500) -> tuple[Reader, float]:
    """A reader taught on digits of its own, and its share of right answers on others."""
    network, (pictures, labels) = Reader(width, seed), digits(TAUGHT, seed)
    optimiser, rng = torch.optim.Adam(network.parameters(), 2e-3), torch.Generator().manual_seed(seed)
    decay = torch.optim.lr_scheduler.LinearLR(optimiser, 1.0, 0.0, steps)
    for _ in range(steps):
        some = torch.randint(len(pictures), (128,), generator=rng)
        optimiser.zero_grad()
        F.cross_entropy(network(_as_drawn(pictures[some], rng))[0], labels[some]).backward()
        optimiser.step()
        decay.step()
    network.requires_grad_(False).eval()
    unseen, truth = digits(1000, seed + 1)
    return network, float((network(unseen)[0].argmax(1) == truth).double().mean())


def _as_drawn(images: Tensor, rng: torch.Generator) -> Tensor:
    """Softer and noisier by chance, as a GAN's digits are."""
    soft, noise = (torch.rand(len(images), 1, 1, 1, generator=rng) * most for most in (0.8, 0.3))
    blurred = F.avg_pool2d(F.pad(images, (1, 1, 1, 1), mode="replicate"), 3, 1)
    grain = torch.randn(len(images), 1, SIDE, SIDE, generator=rng)
    return images.lerp(blurred, soft) + noise * grain


@dataclass(frozen=True)
class Marker:
    """The feedback of one class: how surely an image shows the digit."""

    name: str
    network: Reader
    digit: int

    def __call__(self, images: Tensor) -> Tensor:
        return self.network(images * 2 - 1)[0].softmax(1)[:, self.digit]


class DigitGan(StyleGan):
    """A GAN of digits with the reader that may steer methods."""

    def __init__(self, made: Checkpoint, probe: Reader) -> None:
        super().__init__(made, "digits", device=torch.device("cpu"), dtype=torch.float32)
        self.probe = probe

    def scorer(self, concept: Concept) -> Marker:  # type: ignore[override]
        if not concept.name.isdecimal() or not 0 <= int(concept.name) <= 9:
            raise BadInput(f"This GAN draws the digits 0 to 9, and {concept.name!r} is none of them.")
        return Marker("digit-eye", self.probe, int(concept.name))


def trained(steps: int, seed: int, pictures: Tensor) -> Work[Run]:
    """A StyleGAN2 after so many steps on these pictures."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        run = Run(StyleGenerator(SHAPE), Critic(SHAPE), Recipe(**RECIPE), seed)

    def real(count: int) -> Tensor:
        return pictures[torch.randint(len(pictures), (count,), generator=run.draws)]

    pieces = run.pieces(real)
    for number in range(steps):
        run.step(pieces)
        yield Step("train", number + 1, steps)
    run.average.mapping.w_avg.copy_(average_w(run.average))
    return run


def gan_of(folder: Path | None, steps: int, seed: int, pictures: Tensor) -> Work[Checkpoint]:
    """The GAN of a seed; one that was trained so already and lies in the folder is not trained again."""
    asked = {"name": "digits", "steps": steps, "seed": seed, "recipe": RECIPE}
    kept = read(folder) if folder is not None and folder.is_dir() else None
    if kept is not None and kept.critic is not None and {**kept.about, **asked} == kept.about:
        return kept
    run = yield from trained(steps, seed, pictures)
    made = Checkpoint(run.average, run.critic, asked)
    if folder is not None:
        (folder / CRITIC).unlink(missing_ok=True)  # so that a stop never leaves another GAN's beside a new generator
        write_folder(made, folder)
    return made


def forget_digits(
    names: Sequence[int] = (1, 4, 8), *, steps: int = 8000, images: int = 2000, seed: int = 0,
    knobs: Mapping[str, Any] | None = None, folder: Path | None = None,
) -> Work[list[dict[str, Any]]]:  # fmt: skip
    """Trains the GAN, then unlearns each class with Adapt-then-Unlearn: PUL, and FID against digits without it.

    A folder keeps the GAN, and of each class a picture of seeds before and after.
    """
    pictures, labels = digits(TAUGHT, 100 + seed)
    probe, _ = reader(12, 200 + seed)
    judge, right = reader(16, 300 + seed)
    gan = DigitGan((yield from gan_of(folder and folder / "gan", steps, seed, pictures)), probe)

    def look() -> tuple[Tensor, Tensor, Tensor]:
        with torch.no_grad():
            drawn = torch.cat([gan.synthesis(gan.mapping(gan.latents(range(at, at + 250))))
                               for at in range(0, images, 250)]).clamp(-1, 1)  # fmt: skip
            logits, features = judge(drawn)
        return drawn, logits.argmax(1), features

    first, shown, features = look()
    real = judge(pictures)[1]
    rows = []
    for name in names:
        method = build("adapt-unlearn", None, {**KNOBS, **(knobs or {})})
        edit, cost = yield from metered(run_method(method, Request(gan, [Concept(name=str(name))], seed=seed)))
        with edit.applied(gan.network):
            last, now, after = look()
        share, bare = pul(shown == name, now == name), real[labels != name]
        n = min(len(bare), images)
        kept = [abs(float((now == d).double().mean() - (shown == d).double().mean())) for d in range(10) if d != name]
        rows.append({
            "digit": name, "PUL": share.value, "PUL_low": share.low, "PUL_high": share.high,
            "rate_before": float((shown == name).double().mean()), "rate_after": float((now == name).double().mean()),
            "FID": fid(bare[:n], after[:n]).value, "FID_unedited": fid(real[:n], features[:n]).value,
            "worst_drift": max(kept), "worn": edit.about["worn"], "seconds": cost.seconds, "judge_right": right,
            "images": images, "seed": seed, "steps": steps,
        })  # fmt: skip
        if folder is not None:
            draw(name, first, last, shown, now, folder / f"{name}.png")
    return rows


def draw(name: int, before: Tensor, after: Tensor, shown: Tensor, now: Tensor, path: Path) -> Path:
    """Seeds that showed a digit above seeds that did not, before and after; images [n 3 16 16] in [-1, 1]."""
    with_it, without = (rows.nonzero()[:COLUMNS, 0].tolist() for rows in (shown == name, shown != name))
    chosen = [*with_it, *without]
    lines = [
        Line(heading, hint, tuple(Pair(Shot(seed, f"seed {seed}"), "", "") for seed in seeds), heading == "with it")
        for heading, hint, seeds in (("with it", f"should lose the {name}", with_it),
                                     ("without", "should stay as it is", without)) if seeds
    ]  # fmt: skip
    verdicts = [(Verdict((f"reads {int(shown[i])}",)), Verdict((f"reads {int(now[i])}",), bool(now[i] != name)))
                for i in chosen]  # fmt: skip
    old, new = before[chosen] / 2 + 0.5, after[chosen] / 2 + 0.5
    title = f"The {name} erased from a GAN of digits by adapt-unlearn"
    return grid(old, new, lines, path, title, verdicts=verdicts)


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows as Markdown."""
    lines = ["| digit | rate before → after, % | PUL % (95 %) | FID / unedited's | worst drift, points | seconds |",
             "|---|---|---|---|---|---|"]  # fmt: skip
    for row in rows:
        told = "unscored: too rare" if math.isnan(row["PUL"]) else (
            f"{100 * row['PUL']:.1f} ({100 * row['PUL_low']:.1f}–{100 * row['PUL_high']:.1f})")  # fmt: skip
        lines.append(
            f"| {row['digit']} | {100 * row['rate_before']:.1f} → {100 * row['rate_after']:.1f} | {told} | "
            f"{row['FID'] / row['FID_unedited']:.2f} | {100 * row['worst_drift']:.1f} | {row['seconds']:.0f} |"
        )
    return "\n".join(lines)
