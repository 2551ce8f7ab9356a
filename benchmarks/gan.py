"""Every GAN method on pocket-gan over several seeds: what is forgotten, what it costs, what else moves."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from benchmarks.faces import judge_gan
from benchmarks.metrics.cost import metered
from benchmarks.report import Report
from erase.about import job_mark, provenance
from erase.edit import Edit
from erase.errors import BadInput
from erase.methods import build
from erase.model import Concept, Gan
from erase.work import Step, Work

STAGE_ONE = ("yes", "no", "balanced", "sum.", "squares", "adapted")  # what stage 2 needs of Adapt-then-Unlearn's first
FORMS = ("EL2", "NL2", "IL2", "extrapolate")
SHOWN = ("PUL", "FID", "gamma_normalised", "LPIPS", "worst drift", "seconds")


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


def cases() -> dict[str, list[Case]]:
    """The groups of the table, each a list of rows."""
    forms = [Case(f"adapt-unlearn, {form}", "adapt-unlearn", "eyeglasses", {"form": form}) for form in FORMS]
    forms += [Case("adapt-unlearn, EWC on positives", "adapt-unlearn", "eyeglasses", {"form": "ewc"})]
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
        path = folder / f"{case.label}, {case.concept}, {seed}.json".replace(" ", "-").replace(",", "")
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
    key, state = (case.concept, seed), None
    form = getattr(method, "form", "")
    if form in FORMS and key in adapted:
        state = adapted[key] | {"job": job_mark(provenance(method, model, concepts, keep, seed))}  # type: ignore[arg-type]
    work = method.erase(model, concepts, keep, seed=seed, state=state)
    try:
        while True:
            step = next(work)
            if form in FORMS and key not in adapted and step.stage == "unlearn" and step.state is not None:
                adapted[key] = {
                    name: value.clone() for name, value in step.state().items() if name.startswith(STAGE_ONE)
                }
            yield step
    except StopIteration as end:
        return end.value
    finally:
        work.close()


def summary(reports: Sequence[Report]) -> list[dict[str, Any]]:
    """A row per label and concept: of each number its mean, its standard deviation over seeds and the base's."""
    groups: dict[tuple[str, str], list[Report]] = {}
    for report in reports:
        groups.setdefault((report.job["label"], report.job["concepts"][0]), []).append(report)
    rows = []
    for (label, concept), some in groups.items():
        row: dict[str, Any] = {"label": label, "concept": concept, "seeds": [report.job["seed"] for report in some],
                               "knobs": some[0].job["knobs"]}  # fmt: skip
        for name in SHOWN:
            values = [_worst(report) if name == "worst drift" else report.scores[name].value for report in some]
            spread = statistics.stdev(values) if len(values) > 1 else math.nan
            row[name] = {"mean": statistics.fmean(values), "sd": spread}
        row["FID of the unedited"] = statistics.fmean(report.scores["FID"].baseline for report in some)
        rows.append(row)
    return rows


def _worst(report: Report) -> float:
    """The largest net change of another attribute's rate, up or down."""
    return max(abs(score.value) for name, score in report.scores.items() if name.startswith("drift."))


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The summary as Markdown."""
    lines = [
        "| method | erased | seeds | PUL % | γ̂ | FID / unedited's | LPIPS-like | worst drift, points | seconds |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        base = row["FID of the unedited"]
        cells = [
            row["label"], row["concept"], str(len(row["seeds"])), _cell(row["PUL"], 100, 1),
            _cell(row["gamma_normalised"], 1, 2), _cell(row["FID"], 1 / base, 2), _cell(row["LPIPS"], 1, 3),
            _cell(row["worst drift"], 100, 1), _cell(row["seconds"], 1, 0),
        ]  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(number: Mapping[str, float], times: float, digits: int) -> str:
    mean, spread = number["mean"] * times, number["sd"] * times
    if math.isnan(mean):
        return "unscored"
    return f"{mean:.{digits}f}" + ("" if math.isnan(spread) else f" ± {spread:.{digits}f}")


def chosen(groups: str) -> Iterator[Case]:
    """The rows of some groups, named with commas, or of all."""
    known = cases()
    for name in known if groups == "all" else groups.split(","):
        if name not in known:
            raise BadInput(f"There is no group {name!r} of cases; there are {', '.join(known)}, and all.")
        yield from known[name]
