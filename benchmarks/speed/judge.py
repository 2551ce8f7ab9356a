"""What judging costs: one answer set drawn and read our way and the published way, the same shots under the same edit.

The published way draws one picture at a time, DDIM over 100 steps, and encodes its prompt and the empty one anew; then
one script reads every picture for its style, and another opens it again for its object. Ours draws batches with the few
steps of the suite, encodes the empty prompt once a batch, and both heads read one picture.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from benchmarks.judging.comparison import Comparison
from benchmarks.judging.judge import PUBLISHED_STEPS, tools
from benchmarks.judging.predictions import Predictions, answers, read, sampled
from benchmarks.judging.sampler_agreement import compared, sampler_of
from benchmarks.metrics.cost import metered
from benchmarks.probes.base import Probe
from benchmarks.speed.methods import Plan, Speed, counted
from benchmarks.suites.suite import Suite, load_suite
from erase.concept import Concept
from erase.methods.registry import build
from erase.model import Denoiser, Shot
from erase.request import Request, run_method
from erase.work import Step, Work

SUITE, BATCH = "pocket-canvas-quick", 32
STRENGTHS = {"firm": 1.0, "weak": 0.5}  # at which the edit is applied: one that forgets, and one that half forgets


def speed_judge(model: Denoiser, plan: Plan, suite_name: str = SUITE) -> Work[Speed]:
    """Both ways over the suite's pictures of one erased concept, in turns, so that a busy machine slows both alike."""
    suite = load_suite(suite_name)
    reference = suite.model_copy(update={"sampler": "ddim", "steps": PUBLISHED_STEPS})
    probe, _ = tools(suite, str(model.device))
    target = suite.target(plan.concept)
    edit = yield from run_method(
        build("uce"), Request(model, [Concept(name=plan.concept, kind=target.kind)], seed=plan.seed)
    )
    cells = suite.shots([target.label])
    yield from one_by_one(model, [cells[0].shot], suite, probe)  # what a first call sets up is charged to neither side
    ours, published = _Way(), _Way()
    pairs = {}
    for name, strength in STRENGTHS.items():
        found = [Predictions((), {}), Predictions((), {})]
        with edit.applied(model.network, strength):
            for start in range(0, len(cells), BATCH):
                shots = [cell.shot for cell in cells[start : start + BATCH]]
                batched = answers(model, shots, suite, probe, batch=BATCH, stage=f"ours, {name}")
                found[0] += yield from ours.charged(model, batched)
                single = one_by_one(model, shots, reference, probe, f"published, {name}")
                found[1] += yield from published.charged(model, single)
        sides = [Comparison(tuple(cells), each, each, (target,), suite, probe, suite.reading) for each in found]
        pairs[name] = (sides[0], sides[1])
    n = len(cells) * len(STRENGTHS)
    drawn = (sampler_of(model, suite), sampler_of(model, reference))
    same = compared((model.name, model.fingerprint), *drawn, pairs)
    return Speed(
        ours_forwards=ours.forwards / n,
        published_forwards=published.forwards / n,
        wall_ratio=published.seconds / ours.seconds,
        memory_ratio=math.nan,
        note=(
            f"{n} pictures of {target.label} from {model.name} on {torch.device(model.device).type}, "
            f"{torch.get_num_threads()} threads, with an edit applied at {' and '.join(map(str, STRENGTHS.values()))}: "
            f"{n / ours.seconds:.2f} pictures a second against {n / published.seconds:.2f}, reading them included; "
            f"forwards and seconds are per picture. {same.sentence}"
        ),
        gradient_steps=n,
        ours_seconds=ours.seconds / n,
        published_seconds=published.seconds / n,
        loss={},
        scores={
            f"{way}, {name}": {s: share.value for s, share in vars(side.accuracies(side.after, side.rules)).items()}
            for name, both in pairs.items()
            for way, side in zip(("ours", "published"), both, strict=True)
        },
        agreement=same,
    )


@dataclass
class _Way:
    """What one way has cost so far."""

    seconds: float = 0.0
    forwards: int = 0

    def charged(self, model: Denoiser, work: Work[Predictions]) -> Work[Predictions]:
        """The same answers; their cost is added."""
        with counted(model.network.get_submodule("unet")) as seen:
            found, cost = yield from metered(work, model.device)
        self.seconds, self.forwards = self.seconds + cost.seconds, self.forwards + seen()
        return found


def one_by_one(
    model: Denoiser, shots: Sequence[Shot], suite: Suite, probe: Probe, stage: str = "one by one"
) -> Work[Predictions]:
    """The same answers the published way: batch 1, and every picture opened and read once for each head."""
    parts = Predictions((), {})
    for done, shot in enumerate(shots, 1):
        with sampled(model, suite):
            image = yield from model.sample([shot], steps=suite.steps, guidance=suite.guidance, batch=1)
        by_head = [read(image, [shot], suite, probe) for _ in ("style", "object")]
        parts = parts + by_head[0]
        yield Step(stage, done, len(shots))
    return parts
