"""Answer sets: shots drawn, read by the probe, and remembered as numbers, so that no image need be kept."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from benchmarks.judging import cache
from benchmarks.judging.distributed import team
from benchmarks.metrics.accuracy import Row
from benchmarks.metrics.alignment import Clip
from benchmarks.probes.base import Probe, Seen
from benchmarks.suites.suite import Cell, Suite
from erase.errors import BadInput
from erase.model import Generator, Shot
from erase.work import Step, Work, map_steps

# An image with less contrast than this shows nothing (standard deviation of its pixels, 0..1).
FLAT = 0.02
# Below this correlation between neighbouring pixels an image is noise; drawings and photographs are far above.
GRAIN = 0.25
# Of what the cache holds for an image; older ones are not read.
LAYOUT = 2
# An image no class of either head claims with this share shows nothing the probe knows.
SURE = 0.95


@dataclass(frozen=True)
class Predictions:
    """n images as numbers, in the order of `shots`: style [n s], object [n o], features [n f] and four of [n]."""

    shots: tuple[Shot, ...]
    numbers: Mapping[str, Tensor]

    def of(self, shots: Sequence[Shot]) -> Predictions:
        """The answers to these shots, in this order."""
        place = {shot: index for index, shot in enumerate(self.shots)}
        rows = torch.tensor([place[shot] for shot in shots], dtype=torch.long)
        return Predictions(tuple(shots), {name: tensor[rows] for name, tensor in self.numbers.items()})

    def __len__(self) -> int:
        return len(self.shots)

    def __add__(self, other: Predictions) -> Predictions:
        if not self.shots:
            return other
        joined = {name: torch.cat([tensor, other.numbers[name]]) for name, tensor in self.numbers.items()}
        return Predictions(self.shots + other.shots, joined)

    def row(self, index: int, cell: Cell, probe: Probe) -> Row:
        """One image of the per-image table."""
        style, thing = self.numbers["style"][index], self.numbers["object"][index]
        return Row(
            style=cell.style,
            object=cell.object,
            seed=cell.seed,
            style_seen=probe.styles[int(style.argmax())],
            object_seen=probe.objects[int(thing.argmax())],
            style_share=float(style[probe.styles.index(cell.style)]),
            object_share=float(thing[probe.objects.index(cell.object)]),
        )

    @property
    def finite(self) -> Tensor:
        """Which images are pictures at all [n]."""
        return self.numbers["finite"].bool()

    @property
    def invalid(self) -> Tensor:
        """Which images show nothing [n]: not finite, near-constant, noise-like, or claimed by no class of a head."""
        shows = (self.numbers["spread"] >= FLAT) & (self.numbers["grain"] >= GRAIN) & self.numbers["sure"].bool()
        return ~(self.finite & shows)


def answers(
    model: Generator,
    shots: Sequence[Shot],
    suite: Suite,
    probe: Probe,
    clip: Clip | None = None,
    *,
    batch: int = 32,
    stage: str = "draw",
) -> Work[Predictions]:
    """Draws shots with the model as it is now and reads them, chunk by chunk: one Step per denoising step.

    Of several processes each draws its share, and all of them have all answers.
    """
    us, own = team(), []
    for number, start in enumerate(range(0, len(shots), batch)):
        if not us.mine(number):
            continue
        chunk = shots[start : start + batch]
        with sampled(model, suite):
            drawing = model.sample(chunk, steps=suite.steps, guidance=suite.guidance, batch=batch)
            images = yield from _renamed(drawing, stage, start, len(chunk), len(shots))
        own.append((number, read(images, chunk, suite, probe, clip)))
        yield Step(stage, start + len(chunk), len(shots), preview=images)
    return sum(us.gathered(own), start=Predictions((), {}))


def sampled(model: Generator, suite: Suite) -> AbstractContextManager[object]:
    """The model drawing with the suite's sampler; BadInput for one that has no other than its own."""
    if suite.sampler == "own":
        return nullcontext()
    if not hasattr(model, "drawn_by"):
        raise BadInput(f"{model.name} draws in its own way only, and suite {suite.name} asks for {suite.sampler}.")
    return model.drawn_by(suite.sampler)  # type: ignore[attr-defined]


