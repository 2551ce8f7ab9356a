"""AdvUnlearn: Defensive Unlearning with Adversarial Training (Zhang et al., NeurIPS 2024, arXiv 2405.15234).

The attacker (lower level) looks for word vectors δ that bring the concept back; the model (upper level) is trained to
erase it from the attacked prompt as well, and to keep what it says of other things:

    δ* = argmin mean (ε_θ(z, t, read(δ ⊕ c)) − e_c)²
    θ  : mean (ε_θ(z, t, read(δ* ⊕ c)) − [e_∅ − η(e_c − e_∅)])² + γ · mean (ε_θ(z_r, t, r) − e_r)²

e are the unedited model's predictions on its own rollouts, written down before the first step: one network, and per
iteration one forward for each attack lesson and one for each lesson of the update. What is trained is the text encoder
by default, so that the result plugs into any pipeline that reads the same codes; slices of the U-Net can be added.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import AfterValidator, BaseModel, Field
from torch import Tensor

from erase.borrow import substituted
from erase.concept import Concept
from erase.edit import Edit
from erase.methods.esd import erased
from erase.model import BadInput, Codes, Denoiser
from erase.prompts.everyday import everyday, without
from erase.prompts.templates import Templates, encode_all, spoken
from erase.request import Request
from erase.rng import stream
from erase.training.deltas import DeltaOptimizer, NoiseTarget, errors, tune
from erase.training.loop import forwards
from erase.training.prompt_adversary import Placed, PromptOptimizer, place, random_words
from erase.training.rollouts import Rollout, RolloutCache, Sampling, TrainingBatch, remembered, teach
from erase.training.slices import select
from erase.work import Work, with_state

REPO_OFFSET = (39, 58)  # by how many timesteps the published loop labels its latents noisier than they are
PLACES = ("prefix", "suffix", "insert", "replace", "add")  # `mixed` goes through all but the last
CHOICE = 8  # lessons on which restarts are compared
LIMITS = "Robust to prompts, far less to learnt word vectors; not a security boundary."


# Ours, against learnt word vectors: an adversary that goes on from iteration to iteration gets as far as one who learns
# a word for long, and what such a word reaches is how the U-Net reads codes as well.
CONTINUOUS: dict[str, Any] = {"train": "text+cross", "init": "latest"}
POCKET: dict[str, Any] = {
    "train": "text", "iterations": 300, "warmup": 60, "lr": 3e-4, "attack_steps": 10, "attack_lr": 0.02, "tokens": 3,
    "draws": 2, "batch": 4, "keep_batch": 12, "seeds": 16, "steps": 20, "gamma": 6.0,
}  # fmt: skip


def _parts(train: str) -> str:
    if not all(part.strip() for part in train.split("+")):
        raise BadInput(f"train = {train!r} should name slices joined by +, such as text[0] or text+kv")
    return train


class AdvUnlearn(BaseModel, frozen=True, extra="forbid"):
    """Erases from the text encoder while an adversary tries to bring the concept back."""

    paper: ClassVar[str] = "Defensive Unlearning with Adversarial Training (arXiv 2405.15234)"
    needs: ClassVar[type] = Denoiser
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "style": {},
        "object": {},
        "nudity": {"train": "text", "gamma": 0.3},
        "fast": {"update": "fast", "attack_lr": 1e-2},
        "continuous": CONTINUOUS,
        "pocket": POCKET,
        "pocket-continuous": {**POCKET, **CONTINUOUS, "attack_steps": 20},
        "repo": {"faithful": True, "train": "text", "gamma": 1.0, "init": "latest", "templates": False},
    }

    train: Annotated[str, AfterValidator(_parts)] = Field(
        "text[0]",
        description="trained layers: text[0], the encoder's first · text[0..3], four · text, all and the final "
        "norm · kv, cross …, of the U-Net · joined by +",
    )
    iterations: int = Field(1000, ge=1, le=100_000, description="optimiser steps; more erases more firmly")
    lr: float = Field(1e-5, gt=0, le=0.1, description="Adam's learning rate")
    warmup: int = Field(200, ge=0, le=100_000, description="first iterations, in which no attack is made")
    eta: float = Field(1.0, ge=-1, le=20, description="negative guidance scale of the target (η)")
    target: Literal["negative", "anchor"] = Field(
        "negative", description="target: negative guidance away from the concept, or the prediction for the anchor"
    )
    gamma: float = Field(
        0.5, ge=0, le=100, description="weight of the retain loss (γ); low erases more, high preserves more"
    )
    attack_steps: int = Field(30, ge=1, le=1000, description="attack steps (K)")
    attack_lr: float = Field(1e-3, gt=0, le=10, description="step size of the attack, in units of word vectors")
    update: Literal["adam", "pgd", "fast"] = Field(
        "adam",
        description="update of the attack: adam, as published · pgd, signed and projected · fast, a single signed step",
    )
    radius: float = Field(0.0, ge=0, le=100, description="bound of a free word per coordinate; 0: unbounded")
    tokens: int = Field(1, ge=1, le=16, description="number of free words the adversary has")
    place: Literal["prefix", "suffix", "insert", "replace", "add", "mixed"] = Field(
        "prefix",
        description="position of the free words: before, after or amid the prompt's words, replacing them, added "
        "to them, or each in turn (mixed)",
    )
    init: Literal["random", "latest"] = Field(
        "random", description="start of the free words: random words, or the last attack's"
    )
    restarts: int = Field(1, ge=1, le=64, description="parallel attacks; the strongest is used")
    draws: int = Field(1, ge=1, le=256, description="samples per attack step; more are smoother and cost more")
    refresh: int = Field(1, ge=1, le=1000, description="iterations for which an adversarial prompt is used")
    batch: int = Field(1, ge=1, le=256, description="samples of the concept per iteration")
    keep_batch: int = Field(5, ge=1, le=256, description="samples of retained prompts per iteration")
    retain: bool | tuple[str, ...] = Field(
        True, description="prompts to retain beside kept concepts: everyday prompts (true), none, or a list"
    )
    seeds: int = Field(64, ge=1, le=4096, description="rollouts of the concepts, at least one per text")
    keep_seeds: int = Field(1, ge=1, le=1024, description="rollouts per retained prompt")
    guidance: float = Field(3.0, gt=1, le=30, description="guidance of the rollouts")
    steps: int = Field(50, ge=2, le=1000, description="denoising steps of a rollout")
    templates: Templates = Field(
        True, description="also erase the concept inside sentences: true, or a list such as 'a photo of {}'"
    )
    faithful: bool = Field(
        False,
        description="reproduce the published code's errors: prompts cut to as many tokens as they have words, "
        "attack gradients never cleared, the last attack step dropped, latents cleaner than their "
        "label",
    )

    def cost(self, request: Request) -> dict[str, float]:
        """U-Net sample-forwards of a whole run: a prediction for one latent counts one, a guided call two."""
        taught, kept = self._rollouts(request.concepts), self._kept_rollouts(request.concepts, request.keep)
        attacks = -(-max(self.iterations - self.warmup, 0) // self.refresh)
        updates = self.iterations * (self.batch + (self.keep_batch if kept else 0))
        each = self.restarts + (2 if self.faithful else 0)  # per lesson; faithful asks the teacher again, both halves
        lessons = (1 if self.update == "fast" else self.attack_steps) * self.draws
        asked = attacks * each * (lessons + (CHOICE if self.restarts > 1 else 0))
        asked += self.iterations * 2 * self.batch if self.faithful else 0
        filled = self.steps * (len(taught) * (3 if self.target == "anchor" else 2) + 2 * len(kept))
        return {
            "rollouts": len(taught),
            "kept_rollouts": len(kept),
            "attack_forwards": asked,
            **forwards(filled, asked + updates, self.iterations, updates),
        }

    def finish(self, request: Request, edit: Edit) -> Work[Edit]:
        """The edit with the prompts that were retained and the limits of its robustness."""
        yield from ()
        retained = self._retained(request.concepts, request.keep)
        return Edit(edit.deltas, {**edit.about, "retained": retained, "limits": LIMITS})

    def _texts(self, concepts: Sequence[Concept]) -> list[tuple[str, str]]:
        """Every text to erase beside its anchor's, one text of each concept after another."""
        lists = [spoken(concept, self.templates) for concept in concepts]
        rounds = max(map(len, lists))
        return [texts[turn % len(texts)] for turn in range(rounds) for texts in lists]

    def _rollouts(self, concepts: Sequence[Concept]) -> list[Rollout]:
        texts = self._texts(concepts)
        count = max(self.seeds, len(texts))
        return [Rollout(turn % len(texts), *texts[turn % len(texts)]) for turn in range(count)]

    def _retained(self, concepts: Sequence[Concept], keep: Sequence[Concept]) -> list[str]:
        """Prompts to retain: the kept concepts' sentences, then everyday or given ones that name nothing erased."""
        own = [text for concept in keep for text, _ in spoken(concept, self.templates)]
        more = without(self.retain, concepts) if isinstance(self.retain, tuple) else everyday(concepts)
        return list(dict.fromkeys([*own, *(more if self.retain else ())]))

    def _kept_rollouts(self, concepts: Sequence[Concept], keep: Sequence[Concept]) -> list[Rollout]:
        if not self.gamma:
            return []
        prompts = self._retained(concepts, keep)
        return [Rollout(row, prompt) for row, prompt in enumerate(prompts) for _ in range(self.keep_seeds)]

    def learn(self, request: Request, state: Mapping[str, Tensor]) -> Work[dict[str, Tensor]]:
        """Teaches, then trains against the adversary; each Step's state resumes the run to the same bits."""
        model, concepts, keep, seed = request.model, request.concepts, request.keep, request.seed
        how = Sampling(seed, self.guidance, self.steps)
        base = "instead" if self.target == "anchor" else "absent"
        texts = self._texts(concepts)
        placed = {(turn, where): self._placed(model, text, where)
                  for turn, (text, _) in enumerate(texts) for where in self._places()}  # fmt: skip
        bank = yield from teach(model, self._rollouts(concepts), "teach", ("present", base), how, state)
        taught, kept = remembered(bank, "teach"), None
        if rollouts := self._kept_rollouts(concepts, keep):
            kept = yield from with_state(teach(model, rollouts, "teach kept", ("present",), how, state), taught)
            taught |= remembered(kept, "teach kept")
        masters, seen = DeltaOptimizer(model.network, self._slice(model), self.lr), _Seen()
        loop = _Loop(self, model, masters, seen, bank, kept, base, [text for text, _ in texts], placed, seed)
        yield from with_state(tune(self.iterations, loop.one, (masters, seen), state), taught)
        return masters.result()

    def _slice(self, model: Denoiser) -> list[str]:
        return list(dict.fromkeys(name for part in self.train.split("+") for name in select(model.network, part)))

    def _places(self) -> tuple[Any, ...]:
        return PLACES[:-1] if self.place == "mixed" else (self.place,)

    def _placed(self, model: Denoiser, text: str, where: Any) -> Placed:
        words = model.tokens(text)
        return place(model, words[: len(text.split())] if self.faithful else words, self.tokens, where)


