"""What erasing costs, ours against the published loop: one model, one counting hook, one clock, in one run."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import nn

from benchmarks.attacks.registry import build as build_attack
from benchmarks.attacks.run import attack
from benchmarks.attacks.settings import AttackSettings
from benchmarks.judging.judge import JudgeSettings, judge
from benchmarks.judging.sampler_agreement import Agreement
from benchmarks.metrics.cost import metered, resident
from benchmarks.report import Number
from benchmarks.speed.published_loops import published_advunlearn, published_doco, published_esd
from erase.concept import Concept, Kind
from erase.edit import Edit
from erase.methods.registry import build
from erase.model import Denoiser, Shot
from erase.prompts.everyday import everyday
from erase.request import Request, run_method
from erase.rng import number
from erase.work import Step, Work, map_steps


class Plan(BaseModel):
    """What is run: the same concept, number of gradient steps and learning rate for both loops."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    concept: str = "Van Gogh"
    kind: Kind = "style"
    steps: int = Field(default=200, ge=1)
    lr: float = Field(default=5e-5, gt=0)
    seed: int = 0
    suite: str | None = "pocket-canvas-small"
    keep_limit: int = Field(default=25, ge=1)
    outer: int = Field(default=2, ge=1)  # iterations of AdvUnlearn, an attack each
    rows: int = Field(default=0, ge=0)  # prompts on which both of its edits are attacked


class Speed(BaseModel):
    """Costs of both loops; forwards are U-Net sample-forwards per gradient step, ratios are published / ours."""

    model_config = ConfigDict(frozen=True)

    ours_forwards: float
    published_forwards: float
    wall_ratio: float
    memory_ratio: Number
    note: str
    gradient_steps: int
    ours_seconds: float
    published_seconds: float
    loss: Mapping[str, float]
    scores: Mapping[str, Mapping[str, float]] = {}
    agreement: Agreement | None = None


@contextmanager
def counted(unet: nn.Module) -> Iterator[Callable[[], int]]:
    """Counts the samples a U-Net is run on inside the block: a guided prediction of one latent counts 2."""
    seen = 0

    def count(_: nn.Module, given: tuple[Any, ...], named: dict[str, Any]) -> None:
        nonlocal seen
        seen += len(given[0] if given else named["sample"])

    handle = unet.register_forward_pre_hook(count, with_kwargs=True)
    try:
        yield lambda: seen
    finally:
        handle.remove()


def speed_esd(model: Denoiser, plan: Plan) -> Work[Speed]:
    """Both loops for the same number of gradient steps; then, on lessons neither has seen, how well each erases."""
    concept = Concept(name=plan.concept, kind=plan.kind)
    knobs = {"variant": "x", "iterations": plan.steps, "lr": plan.lr}
    method = build("esd", "quick", knobs)
    _first_call(model)
    ours = yield from _measured(model, run_method(method, Request(model, [concept], seed=plan.seed)))
    theirs = yield from _measured(
        model, published_esd(model, concept, iterations=plan.steps, lr=plan.lr, seed=plan.seed)
    )
    edits = {"unedited": None, "ours": ours.edit, "published": theirs.edit}
    loss = yield from _held_out(model, concept, edits, plan.seed)
    scores: dict[str, dict[str, float]] = {}
    if plan.suite is not None:
        for name in ("ours", "published"):
            report = yield from judge(model, edits[name], [concept], plan.suite, JudgeSettings(limit=plan.keep_limit))
            scores[name] = {key: report.scores[key].value for key in ("UA", "IRA", "CRA")}
            scores["unedited"] = {key: report.scores[key].baseline for key in ("UA", "IRA", "CRA")}
    return Speed(
        ours_forwards=ours.forwards / plan.steps,
        published_forwards=theirs.forwards / plan.steps,
        wall_ratio=theirs.seconds / ours.seconds,
        memory_ratio=theirs.memory / ours.memory,
        note=_note(model, plan, knobs),
        gradient_steps=plan.steps,
        ours_seconds=ours.seconds,
        published_seconds=theirs.seconds,
        loss=loss,
        scores=scores,
    )


