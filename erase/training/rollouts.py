"""Rollout banks: the teacher's noise predictions along its own denoising, drawn once and reused at every step.

Everything a frozen teacher says can be asked before the first optimiser step, while the network is still the teacher;
so there is never a second network, and a step costs one forward per lesson.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import torch
from torch import Tensor

from erase.model import BadInput, Codes, Denoiser, Shot, Trajectory
from erase.prompts.templates import encode_all
from erase.rng import number
from erase.work import Step, Work, map_steps, with_state

T = TypeVar("T")

LIMIT = 2 * 2**30  # bytes of one bank
BEGUN = "begun "  # in a state, before the label of a part that is not finished


@dataclass(frozen=True)
class Rollout:
    """One rollout to be made: which concept it belongs to, its prompt, and the anchor's prompt in its place."""

    group: int
    prompt: str
    instead: str = ""


@dataclass(frozen=True)
class Sampling:
    """How rollouts are drawn: seed, guidance scale, denoising steps, rollouts side by side, and the stored dtype."""

    seed: int
    guidance: float
    steps: int
    batch: int = 16
    dtype: torch.dtype = torch.float16


@dataclass(frozen=True)
class TrainingBatch:
    """n lessons: the rollout each is from, latents z [n c h w], times t [n], and what the teacher said of them."""

    rollout: Tensor
    z: Tensor
    t: Tensor
    said: Mapping[str, Tensor]


@dataclass(frozen=True)
class RolloutCache:
    """Finished rollouts: latents z and teacher outputs `said` [rollouts steps c h w] at times t [steps]."""

    rollouts: Sequence[Rollout]
    t: Tensor
    z: Tensor
    said: Mapping[str, Tensor]

    def draw(self, randomness: torch.Generator, n: int, group: int | None = None) -> tuple[Tensor, Tensor]:
        """Which rollouts and which of their steps n lessons come from: uniform each, spread over groups and times.

        With `group` all are of that one.
        """
        groups = sorted({rollout.group for rollout in self.rollouts}) if group is None else [group]
        rounds = math.ceil(n / len(groups))
        turns = torch.cat([torch.randperm(len(groups), generator=randomness) for _ in range(rounds)])
        chance = torch.rand(n, generator=randomness)
        strata = torch.randperm(n, generator=randomness)
        spread = (strata + torch.rand(n, generator=randomness, dtype=torch.float64)) / n
        rows = []
        for turn, luck in zip(turns[:n].tolist(), chance.tolist(), strict=True):
            own = [row for row, rollout in enumerate(self.rollouts) if rollout.group == groups[turn]]
            rows.append(own[int(luck * len(own))])
        return torch.tensor(rows), (spread * len(self.t)).long().clamp_(max=len(self.t) - 1)

    def lessons(self, randomness: torch.Generator, n: int, model: Denoiser, group: int | None = None) -> TrainingBatch:
        """n lessons drawn at random: latents in the network's dtype, the teacher's words in fp32 for the loss."""
        rollout, step = self.draw(randomness, n, group)
        said = {name: values[rollout, step].to(model.device, torch.float32) for name, values in self.said.items()}
        z = self.z[rollout, step].to(model.device, model.dtype)
        return TrainingBatch(rollout, z, self.t[step].to(model.device), said)


def plan(spoken: Sequence[Sequence[tuple[str, str]]], seeds: int, *, every: bool) -> list[Rollout]:
    """`seeds` rollouts for each concept, its texts in turn; with `every` more if that would leave a text out."""
    rollouts = []
    for group, texts in enumerate(spoken):
        for turn in range(max(seeds, len(texts)) if every else seeds):
            prompt, instead = texts[(turn + (0 if every else group)) % len(texts)]
            rollouts.append(Rollout(group, prompt, instead))
    return rollouts


