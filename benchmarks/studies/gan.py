"""Every GAN method on pocket-gan over several seeds: what is forgotten, what it costs, what else moves."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from benchmarks.judging.judge_gan import judge_gan
from benchmarks.metrics.cost import metered
from benchmarks.report import Report, Score, put, put_between
from benchmarks.studies.common import as_json
from erase.concept import Concept
from erase.edit import Edit
from erase.errors import BadInput
from erase.methods.registry import build
from erase.model import Gan
from erase.provenance import job_mark, provenance
from erase.request import Request, run_method
from erase.work import Step, Work, map_steps

STAGE_ONE = ("yes", "no", "balanced", "sum.", "squares", "adapted")  # what stage 2 needs of Adapt-then-Unlearn's first
FORMS = ("EL2", "NL2", "IL2", "extrapolate")
SHOWN = ("PUL", "FID", "Ret-FID", "gamma_normalised", "LPIPS", "seconds")
KEPT = Path(__file__).parent / "results" / "gan.json"
DOCS = Path(__file__).parents[2] / "docs" / "results" / "gan.md"
BEGIN, END = "<!-- gan table -->", "<!-- end of gan table -->"


@dataclass(frozen=True)
class Case:
    """One method on one concept; `label` is its row of the table."""

    label: str
    method: str
    concept: str
    knobs: Mapping[str, Any] = field(default_factory=dict)
    preset: str | None = None
    keep: tuple[str, ...] = ()

    def job(self, model: Gan, seed: int) -> dict[str, Any]:
        """Everything that decides one report, as JSON values."""
        knobs = build(self.method, self.preset, self.knobs)
        return {
            "label": self.label, "method": self.method, "knobs": knobs.model_dump(mode="json"),  # type: ignore[attr-defined]
            "concepts": [self.concept], "keep": list(self.keep), "seed": seed, "model": model.name,
            "base": model.fingerprint,
        }  # fmt: skip

    def file(self, seed: int) -> str:
        """The name of the report of one seed."""
        return f"{self.label}, {self.concept}, {seed}.json".replace(" ", "-").replace(",", "")


def cases() -> dict[str, list[Case]]:
    """The groups of the table, each a list of rows."""
    forms = [Case(f"adapt-unlearn, {form}", "adapt-unlearn", "eyeglasses", {"form": form}) for form in FORMS]
    forms += [Case("adapt-unlearn, EWC on positives", "adapt-unlearn", "eyeglasses", preset="ewc")]
    forms += [
        Case("adapt-unlearn, extrapolate", "adapt-unlearn", name, {"form": "extrapolate"}) for name in ("hat", "beard")
    ]
    words = ("eyeglasses", "smile", "beard", "eyeglasses and beard")
    return {
        "adapt": [Case("adapt-unlearn, EL2", "adapt-unlearn", name) for name in ("eyeglasses", "hat", "beard")],
        "forms": forms[1:],
        "text": [Case("text-unlearn", "text-unlearn", name) for name in words],
        "far": [Case("only far from the direction", "text-unlearn", name, preset="far") for name in words[:3]],
        "feature": [Case("feature-unlearn", "feature-unlearn", name) for name in ("eyeglasses", "hat", "beard")],
    }


def erase_and_judge(model: Gan, rows: Sequence[Case], seeds: Sequence[int], folder: Path) -> Work[list[Report]]:
    """A report per row and seed in `folder`; those that are there, of the same job, are not made again.

    The forms of Adapt-then-Unlearn that share stage 1 with EL2 start from its own, where it was made in this call.
    """
    reports, adapted = [], {}
    plan = [(seed, case) for seed in seeds for case in rows]
    for number, (seed, case) in enumerate(plan, 1):
        job = case.job(model, seed)
        path = folder / case.file(seed)
        report = Report.kept(path, job)
        if report is None:
            edit, cost = yield from metered(_erased(model, case, seed, adapted), model.device)
            report = yield from judge_gan(model, edit, cost=cost, job=job)
            report.write(path)
        reports.append(report)
        yield Step("cases", number, len(plan))
    return reports


def _erased(model: Gan, case: Case, seed: int, adapted: dict[tuple[str, int], dict[str, Tensor]]) -> Work[Edit]:
    method = build(case.method, case.preset, case.knobs)
    concepts = [Concept(name=case.concept, kind="attribute")]
    keep = [Concept(name=name, kind="attribute") for name in case.keep]
    request = Request(model, concepts, keep, seed)
    key, state = (case.concept, seed), None
    form = getattr(method, "form", "")
    if form in FORMS and key in adapted:
        state = adapted[key] | {"job": job_mark(provenance(method, request))}
    work = run_method(method, request, state)

    def keep_stage_one(step: Step) -> Step:
        if form in FORMS and key not in adapted and step.stage == "unlearn" and step.state is not None:
            adapted[key] = {name: value.clone() for name, value in step.state().items() if name.startswith(STAGE_ONE)}
        return step

    return (yield from map_steps(work, keep_stage_one))


def finished(folder: Path) -> list[Report]:
    """The reports of known cases that lie there, whatever their seed."""
    patterns = [case.file(0).replace("-0.json", "-[0-9]*.json") for case in chosen("all")]
    found = [Report.read(path) for pattern in patterns for path in sorted(folder.glob(pattern))]
    if not found:
        raise BadInput(f"There is no report of a case in {folder}; leave --render out to make some.")
    return found


def written(rows: Sequence[Mapping[str, Any]]) -> str:
    """Puts the rows into the committed results and the documentation; gives them as Markdown."""
    put(KEPT, as_json(json.loads(KEPT.read_text(encoding="utf-8")) | {"rows": rows}) + "\n")
    found = table(rows)
    put_between(DOCS, BEGIN, END, found)
    return found


def summary(reports: Sequence[Report]) -> list[dict[str, Any]]:
    """A row per label and concept: of each number its mean and standard deviation over seeds, the unedited GAN's mean.

    Of a single seed, the interval of its report in place of a deviation.
    """
    groups: dict[tuple[str, str], list[Report]] = {}
    for report in reports:
        groups.setdefault((report.job["label"], report.job["concepts"][0]), []).append(report)
    rows = []
    for (label, concept), some in groups.items():
        row: dict[str, Any] = {"label": label, "concept": concept, "seeds": [report.job["seed"] for report in some],
                               "knobs": some[0].job["knobs"]}  # fmt: skip
        drifts = [name for name in some[0].scores if name.startswith("drift.")]
        row |= {name: _over_seeds([report.scores[name] for report in some]) for name in (*SHOWN, *drifts)}
        rows.append(row)
    return rows


def _over_seeds(scores: Sequence[Score]) -> dict[str, float]:
    values = [score.value for score in scores]
    spread = {"sd": statistics.stdev(values)} if len(values) > 1 else {"low": scores[0].low, "high": scores[0].high}
    return {"mean": statistics.fmean(values), "unedited": statistics.fmean(s.baseline for s in scores), **spread}


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The summary as Markdown: ± is the standard deviation over seeds, brackets a single seed's 95 % interval."""
    head = ["method", "erased", "seeds", "PUL %", "γ̂", "FID ratio", "Ret-FID, before → after", "LPIPS-like",
            "worst drift of another attribute, points"]  # fmt: skip
    lines = [head, ["---"] * len(head)]
    for row in rows:
        fid, retrained = row["FID"], row["Ret-FID"]
        ratio = {name: value / fid["unedited"] for name, value in fid.items()}
        worst = max((name for name in row if name.startswith("drift.")), key=lambda name: abs(row[name]["mean"]))
        lines.append([
            row["label"], row["concept"], str(len(row["seeds"])), _cell(row["PUL"], 100, 1),
            _cell(row["gamma_normalised"], 1, 2), _cell(ratio, 1, 2),
            f"{retrained['unedited']:.0f} → {_cell(retrained, 1, 1)}", _cell(row["LPIPS"], 1, 3),
            f"{_cell(row[worst], 100, 1, sign='+')} {worst.removeprefix('drift.').replace('_', ' ')}",
        ])  # fmt: skip
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(number: Mapping[str, Any], times: float, digits: int, *, sign: str = "") -> str:
    if number["mean"] is None or math.isnan(number["mean"]):  # JSON has no NaN
        return "unscored"
    mean = number["mean"] * times
    if "sd" in number:
        return f"{mean:{sign}.{digits}f} ± {number['sd'] * times:.{digits}f}"
    return f"{mean:{sign}.{digits}f} ({number['low'] * times:.{digits}f}–{number['high'] * times:.{digits}f})"


def chosen(groups: str) -> Iterator[Case]:
    """The rows of some groups, named with commas, or of all."""
    known = cases()
    for name in known if groups == "all" else groups.split(","):
        if name not in known:
            raise BadInput(f"There is no group {name!r} of cases; there are {', '.join(known)}, and all.")
        yield from known[name]