def remembered(
    model: Generator,
    shots: Sequence[Shot],
    suite: Suite,
    probe: Probe,
    clip: Clip | None = None,
    *,
    batch: int = 32,
    stage: str = "draw before",
) -> Work[tuple[Predictions, str]]:
    """The unedited model's answers, drawn once per shot and machine; also a sentence about what the cache gave.

    The cache is named by everything that decides the numbers (weights, sampler, probes, library) and keyed by shot, so
    suites and targets share what they have in common, and a changed prompt or seed is simply another shot.
    """
    name = cache.key(
        model=model.fingerprint,
        device=str(model.device.type),
        dtype=str(model.dtype),
        torch=torch.__version__,
        layout=LAYOUT,
        sampler=suite.sampler,
        steps=suite.steps or getattr(model, "default_steps", None),
        guidance=getattr(model, "default_guidance", None) if suite.guidance is None else suite.guidance,
        encode=suite.encode,
        probe=probe.sha256,
        clip=clip.sha256 if clip else None,
        # Sizes, scheduler and VAE of a diffusion model; a GAN's weights are all there is.
        **({"drawing": model.drawing} if hasattr(model, "drawing") else {}),
    )
    stored = cache.load(name)
    known = Predictions((), {}) if stored is None else Predictions(tuple(Shot(*shot) for shot in stored[1]), stored[0])
    have = set(known.shots)
    missing = [shot for shot in shots if shot not in have]
    note = f"{len(shots) - len(missing)} of {len(shots)} unedited images came from the cache"
    if missing:
        known = known + (yield from answers(model, missing, suite, probe, clip, batch=batch, stage=stage))
        try:
            cache.store(name, known.numbers, [[shot.seed, shot.prompt] for shot in known.shots])
        except OSError as error:
            # A full disk or a read-only home must not cost the user the images that were just drawn.
            note += f"; what was drawn could not be stored ({error})"
    return known.of(shots), note


def reopened(images: Tensor, encode: str) -> Tensor:
    """Images as somebody sees them who opens the files: 8 bits a channel, or JPEG at PIL's default quality."""
    pixels = images.clamp(0, 1).mul(255).round().to(torch.uint8)
    if encode == "png":
        return pixels.float() / 255
    reread = []
    for picture in pixels.permute(0, 2, 3, 1).numpy():
        file = io.BytesIO()
        Image.fromarray(picture).save(file, format="JPEG")
        reread.append(torch.from_numpy(np.array(Image.open(file).convert("RGB"))))
    return torch.stack(reread).permute(0, 3, 1, 2).float() / 255


def _renamed(drawing: Work[Tensor], stage: str, done: int, span: int, total: int) -> Work[Tensor]:
    """The sampler's Steps as progress of the whole answer set, the last picture's left to its reading."""

    def change(step: Step) -> Step:
        part = span * step.done // (step.total or span) if step.stage != "decode" else span
        return Step(stage, done + min(part, span - 1), total, preview=step.preview)

    return map_steps(drawing, change)


def read(images: Tensor, shots: Sequence[Shot], suite: Suite, probe: Probe, clip: Clip | None = None) -> Predictions:
    """What probe and CLIP see in images [n 3 h w], as somebody sees them who opens the files."""
    finite = images.flatten(1).isfinite().all(1)
    pictures = reopened(torch.where(finite.view(-1, 1, 1, 1), images.float(), torch.zeros(())), suite.encode)
    seen = probe(pictures)
    fits = clip.cosines(pictures, [shot.prompt for shot in shots]) if clip else torch.full((len(shots),), torch.nan)
    return Predictions(
        tuple(shots),
        {
            "style": seen.style_prob,
            "object": seen.object_prob,
            "features": seen.features,
            "clip": fits.double(),
            "spread": pictures.flatten(1).std(1),
            "grain": _grain(pictures),
            "sure": _sure(seen, probe).to(torch.uint8),
            "finite": finite.to(torch.uint8),
        },
    )


def _sure(seen: Seen, probe: Probe) -> Tensor:
    """Which images a head claims for a class [n]; a probe with a neutral phrase claims what it does not call that."""
    if getattr(probe, "neutral", None) is None:
        return torch.maximum(seen.style_prob.amax(1), seen.object_prob.amax(1)) >= SURE
    heads = [(seen.style_prob, probe.styles), (seen.object_prob, probe.objects)]
    # A head with one label beside the neutral phrase says nothing about whether there is anything in the picture.
    claims = [prob.argmax(1) != len(labels) - 1 for prob, labels in heads if len(labels) > 2]
    return torch.stack(claims or [prob.argmax(1) != len(labels) - 1 for prob, labels in heads]).any(0)


def _grain(images: Tensor) -> Tensor:
    """The correlation [n] of neighbouring pixels, across and down: near 1 in pictures, near 0 in white noise."""
    grey = images.mean(1)
    pairs = ((grey[:, :, 1:], grey[:, :, :-1]), (grey[:, 1:, :], grey[:, :-1, :]))
    return torch.stack([_correlation(a.flatten(1), b.flatten(1)) for a, b in pairs]).mean(0)


def _correlation(a: Tensor, b: Tensor) -> Tensor:
    a, b = a - a.mean(1, keepdim=True), b - b.mean(1, keepdim=True)
    return (a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1)).clamp_min(1e-12)
