"""The strength at which an edit erases its concept and nothing else: a scan, a bisection, and an over-erasure alarm.

An edit is linear, so any strength can be worn without training. The probe that steers here is never the one that scores
the report. A strength passes when the target is surely rare (Wilson upper bound) and no guard trips; the smallest that
passes, and whose successor passes too, is bisected from below.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor
from torch.nn import functional as F

from benchmarks.judging.judge import check_labels, erased
from benchmarks.judging.predictions import Predictions, answers
from benchmarks.metrics.accuracy import wilson
from benchmarks.probes.base import Probe, identity
from benchmarks.probes.open_probe import open_probe
from benchmarks.suites.neighbours import by_distance
from benchmarks.suites.prompts import reworded
from benchmarks.suites.suite import Cell, Suite, Target, load_suite
from erase.edit import Edit
from erase.errors import BadInput
from erase.model import Denoiser, Shot
from erase.rng import number
from erase.work import Step, Work

SCAN = (0.25, 0.5, 0.75, 1.0, 1.5, 2.0)
HALVINGS = 5
RARE = 0.10  # the target may show in this share of shots; 0 of 35 is the fewest shots that can prove it
SHOTS = 40
NEIGHBOUR_LOSS = 0.05
DRIFT = 0.15  # ‖ε_θ − ε_θ0‖ / ‖ε_θ0‖ on unrelated prompts
CONTRAST = (0.7, 1.3)  # of the pictures' standard deviation, against the unedited model's
ALIKE = 3.0  # standard errors by which pictures of different prompts may have become more alike


class Reading(BaseModel):
    """What one strength does: how often the target still shows (`target`, `low`, `high`), and the alarms, in words."""

    model_config = ConfigDict(frozen=True)

    strength: float
    target: float
    low: float
    high: float
    n: int
    paraphrase: float
    neighbours: float
    unrelated: float
    drift: float
    alarms: tuple[str, ...] = ()

    @property
    def erased(self) -> bool:
        return self.high <= RARE

    @property
    def passes(self) -> bool:
        return self.erased and not self.alarms

    @property
    def balance(self) -> float:
        """The harmonic mean of erasure and retention."""
        gone, kept = 1 - self.target, (self.neighbours + self.unrelated) / 2
        return 2 * gone * kept / (gone + kept) if gone + kept > 0 else 0.0


class Found(BaseModel):
    """The strength to wear. `status` is `found`, `guard` (nothing passed: the best balance is given), or `absent`."""

    model_config = ConfigDict(frozen=True)

    status: str
    strength: float
    advice: str
    probe: str
    readings: tuple[Reading, ...]

    def table(self) -> str:
        """Every strength that was tried, lowest first."""
        lines = ["strength   target (95 %)        paraphrase  neighbours  unrelated  drift   alarms"]
        for r in sorted(self.readings, key=lambda reading: reading.strength):
            lines.append(
                f"{r.strength:8.3f}   {r.target:5.0%} ({r.low:.0%}–{r.high:.0%})".ljust(32)
                + f"{r.paraphrase:10.0%}  {r.neighbours:10.0%}  {r.unrelated:9.0%}  {r.drift:5.3f}   "
                + ("; ".join(r.alarms) or "none")
            )
        return "\n".join([*lines, f"Read by {self.probe}. {self.advice}"])


def search(measure: Callable[[float], Work[Reading]], steered_by: str) -> Work[Found]:
    """Scans, then bisects; `measure(0)` is asked first and must find the concept in at least half of the shots."""
    readings: dict[float, Reading] = {}

    def told(strength: float) -> Work[Reading]:
        if strength not in readings:
            readings[strength] = yield from measure(strength)
        return readings[strength]

    def found(status: str, strength: float, advice: str) -> Found:
        return Found(status=status, strength=strength, advice=advice, probe=steered_by, readings=(*readings.values(),))

    base = yield from told(0.0)
    if base.target < 0.5:
        return found("absent", 0.0, f"The unedited model draws the concept in only {base.target:.0%} of the shots, so "
                     "there is nothing to tune; check its name or give other prompts.")  # fmt: skip
    for place, strength in enumerate(SCAN):
        if not (yield from told(strength)).passes:
            continue
        if place + 1 < len(SCAN) and not (yield from told(SCAN[place + 1])).passes:
            continue
        low, high = (0.0, *SCAN)[place], strength
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            if (yield from told(middle)).passes:
                high = middle
            else:
                low = middle
        return found("found", high, f"Strength {high:.3f} is the least that passes, to within {high - low:.3f}.")
    best = max(readings.values(), key=lambda reading: reading.balance)
    return found("guard", best.strength, _advice(best, list(readings.values())))


def _advice(best: Reading, readings: Sequence[Reading]) -> str:
    gone = [reading for reading in readings if reading.erased]
    if not gone:
        return (
            f"No strength up to {SCAN[-1]:g} erases the concept for sure (at {best.strength:g} it shows in "
            f"{best.target:.0%}); train longer, or use a firmer method."
        )
    return (
        f"Wherever the concept is gone something else is lost ({gone[0].alarms[0] if gone[0].alarms else 'unstable'}); "
        f"{best.strength:g} balances best. Keep more concepts, or use a method with a hard hold."
    )


@dataclass(frozen=True)
class _Panels:
    """Four sets of cells with common seeds; the shots of `drift` are also asked for noise predictions."""

    target: tuple[Cell, ...]
    paraphrase: tuple[Cell, ...]
    neighbours: tuple[Cell, ...]
    unrelated: tuple[Cell, ...]

    @property
    def all(self) -> tuple[Cell, ...]:
        return (*self.target, *self.paraphrase, *self.neighbours, *self.unrelated)


def strength(
    model: Denoiser,
    edit: Edit,
    suite: Suite | str = "pocket-canvas",
    *,
    reader: Probe | None = None,
    shots: int = SHOTS,
    batch: int = 32,
) -> Work[Found]:
    """The strength of an edit, read by the eye. BadInput for an edit of several concepts or of none the suite knows."""
    probe = reader or open_probe("pocket-eye", str(model.device))
    if wilson(0.0, shots)[1] > RARE:
        raise BadInput(f"{shots} shots cannot prove a rate below {RARE:.0%}; 35 or more can.")
    measure = yield from gauge(model, edit, suite, probe, shots=shots, batch=batch)
    return (yield from search(measure, identity(probe)))


def gauge(
    model: Denoiser,
    edit: Edit,
    suite: Suite | str,
    probe: Probe,
    *,
    shots: int = SHOTS,
    batch: int = 32,
    base: list[Look] | None = None,
) -> Work[Callable[[float], Work[Reading]]]:
    """What reads an edit's strengths on common seeds; strength 0 comes first, for the others to be held against.

    It is looked at once and kept in `base`, which edits of one target may share.
    """
    suite = suite if isinstance(suite, Suite) else load_suite(suite)
    check_labels(suite, probe)
    targets = suite.targets(erased(edit))
    if not targets:
        raise BadInput("This edit does not say what it erased, so there is no target to tune its strength on.")
    panels = _panels(model, targets, suite, shots)
    walked = yield from model.trajectory([cell.shot for cell in panels.unrelated[:4]], steps=8)
    base = [] if base is None else base

    def measure(value: float) -> Work[Reading]:
        if base and not value:
            return base[0].against(base[0], value)
        with edit.applied(model.network, value):
            said = yield from _noise(model, panels.unrelated[:4], walked.z, walked.t)
            seen = yield from answers(
                model, [c.shot for c in panels.all], suite, probe, batch=batch, stage=f"strength {value:g}"
            )
        now = Look.of(seen, panels, targets, probe, said)
        base[:] = base or [now]
        return now.against(base[0], value)

    return measure


def _panels(model: Denoiser, targets: Sequence[Target], suite: Suite, shots: int) -> _Panels:
    gone = {target.label for target in targets}

    def cells(kind: str, labels: Sequence[str], count: int, purpose: str) -> list[Cell]:
        """`count` cells that show the labels in turn, beside labels of the other kind that are not erased."""
        others = [o for o in (suite.objects if kind == "style" else suite.styles) if o not in gone]
        made = []
        for k in range(count):
            label, other = labels[k % len(labels)], others[(k // len(labels) * 7 + k) % len(others)]
            style, thing = (label, other) if kind == "style" else (other, label)
            seed = number(k, "strength", purpose) % 2**31
            made.append(Cell(style, thing, seed, Shot(seed, suite.sentence(style, thing))))
        return made

    per = -(-shots // len(targets))
    panels: dict[str, list[Cell]] = {"target": [], "paraphrase": [], "neighbours": [], "unrelated": []}
    for target in targets:
        order = by_distance(model, target, targets, suite)
        if not order:
            raise BadInput("Every label of this kind is erased, so there are no neighbours to watch over.")
        panels["target"] += cells(target.kind, [target.label], per, "target")
        plain = cells(target.kind, [target.label], max(per // 2, 8), "paraphrase")
        panels["paraphrase"] += [
            Cell(c.style, c.object, c.seed, Shot(c.seed, reworded(suite, c.style, c.object, target, k)))
            for k, c in enumerate(plain)
        ]
        panels["neighbours"] += cells(target.kind, order[:3], per, "neighbours")
        panels["unrelated"] += cells(target.kind, order[-4:], per, "unrelated")
    return _Panels(**{name: tuple(made) for name, made in panels.items()})


@dataclass(frozen=True)
class Look:
    """What a probe sees at one strength: shares per panel, contrast and likeness of pictures, noise predictions."""

    shares: Mapping[str, float]
    counts: Mapping[str, int]
    contrast: float
    alike: Tensor
    finite: bool
    said: Tensor

    @staticmethod
    def of(seen: Predictions, panels: _Panels, targets: Sequence[Target], probe: Probe, said: Tensor) -> Look:
        shares, counts, start = {}, {}, 0
        for name in ("target", "paraphrase", "neighbours", "unrelated"):
            cells = getattr(panels, name)
            rows = [seen.row(start + k, cell, probe) for k, cell in enumerate(cells)]
            if name in ("target", "paraphrase"):
                labels = {target.label for target in targets}
                right = [(row.style_seen if row.style in labels else row.object_seen) in labels for row in rows]
            else:
                kind = targets[0].kind
                right = [
                    row.style_seen == row.style if kind == "style" else row.object_seen == row.object for row in rows
                ]
            shares[name], counts[name] = sum(right) / len(rows), len(rows)
            start += len(cells)
        own = slice(len(panels.target) + len(panels.paraphrase), None)
        features = F.normalize(seen.numbers["features"][own].nan_to_num().float(), dim=1)
        alike = (features @ features.T)[torch.triu_indices(len(features), len(features), 1).unbind()]
        spread = seen.numbers["spread"][own].float()
        whole = bool(seen.finite.all()) and bool(said.isfinite().all())
        return Look(shares, counts, float(spread.nan_to_num().mean()), alike, whole, said)

    def against(self, base: Look, value: float) -> Reading:
        low, high = wilson(self.shares["target"], self.counts["target"])
        drift = float((self.said - base.said).norm() / base.said.norm()) if self.finite else math.inf
        return Reading(
            strength=value, target=self.shares["target"], low=low, high=high, n=self.counts["target"],
            paraphrase=self.shares["paraphrase"], neighbours=self.shares["neighbours"],
            unrelated=self.shares["unrelated"], drift=drift, alarms=tuple(self._alarms(base, drift)),
        )  # fmt: skip

    def _alarms(self, base: Look, drift: float) -> list[str]:
        if not self.finite:
            return ["pictures are no longer finite numbers"]
        told = []
        for name in ("neighbours", "unrelated"):
            surely = wilson(self.shares[name], self.counts[name])[1]
            if surely < base.shares[name] - NEIGHBOUR_LOSS:
                told.append(f"{name} fell from {base.shares[name]:.0%} to {self.shares[name]:.0%}")
        if drift > DRIFT:
            told.append(f"predictions for unrelated prompts moved by {drift:.0%}")
        if not CONTRAST[0] <= self.contrast / max(base.contrast, 1e-9) <= CONTRAST[1]:
            told.append(f"contrast is {self.contrast / max(base.contrast, 1e-9):.2f} of the unedited model's")
        error = float(base.alike.std()) / math.sqrt(len(base.alike))
        if float(self.alike.mean()) > float(base.alike.mean()) + ALIKE * max(error, 1e-3):
            told.append("pictures of different prompts look alike")
        return told


def _noise(model: Denoiser, cells: Sequence[Cell], z: Tensor, t: Tensor) -> Work[Tensor]:
    """What the model says of fixed latents z [n step c h w] at times t [step], on the CPU."""
    said = []
    for step, time in enumerate(t):
        with torch.no_grad():
            codes = model.encode([cell.shot.prompt for cell in cells])
            at = z[:, step].to(model.device, model.dtype)
            said.append(model.predict(at, time.to(model.device).expand(len(at)), codes).float().cpu())
        yield Step("drift", step + 1, len(t))
    return torch.stack(said, 1)
