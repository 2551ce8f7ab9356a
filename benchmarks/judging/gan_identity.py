"""An identity erased from a GAN: how alike its faces still are, and everybody else's, in the judge's features."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.judging.comparison import costs
from benchmarks.judging.gan_samples import codes_of, draw_codes, to_score
from benchmarks.metrics.alignment import feature_distance
from benchmarks.metrics.cost import Cost
from benchmarks.metrics.distribution import fid
from benchmarks.metrics.gan import drift
from benchmarks.metrics.intervals import normal
from benchmarks.probes.faces import Read, Reader
from benchmarks.report import Report, Score
from benchmarks.suites.gan_suite import GanSuite
from erase.edit import Edit
from erase.model import Gan
from erase.work import Work

NEAR, REACH = 64, 0.25  # neighbours of each identity, and how far on the way to somebody else they lie


def judge_identity(
    model: Gan, edit: Edit, plan: GanSuite, reader: Reader, cost: Cost | None, job: Mapping[str, Any] | None
) -> Work[Report]:
    """Scores an edit that erased the faces of some seeds; everybody else is the suite's seeds.

    No face network is bundled, so alike means alike to the judge of attributes, whose name stands beside the number.
    """
    seeds = [int(seed) for seed in edit.about["seeds"]]
    others = [seed for seed in range(plan.first_seed, plan.first_seed + plan.images) if seed not in seeds]
    who, ws = codes_of(model, seeds), codes_of(model, others)
    towards = ws[:NEAR].repeat_interleave(len(who), 0)
    around = torch.cat([who, torch.lerp(who.repeat(len(towards) // len(who), 1, 1), towards, REACH)])
    reads: list[tuple[Read, Read]] = []
    for codes, name in ((around, "the identity"), (ws, "everybody else")):
        before = yield from draw_codes(model, codes, reader, f"draw {name} before")
        with edit.applied(model.network):
            after = yield from draw_codes(model, codes, reader, f"draw {name} after")
        reads.append((before, after))
    (person, gone), (before, after) = reads
    name = f"{reader.name} features"
    note = f"cosine of features before and after; {len(seeds)} erased seeds and {NEAR} neighbours of each"
    scores = {
        "ID": _alike(person, gone, "low", name, note),
        "ID_others": _alike(before, after, "high", name, "cosine of features before and after"),
    }
    found = fid(before.features, after.features)
    low, high = (found.value if math.isnan(edge) else edge for edge in (found.low, found.high))
    scores["FID"] = to_score(found.value, found.n, low, high, 0.0, "low", name, "everybody else, after against before")
    moved = feature_distance(before.features, after.features)
    mean = normal(moved)
    scores["LPIPS"] = to_score(mean.value, mean.n, mean.low, mean.high,
                             0.0, "low", f"{reader.name} feature distance", "everybody else")  # fmt: skip
    for column, attribute in enumerate(reader.probe.attributes):
        change = drift(before.labels[:, column], after.labels[:, column])
        scores[f"drift.{attribute.replace(' ', '_')}"] = to_score(
            change.net.value, len(others), change.net.low, change.net.high, 0.0, "low", reader.name,
            f"{100 * change.churn:.1f} % of seeds changed",
        )  # fmt: skip
    return Report(
        job=job or {"model": model.name, "concepts": [f"seed {seed}" for seed in seeds], "suite": plan.name,
                    "method": edit.about.get("method")},
        scores=scores | costs(edit, cost),
        about={"base": model.fingerprint, "edit": edit.hash, "seeds": seeds, "targets": [], "erasure": dict(edit.about),
               "suite": {"name": plan.name, "version": plan.version}, "probe": reader.name},
    )  # fmt: skip


def _alike(before: Read, after: Read, better: Any, name: str, note: str) -> Score:
    cosines: Tensor = F.cosine_similarity(before.features.double(), after.features.double(), dim=1)
    mean = normal(cosines)
    return to_score(mean.value, mean.n, mean.low, mean.high, 1.0, better, name, note)
