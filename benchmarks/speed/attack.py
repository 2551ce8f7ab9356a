"""What attacking costs: rows side by side against one row after the other, the same search on the same model."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks.attacks.engine import Attack, AttackTarget, chase
from benchmarks.attacks.registry import build
from benchmarks.metrics.cost import metered
from benchmarks.probes.base import Probe, Seen
from benchmarks.probes.open_probe import open_probe
from benchmarks.speed.methods import Plan, Speed, counted
from benchmarks.suites.prompts import Row, suite_rows
from benchmarks.suites.suite import Suite, load_suite
from erase.borrow import borrowed
from erase.model import Denoiser
from erase.work import Work

SUITE, TOGETHER, ALONE = "pocket-canvas-small", 20, 2  # rows side by side, and rows one after the other


class Blind:
    """A probe that looks and never sees anything but the first label, so that every row costs its whole budget."""

    def __init__(self, probe: Probe, suite: Suite, target: str) -> None:
        self.probe, self.name, self.version, self.sha256 = probe, probe.name, probe.version, probe.sha256
        self.held_out = probe.held_out
        # The target's label is there and never said.
        self.styles = (*(label for label in suite.styles if label != target), target)
        self.objects = (*(label for label in suite.objects if label != target), target)

    def __call__(self, images: Tensor) -> Seen:
        """What the eyes see is thrown away; looking is part of the cost."""
        seen = self.probe(images)
        first = torch.zeros(len(images), 1)
        return Seen(1 - first, 1 - first, seen.features)


@dataclass(frozen=True)
class _Timed:
    forwards: int
    seconds: float


def speed_unlearndiffatk(model: Denoiser, plan: Plan, together: int = TOGETHER, alone: int = ALONE) -> Work[Speed]:
    """UnlearnDiffAtk with `plan.steps` steps per row: `together` rows in one batch, then `alone` rows one by one."""
    suite = load_suite(plan.suite or SUITE)
    target = suite.target(plan.concept)
    rows = suite_rows(suite, target, together)
    how = build("unlearndiffatk", plan.steps)
    aim = AttackTarget(
        model, None, 1.0, target, suite, Blind(open_probe(suite.probe), suite, target.label), plan.seed, together
    )
    with borrowed(model.network, train=False):
        for row in rows:
            aim.clean[row] = model.noise([row.shot])[0]  # what is noised costs the same whatever it shows
        # Whatever a first call sets up is charged to neither side.
        yield from _run(aim, build("unlearndiffatk", 1), rows[:1], 1)
        ours = yield from _run(aim, how, rows, together)
        single = yield from _run(aim, how, rows[:alone], 1)
    each, one = ours.seconds / len(rows), single.seconds / alone
    return Speed(
        ours_forwards=ours.forwards / (len(rows) * plan.steps),
        published_forwards=single.forwards / (alone * plan.steps),
        wall_ratio=one / each,
        memory_ratio=math.nan,
        note=(
            f"{target.label} in {model.name} on {torch.device(model.device).type}, {torch.get_num_threads()} threads, "
            f"budget {plan.steps} per row, none broken: {3600 / each:.0f} prompts an hour with {len(rows)} side by "
            f"side, {3600 / one:.0f} one at a time ({alone} rows timed); the same search on both sides, drawings "
            "included, loading the model left out of both"
        ),
        gradient_steps=plan.steps,
        ours_seconds=each,
        published_seconds=one,
        loss={},
    )


def _run(aim: AttackTarget, how: Attack, rows: list[Row], batch: int) -> Work[_Timed]:
    with counted(aim.model.network.get_submodule("unet")) as forwards:
        _, cost = yield from metered(chase(how, aim, rows, lambda each, hit: None, batch), aim.model.device)
        return _Timed(forwards(), cost.seconds)
