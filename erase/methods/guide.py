"""GUIDE (Seo et al., CVPR 2024, arXiv 2405.09879) for a GAN in two dimensions: one identity becomes somebody else.

The face at code w_u is drawn as the one on the other side of the average face, d usual distances beyond it,

    w_t = w_avg − d · usual · (w_u − w_avg) / ‖w_u − w_avg‖,

its neighbours w_u + δ as w_t + δ, and everybody else as before. No critic, no words, nobody who looks.  The distance is
ours: the published 30 fits one generator's codes; so is `unlikeness` of pictures in place of LPIPS and a face network.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from pydantic import BaseModel, Field
from torch import Tensor

from erase.concept import Concept
from erase.edit import Edit
from erase.errors import BadInput
from erase.gan.distillation import Part, drawn_codes, layered, learning, multiscale_l1, students, teaching
from erase.model import Gan
from erase.request import Request
from erase.rng import number, stream
from erase.training.deltas import DeltaOptimizer, tune
from erase.work import Work

_SEEDS = re.compile(r"(?:seeds? )?(\d+(?:[, ]+\d+)*)", re.IGNORECASE)
AVERAGED = 2048  # codes from which the average face and the usual distance to it are read


@dataclass(frozen=True)
class _People:
    """Codes [n w] of who is erased, of everybody, and of whom is kept; `usual` is the mean distance to the average."""

    who: Tensor
    others: Tensor
    kept: Tensor
    usual: float


class Guide(BaseModel, frozen=True, extra="forbid"):
    """Makes a GAN draw somebody else where it drew one person, and leaves everybody else alone; needs no critic."""

    paper: ClassVar[str] = "Generative Unlearning for Any Identity (arXiv 2405.09879)"
    needs: ClassVar[type] = Gan
    presets: ClassVar[dict[str, dict[str, Any]]] = {"identity": {}, "average": {"beyond": 0.0}}

    seeds: tuple[str, ...] = Field(
        (), description="seeds whose images show the identity; empty: from the concept's name, as in 'seed 17'"
    )
    beyond: float = Field(
        0.7, ge=0, le=5, description="distance of the target identity beyond the average face, in mean distances (d)"
    )
    near: float = Field(
        0.5, ge=0, le=5, description="radius of the neighbourhood that is also erased, in the same unit (α)"
    )
    part: Part = Field(
        "synthesis", description="trained layers: synthesis, all but the colour layers · readers, the style layers only"
    )
    steps: int = Field(200, ge=1, le=100_000, description="optimiser steps")
    lr: float = Field(0.0016, gt=0, le=0.1, description="Adam's learning rate in units of unfolded weights")
    batch: int = Field(16, ge=4, le=1024, description="images per step: half of the identity, half of others")
    hold: float = Field(4.0, ge=0, le=100, description="weight of the loss that keeps other identities")

    def cost(self, request: Request) -> dict[str, float]:
        """Images of the frozen generator and of the student."""
        return {"teacher_images": self.steps * self.batch, "gradient_steps": self.steps}

    def finish(self, request: Request, edit: Edit) -> Work[Edit]:
        """The edit with the seeds of the erased persons."""
        yield from ()
        return Edit(edit.deltas, {**edit.about, "seeds": self._who(request.concepts)})

    def _who(self, concepts: Sequence[Concept]) -> list[int]:
        named = [text for concept in concepts for text in concept.phrases]
        return [seed for text in self.seeds or named for seed in seeds_in(text)]

    def learn(self, request: Request, state: Mapping[str, Tensor]) -> Work[dict[str, Tensor]]:
        """Tunes; each Step's state resumes the job to the same bits."""
        model, concepts, keep, seed = request.model, request.concepts, request.keep, request.seed
        first = number(seed, "average") >> 34
        w = drawn_codes(model, range(first, first + AVERAGED))
        kept = [w[:0], *(self._kept(model, concept) for concept in keep)]
        usual = float((w - w.mean(0)).norm(dim=1).mean())
        who = drawn_codes(model, self._who(concepts))
        masters = students(model, self.part, self.lr)
        people = _People(who, w, torch.cat(kept), usual)
        one = partial(self._one, model, masters, people, seed)
        yield from tune(self.steps, one, (masters,), state)
        return masters.result()

    def _kept(self, model: Gan, concept: Concept) -> Tensor:
        """Codes [n w] to be held on purpose: of the person that 'seed 4' draws, or of images that show an attribute."""
        named = [text for text in concept.phrases if names_seeds(text)]
        if named:
            return drawn_codes(model, [seed for text in named for seed in seeds_in(text)])
        return model.contrast(concept).present

    def _one(self, model: Gan, masters: DeltaOptimizer, people: _People, seed: int, step: int) -> dict[str, float]:
        who, w, kept, usual = people.who, people.others, people.kept, people.usual
        rng, half = stream(seed, "batch", step), self.batch // 2
        chosen = who[torch.randint(len(who), (half,), generator=rng).to(who.device)]
        others = w[torch.randint(len(w), (half,), generator=rng).to(w.device)]
        towards = F.normalize(others - chosen, dim=1)
        near = self.near * usual * torch.rand(half, 1, generator=rng).to(w) * towards
        near[: half // 4] = 0  # the identity itself
        if len(kept):
            others[: half // 2] = kept[torch.randint(len(kept), (half // 2,), generator=rng).to(w.device)]
        target = elsewhere(chosen, w.mean(0), self.beyond * usual) + near
        wanted = teaching(model, layered(model, torch.cat([target, others])))

        def losses() -> dict[str, Tensor]:
            drawn = model.synthesis(layered(model, torch.cat([chosen + near, others])))
            return {
                "erase": multiscale_l1(drawn[:half], wanted[:half]),
                "hold": self.hold * multiscale_l1(drawn[half:], wanted[half:]),
            }

        return learning(model, masters, losses)


def names_seeds(text: str) -> bool:
    """Whether a text says a person by seeds, as 'seed 17' does."""
    return _SEEDS.fullmatch(text.strip()) is not None


def seeds_in(text: str) -> list[int]:
    """The seeds a text names, as 'seed 17' or '3, 8'; BadInput where it names none."""
    found = _SEEDS.fullmatch(text.strip())
    if found is None:
        raise BadInput(
            f"{text!r} names no seed, and guide erases the person that a seed draws; say 'seed 17', or give its "
            "seeds as --seeds 17. For an attribute such as a beard, feature-unlearn and text-unlearn fit."
        )
    return [int(part) for part in re.split(r"[, ]+", found[1])]


def elsewhere(w: Tensor, average: Tensor, beyond: float) -> Tensor:
    """The codes [n w] that lie `beyond` the average [w], on the other side of it."""
    return average - beyond * F.normalize(w - average, dim=1)
