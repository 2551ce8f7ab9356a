"""DoCo: Unlearning Concepts in Diffusion Model via Concept Domain Correction (Wu et al., AAAI 2025, arXiv 2405.15304).

On noised pictures of the anchor c, a discriminator D learns to tell what the teacher says of c from what the student
says when it is told the concept c*; the student learns to be taken for the teacher:

    D: min −log D(h) − log(1 − D(h*)),   student: min −log D(h*),   h = ε(z, t, c),  h* = ε_θ(z, t, c*), same z and t.

So whole domains are made alike, not single pairs. The student's gradient gives way to that of the retain loss
mean (ε_θ(z', t', c') − ε')² wherever the two conflict (`erase.training.surgery`); only the rest of it is applied. D is
not part of the student's step, and learns from predictions made before it. The authors' repository holds two versions:
the first, our default, looks at predicted noise and projects; the second (preset `repo-v2`) looks at the predicted
clean latent and steers. Ours: `match`, `confine`, kept concepts, one map of D per concept, group norm in D.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, ClassVar, Literal

import torch
from pydantic import BaseModel, Field, ValidationInfo, field_validator
from torch import Tensor

from erase.borrow import substituted
from erase.model import BadInput, Denoiser
from erase.prompts.templates import SCENES, Templates, spoken
from erase.request import Request
from erase.rng import stream
from erase.training.deltas import DeltaOptimizer, FreezeCodes, NoiseTarget, errors, held, tune
from erase.training.loop import forwards
from erase.training.noised_images import Course, Picture, TrainingBatch, drawings, plainly, portray, prepare, spared
from erase.training.patchgan import Critic
from erase.training.slices import select
from erase.training.surgery import project, steer
from erase.work import Work, with_state

# The bundled model is small: rates a hundred times as high, and lessons matched besides, since D alone wavers.
POCKET: dict[str, Any] = {
    "iterations": 240, "warmup": 40, "lr": 1e-3, "critic_lr": 5e-4, "match": 4.0, "batch": 4, "seeds": 32, "steps": 12,
}  # fmt: skip


class DoCo(BaseModel, frozen=True, extra="forbid"):
    """Makes what the U-Net says of a concept indistinguishable from what it says of the anchor."""

    paper: ClassVar[str] = "Unlearning Concepts in Diffusion Model via Concept Domain Correction (arXiv 2405.15304)"
    needs: ClassVar[type] = Denoiser
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "style": {},
        "object": {"strength": 0.5, "critic_lr": 1e-4},
        "nudity": {"strength": 0.5, "critic_lr": 1e-4},
        "quick": {"iterations": 300, "warmup": 60, "lr": 5e-5, "seeds": 32, "steps": 20},
        "pocket": POCKET,
        "pocket-style": {**POCKET, "templates": SCENES["style"]},
        "pocket-object": {**POCKET, "templates": SCENES["object"]},
        "repo-v2": {"sees": "latent", "surgery": "repo-v2", "lr": 4.8e-5, "iterations": 2000, "warmup": 1000},
    }

    slice: Literal["kv", "cross", "full"] = Field(
        "kv",
        description="trained layers: kv, keys and values of cross-attention · cross, all of cross-attention · "
        "full, the whole U-Net",
    )
    iterations: int = Field(1000, ge=1, le=100_000, description="all steps, warm-up included; more erases more firmly")
    warmup: int = Field(
        200, ge=0, le=100_000, validate_default=True, description="first steps, in which only the discriminator learns"
    )
    lr: float = Field(1.6e-5, gt=0, le=0.1, description="learning rate of the U-Net; too high blurs everything")
    optimiser: Literal["adam", "sgd"] = Field(
        "adam", description="optimiser of the U-Net; adam rescales the projected gradient, sgd follows it exactly"
    )
    critic_lr: float = Field(5e-4, gt=0, le=0.1, description="learning rate of the discriminator (Adam)")
    sees: Literal["noise", "latent"] = Field(
        "noise", description="input of the discriminator: predicted noise, or the predicted clean latent"
    )
    surgery: Literal["project", "repo-v2", "add", "off"] = Field(
        "project",
        description="gradient surgery: project, exactly where the gradients conflict · repo-v2, as in the "
        "authors' later code · add, add the retain gradient everywhere · off, none",
    )
    strength: float = Field(1.0, ge=0, le=10, description="strength of the surgery (λ); less erases more")
    match: float = Field(
        0.0, ge=0, le=100, description="weight of a regression loss on the anchor; raise it if erasing stalls"
    )
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
    confine: FreezeCodes = Field(
        "start",
        description="token codes whose keys and values stay frozen: none, the start token, or also the empty prompt",
    )
    keep_seeds: int = Field(4, ge=1, le=1024, description="training pictures per kept concept")

    @field_validator("warmup")
    @classmethod
    def _leaves_steps(cls, warmup: int, info: ValidationInfo) -> int:
        if warmup >= info.data.get("iterations", warmup + 1):
            raise BadInput(f"of {info.data['iterations']} iterations it leaves none for erasing; give fewer")
        return warmup

    def cost(self, request: Request) -> dict[str, float]:
        """U-Net sample-forwards of a whole run, for samplers that call it once per step."""
        drawn, lessons = len(drawings(self._pictures(request))), self.iterations * self.batch
        learnt = (self.iterations - self.warmup) * self.batch * (1 if self.surgery == "off" else 2)
        tuned = learnt + self.warmup * self.batch
        return {"pictures": drawn, **forwards(drawn * self.steps * 2 + lessons, tuned, self.iterations, learnt)}

    def _pictures(self, request: Request) -> dict[str, list[Picture]]:
        concepts, keep, seed = request.concepts, request.keep, request.seed
        anchors = portray([spoken(concept, self.templates) for concept in concepts], self.seeds, seed, anchors=True)
        others = spared([spoken(concept, self.templates) for concept in keep], self.keep_seeds, seed, len(concepts))
        return {"erase": anchors, "retain": [] if self.surgery == "off" else [*plainly(anchors), *others]}

    def learn(self, request: Request, state: Mapping[str, Tensor]) -> Work[dict[str, Tensor]]:
        """Draws, teaches, then tunes; each Step's state resumes the run to the same bits."""
        model, concepts, seed = request.model, request.concepts, request.seed
        critic = Critic(model.latent_shape, len(concepts), self.critic_lr, stream(seed, "critic"), model.device)
        pictures = self._pictures(request)
        course = yield from prepare(model, self, pictures, {"erase": self.iterations}, seed, state)
        names = select(model.network, self.slice)
        masters = DeltaOptimizer(model.network, names, self.lr, held(model, self.confine), self.optimiser)
        one = partial(self._one, model, masters, critic, course)
        yield from with_state(tune(self.iterations, one, (masters, critic), state), course.state)
        return masters.result()

    def _one(
        self, model: Denoiser, masters: DeltaOptimizer, critic: Critic, course: Course, step: int
    ) -> dict[str, float]:
        lessons = course.banks["erase"].lessons(step, model)
        assert lessons.said is not None
        told, concept = course.phrases.told(lessons), lessons.groups
        learns = step >= self.warmup
        losses: dict[str, float] = {}
        with torch.set_grad_enabled(learns), substituted(model.network, masters.weights()):
            said = model.predict(lessons.z, lessons.t, told).float()
            seen = self._seen(model, lessons, said)
            apart = (said - lessons.said).square().mean()
            if learns:
                doubts = critic.doubts(seen, concept)
                gradient = masters.gradients(doubts + self.match * apart)
                losses["erase"] = float(doubts.detach())
        if learns:
            if self.surgery != "off":
                retain, losses["retain"] = self._retain(model, masters, course, step)
                gradient = self._operate(gradient, retain)
            masters.descend(gradient)
        losses["discriminator"] = critic.learn(self._seen(model, lessons, lessons.said), seen, concept)
        return {**losses, "apart": float(apart.detach())}

    def _seen(self, model: Denoiser, lessons: TrainingBatch, said: Tensor) -> Tensor:
        return said if self.sees == "noise" else model.path.to_clean(said, lessons.z, lessons.t)

    def _retain(
        self, model: Denoiser, masters: DeltaOptimizer, course: Course, step: int
    ) -> tuple[dict[str, Tensor], float]:
        kept = course.banks["retain"].lessons(step, model)
        with torch.enable_grad(), substituted(model.network, masters.weights()):
            asked = {"retain": NoiseTarget(kept.z, kept.t, course.phrases.told(kept), kept.noise)}
            loss = errors(model, asked)["retain"]
            return masters.gradients(loss), float(loss.detach())

    def _operate(self, gradient: dict[str, Tensor], retain: dict[str, Tensor]) -> dict[str, Tensor]:
        if self.surgery == "project":
            return project(gradient, retain, self.strength)
        if self.surgery == "repo-v2":
            return steer(gradient, retain, self.strength)
        return {name: part + self.strength * retain[name] for name, part in gradient.items()}