BUDGET = 60  # steps of the attack on each prompt
PAPER_ITERATIONS = 1000  # of AdvUnlearn, over which the rollouts taught beforehand are shared


def speed_advunlearn(model: Denoiser, plan: Plan) -> Work[Speed]:
    """`plan.outer` iterations of both loops at K = 30; ours is charged its share of the rollouts taught beforehand."""
    concept = Concept(name=plan.concept, kind=plan.kind)
    retained = everyday([concept])
    # A thousandth of teaching falls on an iteration, so it is timed on the whole bank and divided.
    knobs = {"iterations": plan.outer, "warmup": 0, "train": "text", "lr": plan.lr, "templates": False}
    method = build("advunlearn", None, knobs)
    _first_call(model)
    marks: list[tuple[str, float, int]] = []
    ours = yield from _measured(model, run_method(method, Request(model, [concept], seed=plan.seed)), marks)
    theirs = yield from _measured(
        model, published_advunlearn(model, concept, retained, iterations=plan.outer, lr=plan.lr, seed=plan.seed)
    )
    taught_seconds, taught_forwards = next(mark[1:] for mark in reversed(marks) if mark[0].startswith("teach"))
    share = plan.outer / PAPER_ITERATIONS
    seconds = ours.seconds - taught_seconds * (1 - share)
    loss = yield from _held_out(
        model, concept, {"unedited": None, "ours": ours.edit, "published": theirs.edit}, plan.seed
    )
    scores: dict[str, Mapping[str, float]] = {}
    if plan.rows:
        for name, edit in (("ours", ours.edit), ("published", theirs.edit)):
            scores[name] = yield from _attacked(model, edit, plan)
    return Speed(
        ours_forwards=(ours.forwards - taught_forwards * (1 - share)) / plan.outer,
        published_forwards=theirs.forwards / plan.outer,
        wall_ratio=theirs.seconds / seconds,
        memory_ratio=theirs.memory / ours.memory,
        note=(
            f"{plan.concept} from {model.name} on {torch.device(model.device).type}, {plan.outer} outer iterations "
            f"each at K = 30; ours is charged {1 / PAPER_ITERATIONS:.1%} of its {taught_seconds:.0f} s of teaching per "
            "iteration, for the paper makes 1,000; forwards are per outer iteration; published: batch 1, a rollout an "
            "attack step, two models, gradients of the U-Net computed and thrown away"
        ),
        gradient_steps=plan.outer,
        ours_seconds=seconds,
        published_seconds=theirs.seconds,
        loss=loss,
        scores=scores,
    )


def _attacked(model: Denoiser, edit: Edit, plan: Plan) -> Work[dict[str, float]]:
    """UnlearnDiffAtk with the same budget on the same prompts: ASR with its interval, and what else the edit costs."""
    how = build_attack("unlearndiffatk", BUDGET)
    report = yield from attack(model, edit, plan.concept, how, AttackSettings(count=plan.rows, seed=plan.seed))
    asr = report.scores["ASR"]
    others = {name: report.scores[name].value for name in ("pre_ASR", "IRA", "CRA")}
    return {"ASR": asr.value, "ASR from": asr.low, "ASR to": asr.high, **others}


def speed_doco(model: Denoiser, plan: Plan) -> Work[Speed]:
    """`plan.steps` student's steps of both loops, of eight lessons and eight retained ones; memory is what differs."""
    concept = Concept(name=plan.concept, kind=plan.kind)
    few = 5  # denoising steps of a picture, for pictures are not what differs
    knobs = {"iterations": plan.steps + 1, "warmup": 1, "lr": plan.lr, "seeds": 16, "steps": few, "templates": False}
    method = build("doco", None, knobs)
    _first_call(model)
    ours = yield from _measured(model, run_method(method, Request(model, [concept], seed=plan.seed)))
    theirs = yield from _measured(
        model, published_doco(model, concept, iterations=plan.steps, lr=plan.lr, steps=few, seed=plan.seed)
    )
    return Speed(
        ours_forwards=ours.forwards / plan.steps,
        published_forwards=theirs.forwards / plan.steps,
        wall_ratio=theirs.seconds / ours.seconds,
        memory_ratio=theirs.memory / ours.memory,
        note=(
            f"{plan.concept} from {model.name} on {torch.device(model.device).type}, {plan.steps} steps of 8 + 8 "
            "lessons each, drawing 16 pictures included in both; published: a frozen U-Net beside the student, lessons "
            "and retained ones in one batch; memory: weights and what came on top while erasing, ours "
            f"{ours.memory / 2**20:.0f} MiB"
        ),
        gradient_steps=plan.steps,
        ours_seconds=ours.seconds,
        published_seconds=theirs.seconds,
        loss={},
    )