def teach(
    model: Denoiser,
    rollouts: Sequence[Rollout],
    label: str,
    listen: Sequence[str],
    how: Sampling,
    state: Mapping[str, Tensor] | None = None,
) -> Work[RolloutCache]:
    """Rolls the model out and writes down what it says: one Step per denoising step.

    `listen` names what is kept: "present" and "absent" (both come free with guidance), "instead" (the prediction for
    the anchor's prompt, one more forward). `state` holds what an interrupted run has rolled out under `label`.
    fp16 keeps 10 bits of values of order one, more than bf16. Raises BadInput if the bank would exceed 2 GiB.
    """
    seed, steps, batch, dtype = how.seed, how.steps, how.batch, how.dtype
    shape = (len(rollouts), steps, *model.latent_shape)
    wanted = (1 + len(listen)) * math.prod(shape) * torch.empty((), dtype=dtype).element_size()
    if wanted > LIMIT:
        raise BadInput(f"The rollout bank would take {wanted / 2**30:.1f} GiB; use fewer seeds or steps.")
    books = {name: torch.empty(shape, dtype=dtype) for name in ("z", *listen)}
    times, done = torch.zeros(steps, dtype=torch.long), 0
    if state is not None and f"{label}.t" in state:
        times = state[f"{label}.t"].clone()
        done = len(state[f"{label}.z"])
        for name, book in books.items():
            book[:done] = state[f"{label}.{name}"]

    def finished() -> dict[str, Tensor]:
        return {f"{label}.t": times, **{f"{label}.{name}": book[:done] for name, book in books.items()}} if done else {}

    codes = encode_all(model, [rollout.instead for rollout in rollouts]) if "instead" in listen else None
    per_rollout = steps * (2 if codes else 1)
    total, begun = len(rollouts) * per_rollout, part_of(label, state or {})
    while done < len(rollouts):
        some = range(done, min(done + batch, len(rollouts)))
        shots = [Shot(number(seed, label, row) % 2**31, rollouts[row].prompt) for row in some]
        work = _heard(model, shots, how, codes and codes[some.start : some.stop], begun)
        heard = yield from relayed(work, label, done * per_rollout, len(some) * per_rollout, total, finished)
        for name, book in books.items():
            book[some.start : some.stop] = heard[name]
        times, done, begun = heard["t"], some.stop, {}
    return RolloutCache(rollouts, times, books["z"], {name: books[name] for name in listen})


def _heard(
    model: Denoiser, shots: Sequence[Shot], how: Sampling, codes: Codes | None, state: Mapping[str, Tensor]
) -> Work[dict[str, Tensor]]:
    """One batch rolled out, then what the model says for `codes`; `state` is that of a Step of the same batch."""
    asked, total = {"instead": state["instead"]} if "instead" in state else {}, how.steps * (2 if codes else 1)
    walk = {name: value for name, value in state.items() if name not in asked}

    def change(step: Step) -> Step:
        nonlocal walk
        walk = step.state() if step.done == step.total and step.state else {}
        return replace(step, total=total)

    rolled = model.trajectory(shots, guidance=how.guidance, steps=how.steps, state=walk)
    walked = yield from map_steps(rolled, change)
    heard = {"t": walked.t.clone(), "z": walked.z, "present": walked.present, "absent": walked.absent}
    if codes is not None:
        heard["instead"] = yield from with_state(_instead(model, walked, codes, total, asked), walk)
    return heard


def _instead(
    model: Denoiser, walked: Trajectory, codes: Codes, total: int, state: Mapping[str, Tensor]
) -> Work[Tensor]:
    """What the model says for other codes at every place of a rollout: one Step each."""
    said = torch.empty_like(walked.z)
    done = state["instead"].shape[1] if state else 0
    if done:
        said[:, :done] = state["instead"]
    for step in range(done, len(walked.t)):
        with torch.no_grad():
            z, t = walked.z[:, step].to(model.device, model.dtype), walked.t[step].to(model.device)
            said[:, step] = model.predict(z, t.expand(len(z)), codes).cpu()
        so_far = {"instead": said[:, : step + 1].contiguous()}
        yield Step("instead", len(walked.t) + step + 1, total, state=so_far.copy)
    return said


def remembered(bank: RolloutCache, label: str) -> dict[str, Tensor]:
    """A whole bank as the flat tensors `teach` goes on from."""
    return {f"{label}.t": bank.t, f"{label}.z": bank.z, **{f"{label}.{name}": book for name, book in bank.said.items()}}


def relayed(
    work: Work[T], label: str, before: int, span: int, total: int, state: Callable[[], dict[str, Tensor]]
) -> Work[T]:
    """Another job's Steps as part of this one: its progress fills `span` units after `before`.

    `state` is what was finished before it; the job's own state goes beside that under the label.
    """

    def change(step: Step) -> Step:
        part, own = span * step.done // (step.total or step.done or 1), step.state or dict
        both = lambda: {**state(), **{f"{BEGUN}{label}.{name}": value for name, value in own().items()}}  # noqa: E731
        return Step(label, before + part, total, step.loss, step.preview, both, stale=step.state is None)

    return map_steps(work, change)


def part_of(label: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What a state holds of the job that was relayed under a label when it was interrupted."""
    head = f"{BEGUN}{label}."
    return {name.removeprefix(head): value for name, value in state.items() if name.startswith(head)}
