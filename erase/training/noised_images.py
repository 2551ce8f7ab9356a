"""Noised-image banks: the teacher's own pictures, noised afresh for every lesson, and what it says of them.

Pictures stay latents, so the image encoder is never needed. A lesson's z, t and noise follow from its number, so only
the teacher's word is stored; and it is asked before the first optimiser step, while the network is still the teacher.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor

from erase.borrow import substituted
from erase.model import BadInput, Codes, Denoiser, Shot
from erase.prompts.templates import encode_all
from erase.rng import number, stream
from erase.training.deltas import DeltaOptimizer
from erase.training.rollouts import LIMIT, part_of, plan, relayed
from erase.work import Step, Work, with_state

STORED = torch.float16  # 10 bits of values of order one, more than bf16
DRAWN = "teach.z0"  # the finished pictures in a state


@dataclass(frozen=True)
class Picture:
    """A picture to be drawn for a concept (its group), what the student is told of it, and what the teacher is told."""

    group: int
    shot: Shot
    told: str
    instead: str


@dataclass(frozen=True)
class TrainingBatch:
    """n lessons: their pictures, noised latents z [n c h w], times t [n], the noise, and the teacher's word if any."""

    pictures: Sequence[Picture]
    z: Tensor
    t: Tensor
    noise: Tensor
    said: Tensor | None

    @property
    def groups(self) -> Tensor:
        """The concept of each [n]."""
        return torch.tensor([picture.group for picture in self.pictures], device=self.z.device)


class Phrases:
    """The codes of texts, each text read once."""

    def __init__(self, model: Denoiser, texts: Iterable[str]) -> None:
        self._rows = {text: row for row, text in enumerate(dict.fromkeys(texts))}
        self._codes = encode_all(model, list(self._rows))

    def __call__(self, texts: Iterable[str]) -> Codes:
        return self._codes[torch.tensor([self._rows[text] for text in texts])]

    def told(self, lessons: TrainingBatch) -> Codes:
        """What the student is told."""
        return self(picture.told for picture in lessons.pictures)

    def instead(self, lessons: TrainingBatch) -> Codes:
        """What the teacher is told."""
        return self(picture.instead for picture in lessons.pictures)


@dataclass(frozen=True)
class NoisedImageCache:
    """Lessons on pictures with latents z0 [picture c h w], `batch` for each step; `said` is the teacher's word of all.

    An epoch shows every picture once; concepts take turns, and times are spread over each batch.
    """

    label: str
    pictures: Sequence[Picture]
    z0: Tensor
    batch: int
    seed: int
    said: Tensor | None = None

    @cached_property
    def groups(self) -> list[list[int]]:
        """The pictures of each concept."""
        numbers = dict.fromkeys(picture.group for picture in self.pictures)
        return [[row for row, picture in enumerate(self.pictures) if picture.group == group] for group in numbers]

    def _row(self, lesson: int) -> int:
        turn, group = divmod(lesson, len(self.groups))
        own = self.groups[group]
        epoch, place = divmod(turn, len(own))
        return own[int(torch.randperm(len(own), generator=stream(self.seed, self.label, "epoch", group, epoch))[place])]

    def lessons(self, step: int, model: Denoiser) -> TrainingBatch:
        """A step's lessons: z in the network's dtype, noise and teacher's word in fp32."""
        numbers = range(step * self.batch, (step + 1) * self.batch)
        rows = [self._row(lesson) for lesson in numbers]
        randomness = stream(self.seed, self.label, step)
        strata = torch.randperm(self.batch, generator=randomness)
        spread = (strata + torch.rand(self.batch, generator=randomness, dtype=torch.float64)) / self.batch
        t = model.path.times(spread).to(model.device)
        noise = torch.randn(self.batch, *self.z0.shape[1:], generator=randomness).to(model.device)
        z = model.path.add_noise(self.z0[rows].to(model.device, torch.float32), noise, t).to(model.dtype)
        said = None
        if self.said is not None:
            said = self.said[numbers.start : numbers.stop].to(model.device, torch.float32)
        return TrainingBatch([self.pictures[row] for row in rows], z, t, noise, said)


@dataclass(frozen=True)
class Course:
    """Everything a student learns from: banks by label, the codes of their texts, and the state that holds them."""

    banks: Mapping[str, NoisedImageCache]
    phrases: Phrases
    state: Mapping[str, Tensor]


def portray(texts: Sequence[Sequence[tuple[str, str]]], seeds: int, seed: int, *, anchors: bool) -> list[Picture]:
    """`seeds` pictures of each concept, or of its anchor, one at least for each of its (text, anchor's text) pairs."""
    return [
        Picture(row.group, _shot(seed, row.instead if anchors else row.prompt, place), row.prompt, row.instead)
        for place, row in enumerate(plan(texts, seeds, every=True))
    ]


