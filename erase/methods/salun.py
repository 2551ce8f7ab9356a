"""SalUn: Empowering Machine Unlearning via Gradient-based Weight Saliency (Fan et al., ICLR 2024, arXiv 2310.12508).

Only the weights on which drawing the concept hangs most are trained. Saliency is, at the unedited weights,

    s = |Σ ∇ℓ|,   ℓ = −mean (ε − [(1+w) ε_θ(z, t, c) − w ε_θ(z, t, ∅)])²,

over noised pictures of the concept c; the top `share` of the whole slice is trained, the rest keeps every bit. Then,
told c on the concept's own pictures, the student learns what the teacher says of the anchor a, and retains others:

    mean (ε_θ(z, t, c) − ε(z, t, a))² + α · mean (ε_θ(z', t', r) − ε')²,   r the anchors and the kept concepts.

`teacher="self"` is the published code's, whose teacher is the student of the moment.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar, Literal

import torch
from pydantic import BaseModel, Field
from torch import Tensor

from erase.borrow import substituted
from erase.model import Codes, Denoiser
from erase.prompts.templates import SCENES, Templates, spoken
from erase.request import Request
from erase.training.deltas import DeltaOptimizer, NoiseTarget, regress, tune
from erase.training.loop import forwards
from erase.training.noised_images import (
    Course,
    Phrases,
    Picture,
    TrainingBatch,
    drawings,
    plainly,
    portray,
    prepare,
    spared,
    word,
)
from erase.training.slices import select
from erase.training.surgery import salient
from erase.work import Step, Work, with_state

# The bundled model is small: its rates are a hundred times Stable Diffusion's.
POCKET: dict[str, Any] = {"epochs": 25, "lr": 4e-3, "batch": 4, "seeds": 32, "steps": 12}


def forgetting(model: Denoiser, lessons: TrainingBatch, phrases: Phrases, w: float) -> Tensor:
    """ℓ: minus the error with which the guided model predicts the noise in the concept's pictures."""
    both = Codes.cat([phrases.told(lessons), phrases([""] * len(lessons.pictures))])
    said = model.predict(torch.cat([lessons.z] * 2), torch.cat([lessons.t] * 2), both).float()
    present, absent = said.chunk(2)
    return -(lessons.noise - ((1 + w) * present - w * absent)).square().mean()


