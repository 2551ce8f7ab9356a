"""Methods side by side where they are comparable: what is erased at equal retention, what is kept at equal erasure.

An edit is linear, so its strength traces a line from nothing to too much. On that line, read with common prompts and
seeds that no method was taught on, the point is sought where so much is kept, or so much is gone, as for the others.
"""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from benchmarks.metrics.accuracy import bootstrap
from benchmarks.metrics.cost import metered
from benchmarks.probes.base import identity
from benchmarks.probes.open_probe import open_probe
from benchmarks.report import put, same_job
from benchmarks.studies.common import Round
from benchmarks.suites.suite import Suite, Target
from benchmarks.sweeps.strength import Look, Reading, gauge
from erase.model import Denoiser
from erase.work import Step, Work

STRENGTHS = (0.5, 1.0, 1.5, 2.0)
KEPT = 0.9  # of what the unedited model shows of neighbours and unrelated concepts
GONE = 0.9  # of the target's pictures show something else


def kept(reading: Reading) -> float:
    """How often what should stay is still seen, neighbours and unrelated concepts alike."""
    return (reading.neighbours + reading.unrelated) / 2


def gone(reading: Reading) -> float:
    """How often the target is not seen any more, named as usual or in other words."""
    return 1 - (reading.target + reading.paraphrase) / 2


def at(
    line: Sequence[Reading], level: float, of: Callable[[Reading], float], says: Callable[[Reading], float]
) -> float:
    """What `says` comes to where `of` first reaches a level on the line, between readings in proportion; else NaN."""
    readings = sorted(line, key=lambda reading: reading.strength)
    for before, after in itertools.pairwise(readings):
        low, high = of(before), of(after)
        if low != high and min(low, high) <= level <= max(low, high):
            return says(before) + (level - low) / (high - low) * (says(after) - says(before))
    return math.nan


class Line(BaseModel):
    """One edit at every strength, 0 among them."""

    model_config = ConfigDict(frozen=True)

    job: dict[str, Any]
    seconds: float
    readings: tuple[Reading, ...]

    @property
    def case(self) -> tuple[str, int]:
        """What all methods are compared on."""
        return self.job["concepts"][0], self.job["seed"]

    @property
    def points(self) -> dict[str, float]:
        """`gone` at equal retention (or at its strongest, if that costs less), `kept` at equal erasure."""
        base = next(reading for reading in self.readings if reading.strength == 0)
        strongest = max(self.readings, key=lambda reading: reading.strength)
        erased = at(self.readings, KEPT * kept(base), kept, gone)
        return {"gone": gone(strongest) if math.isnan(erased) else erased, "kept": at(self.readings, GONE, gone, kept)}


def measure(
    model: Denoiser,
    suite: Suite,
    rounds: Sequence[Round],
    targets: Sequence[Target],
    seeds: Sequence[int],
    folder: Path,
) -> Work[list[Line]]:
    """One line per target, seed and method in `folder`; those that are there, of the same job, are not made again."""
    cases = list(itertools.product(targets, seeds, rounds))
    probe, lines = open_probe("pocket-eye", str(model.device)), []
    bases: dict[Target, list[Look]] = {target: [] for target in targets}
    for number, (target, seed, unseeded) in enumerate(cases):
        round_ = replace(unseeded, seed=seed)
        read_by = {"label": round_.label, "probe": identity(probe), "strengths": [0.0, *STRENGTHS]}
        job = round_.job(target, suite, model) | read_by
        path = folder / f"{round_.label}-{target.label}-{seed}.json"
        if path.exists():
            line = Line.model_validate_json(path.read_bytes())
            same_job(path, line.job, job)
        else:
            edit, cost = yield from metered(round_.edit(model, suite, target), model.device)
            read = yield from gauge(model, edit, suite, probe, base=bases[target])
            readings = []
            for strength in job["strengths"]:
                readings.append((yield from read(strength)))
            line = Line(job=job, seconds=round(cost.seconds), readings=tuple(readings))
            folder.mkdir(parents=True, exist_ok=True)
            put(path, line.model_dump_json())
        lines.append(line)
        yield Step("edits", number + 1, len(cases))
    return lines


def compared(lines: Sequence[Line]) -> list[dict[str, Any]]:
    """Per method: means over the cases, and how much more the first method has, paired over the cases."""
    found: dict[str, dict[tuple[str, int], dict[str, float]]] = {}
    for line in lines:
        found.setdefault(line.job["label"], {})[line.case] = line.points
    first = next(iter(found.values()))
    rows = []
    for label, points in found.items():
        row: dict[str, Any] = {"method": label, "cases": len(points)}
        for name in ("gone", "kept"):
            both = {case: (first[case][name], own[name]) for case, own in points.items()}
            pairs = [pair for pair in both.values() if all(map(math.isfinite, pair))]
            more = [a - b for a, b in pairs]
            row[name] = {
                "pairs": len(pairs), "mean": statistics.fmean(b for _, b in pairs) if pairs else None,
                "first has more": statistics.fmean(more) if more else None,
                "interval": bootstrap(more) if more else None,
            }  # fmt: skip
        rows.append(row)
    return rows


def table(lines: Sequence[Line]) -> str:
    """The comparison as Markdown."""
    text = [
        f"| method | cases | gone where {KEPT:.0%} is kept | the first has more "
        f"| kept where {GONE:.0%} is gone | the first has more |",
        "|---|---|---|---|---|---|",
    ]
    for row in compared(lines):
        cells = [f"`{row['method']}`", str(row["cases"])]
        for name in ("gone", "kept"):
            seen = row[name]
            cells += [f"{100 * seen['mean']:.0f} % ({seen['pairs']})", _more(seen)] if seen["pairs"] else ["–", "–"]
        text.append(f"| {' | '.join(cells)} |")
    return "\n".join(text)


def _more(seen: Mapping[str, Any]) -> str:
    low, high = seen["interval"]
    return f"{100 * seen['first has more']:+.0f} ({100 * low:+.0f} to {100 * high:+.0f})"