@dataclass(frozen=True)
class _Run:
    edit: Edit
    forwards: int
    seconds: float
    memory: float


@torch.no_grad()
def _first_call(model: Denoiser) -> None:
    """Whatever a first call sets up is charged to neither side."""
    model.predict(model.noise([Shot(0)]), torch.tensor([1], device=model.device), model.encode([""]))


def _marked(work: Work[Edit], forwards: Callable[[], int], marks: list[tuple[str, float, int]]) -> Work[Edit]:
    """The same work; of every Step its stage, the seconds so far and the forwards so far go into `marks`."""
    began = time.perf_counter()

    def mark(step: Step) -> Step:
        marks.append((step.stage, time.perf_counter() - began, forwards()))
        return step

    return (yield from map_steps(work, mark))


def _measured(model: Denoiser, work: Work[Edit], marks: list[tuple[str, float, int]] | None = None) -> Work[_Run]:
    """Runs an erasure counted and timed; its memory is the model's weights and what came on top of them, in bytes."""
    resting = resident()
    # A copy of the U-Net takes the hook along, so the published loop's second network is counted too.
    with counted(model.network.get_submodule("unet")) as forwards:
        work = work if marks is None else _marked(work, forwards, marks)
        edit, cost = yield from metered(work, model.device)
    weights = sum(p.numel() * p.element_size() for p in model.network.parameters())
    memory = cost.peak_memory_bytes
    if torch.device(model.device).type != "cuda":
        # A peak since the process began says nothing about one of two loops in it.
        memory = math.nan if cost.since_start else memory - resting + weights
    return _Run(edit, forwards(), cost.seconds, memory)


def _held_out(
    model: Denoiser, concept: Concept, edits: Mapping[str, Edit | None], seed: int, rollouts: int = 8
) -> Work[dict[str, float]]:
    """ESD's own loss on rollouts from seeds no loop has used: mean (ε_θ(z,t,c) − [e_∅ − (e_c − e_∅)])² per edit."""
    shots = [Shot(number(seed, "held out", k) % 2**31, concept.phrases[0]) for k in range(rollouts)]
    walked = yield from model.trajectory(shots, guidance=3.0, steps=20)
    target = (2 * walked.absent - walked.present).float()
    losses = {}
    with torch.no_grad():
        for name, edit in edits.items():
            with nullcontext() if edit is None else edit.applied(model.network):
                codes = model.encode([concept.phrases[0]]).repeat(rollouts)  # by the text encoder that was trained
                errors = []
                for step, t in enumerate(walked.t):
                    z = walked.z[:, step].to(model.device, model.dtype)
                    said = model.predict(z, t.to(model.device).expand(rollouts), codes).float().cpu()
                    errors.append((said - target[:, step]).square().mean())
                    yield Step(f"held-out lessons, {name}", step + 1, len(walked.t))
                losses[name] = float(torch.stack(errors).mean())
    return losses


def _note(model: Denoiser, plan: Plan, knobs: Mapping[str, Any]) -> str:
    said = ", ".join(f"{name} {value}" for name, value in knobs.items())
    where = f"{plan.concept} from {model.name} on {torch.device(model.device).type}"
    return (
        f"{where}, {plan.steps} gradient steps each, none extrapolated; ours: preset quick with {said}, filling the "
        "rollout bank included; published: batch 1, a 50-step rollout a gradient step, two models; memory: weights and "
        "what came on top while erasing"
    )