def spared(texts: Sequence[Sequence[tuple[str, str]]], seeds: int, seed: int, first: int) -> list[Picture]:
    """`seeds` pictures of each kept concept, told as what they show; groups count from `first`."""
    rows = enumerate(plan(texts, seeds, every=False))
    return [Picture(first + row.group, _shot(seed, row.prompt, place), row.prompt, row.prompt) for place, row in rows]


def plainly(pictures: Sequence[Picture]) -> list[Picture]:
    """The same pictures, told to the student as what they show."""
    return [replace(picture, told=picture.shot.prompt, instead=picture.shot.prompt) for picture in pictures]


def _shot(seed: int, text: str, place: int) -> Shot:
    return Shot(number(seed, "picture", text, place) % 2**31, text)


def drawings(pictures: Mapping[str, Sequence[Picture]]) -> list[Shot]:
    """What must be drawn for all banks, each shot once."""
    return list(dict.fromkeys(picture.shot for some in pictures.values() for picture in some))


class Asked(Protocol):
    """The knobs by which a method asks for pictures and lessons."""

    @property
    def steps(self) -> int: ...

    @property
    def guidance(self) -> float: ...

    @property
    def batch(self) -> int: ...


def prepare(
    model: Denoiser,
    asked: Asked,
    pictures: Mapping[str, Sequence[Picture]],
    taught: Mapping[str, int],
    seed: int,
    state: Mapping[str, Tensor],
) -> Work[Course]:
    """Draws the pictures of every bank, then asks the teacher about the lessons of `taught[label]` steps.

    Equal shots are drawn once. `state` holds what an interrupted run has finished; a bank without pictures is left out.
    Raises BadInput if the banks would exceed 2 GiB.
    """
    shots = drawings(pictures)
    _affordable(model, len(shots) + asked.batch * sum(taught.values()))
    z0 = yield from _draw(model, shots, asked, state)
    place = {shot: row for row, shot in enumerate(shots)}
    banks = {
        label: NoisedImageCache(label, some, z0[[place[picture.shot] for picture in some]], asked.batch, seed)
        for label, some in pictures.items()
        if some
    }
    texts = [text for some in pictures.values() for picture in some for text in (picture.told, picture.instead)]
    phrases = Phrases(model, ["", *texts])
    finished = {DRAWN: z0}
    for label, lessons in taught.items():
        said = yield from with_state(_teach(model, banks[label], phrases, lessons, state), finished)
        banks[label] = replace(banks[label], said=said)
        finished[f"teach.{label}"] = said
    return Course(banks, phrases, finished)


def _affordable(model: Denoiser, latents: int) -> None:
    wanted = latents * math.prod(model.latent_shape) * STORED.itemsize
    if wanted > LIMIT:
        raise BadInput(f"The bank of lessons would take {wanted / 2**30:.1f} GiB; use fewer seeds or iterations.")


def _draw(
    model: Denoiser, shots: Sequence[Shot], asked: Asked, state: Mapping[str, Tensor], batch: int = 16
) -> Work[Tensor]:
    """The final latents of shots: one Step per denoising step."""
    z0 = torch.empty((len(shots), *model.latent_shape), dtype=STORED)
    done = len(state.get(DRAWN, ()))
    if done:
        z0[:done] = state[DRAWN]
    begun = part_of("draw", state)
    while done < len(shots):
        some = shots[done : done + batch]
        work = model.latents(some, steps=asked.steps, guidance=asked.guidance, batch=batch, state=begun)
        finished = {DRAWN: z0[:done]} if done else {}
        span, total = len(some) * asked.steps, len(shots) * asked.steps
        drawn = yield from relayed(work, "draw", done * asked.steps, span, total, finished.copy)
        z0[done : done + len(some)] = drawn
        done, begun = done + len(some), {}
    return z0


def _teach(
    model: Denoiser, bank: NoisedImageCache, phrases: Phrases, lessons: int, state: Mapping[str, Tensor]
) -> Work[Tensor]:
    """The teacher's word of every lesson of the first `lessons` steps: one Step for each."""
    name = f"teach.{bank.label}"
    said = torch.empty((lessons * bank.batch, *model.latent_shape), dtype=STORED)
    done = len(state.get(name, ())) // bank.batch
    if done:
        said[: done * bank.batch] = state[name]
    for step in range(done, lessons):
        asked = bank.lessons(step, model)
        with torch.no_grad():
            answer = model.predict(asked.z, asked.t, phrases.instead(asked))
        said[step * bank.batch : (step + 1) * bank.batch] = answer
        told = {name: said[: (step + 1) * bank.batch]}
        yield Step("teach", step + 1, lessons, state=told.copy)
    return said


def word(model: Denoiser, phrases: Phrases, lessons: TrainingBatch, student: DeltaOptimizer) -> Tensor:
    """The teacher's word of lessons; where none is written down, what the student of the moment says in its place."""
    if lessons.said is not None:
        return lessons.said
    with torch.no_grad(), substituted(model.network, student.weights()):
        return model.predict(lessons.z, lessons.t, phrases.instead(lessons)).float()
