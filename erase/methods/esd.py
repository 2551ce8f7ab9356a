"""Erasing Concepts from Diffusion Models (Gandikota et al., ICCV 2023, arXiv 2303.07345).

The student, told the concept c, learns to predict what the teacher would say when guided away from it:

    mean (ε_θ(z, t, c) − [e_∅ − η(e_c − e_∅)])²,   e from the unedited weights, z from their guided rollouts on c.

First the teacher's rollouts fill a bank (both halves of the guided call are the lesson, so e_c and e_∅ are free), then
the slice is tuned on it. Ours, not the paper's: `retain` adds  retain · mean (ε_θ(z, t, r) − e_r)²  on rollouts of the
kept concepts r, `target="anchor"` puts the anchor's prediction e_a in the place of e_∅, and `confine` holds what
cross-attention makes of codes that every prompt shares. With retain 0, "negative" and "none" this is the paper's ESD on
rollouts of the frozen model, where t is the noise level of z.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, Field
from torch import Tensor

from erase.concept import Concept
from erase.model import Codes, Denoiser
from erase.prompts.templates import Templates, encode_all, spoken
from erase.request import Request
from erase.rng import stream
from erase.training.deltas import DeltaOptimizer, FreezeCodes, NoiseTarget, held, regress, tune
from erase.training.loop import forwards
from erase.training.rollouts import Rollout, RolloutCache, Sampling, plan, remembered, teach
from erase.training.slices import select
from erase.work import Work, with_state

SLICE = {"x": "cross", "u": "not_cross", "x-strict": "kv", "all": "full"}


def erased(present: Tensor, absent: Tensor, base: Tensor, eta: float) -> Tensor:
    """The target base − η(e_c − e_∅): with base = e_∅ the paper's, with base = e_b it erases c from b."""
    return base - eta * (present - absent)


class ESD(BaseModel, frozen=True, extra="forbid"):
    """Trains part of the U-Net to steer away from a concept, taught by its own unedited self."""

    paper: ClassVar[str] = "Erasing Concepts from Diffusion Models (arXiv 2303.07345)"
    needs: ClassVar[type] = Denoiser
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "style": {},
        "object": {"variant": "u"},
        "nudity": {"variant": "u"},
        "quick": {"iterations": 200, "lr": 5e-5, "steps": 20, "seeds": 8},
        "pocket": {"iterations": 400, "lr": 3e-4, "steps": 20, "seeds": 8, "eta": 4.0},
    }

    variant: Literal["x", "u", "x-strict", "all"] = Field(
        "x",
        description="trained layers: x, cross-attention (for prompts that name the concept) · u, all others (also "
        "where it is not named) · x-strict, keys and values of cross-attention · all, the whole U-Net",
    )
    iterations: int = Field(1000, ge=1, le=100_000, description="optimiser steps; more erases more firmly")
    lr: float = Field(1e-5, gt=0, le=0.1, description="Adam's learning rate; too high blurs everything")
    eta: float = Field(1.0, ge=-1, le=20, description="negative guidance scale of the target (η)")
    target: Literal["negative", "anchor"] = Field(
        "negative", description="target: negative guidance away from the concept, or the prediction for the anchor"
    )
    batch: int = Field(2, ge=1, le=256, description="samples per step; more are smoother and cost in proportion")
    seeds: int = Field(16, ge=1, le=4096, description="rollouts per concept, at least one for each of its texts")
    guidance: float = Field(
        3.0, gt=1, le=30, description="guidance scale of the rollouts; higher makes the concept clearer"
    )
    steps: int = Field(50, ge=2, le=1000, description="denoising steps of a rollout")
    templates: Templates = Field(
        True, description="also teach the concept inside sentences: true, or a list such as 'a photo of {}'"
    )
    confine: FreezeCodes = Field(
        "start",
        description="token codes whose keys and values stay frozen: none, the start token, or also the empty prompt",
    )
    retain: float = Field(
        1.0, ge=0, le=100, description="weight of the retain loss on kept concepts; 0 is the paper's ESD"
    )
    keep_seeds: int = Field(1, ge=1, le=1024, description="rollouts per kept concept")

    def cost(self, request: Request) -> dict[str, float]:
        """U-Net sample-forwards of a whole run: a prediction for one latent counts one, a guided call two."""
        rollouts, kept = len(self._rollouts(request.concepts)), len(self._kept_rollouts(request.keep))
        taught = self.steps * (rollouts * (3 if self.target == "anchor" else 2) + 2 * kept)
        samples = self.iterations * self.batch * (2 if kept else 1)
        return {
            "rollouts": rollouts,
            "kept_rollouts": kept,
            "draws_per_rollout": self.iterations * self.batch / rollouts,
            **forwards(taught, samples, self.iterations, samples),
        }

    def _rollouts(self, concepts: Sequence[Concept]) -> list[Rollout]:
        return plan([spoken(concept, self.templates) for concept in concepts], self.seeds, every=True)

    def _kept_rollouts(self, keep: Sequence[Concept]) -> list[Rollout]:
        texts = [spoken(concept, self.templates) for concept in keep]
        return plan(texts, self.keep_seeds, every=False) if self.retain else []

    def learn(self, request: Request, state: Mapping[str, Tensor]) -> Work[dict[str, Tensor]]:
        """Teaches, then tunes; each Step's state resumes the run to the same bits."""
        model, concepts, keep, seed = request.model, request.concepts, request.keep, request.seed
        how = Sampling(seed, self.guidance, self.steps)
        base = "instead" if self.target == "anchor" else "absent"
        banks = {"teach": (yield from teach(model, self._rollouts(concepts), "teach", ("present", base), how, state))}
        taught = remembered(banks["teach"], "teach")
        if kept := self._kept_rollouts(keep):
            work = teach(model, kept, "teach kept", ("present",), how, state)
            banks["teach kept"] = yield from with_state(work, taught)
            taught |= remembered(banks["teach kept"], "teach kept")
        names = select(model.network, SLICE[self.variant])
        masters = DeltaOptimizer(model.network, names, self.lr, held(model, self.confine))
        one = partial(self._one, model, masters, _codes(model, banks), banks, base, seed)
        yield from with_state(tune(self.iterations, one, (masters,), state), taught)
        return masters.result()

    def _one(
        self,
        model: Denoiser,
        masters: DeltaOptimizer,
        codes: Mapping[str, Codes],
        banks: Mapping[str, RolloutCache],
        base: str,
        seed: int,
        step: int,
    ) -> dict[str, float]:
        lessons = {name: bank.lessons(stream(seed, name, step), self.batch, model) for name, bank in banks.items()}
        taught = lessons["teach"]
        target = erased(taught.said["present"], taught.said[base], taught.said[base], self.eta)
        asks = {"erase": NoiseTarget(taught.z, taught.t, codes["teach"][taught.rollout], target)}
        if kept := lessons.get("teach kept"):
            asks["retain"] = NoiseTarget(
                kept.z, kept.t, codes["teach kept"][kept.rollout], kept.said["present"], self.retain
            )
        return regress(model, masters, asks)


def _codes(model: Denoiser, banks: Mapping[str, RolloutCache]) -> dict[str, Codes]:
    return {name: encode_all(model, [rollout.prompt for rollout in bank.rollouts]) for name, bank in banks.items()}
