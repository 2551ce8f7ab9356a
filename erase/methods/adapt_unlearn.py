"""Adapt, then Unlearn (Tiwari, Chandran, Prathosh; TMLR 2025, arXiv 2309.14054): without any of the training data.

Somebody marks the generator's own images that show the concept.  Stage 1 adapts the generator to these K times,

    θ_k = argmin  L_adv(θ; marked images) + λ/2 · Σ_i F_i (θ_i − θ_G,i)²,   F_i = mean (∂D/∂θ_i)²,

and stage 2 trains it, from θ_G again, on its images without the concept while pushing it away from all θ_k:

    L_adv(θ; other images) + c · R(ρ),   R = e^(−αρ) (EL2) · −ρ (NL2) · 1/ρ (IL2).

With u = θ − θ_G, v_k = θ_k − θ_G, S = Σ v_k and q = Σ ‖v_k‖², all that is kept of K models is S and q:

    ρ = Σ_k ‖θ − θ_k‖² / Σ_k ‖θ_G − θ_k‖² = (K‖u − S/K‖² + q − ‖S‖²/K) / q.

ρ is 1 at the start whatever the model, K and stage 1; norms are those of unfolded weights.  ρ, and c chosen such that
the repulsion's first gradient is β times the adversarial one, are ours: the published γ range from 0.1 to 100.  So is
`keep`: the images stage 2 learns from are redrawn such that they show what is kept as often as all images do.  And so
is that (θ − θ_G) is worn in part: what is erased is gone well before the end of the way, along which all images drift.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar, Literal

import torch
from pydantic import BaseModel, Field
from torch import Tensor

from erase.borrow import substituted
from erase.concept import Concept
from erase.edit import Edit
from erase.gan.adversarial import GanSettings, GanTrainer, critic_of, generator_loss
from erase.gan.feedback import Marks, balanced, marked, pictures
from erase.model import Gan
from erase.request import Request
from erase.rng import stream
from erase.training.deltas import tune
from erase.work import Step, Work, map_steps, with_state

Weights = Mapping[str, Tensor]
FISHER_BATCH = 8
SHARES, LEFT = (0.5, 0.6, 0.7, 0.8, 0.9), 0.005  # of stage 2's way; of the images that showed the concept


class AdaptUnlearn(BaseModel, frozen=True, extra="forbid"):
    """Adapts a GAN to the concept, then trains it away from there on its own images without it."""

    paper: ClassVar[str] = "Adapt then Unlearn (arXiv 2309.14054)"
    needs: ClassVar[type] = Gan
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "attribute": {},
        "ewc": {"form": "ewc", "worn": 1.0},
        "extrapolation": {"form": "extrapolate"},
        "celeba-hq": {
            "marked": 300, "models": 5, "adapt_steps": 6000, "positives": 5000, "steps": 4001, "r1": 10.0,
            "ewc": 5e8, "worn": 1.0,
        },
    }  # fmt: skip

    form: Literal["EL2", "NL2", "IL2", "ewc", "extrapolate"] = Field(
        "EL2",
        description="repulsion from the adapted weights: EL2, NL2 or IL2 · baselines: ewc, no repulsion · "
        "extrapolate, the mean adaptation applied backwards, without a stage 2",
    )
    marks: str = Field(
        "",
        description='JSON file {"yes": [seeds], "no": [seeds]} of a person\'s clicks; empty: use the model\'s scorer',
    )
    marked: int = Field(200, ge=8, le=100_000, description="images with the concept that stage 1 adapts to")
    positives: int = Field(2000, ge=8, le=1_000_000, description="images without it that stage 2 learns from")
    models: int = Field(3, ge=1, le=64, description="number of adapted models (K); more locate the concept better")
    adapt_steps: int = Field(150, ge=1, le=1_000_000, description="optimiser steps of each adaptation")
    steps: int = Field(800, ge=1, le=1_000_000, description="optimiser steps of stage 2")
    lr: float = Field(0.002, gt=0, le=0.1, description="Adam's learning rate in units of unfolded weights")
    batch: int = Field(16, ge=2, le=1024, description="images per step")
    alpha: float = Field(2.0, gt=0, le=100, description="decay of EL2's repulsion with distance (α)")
    push: float = Field(
        1.5, ge=0, le=100, description="repulsion at the first step, relative to the adversarial loss (β)"
    )
    ewc: float = Field(
        300.0,
        ge=0,
        le=1e12,
        description="weight of the elastic penalty in stage 1 (λ)",
    )
    fisher: int = Field(32, ge=8, le=100_000, description="images for the Fisher information of that penalty")
    half_life: float = Field(
        0.25, gt=0, le=1,
        description="half-life of the weight average, as a share of stage 2's steps",
    )  # fmt: skip
    worn: float = Field(
        0.0,
        ge=0,
        le=1,
        description="applied share of stage 2's difference; 0: the least, in tenths, after which the scorer still "
        "finds the concept in at most 1 of 200 images that showed it; all of it where only a person's clicks are",
    )
    backwards: float = Field(
        1.0, gt=0, le=10, description="extrapolate only: how far the adaptation is applied backwards"
    )
    r1: float = Field(0.1, ge=0, le=1e12, description="weight of the discriminator's gradient penalty (R1)")
    path: float = Field(2.0, ge=0, le=1e12, description="weight of path length regularisation")

    def cost(self, request: Request) -> dict[str, float]:
        """Steps of each network; memory does not grow with the adapted models."""
        adapted = 0 if self.form == "ewc" else self.models * self.adapt_steps
        unlearning = 0 if self.form == "extrapolate" else self.steps
        return {"adapt_steps": adapted, "unlearn_steps": unlearning, "gradient_steps": 2 * (adapted + unlearning)}

    def finish(self, request: Request, edit: Edit) -> Work[Edit]:
        """The share of the edit that erases: all of it, or the least after which the scorer finds nearly nothing."""
        by = (self.marks and "marks") or request.model.scorer(request.concepts[0]).name
        share = 1.0 if self.form == "extrapolate" else (yield from self._share(request, edit))
        deltas = {name: share * delta for name, delta in edit.deltas.items()}
        return Edit(deltas, {**edit.about, "steered_by": by, "worn": share})

    def learn(self, request: Request, state: Mapping[str, Tensor]) -> Work[dict[str, Tensor]]:
        """Looks, adapts K times, unlearns; each Step's state resumes the job to the same bits."""
        model, concepts, keep, seed = request.model, request.concepts, request.keep, request.seed
        critic_of(model)
        marks = yield from marked(
            model, concepts, self.marks, yes=self.marked, no=self.positives, seed=seed, state=state
        )
        marks = yield from with_state(balanced(model, marks, keep, seed, state), marks.state())
        known, sums = {**marks.state(), "balanced": torch.ones([])}, Sums(model)
        if self.form != "ewc":
            yield from with_state(self._adapt(model, marks, seed, state, sums), known)
            known |= sums.state()
        if self.form == "extrapolate":
            return {name: -self.backwards * mean.cpu() for name, mean in sums.mean().items()}
        fisher = yield from with_state(self._fisher(model, seed, state), known) if self.form == "ewc" else _nothing()
        return (yield from with_state(self._unlearn(model, marks, seed, state, sums, fisher), known | fisher))

    def _adapt(self, model: Gan, marks: Marks, seed: int, state: Mapping[str, Tensor], sums: Sums) -> Work[None]:
        sums.load(state)
        if sums.count == self.models:
            return
        fisher = yield from with_state(self._fisher(model, seed, state), sums.state())
        real = pictures(model, marks.yes)
        for k in range(sums.count, self.models):
            duel = self._duel(model, real, self.adapt_steps / 10, ("adapt", k), seed)
            work = tune(self.adapt_steps, partial(duel.step, more=partial(self._held, fisher)), (duel,),
                        state if k == sums.count else {})  # fmt: skip
            yield from with_state(_named(work, f"adapt {k + 1} of {self.models}"), sums.state() | fisher)
            sums.add(duel.average)
            state = {}

    def _unlearn(
        self, model: Gan, marks: Marks, seed: int, state: Mapping[str, Tensor], sums: Sums, fisher: Weights
    ) -> Work[dict[str, Tensor]]:
        duel = self._duel(model, pictures(model, marks.no), self.half_life * self.steps, ("unlearn",), seed)
        ended = "scale" in state
        scale = state["scale"] if ended else self._scale(duel, sums) if self.form != "ewc" else torch.ones([])
        more = partial(self._held, fisher) if self.form == "ewc" else partial(self._repelled, sums, scale)
        work = tune(self.steps, partial(duel.step, more=more), (duel,), state if ended else {})
        yield from with_state(_named(work, "unlearn"), {"scale": scale})
        return {name: delta.detach().cpu() for name, delta in duel.average.items()}

    def _share(self, request: Request, edit: Edit) -> Work[float]:
        """How much of stage 2's way is applied, by the scorer's word on images that no stage has seen."""
        if self.worn or self.marks:
            return self.worn or 1.0
        model, concepts = request.model, request.concepts
        looked = marked(model, concepts, "", yes=self.marked, no=1, seed=request.seed + 1, state={})
        fresh = yield from map_steps(looked, lambda step: replace(step, state=None))  # what is learnt is not in it
        for number, share in enumerate(SHARES, 1):
            left = _showing(model, concepts, fresh.yes, edit, share)
            yield Step("wear", number, len(SHARES))
            if left <= LEFT:
                return share
        return 1.0

    def _duel(self, model: Gan, real: Any, half_life: float, purpose: Sequence[str | int], seed: int) -> GanTrainer:
        settings = GanSettings(self.lr, self.batch, max(1.0, half_life), self.r1, self.path)
        return GanTrainer(model, real, settings, purpose, seed)

    def _fisher(self, model: Gan, seed: int, state: Mapping[str, Tensor]) -> Work[dict[str, Tensor]]:
        """F by `fisher.NAME` over the style layers from 8 px up: mean squared slope of single logits of a batch."""
        names = [name for name, _ in model.network.named_parameters() if _elastic(name)]
        batches = -(-self.fisher // FISHER_BATCH)
        known = {f"fisher.{name}": state[f"fisher.{name}"] for name in names if f"fisher.{name}" in state}
        done = int(state.get("fishers", batches)) if known else 0
        if done == batches:
            return known
        critic, parameters = critic_of(model), dict(model.network.named_parameters())
        leaves = {name: parameters[name].detach().clone().requires_grad_(True) for name in names}
        total = {
            name: known[f"fisher.{name}"].to(leaf, copy=True) if known else torch.zeros_like(leaf)
            for name, leaf in leaves.items()
        }
        duel = self._duel(model, lambda chosen: chosen, 1, ("fisher",), seed)
        for number in range(done, batches):
            with torch.enable_grad(), substituted(model.network, leaves):
                logits = critic(duel.fakes(stream(seed, "fisher", number), FISHER_BATCH)[0])
                for logit in logits:
                    slopes = torch.autograd.grad(logit, list(leaves.values()), retain_graph=True)
                    for name, slope in zip(names, slopes, strict=True):
                        total[name] += slope.square() / (batches * FISHER_BATCH)
            yield Step("fisher", number + 1, batches, state=partial(_summed, total, number + 1))
        return {f"fisher.{name}": value for name, value in total.items()}

    def _held(self, fisher: Weights, deltas: Weights) -> dict[str, Tensor]:
        """λ/2 · Σ F u²; folding a gain into a weight changes F and u such that this stays what it was."""
        return {"ewc": self.ewc / 2 * torch.stack([(f * deltas[name.removeprefix("fisher.")].square()).sum()
                                                   for name, f in fisher.items()]).sum()}  # fmt: skip

    def _repelled(self, sums: Sums, scale: Tensor, deltas: Weights) -> dict[str, Tensor]:
        return {"repel": scale * self._shape(sums.distance(deltas))}

    def _shape(self, distance: Tensor) -> Tensor:
        """R(ρ); NL2 has no lower end and stops at 4."""
        if self.form == "EL2":
            return (-self.alpha * distance).exp()
        return 1 / distance if self.form == "IL2" else -distance.clamp(max=4.0)

    def _scale(self, duel: GanTrainer, sums: Sums) -> Tensor:
        """c: the push's gradient at θ_G is β times the adversarial one, both in units of unfolded weights."""
        deltas = duel.generator.deltas
        with torch.enable_grad():
            network = duel.model.network
            with substituted(network, duel.generator.weights()):
                images, _ = duel.fakes(stream(duel.seed, "scale"), self.batch)
                adversarial = generator_loss(critic_of(duel.model)(images))
            both = (adversarial, self._shape(sums.distance(deltas)))
            found = [torch.autograd.grad(loss, list(deltas.values()), allow_unused=True) for loss in both]
        lengths = [
            torch.stack([(g * gain).square().sum() for g, gain in zip(slopes, sums.gains, strict=True)
                         if g is not None]).sum().sqrt()
            for slopes in found
        ]  # fmt: skip
        return (self.push * lengths[0] / lengths[1].clamp(min=1e-12)).cpu()


class Sums:
    """S = Σ v_k by parameter and q = Σ ‖v_k‖² over the synthesis: all that is kept of the adapted models."""

    def __init__(self, model: Gan) -> None:
        self.vectors = {name: torch.zeros_like(weight) for name, weight in model.network.named_parameters()}
        self.gains = [model.gains[name] for name in self.vectors]
        self.drawing = {name: gain for name, gain in zip(self.vectors, self.gains, strict=True)
                        if name.startswith("synthesis.")}  # fmt: skip
        self.squares, self.count = torch.zeros([], dtype=torch.float64), 0

    def add(self, vector: Weights) -> None:
        """Takes in one more adapted model, given as its difference from the original."""
        self.squares += self._square(vector)
        for name, value in vector.items():
            self.vectors[name] += value
        self.count += 1

    def distance(self, u: Weights) -> Tensor:
        """ρ of a model that differs from the original by u, differentiable.  Centred, for float32's sake."""
        spread = self.squares - self._square(self.vectors) / self.count
        near = self._square({name: u[name] - self.vectors[name] / self.count for name in self.drawing})
        return (self.count * near + spread.to(near)) / self.squares.to(near)

    def mean(self) -> dict[str, Tensor]:
        """v̄ by parameter: the mean adaptation."""
        return {name: vector / self.count for name, vector in self.vectors.items()}

    def state(self) -> dict[str, Tensor]:
        vectors = {f"sum.{name}": vector for name, vector in self.vectors.items()}
        return {k: v.clone() for k, v in vectors.items()} | {
            "squares": self.squares.clone(), "adapted": torch.tensor(self.count),
        }  # fmt: skip

    def load(self, flat: Mapping[str, Tensor]) -> None:
        if "adapted" not in flat:
            return
        self.count, self.squares = int(flat["adapted"]), flat["squares"].clone()
        for name, vector in self.vectors.items():
            vector.copy_(flat[f"sum.{name}"])

    def _square(self, vector: Weights) -> Tensor:
        """‖x‖² over the synthesis, in units of unfolded weights."""
        return torch.stack([(vector[name] / gain).square().sum() for name, gain in self.drawing.items()]).sum()


def _showing(model: Gan, concepts: Sequence[Concept], seeds: Tensor, edit: Edit, share: float) -> float:
    """The part of the seeds' images in which a scorer still finds a concept, with that share of an edit applied."""
    scorers, found = [model.scorer(concept) for concept in concepts], 0
    with torch.no_grad(), edit.applied(model.network, share):
        for part in seeds.split(64):
            images = (model.synthesis(model.mapping(model.latents(part.tolist()))) / 2 + 0.5).clamp(0, 1)
            found += int((torch.stack([scorer(images) for scorer in scorers]).amax(0) > 0.5).sum())
    return found / len(seeds)


def _elastic(name: str) -> bool:
    """Whether the published code holds this parameter: a style convolution above 4 px."""
    path = name.split(".")
    return path[0] == "synthesis" and path[1] != "b4" and path[2] in ("conv0", "conv1")


def _summed(total: Weights, done: int) -> dict[str, Tensor]:
    return {"fishers": torch.tensor(done), **{f"fisher.{name}": value for name, value in total.items()}}


def _named(work: Work[None], stage: str) -> Work[None]:
    """The same job under another stage's name."""
    return map_steps(work, lambda step: replace(step, stage=stage))


def _nothing() -> Work[dict[str, Tensor]]:
    return {}
    yield  # a job of no Steps
