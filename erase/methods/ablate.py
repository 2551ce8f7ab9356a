"""Ablating Concepts in Text-to-Image Diffusion Models (Kumari et al., ICCV 2023, arXiv 2303.13516).

On noised pictures of the anchor, the student told the concept c* learns to say what the teacher says of the anchor c:

    mean (ε_θ(z, t, c*) − ε(z, t, c))²,   z a noised picture of c, ε from the unedited weights.

c and c* are one sentence with the anchor's or the concept's words in its gap. `target="noise"` is the paper's other
form, which regresses on the noise itself; `teacher="self"` is the published code's, whose teacher is the student of the
moment. The prior term  retain · mean (ε_θ(z', t', c') − ε')²  is taken on pictures of the kept concepts and, as
published, of an anchor that shares words with its concept or clothes a nude one. Ours: `confine`.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, Field
from torch import Tensor

from erase.concept import Concept
from erase.errors import plain
from erase.model import Denoiser
from erase.prompts.templates import SCENES, Templates, spoken
from erase.request import Request
from erase.training.deltas import DeltaOptimizer, FreezeCodes, NoiseTarget, held, regress, tune
from erase.training.loop import forwards
from erase.training.noised_images import Course, Picture, drawings, plainly, portray, prepare, spared, word
from erase.training.slices import select
from erase.work import Work, with_state

# The bundled model is small: its rates are a hundred times Stable Diffusion's.
POCKET: dict[str, Any] = {"iterations": 200, "lr": 2e-3, "batch": 4, "seeds": 32, "steps": 12}
ARTICLES = {"a", "an", "the"}


def needs_prior(concept: Concept) -> bool:
    """Whether the anchor is so near to the concept that its own pictures must be retained."""
    said = {word for phrase in concept.phrases for word in plain(phrase).split()} - ARTICLES
    return not said.isdisjoint(plain(concept.instead).split()) or concept.kind == "nudity"


class Ablation(BaseModel, frozen=True, extra="forbid"):
    """Teaches the U-Net to draw the anchor where the concept is named."""

    paper: ClassVar[str] = "Ablating Concepts in Text-to-Image Diffusion Models (arXiv 2303.13516)"
    needs: ClassVar[type] = Denoiser
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "style": {},
        "object": {},
        "nudity": {"slice": "attention", "lr": 6.4e-5, "iterations": 400, "seeds": 1000},
        "quick": {"seeds": 32, "steps": 20},
        "pocket": POCKET,
        "pocket-style": {**POCKET, "lr": 1e-3, "templates": SCENES["style"]},
        "pocket-object": {**POCKET, "lr": 1e-3, "templates": SCENES["object"]},
    }

    slice: Literal["kv", "cross", "attention", "full"] = Field(
        "kv",
        description="trained layers: kv, keys and values of cross-attention · cross, all of cross-attention · "
        "attention, also self-attention · full, the whole U-Net",
    )
    iterations: int = Field(100, ge=1, le=100_000, description="optimiser steps; more erases more firmly")
    lr: float = Field(1.6e-5, gt=0, le=0.1, description="Adam's learning rate; too high blurs everything")
    batch: int = Field(8, ge=1, le=256, description="samples per step; more are smoother and cost in proportion")
    seeds: int = Field(
        200, ge=1, le=4096, description="training pictures per anchor, at least one for each of its texts"
    )
    guidance: float = Field(
        6.0, gt=1, le=30, description="guidance scale of these pictures; higher makes the subject clearer"
    )
    steps: int = Field(25, ge=1, le=1000, description="denoising steps of a training picture")
    templates: Templates = Field(
        True,
        description="also teach the concept inside sentences: true, a list such as 'a photo of {}', or "
        "'@captions.txt' with one a line",
    )
    target: Literal["model", "noise"] = Field(
        "model",
        description="regression target on an anchor picture: model, the teacher's prediction · noise, the noise "
        "that was added",
    )
    teacher: Literal["base", "self"] = Field(
        "base",
        description="teacher: base, the unedited model · self, the student at that step, as in the published code",
    )
    confine: FreezeCodes = Field(
        "start",
        description="token codes whose keys and values stay frozen: none, the start token, or also the empty prompt",
    )
    retain: float = Field(
        1.0, ge=0, le=100, description="weight of the retain loss, on kept concepts and on anchors near the concept"
    )
    keep_seeds: int = Field(4, ge=1, le=1024, description="training pictures per kept concept")

    def cost(self, request: Request) -> dict[str, float]:
        """U-Net sample-forwards of a whole run, for samplers that call it once per step."""
        pictures = self._pictures(request)
        drawn = len(drawings(pictures))
        lessons = self.iterations * self.batch
        asked = lessons if self.target == "model" else 0
        taught, tuned = (asked, 0) if self.teacher == "base" else (0, asked)
        learnt = lessons * (2 if pictures["retain"] else 1)
        return {
            "pictures": drawn,
            **forwards(drawn * self.steps * 2 + taught, learnt + tuned, self.iterations, learnt),
        }

    def _pictures(self, request: Request) -> dict[str, list[Picture]]:
        concepts, keep, seed = request.concepts, request.keep, request.seed
        anchors = portray([spoken(concept, self.templates) for concept in concepts], self.seeds, seed, anchors=True)
        near = [picture for picture in anchors if needs_prior(concepts[picture.group])]
        others = spared([spoken(concept, self.templates) for concept in keep], self.keep_seeds, seed, len(concepts))
        return {"erase": anchors, "retain": [*plainly(near), *others] if self.retain else []}

    def learn(self, request: Request, state: Mapping[str, Tensor]) -> Work[dict[str, Tensor]]:
        """Draws, teaches, then tunes; each Step's state resumes the run to the same bits."""
        model, seed = request.model, request.seed
        written = self.target == "model" and self.teacher == "base"
        pictures = self._pictures(request)
        course = yield from prepare(model, self, pictures, {"erase": self.iterations} if written else {}, seed, state)
        masters = DeltaOptimizer(model.network, select(model.network, self.slice), self.lr, held(model, self.confine))
        one = partial(self._one, model, masters, course)
        yield from with_state(tune(self.iterations, one, (masters,), state), course.state)
        return masters.result()

    def _one(self, model: Denoiser, masters: DeltaOptimizer, course: Course, step: int) -> dict[str, float]:
        lessons = {name: bank.lessons(step, model) for name, bank in course.banks.items()}
        erase, phrases = lessons["erase"], course.phrases
        target = erase.noise if self.target == "noise" else word(model, phrases, erase, masters)
        asks = {"erase": NoiseTarget(erase.z, erase.t, phrases.told(erase), target)}
        if kept := lessons.get("retain"):
            asks["retain"] = NoiseTarget(kept.z, kept.t, phrases.told(kept), kept.noise, self.retain)
        return regress(model, masters, asks)