class SalUn(BaseModel, frozen=True, extra="forbid"):
    """Retrains only the weights on which drawing the concept hangs."""

    paper: ClassVar[str] = "SalUn: Gradient-based Weight Saliency (arXiv 2310.12508)"
    needs: ClassVar[type] = Denoiser
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "style": {},
        "object": {"epochs": 5, "retain": 0.5},
        "nudity": {"slice": "full", "epochs": 1, "retain": 0.1, "seeds": 800},
        "quick": {"seeds": 64, "epochs": 10, "lr": 5e-5, "steps": 20},
        "pocket": POCKET,
        "pocket-style": {**POCKET, "lr": 2e-3, "templates": SCENES["style"]},
        "pocket-object": {**POCKET, "lr": 2e-3, "templates": SCENES["object"]},
        "no-mask": {"share": 1.0},
    }

    slice: Literal["kv", "cross", "attention", "full"] = Field(
        "cross",
        description="layers that weights are chosen from: kv, keys and values of cross-attention · cross, all of "
        "cross-attention · attention, also self-attention · full, the whole U-Net",
    )
    share: float = Field(0.5, ge=0, le=1, description="share of these weights that is trained; less preserves more")
    epochs: int = Field(2, ge=1, le=10_000, description="how often each picture is shown; more erases more firmly")
    lr: float = Field(1e-5, gt=0, le=0.1, description="Adam's learning rate; too high blurs everything")
    retain: float = Field(1.0, ge=0, le=100, description="weight of the retain loss on anchors and kept concepts (α)")
    batch: int = Field(8, ge=1, le=256, description="samples per step; more are smoother and cost in proportion")
    seeds: int = Field(
        400, ge=1, le=4096, description="pictures per concept and per anchor, at least one for each of its texts"
    )
    keep_seeds: int = Field(4, ge=1, le=1024, description="training pictures per kept concept")
    guidance: float = Field(
        6.0, gt=1, le=30, description="guidance scale of these pictures; higher makes the subject clearer"
    )
    steps: int = Field(25, ge=1, le=1000, description="denoising steps of a training picture")
    saliency_guidance: float = Field(
        7.5, ge=0, le=30, description="guidance scale (w) under which saliency is measured"
    )
    templates: Templates = Field(
        True,
        description="also teach the concept inside sentences: true, a list such as 'a photo of {}', or "
        "'@captions.txt' with one a line",
    )
    teacher: Literal["base", "self"] = Field(
        "base", description="teacher for the anchor: base, the unedited model · self, the student at that step"
    )

    def cost(self, request: Request) -> dict[str, float]:
        """U-Net sample-forwards of a whole run, for samplers that call it once per step."""
        pictures = self._pictures(request)
        drawn, epoch = len(drawings(pictures)), self._epoch(pictures)
        lessons = self.epochs * epoch * self.batch
        taught, tuned = (lessons, 0) if self.teacher == "base" else (0, lessons)
        learnt = lessons * (2 if pictures["retain"] else 1)
        taught += drawn * self.steps * 2 + 2 * epoch * self.batch
        return {"pictures": drawn, **forwards(taught, learnt + tuned, self.epochs * epoch, learnt)}

    def _pictures(self, request: Request) -> dict[str, list[Picture]]:
        concepts, keep, seed = request.concepts, request.keep, request.seed
        texts = [spoken(concept, self.templates) for concept in concepts]
        anchors = plainly(portray(texts, self.seeds, seed, anchors=True))
        others = spared([spoken(concept, self.templates) for concept in keep], self.keep_seeds, seed, len(concepts))
        return {
            "erase": portray(texts, self.seeds, seed, anchors=False),
            "retain": [*anchors, *others] if self.retain else [],
        }

    def _epoch(self, pictures: Mapping[str, Sequence[Picture]]) -> int:
        return math.ceil(len(pictures["erase"]) / self.batch)

    def learn(self, request: Request, state: Mapping[str, Tensor]) -> Work[dict[str, Tensor]]:
        """Draws, teaches, ranks the weights, then tunes; each Step's state resumes the run to the same bits."""
        model, seed = request.model, request.seed
        pictures = self._pictures(request)
        epoch = self._epoch(pictures)
        taught = {"erase": self.epochs * epoch} if self.teacher == "base" else {}
        course = yield from prepare(model, self, pictures, taught, seed, state)
        masters = DeltaOptimizer(model.network, select(model.network, self.slice), self.lr)
        sums = yield from with_state(self._gradients(model, masters, course, epoch, state), course.state)
        mask = salient({name: total.abs() for name, total in sums.items()}, self.share)
        one = partial(self._one, model, masters, course, mask)
        finished = {**course.state, **_ranked(sums, epoch)}
        yield from with_state(tune(self.epochs * epoch, one, (masters,), state), finished)
        return masters.result()

    def _gradients(
        self, model: Denoiser, masters: DeltaOptimizer, course: Course, epoch: int, state: Mapping[str, Tensor]
    ) -> Work[dict[str, Tensor]]:
        """Σ ∇ℓ over one epoch of the concept's pictures, at the unedited weights."""
        bank = replace(course.banks["erase"], label="saliency", said=None)
        done = int(state.get("teach.ranked", 0))
        sums = {name: torch.zeros_like(delta) for name, delta in masters.deltas.items()}
        if done:
            sums = {name: state[f"teach.saliency.{name}"].to(total, copy=True) for name, total in sums.items()}
        for step in range(done, epoch):
            lessons = bank.lessons(step, model)
            with torch.enable_grad(), substituted(model.network, masters.weights()):
                loss = forgetting(model, lessons, course.phrases, self.saliency_guidance)
                for name, part in masters.gradients(loss).items():
                    sums[name] += part
            yield Step(
                "rank", step + 1, epoch, {"saliency": float(loss.detach())}, state=partial(_ranked, sums, step + 1)
            )
        return sums

    def _one(
        self, model: Denoiser, masters: DeltaOptimizer, course: Course, mask: Mapping[str, Tensor], step: int
    ) -> dict[str, float]:
        lessons = {name: bank.lessons(step, model) for name, bank in course.banks.items()}
        erase, phrases = lessons["erase"], course.phrases
        asks = {"erase": NoiseTarget(erase.z, erase.t, phrases.told(erase), word(model, phrases, erase, masters))}
        if kept := lessons.get("retain"):
            asks["retain"] = NoiseTarget(kept.z, kept.t, phrases.told(kept), kept.noise, self.retain)
        return regress(model, masters, asks, mask)


def _ranked(sums: Mapping[str, Tensor], done: int) -> dict[str, Tensor]:
    return {"teach.ranked": torch.tensor(done), **{f"teach.saliency.{name}": total for name, total in sums.items()}}
