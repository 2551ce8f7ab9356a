"""From two answer sets to scores: every quality number of an erasure, each with its n, interval, baseline and probe."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks.judging.predictions import Predictions
from benchmarks.judging.reference import Reference
from benchmarks.metrics.accuracy import Accuracies, Row, Rules, Share, accuracies, label_accuracy, wilson
from benchmarks.metrics.alignment import Clip, feature_distance
from benchmarks.metrics.cost import Cost
from benchmarks.metrics.distribution import BIAS, fid, kid
from benchmarks.metrics.intervals import Z
from benchmarks.probes.base import Probe, identity
from benchmarks.report import Better, Score
from benchmarks.suites.suite import Cell, Suite, Target
from erase.edit import Edit


@dataclass(frozen=True)
class Comparison:
    """Everything one verdict is based on: cells, the answers before and after, who read them, and by which rules."""

    cells: tuple[Cell, ...]
    before: Predictions
    after: Predictions
    targets: tuple[Target, ...]
    suite: Suite
    probe: Probe
    rules: Rules

    @property
    def shows_target(self) -> Tensor:
        """Which cells [n] ask for a target."""
        labels = {target.label for target in self.targets}
        return torch.tensor([cell.style in labels or cell.object in labels for cell in self.cells])

    @property
    def pictures(self) -> Tensor:
        """Which cells [n] have a picture on both sides; a distance needs the same shots twice."""
        return self.before.finite & self.after.finite

    @property
    def on_grid(self) -> Tensor:
        """Which cells [n] are drawn for every label; a target's extra seeds would weigh more than what was kept."""
        return torch.tensor([cell.seed in self.suite.grid_seeds for cell in self.cells])

    def rows(self, side: Predictions) -> list[Row]:
        """The per-image table of one side; what is no picture is missing from it."""
        return [side.row(i, cell, self.probe) for i, cell in enumerate(self.cells) if side.finite[i]]

    def accuracies(self, side: Predictions, rules: Rules) -> Accuracies:
        """UA, IRA, CRA of one side."""
        seeds = self.suite.grid_seeds
        return accuracies(self.rows(side), self.targets, rules, photo=self.suite.photo, grid_seeds=seeds)


def of_model(sitting: Comparison) -> dict[str, Score]:
    """How well the unedited model draws what it is asked, by the probe's two heads."""
    rows, scores = sitting.rows(sitting.before), {}
    for kind in ("style", "object"):
        share = label_accuracy(rows, kind)
        weak = sorted(share.parts.items(), key=lambda part: part[1])[:3]
        note = "weakest: " + ", ".join(f"{label} {value:.0%}" for label, value in weak)
        scores[f"{kind}_accuracy"] = _of_share(share, share.value, identity(sitting.probe), note)
    return scores


def of_edit(sitting: Comparison, text: Clip | None, reference: Tensor | Reference | None) -> dict[str, Score]:
    """Every quality score of an edit."""
    kept = sitting.pictures & ~sitting.shows_target
    moved = feature_distance(sitting.before.numbers["features"][kept], sitting.after.numbers["features"][kept])
    features = f"{identity(sitting.probe)} feature distance"
    return {
        **accuracy_scores(sitting, sitting.rules),
        "invalid": _invalid(sitting),
        **_distances(sitting, sitting.rules, reference),
        "CLIP": _clip(sitting, text),
        "LPIPS": _mean(moved, 0.0, "low", features, "same shots before and after, rows without the target"),
    }


def accuracy_scores(sitting: Comparison, rules: Rules) -> dict[str, Score]:
    """UA, IRA and CRA by these rules, each beside the unedited model's."""
    found, base = sitting.accuracies(sitting.after, rules), sitting.accuracies(sitting.before, rules)
    name = identity(sitting.probe)
    return {
        "UA": _of_share(found.UA, base.UA.value, name, _replaced(sitting)),
        "IRA": _of_share(found.IRA, base.IRA.value, name, _losses(found.IRA, base.IRA)),
        "CRA": _of_share(found.CRA, base.CRA.value, name, _losses(found.CRA, base.CRA)),
    }


def alternative(sitting: Comparison, rules: Rules, reference: Tensor | Reference | None) -> dict[str, Score]:
    """The same pictures read by other rules; the distances too where there is a data set to measure them against."""
    scores = accuracy_scores(sitting, rules)
    return scores | (_distances(sitting, rules, reference) if isinstance(reference, Reference) else {})


def costs(edit: Edit, cost: Cost | None) -> dict[str, Score]:
    """Seconds, peak memory and bytes of the erasure; the unedited model needs none of them."""
    seconds, peak = (float(edit.about.get(name, math.nan)) for name in ("seconds", "peak_memory_bytes"))
    told = cost or Cost(seconds, peak, "the edit's own record")
    return {
        "seconds": _exact(told.seconds, "wall clock" if cost else told.probe),
        "peak_memory_bytes": _exact(told.peak_memory_bytes, told.probe),
        "storage_bytes": _exact(float(edit.storage_bytes), "bytes of the deltas"),
    }


def _invalid(sitting: Comparison) -> Score:
    """The share of target rows that show nothing: noise reads as forgetting, so it is counted beside UA."""
    shows = sitting.shows_target
    n = int(shows.sum())
    value, base = (float(side.invalid[shows].double().mean()) for side in (sitting.after, sitting.before))
    share = Share(value, n, *wilson(value, n), "wilson")
    note = "target rows that are near-constant, noise-like, or of no class at 95 %"
    return _of_share(share, base, identity(sitting.probe), note, better="low")