@dataclass
class _Seen:
    """What the student was last shown: which text, where free vectors stood, and these (none before an attack)."""

    turn: int = 0
    where: str = "prefix"
    free: Tensor | None = None

    def state(self) -> dict[str, Tensor]:
        """As tensors."""
        told = {"seen.turn": torch.tensor(self.turn), "seen.where": torch.tensor(PLACES.index(self.where))}
        return told if self.free is None else {**told, "seen.free": self.free}

    def load(self, flat: Mapping[str, Tensor]) -> None:
        """Goes on from `state()`."""
        self.turn, self.where = int(flat["seen.turn"]), PLACES[int(flat["seen.where"])]
        self.free = flat.get("seen.free")


@dataclass
class _Loop:
    """One iteration: an attack where one is due, then one step of the slice."""

    method: AdvUnlearn
    model: Denoiser
    masters: DeltaOptimizer
    seen: _Seen
    bank: RolloutCache
    kept: RolloutCache | None
    base: str
    texts: Sequence[str]
    placed: Mapping[tuple[int, str], Placed]
    seed: int

    def one(self, i: int) -> dict[str, float]:
        """Iteration i, and its losses."""
        attacked: dict[str, float] = {}
        if i < self.method.warmup:
            self.seen.turn = self._turn(i)
        elif (i - self.method.warmup) % self.method.refresh == 0:
            attacked = {"attack": self._attack(i)}
        return {**self._update(i), **attacked}

    def _turn(self, i: int) -> int:
        """Which text iteration i is about: every text once before any comes again, in an order of its own."""
        lap, place_in_lap = divmod(i // self.method.refresh, len(self.texts))
        return int(torch.randperm(len(self.texts), generator=stream(self.seed, "turn", lap))[place_in_lap])

    def _attack(self, i: int) -> float:
        """Drives free vectors until the student draws the concept again, or the steps are spent; the last loss."""
        method, model, before = self.method, self.model, self.seen.free
        turn, places = self._turn(i), method._places()
        where = places[(i // method.refresh) % len(places)]
        placed = self.placed[turn, where]
        if method.init == "latest" and before is not None and len(before) == len(placed.slots):
            start = before.to(model.device)[None].repeat(method.restarts, 1, 1)
        elif placed.adds:
            start = torch.zeros(method.restarts, len(placed.slots), model.vocabulary.shape[1], device=model.device)
        else:
            start = random_words(model, stream(self.seed, "adversary", i), method.restarts, len(placed.slots))

        def loss(step: int, free: Tensor) -> Tensor:
            lessons = self._lessons(self.bank, stream(self.seed, "attack", i, step), method.draws, turn)
            return self._distance(placed, free, lessons)

        drive = PromptOptimizer(method.attack_steps, method.attack_lr, method.update, method.radius or None,
                      accumulate=method.faithful, drop_last=method.faithful)  # fmt: skip
        with substituted(model.network, {name: w.detach() for name, w in self.masters.weights().items()}):
            free, losses = drive.run(start, loss)
            if method.restarts > 1:
                with torch.no_grad():
                    lessons = self._lessons(self.bank, stream(self.seed, "choice", i), CHOICE, turn)
                    free = free[self._distance(placed, free, lessons).argmin()][None]
        self.seen.turn, self.seen.where, self.seen.free = turn, where, free[0]
        return losses[-1]

    def _distance(self, placed: Placed, free: Tensor, lessons: TrainingBatch) -> Tensor:
        """How far the student, shown each set of free vectors, is from drawing the concept: [n]."""
        n, count = len(free), len(lessons.z)
        codes = placed.read(self.model, free).repeat(count)
        said = self.model.predict(lessons.z.repeat(n, 1, 1, 1), lessons.t.repeat(n), codes).float()
        off = said - lessons.said["present"].repeat(n, 1, 1, 1)
        return off.square().mean(dim=(1, 2, 3)).view(n, count).mean(1)

    def _lessons(self, bank: RolloutCache, draws: torch.Generator, n: int, turn: int) -> TrainingBatch:
        lessons = bank.lessons(draws, n, self.model, turn)
        return self._mislabelled(lessons, draws) if self.method.faithful else lessons

    @torch.no_grad()
    def _mislabelled(self, lessons: TrainingBatch, draws: torch.Generator) -> TrainingBatch:
        """The same latents under the published code's labels; the teacher is asked again, for it sees the label too."""
        low, high = REPO_OFFSET
        shift = torch.randint(low, high + 1, (len(lessons.t),), generator=draws).to(lessons.t.device)
        t = (lessons.t + shift).clamp(max=len(self.model.path) - 1)
        rollouts = [self.bank.rollouts[row] for row in lessons.rollout.tolist()]
        prompts = {"present": [r.prompt for r in rollouts], "instead": [r.instead for r in rollouts],
                   "absent": [""] * len(rollouts)}  # fmt: skip
        with substituted(self.model.network, self.masters.frozen):
            said = {name: self.model.predict(lessons.z, t, encode_all(self.model, prompts[name])).float()
                    for name in lessons.said}  # fmt: skip
        return TrainingBatch(lessons.rollout, lessons.z, t, said)

    def _update(self, i: int) -> dict[str, float]:
        method, model = self.method, self.model
        lessons = self._lessons(self.bank, stream(self.seed, "teach", i), method.batch, self.seen.turn)
        said = lessons.said
        target = erased(said["present"], said[self.base], said[self.base], method.eta)
        kept = self.kept and self.kept.lessons(stream(self.seed, "keep", i), method.keep_batch, model)
        with torch.enable_grad(), substituted(model.network, self.masters.weights()):
            asks = {"erase": NoiseTarget(lessons.z, lessons.t, self._shown().repeat(method.batch), target)}
            if kept and self.kept:
                codes = model.encode([self.kept.rollouts[row].prompt for row in kept.rollout.tolist()])
                asks["retain"] = NoiseTarget(kept.z, kept.t, codes, kept.said["present"], method.gamma)
            losses = errors(model, asks)
            self.masters.step(torch.stack(list(losses.values())).sum())
        return {name: float(loss.detach()) for name, loss in losses.items()}

    def _shown(self) -> Codes:
        """The codes the student is to be cured of: the attacked prompt's, or the clean one's before any attack."""
        if self.seen.free is None:
            return self.model.encode([self.texts[self.seen.turn]])
        placed = self.placed[self.seen.turn, self.seen.where]
        return placed.read(self.model, self.seen.free[None].to(self.model.device))