def _distances(sitting: Comparison, rules: Rules, reference: Tensor | Reference | None) -> dict[str, Score]:
    """FID and KID of probe features: after, against a data set, given images, or the unedited model's own."""
    use = sitting.pictures & sitting.on_grid
    keep = rules.fid_rows == "keep"
    use = use & ~sitting.shows_target if keep else use
    use = use & reference.have if isinstance(reference, Reference) else use
    drawn, base = sitting.after.numbers["features"][use], sitting.before.numbers["features"][use]
    if isinstance(reference, Reference):
        goal, against = reference.features[use], f"the pictures of {reference.name}"
    elif reference is not None:
        goal, against = sitting.probe(reference).features, "the given reference images"
    else:
        goal, against = base, "the unedited model's own images"
    note = f"against {against}, {'rows without the target' if keep else 'all rows'}"
    scores = {}
    for name, distance in (("FID", fid), ("KID", kid)):
        found, unedited = distance(goal, drawn), distance(goal, base)
        hint = f"; {BIAS}" if name == "FID" else ""
        hint += "; fewer images than features, so trust KID more" if hint and len(drawn) <= drawn.shape[1] else ""
        share = Share(found.value, found.n, found.low, found.high, found.method)
        scores[name] = _of_share(
            share, unedited.value, f"{identity(sitting.probe)} features", note + hint, better="low"
        )
    return scores


def _clip(sitting: Comparison, text: Clip | None) -> Score:
    """The mean cosine of kept images with their prompts."""
    if text is None:
        return _unscored("high", "CLIP", f"suite {sitting.suite.name} names no CLIP")
    kept = sitting.pictures & ~sitting.shows_target
    base = sitting.before.numbers["clip"][kept].double().sort().values.mean()
    note = "cosine, neither scaled nor clamped; rows without the target"
    return _mean(sitting.after.numbers["clip"][kept], float(base), "high", f"{text.name}@{text.sha256[:8]}", note)


def _replaced(sitting: Comparison) -> str:
    """What the target rows show now: the five most frequent labels of the head that should have seen the target."""
    rows, found = sitting.rows(sitting.after), []
    for target in sitting.targets:
        seen = [getattr(row, f"{target.kind}_seen") for row in rows if getattr(row, target.kind) == target.label]
        common = ", ".join(f"{label} {count / len(seen):.0%}" for label, count in Counter(seen).most_common(5))
        found.append(f"{target.label} rows now read {common}" if seen else f"{target.label} has no rows")
    return "; ".join(found)


def _losses(after: Share, before: Share) -> str:
    """The three labels that lost most."""
    changes = sorted(
        (after.parts[label] - before.parts[label], label) for label in after.parts if label in before.parts
    )
    lost = [f"{label} {100 * change:+.0f} points" for change, label in changes[:3] if change < 0]
    return "lost most: " + ", ".join(lost) if lost else ""


def _of_share(share: Share, baseline: float, name: str, note: str, better: Better = "high") -> Score:
    """A share or a distance as a score; without its own interval it spans nothing but its value."""
    if math.isnan(share.value) or math.isnan(baseline):
        return _unscored(better, name, f"{share.n} images are too few to count; {note}")
    low, high = (share.value, share.value) if math.isnan(share.low) else (share.low, share.high)
    return Score(
        value=share.value, n=share.n, low=min(low, share.value), high=max(high, share.value), baseline=baseline,
        better=better, probe=name, interval=share.interval, note=note,
    )  # fmt: skip


def _mean(values: Tensor, baseline: float, better: Better, name: str, note: str) -> Score:
    """A mean over images with its normal 95 % interval; sorted first, so that the order of images changes no bit."""
    ordered, n = values.double().sort().values, len(values)
    mean = float(ordered.mean()) if n else math.nan
    half = Z * float(ordered.std()) / math.sqrt(n) if n > 1 else 0.0
    return _of_share(Share(mean, n, mean - half, mean + half, "normal-over-images"), baseline, name, note, better)


def _exact(value: float, name: str) -> Score:
    """A cost: counted once, not sampled."""
    if math.isnan(value):
        return _unscored("low", name, "not recorded; `studio erase` measures it")
    return Score(value=value, n=1, low=value, high=value, baseline=0.0, better="low", probe=name)


def _unscored(better: Better, name: str, note: str) -> Score:
    nan = math.nan
    return Score(value=nan, n=0, low=nan, high=nan, baseline=nan, better=better, probe=name, note=note)


def table(sitting: Comparison) -> list[Mapping[str, object]]:
    """One JSON-able row per cell: the shot, what was wanted, what was seen before and after, how sure the probe was."""
    rows = []
    invalid = sitting.after.invalid
    for i, cell in enumerate(sitting.cells):
        row: dict[str, object] = {
            "style": cell.style, "object": cell.object, "seed": cell.seed,
            "shot": {"seed": cell.shot.seed, "prompt": cell.shot.prompt},
        }  # fmt: skip
        for when, side in (("before", sitting.before), ("after", sitting.after)):
            if side.finite[i]:
                seen = side.row(i, cell, sitting.probe)
                row[when] = {
                    "style": seen.style_seen, "object": seen.object_seen,
                    "style_share": round(seen.style_share, 4), "object_share": round(seen.object_share, 4),
                }  # fmt: skip
        if sitting.after is sitting.before:
            row.pop("after", None)
        elif invalid[i]:
            row["invalid"] = True
        rows.append(row)
    return rows
